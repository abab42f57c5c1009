"""Model files that clients ask the server to import, each in a process of its own.

Decides that the gateway never opens a model file: a child process reads it (with torch), tells its progress as lines of
JSON, and ends when its standard input does, so that it never outlives the server. One import runs at a time; what was
asked for twice is done once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from host_bridge.errors import FaceplateError, ServerError, from_wire
from host_bridge.launcher import PATIENT_THREADS
from inference_server.questions import busy
from inference_server.supervisor import exit_text
from inference_server.validation import clip_error

_log = logging.getLogger("faceplate.importing")
_CHILD = "inference_server.models.child"
_KEPT = 50
_MAX_WAITING = 8


@dataclass(frozen=True)
class ImportOrder:
    """What a child is to do: a file, the card it is imported as ("" = found out), and where models lie."""

    path: str
    model: str
    template: str
    accept_licence: bool
    folders: list[str]


@dataclass
class _Import:
    """How far one is: the fields of `imports` in `models`."""

    path: str
    model: str
    state: str = "waiting"
    done: float = 0.0
    message: str = ""
    error: dict[str, Any] | None = None


class Imports:
    """All imports since the server's start. Thread-safe. `changed` is called when one has stored a model."""

    def __init__(self, folders: tuple[str, ...], log: Path, changed: Callable[[], None]) -> None:
        self._folders = list(folders)
        self._log = log
        self._changed = changed
        self._lock = threading.Lock()
        self._imports: dict[str, _Import] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._pool = ThreadPoolExecutor(1, "faceplate-import")

    def start(self, key: str, path: str, model: str, template: str, accept_licence: bool) -> None:
        """Import soon. `key` is the request's id: a repeated request starts nothing. ServerError `server.busy`."""
        order = ImportOrder(path, model, template, accept_licence, self._folders)
        with self._lock:
            unfinished = [i for i in self._imports.values() if i.state in ("waiting", "running")]
            if key in self._imports or (path, model) in [(i.path, i.model) for i in unfinished]:
                return
            if len(unfinished) >= _MAX_WAITING:
                raise busy(_MAX_WAITING)
            self._imports[key] = _Import(path, model)
            while len(self._imports) > _KEPT:
                self._imports.pop(next(iter(self._imports)))
            self._pool.submit(self._run, order, self._imports[key])

    def listing(self) -> list[dict[str, Any]]:
        """Every import, newest first, as JSON."""
        with self._lock:
            return [asdict(one) for one in reversed(self._imports.values())]

    def close(self) -> None:
        """End what runs; nothing of it is stored."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, order: ImportOrder, one: _Import) -> None:
        try:
            self._follow(order, one)
        except FaceplateError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - told: the import fails with it
            _log.exception("the import of %s", order.path)
            failure = ServerError("server.internal", f"{type(error).__name__}: {error}", remedy="See the server's log.")
        else:
            _log.info("imported %s as %s", one.path, one.model)
            return
        _log.info("the import of %s failed: %s", one.path, failure)
        with self._lock:
            one.state, one.error = "failed", clip_error(failure)

    def _follow(self, order: ImportOrder, one: _Import) -> None:
        with self._lock:
            if self._closed:
                raise ServerError("server.not_running", "the server is stopping", remedy="Import again.")
            one.state = "running"
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", _CHILD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**PATIENT_THREADS, **os.environ, "CUDA_VISIBLE_DEVICES": ""},
                    cwd=Path(__file__).parent.parent,
                )
            self._process = process
        finished = ""
        with process:  # closes the child's standard input at its end, and so ends the child where it still runs
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                told = json.loads(line)
                if "error" in told:
                    raise from_wire(told["error"])
                finished = told.get("finished", "")
                with self._lock:
                    one.done, one.message = float(told["done"]), str(told["message"])
        if not finished:
            raise ServerError(
                "server.internal",
                f"the import ended early ({exit_text(process.returncode)})",
                path=str(self._log),
                remedy="See that log; out of memory is the usual reason.",
            )
        self._changed()  # before anybody hears that it is finished
        with self._lock:
            one.state, one.model, one.done = "finished", finished, 1.0
