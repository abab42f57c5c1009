"""Run a piece of a test as a user whom file permissions bind, also where the tests run as root."""

from __future__ import annotations

import os
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def outcome_without_privileges(attempt: Callable[[], str]) -> str:
    """What `attempt` returns, run in a forked child that gave root away (or right here, where nobody is root)."""
    if os.geteuid() != 0:
        return attempt()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the test runner's threads
        child = os.fork()
    if child == 0:
        text = ""
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            text = attempt()
        finally:  # the child must never return into the test runner
            os.write(writing, (text or traceback.format_exc()).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@contextmanager
def folder_for_anyone() -> Iterator[Path]:
    """A temporary folder that every user may enter and write to."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o777)
        yield folder
