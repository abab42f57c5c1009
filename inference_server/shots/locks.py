"""One writer at a time in a folder that several machines may share.

A lock is a file made with O_EXCL, which network file systems honour where advisory locks are not. Its owner
touches it while it works; a lock not touched for `STALE_S` seconds, or whose process has died on this host, is
taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

from host_bridge.errors import ShotError

HEARTBEAT_S = 15.0
STALE_S = 120.0
STORE_REMEDY = "Give a writable folder with $FACEPLATE_SHOTS or `shots` in server.toml."


class FolderLock:
    """Exclusive right to write below `path`'s folder; use as a context manager after `acquire()` returned True."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free or abandoned; never waits. ShotError `shot.store` where it cannot be made."""
        if not self._create():
            owner = self._owner()
            if not self._abandoned(owner):
                return False
            self._retire(owner)
            if not self._create():
                return False
        self._thread = threading.Thread(target=self._beat, name="faceplate-lock", daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float = 0.25) -> None:
        """Wait a moment before trying again."""
        self._stop.wait(seconds)

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._owner().get("token") == self._token:
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _create(self) -> bool:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o664)
        except FileExistsError:
            return False
        except OSError as error:
            raise ShotError(
                "shot.store",
                f"the shot store cannot be written: {error.strerror or error}",
                path=str(self._path),
                remedy=STORE_REMEDY,
            ) from error
        with os.fdopen(handle, "w") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}, file)
        return True

    def _owner(self, path: Path | None = None) -> dict[str, object]:
        try:
            owner = json.loads((path or self._path).read_text())
        except (OSError, ValueError):  # gone, or its owner is just writing it
            return {}
        return owner if isinstance(owner, dict) else {}

    def _abandoned(self, owner: dict[str, object]) -> bool:
        pid = owner.get("pid")
        if owner.get("host") == socket.gethostname() and isinstance(pid, int) and not alive(pid):
            return True
        try:
            return time.time() - self._path.stat().st_mtime > STALE_S
        except FileNotFoundError:
            return False

    def _retire(self, owner: dict[str, object]) -> None:
        """Move `owner`'s abandoned lock aside; of several that try, one succeeds.

        Whoever comes late finds a new owner's lock in its hands and puts it back.
        """
        aside = self._path.with_name(f"{self._path.name}.{self._token}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        if self._owner(aside) != owner:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if self._owner().get("token") == self._token:
                with contextlib.suppress(OSError):  # a server that is away for a moment; the next beat tries again
                    os.utime(self._path)


def alive(pid: int) -> bool:
    """Whether a process of that id runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
