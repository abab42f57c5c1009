"""A node's jobs while they run: one worker thread that submits, waits, shows progress and can be cancelled.

The thread never touches a node: what it has to say goes through `in_main`. A running job is found by its thread, so
there is no list of them to keep.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import nuke

from host_bridge.errors import FaceplateError, HostError, JobError, ServerError, from_wire
from host_bridge.hosts.nuke_install import read_installed
from host_bridge.jobspec import JobSpec
from host_bridge.messages import FrameFailedEvent, JobEvent, JobProgress, JobStarted

if TYPE_CHECKING:
    from host_bridge.client import Client

R = TypeVar("R")
POLL_S = 0.1
LOST_S = 60.0  # a server that is gone for so long is given up; its job goes on when it comes back
_STAGES = {"analyse": "analysing", "render": "rendering"}


def in_main(call: Callable[..., R], *args: object) -> R:
    """`call(*args)` on Nuke's main thread, waited for; its error is raised here."""
    if threading.current_thread() is threading.main_thread():
        return call(*args)
    outcome: list[R | BaseException] = []

    def run() -> bool:
        try:
            outcome.append(call(*args))
        except Exception as error:  # noqa: BLE001 - raised on the thread that asked
            outcome.append(error)
        return True

    nuke.executeInMainThreadWithResult(run)  # type: ignore[no-untyped-call]
    if not outcome:
        raise HostError("host.failed", "Nuke did not run a call on its main thread", remedy="Try again.")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def connector() -> Callable[..., Client]:
    """`launcher.connect`, once pyzmq is there and it is known which Python runs a server: Nuke's own cannot.

    Raises HostError (`host.missing`) that says how pyzmq comes into Nuke.
    """
    try:
        from host_bridge.launcher import connect
    except ImportError as error:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise HostError(
            "host.missing",
            f"Nuke's Python {version} has no pyzmq ({error})",
            value=version,
            remedy=f"Run, outside Nuke: faceplate install nuke --python {version}",
        ) from error
    installed = read_installed(Path(__file__).parents[3])
    if installed is not None:
        os.environ.setdefault("FACEPLATE_PYTHON", installed.python)
    return connect


class Run(threading.Thread):
    """Submits `jobs` one after the other; `done` is called on the main thread with the last shot, or the error."""

    def __init__(
        self,
        key: str,
        jobs: Sequence[JobSpec],
        done: Callable[[str, FaceplateError | None], None],
        *,
        server: str = "",
        priority: int = 0,
    ) -> None:
        super().__init__(name=f"faceplate {key}", daemon=True)
        self.key = key
        self._jobs = jobs
        self._done = done
        self._server = server
        self._priority = priority
        self._cancelled = threading.Event()
        self.over = False  # nothing is left to do but to say how it ended

    def cancel(self) -> None:
        """End the job before its next frame. Returns at once."""
        self._cancelled.set()

    def run(self) -> None:
        shot, error = "", None
        try:
            shot = self._work()
        except FaceplateError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - shown on the node like any other error
            error = HostError(
                "host.failed",
                f"{type(raised).__name__}: {raised}",
                remedy="This is a fault of Faceplate's own: report it with what Nuke's console says.",
            )
        self.over = True
        in_main(self._done, shot, error)

    def _work(self) -> str:
        """Runs every job to its end; the shot's id. Raises why one did not finish."""
        connect = connector()
        task = nuke.ProgressTask(f"Faceplate: {self.key}")
        task.setMessage("connecting")
        shot = ""
        with connect(self._server or None, name="nuke") as client:
            for job in self._jobs:
                shot = self._one(client, job, task) or shot
        return shot

    def _one(self, client: Client, job: JobSpec, task: nuke.ProgressTask) -> str:
        seen = _Seen(job.plate.view)
        client.on_event = seen.take
        handle = client.submit(job, priority=self._priority)
        handle.accepted.result(60.0)
        silent = 0.0
        while True:
            if task.isCancelled() or self._cancelled.is_set():
                handle.cancel()
                raise JobError("job.cancelled", "cancelled; finished frames stay", remedy="Press the button again.")
            task.setProgress(seen.percent)
            task.setMessage(seen.words)
            began = time.monotonic()
            try:
                result = handle.wait(POLL_S)
            except TimeoutError:
                silent = 0.0 if client.error is None else silent + time.monotonic() - began
                if silent > LOST_S:
                    raise ServerError(
                        "server.unreachable",
                        f"the server has not answered for {LOST_S:g} s",
                        value=handle.job_id,
                        remedy="Its job goes on when it does: press the button again, finished frames are kept.",
                    ) from client.error
                continue
            task.setProgress(seen.percent)  # of a job that was over before anybody looked again, too
            task.setMessage(seen.words)
            if result.error is not None:
                raise result.error
            if result.state == "cancelled":
                raise JobError("job.cancelled", "cancelled elsewhere", remedy="Press the button again.")
            return seen.shot


class Errand(Run):
    """Something else that takes long and needs no node; `done` gets what it returns."""

    def __init__(self, key: str, call: Callable[[], str], done: Callable[[str, FaceplateError | None], None]) -> None:
        super().__init__(key, (), done)
        self._call = call

    def _work(self) -> str:
        return self._call()


class _Seen:
    """What the last event said; written on the client's thread, read on the worker's."""

    def __init__(self, view: str) -> None:
        self.percent, self.words, self.shot = 0, "waiting", ""
        self._view = f" {view}" if view else ""

    def take(self, event: JobEvent) -> None:
        if isinstance(event, JobStarted):
            self.shot = event.shot or self.shot
        elif isinstance(event, JobProgress) and event.total:
            self.percent = 100 * event.done // event.total
            self.words = f"{_STAGES.get(event.stage, event.stage)}{self._view} {event.done}/{event.total}"
        elif isinstance(event, FrameFailedEvent):
            self.words = f"frame {event.frame} failed: {from_wire(event.error).message}"


def running(key: str) -> Run | None:
    """What a node is doing; None if nothing."""
    return next((t for t in threading.enumerate() if isinstance(t, Run) and t.key == key and not t.over), None)
