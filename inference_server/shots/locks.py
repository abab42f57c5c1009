"""One writer at a time in a folder that several machines may share.

A lock is a file made with O_EXCL, which network file systems honour where advisory locks are not. Its owner
touches it while it works; a lock not touched for `STALE_S` seconds, or whose process has died on this host, is
taken over.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

HEARTBEAT_S = 15.0
STALE_S = 120.0


class FolderLock:
    """Exclusive right to write below `path`'s folder; use as a context manager after `acquire()` returned True."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free or abandoned; never waits. OSError where the folder cannot be written."""
        if not self._create():
            if not self._abandoned():
                return False
            self._retire()
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
        with os.fdopen(handle, "w") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}, file)
        return True

    def _owner(self) -> dict[str, object]:
        try:
            owner = json.loads(self._path.read_text())
        except (OSError, ValueError):  # gone, or its owner is just writing it
            return {}
        return owner if isinstance(owner, dict) else {}

    def _abandoned(self) -> bool:
        owner = self._owner()
        pid = owner.get("pid")
        if owner.get("host") == socket.gethostname() and isinstance(pid, int) and not _alive(pid):
            return True
        try:
            return time.time() - self._path.stat().st_mtime > STALE_S
        except FileNotFoundError:
            return False

    def _retire(self) -> None:
        """Move an abandoned lock aside; of several that try, one succeeds."""
        aside = self._path.with_name(f"{self._path.name}.{self._token}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if self._owner().get("token") == self._token:
                os.utime(self._path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
