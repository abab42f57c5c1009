"""Jobs: those of this panel and the newest of the server, how far they are, cancel and resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from host_bridge.errors import FaceplateError
from host_bridge.jobspec import JobSpec
from panels.controller.observe import Topic


@dataclass(frozen=True)
class JobRow:
    """A job. `state`: sending, queued, running, finished, failed, cancelled or refused; times in Unix seconds, 0 = not
    yet. `stage` (analyse, render) is `stage_done` of `stage_total` far. `own`: submitted by this panel."""

    job_id: str
    kind: str = ""
    effect: str = ""
    state: str = "queued"
    cancelling: bool = False
    done: int = 0
    failed: int = 0
    total: int = 0
    stage: str = ""
    stage_done: int = 0
    stage_total: int = 0
    ahead: int = 0
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    device: str = ""
    output: str = ""
    error: FaceplateError | None = None
    warnings: tuple[str, ...] = ()
    failures: tuple[FaceplateError, ...] = ()
    own: bool = False

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("sending", "queued", "running")

    @property
    def fraction(self) -> float:
        """How far it is, 0..1."""
        raise NotImplementedError

    def seconds_left(self, now: float) -> float | None:
        """Rough time to the end of a running render, None where nothing can be said."""
        raise NotImplementedError


class Jobs:
    """`changed`: rows are others. `ended(job_id)`: a job of this panel has ended, well or not."""

    rows: tuple[JobRow, ...]  # newest first
    error: FaceplateError | None
    changed: Topic
    ended: Topic

    def find(self, job_id: str) -> JobRow | None:
        raise NotImplementedError

    def refresh(self) -> None:
        """Ask for the newest jobs."""

    def submit(self, spec: JobSpec, *, priority: int = 0) -> str:
        """Submit a job; its id at once, a row of state `sending` until the server has it."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> None:
        """End a job before its next frame."""

    def resume(self, job_id: str) -> None:
        """Queue a failed or cancelled job again."""

    def details(self, job_id: str, done: Callable[[JobRow | FaceplateError], None]) -> None:
        """Ask for a job's output and what happened to it (warnings, failed frames)."""

    def folder(self, job_id: str) -> str:
        """The folder of a job's output as it is known here; "" if it is not."""
        raise NotImplementedError
