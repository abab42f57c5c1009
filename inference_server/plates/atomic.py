"""Files appear whole or not at all: written under a hidden name beside the target, flushed, checked, then renamed.

The hidden name ends in `.tmp` and holds no frame number, so no sequence pattern matches it. It is created with the
process's umask and, in a folder that hands its group down, that group. Its writer holds a lock on it; a file whose
lock can be taken on the same host has no living writer, and one of another host is left alone for a day, because
locks do not cross every network file system.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from host_bridge.errors import JobError, PlateError

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows: an open file cannot be removed there, which serves as the lock
    _HAS_LOCKS = False

_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_FOREIGN_AGE_SECONDS = 24 * 3600
_HOST = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:60] or "host"
_HIDDEN = re.compile(r"\.faceplate-(?P<host>[A-Za-z0-9-]+)-[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Pending:
    """The hidden file that will become `target`, open for reading and writing as `descriptor`."""

    path: str
    target: str
    descriptor: int

    def write(self, data: bytes | bytearray) -> None:
        """Append all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def read_back(self) -> bytearray:
        """What the file holds now."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        with open(self.descriptor, "rb", closefd=False) as file:
            return bytearray(file.read())


def write_error(error: OSError, path: str, frame: int | None) -> PlateError:
    """The coded error for an operating-system error met while writing `path`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        code, message = "plate.disk_full", f"there is no room for the frame: {reason}"
        remedy = "Free space (or quota) on the output disk and run the job again; finished frames are kept."
    elif error.errno in _FORBIDDEN:
        code, message = "plate.permission", f"the output may not be written: {reason}"
        remedy = "Give the server's user the right to write there, or choose another folder."
    else:
        code, message = "plate.write_failed", f"the output cannot be written: {reason}"
        remedy = "Check the output disk and its limits, then run the job again."
    return PlateError(code, message, value=error.errno, frame=frame, path=path, remedy=remedy)


@contextmanager
def replacing(
    target: str, *, frame: int | None = None, may_write: Callable[[], bool] = lambda: True
) -> Iterator[Pending]:
    """Fill the yielded file inside the `with`; leaving it normally puts it in place, anything else removes it.

    The target's folder is made if need be. `may_write` is asked right before the rename; False raises JobError
    `job.lease_lost`. A rename that a viewer blocks (PermissionError) is tried for some three seconds. Operating-system
    errors inside and outside the block become PlateError `plate.disk_full`, `plate.permission` or `plate.write_failed`.
    """
    folder = os.path.dirname(target) or "."
    try:
        os.makedirs(folder, exist_ok=True)
        path, descriptor = _create(folder)
    except OSError as error:
        raise write_error(error, target, frame) from error
    is_open, placed = True, False
    try:
        yield Pending(path, target, descriptor)
        os.fsync(descriptor)
        if not _HAS_LOCKS:
            os.close(descriptor)
            is_open = False
        _rename(path, target, frame, may_write)
        placed = True
        _flush_folder(folder)
    except OSError as error:
        raise write_error(error, target, frame) from error
    finally:
        if not placed and _HAS_LOCKS:
            with suppress(FileNotFoundError):
                os.unlink(path)
        if is_open:
            os.close(descriptor)
        if not placed and not _HAS_LOCKS:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _create(folder: str) -> tuple[str, int]:
    while True:
        path = os.path.join(folder, f".faceplate-{_HOST}-{secrets.token_hex(8)}.tmp")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if _lock(descriptor) and os.fstat(descriptor).st_nlink != 0:
            return path, descriptor
        os.close(descriptor)  # a cleaner took it for a leftover before it was locked


def _lock(descriptor: int) -> bool:
    if not _HAS_LOCKS:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
    return True


def _rename(path: str, target: str, frame: int | None, may_write: Callable[[], bool]) -> None:
    for wait in (*_RETRY_SECONDS, None):
        if not may_write():
            raise JobError(
                "job.lease_lost",
                "another worker has taken this job over, so the frame was not written",
                frame=frame,
                path=target,
                remedy="Nothing to do: the other worker writes the frame.",
            )
        try:
            os.replace(path, target)
            return
        except PermissionError:
            if wait is None:
                raise
            time.sleep(wait)


def _flush_folder(folder: str) -> None:
    """Make the rename itself survive a power cut, where the file system can."""
    if not _HAS_LOCKS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def clean_leftovers(folder: str) -> tuple[str, ...]:
    """Remove hidden files whose writer is dead, and return their paths. A folder that is not there has none."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return ()  # no folder, or one that the first write will complain about with its own error
    removed = []
    for name in names:
        match = _HIDDEN.fullmatch(name)
        if match and _is_dead(path := os.path.join(folder, name), match["host"]):
            removed.append(path)
    return tuple(removed)


def _is_dead(path: str, host: str) -> bool:
    """Remove `path` if nobody can be writing it; whether it was removed."""
    try:
        if host != _HOST and time.time() - os.stat(path).st_mtime < _FOREIGN_AGE_SECONDS:
            return False
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False  # gone meanwhile, or another user's
    try:
        if not _lock(descriptor):
            return False
        if _HAS_LOCKS:
            os.unlink(path)
            return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    try:
        os.unlink(path)
    except OSError:
        return False  # open in another process
    return True
