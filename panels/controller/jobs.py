"""Jobs: those of this panel and the newest of the server, how far they are, cancel and resume.

A job lives on the server and survives it and this panel: after every welcome the list is asked for again and live jobs
are followed, so that a row never says what was true of a server that is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from host_bridge import messages as m
from host_bridge.client import Client
from host_bridge.errors import FaceplateError, from_wire
from host_bridge.jobspec import JobSpec
from panels.controller.connection import Connection, not_connected
from panels.controller.notices import Notices
from panels.controller.observe import Home, Topic

LISTED = 100
KEPT_MESSAGES = 50
LOOK_AGAIN_S = 3.0
_AFTER_ALL = 1 << 60  # events after this one: none of those there are, all that will come
LIVE = ("sending", "queued", "running")
_ADAPT_FIELDS = ("shot", "shot_range", "effect", "params", "edits", "style_image", "face", "ocio", "ocio_hash", "steps")


@dataclass(frozen=True)
class JobRow:
    """A job. `state`: sending, queued, running, finished, failed, cancelled or refused; times in Unix seconds, 0 = not
    yet. `stage` (analyse, render, a long step of the effect) is `stage_done` of `stage_total` far; `note` is what it
    says of itself (a loss), `picture` the path of a PNG of how it looks so far, as the server sees it. `own`:
    submitted by this panel."""

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
    note: str = ""
    picture: str = ""
    ahead: int = 0
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    device: str = ""
    shot: str = ""
    output: str = ""
    error: FaceplateError | None = None
    warnings: tuple[str, ...] = ()
    failures: tuple[FaceplateError, ...] = ()
    own: bool = False

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    @property
    def not_adapted(self) -> bool:
        """Whether it is a render that was refused because a long step has not been taken with its values."""
        return self.error is not None and self.error.code == "shot.not_adapted"

    @property
    def acceptable(self) -> bool:
        """Whether it is an adaptation that was stopped after it had begun to learn."""
        learned = self.stage not in ("", "analyse", "prepare") and self.stage_done > 0
        return self.kind == "adapt" and self.state == "cancelled" and learned

    @property
    def fraction(self) -> float:
        """How far it is, 0..1; of a render that analyses first, the analysis is a third."""
        if not self.live:
            return 1.0 if self.state == "finished" else self.done / self.total if self.total else 0.0
        stage = min(1.0, self.stage_done / self.stage_total) if self.stage_total else 0.0
        if self.kind != "render":
            return stage
        frames = (self.done + self.failed) / self.total if self.total else 0.0
        return stage / 3 if self.stage == "analyse" else frames

    def seconds_left(self, now: float) -> float | None:
        """Rough time to the end of a running job's stage, None where nothing can be said.

        Of an adaptation nothing can: it may go on in the middle of a step, and another may follow.
        """
        if self.kind == "adapt":
            return None
        if self.state != "running" or not self.started or not 0.02 < self.fraction < 1.0 or self.stage == "analyse":
            return None
        return (now - self.started) * (1.0 - self.fraction) / self.fraction


class Jobs:
    """`changed`: rows are others. `ended(job_id)`: a job of this panel has ended, well or not."""

    def __init__(self, home: Home, connection: Connection, notices: Notices) -> None:
        self.rows: tuple[JobRow, ...] = ()
        self.error: FaceplateError | None = None
        self.changed = Topic()
        self.ended = Topic()
        self._home = home
        self._connection = connection
        self._notices = notices
        self._specs: dict[str, JobSpec] = {}
        self._senders: dict[str, Client] = {}  # who fills gaps in a job's events by itself
        self._telling = False
        self._look_again: Callable[[], None] | None = None
        connection.on_event = lambda event: home.post(lambda: self._event(event))

    def find(self, job_id: str) -> JobRow | None:
        return next((row for row in self.rows if row.job_id == job_id), None)

    def spec(self, job_id: str) -> JobSpec | None:
        """What was submitted by this panel."""
        return self._specs.get(job_id)

    def adapting(self, job_id: str) -> JobSpec | None:
        """The job that takes the long steps which this one, an `adapt` that was stopped or a render that was refused
        for lack of them, needs; None where it needs none, or was not submitted by this panel."""
        row, spec = self.find(job_id), self._specs.get(job_id)
        if row is None or spec is None or row.live:
            return None
        if not row.not_adapted and (row.kind != "adapt" or row.state == "finished"):
            return None
        kept = {name: getattr(spec, name) for name in _ADAPT_FIELDS}
        return JobSpec("adapt", spec.plate, **kept)

    @property
    def busy(self) -> bool:
        """Whether a job of this panel has not ended."""
        return any(row.live and row.own for row in self.rows)

    def refresh(self) -> None:
        """Ask for the newest jobs; those that are live are followed from then on."""
        if self._connection.ready:
            self._connection.ask(m.ListJobs(limit=LISTED), m.Jobs, self._listed)

    def submit(self, spec: JobSpec, *, priority: int = 0) -> str:
        """Submit a job; its id at once, a row of state `sending` until the server has it.

        Raises ServerError (`server.not_running`) where there is no connection at all.
        """
        client = self._connection.client
        if client is None:
            raise self._connection.state.error or not_connected()
        handle = client.submit(spec, priority=priority, timeout_s=60.0)
        job_id = handle.job_id
        self._specs[job_id] = spec
        self._senders[job_id] = client
        row = JobRow(job_id, spec.kind, spec.effect, "sending", output=spec.output, own=True)
        self.rows = (row, *self.rows)
        self.changed.emit()
        self._connection.hand_over(handle.accepted, lambda got: got, lambda got: self._accepted(job_id, got))
        return job_id

    def cancel(self, job_id: str) -> None:
        """End a job before its next frame; one that is still being sent as soon as the server has it."""
        row = self.find(job_id)
        self._change(job_id, cancelling=True)
        if row is not None and row.state == "sending":
            return
        self._connection.ask(m.CancelJob(job_id), m.JobStatus, lambda got: self._told(job_id, got))

    def resume(self, job_id: str) -> None:
        """Queue a failed or cancelled job again; finished frames are kept."""

        def resumed(outcome: m.JobStatus | FaceplateError) -> None:
            if not isinstance(outcome, FaceplateError):
                self._change(job_id, error=None, failures=(), warnings=(), failed=0, stage="", note="", own=True)
                self._follow(outcome.job_id)
            self._told(job_id, outcome)

        self._connection.ask(m.ResumeJob(job_id), m.JobStatus, resumed)

    def details(self, job_id: str, done: Callable[[JobRow | FaceplateError], None]) -> None:
        """Ask for a job's output and what happened to it (warnings, failed frames)."""

        def told(outcome: m.JobStatus | FaceplateError) -> None:
            if isinstance(outcome, FaceplateError):
                done(outcome)
                return
            self._change(job_id, failures=(), warnings=())
            for body in outcome.events:
                event = m.event_from_body(str(body.get("type")), body)
                if isinstance(event, m.JobWarning | m.FrameFailedEvent):
                    self._event(event)
            self._told(job_id, outcome)
            row = self.find(job_id)
            if row is not None:
                done(row)

        self._connection.ask(m.QueryJob(job_id, 0), m.JobStatus, told)

    def folder(self, job_id: str) -> str:
        """The folder of a job's output as it is known here; "" if it is not."""
        row = self.find(job_id)
        return os.path.dirname(row.output) if row is not None and row.output else ""

    # what the server says

    def welcomed(self) -> None:
        """A server is there, perhaps another process than before."""
        current = self._connection.client
        self._senders = {job_id: client for job_id, client in self._senders.items() if client is current}
        self.refresh()

    def _accepted(self, job_id: str, outcome: m.JobAccepted | FaceplateError) -> None:
        if not isinstance(outcome, FaceplateError):
            row = self.find(job_id)
            if row is not None and row.state == "sending":  # events may have been faster
                self._change(job_id, state=outcome.state, ahead=outcome.ahead)
            if row is not None and row.cancelling:
                self.cancel(job_id)
            return
        # Where nobody answered it may have arrived all the same; then the next list says so.
        self._change(job_id, state="refused", error=outcome)
        self._notices.error(outcome)
        self.ended.emit(job_id)

    def _listed(self, outcome: m.Jobs | FaceplateError) -> None:
        if isinstance(outcome, FaceplateError):
            self.error = outcome
            self.changed.emit()
            return
        self.error = None
        known = {row.job_id: row for row in self.rows}
        listed = {status.job_id for status in outcome.jobs}
        before = [row for row in self.rows if row.state in ("sending", "refused") and row.job_id not in listed]
        self.rows = (*before, *(_updated(known.get(s.job_id), s) for s in outcome.jobs))
        self.changed.emit()
        for row in self.rows:
            old = known.get(row.job_id)
            if row.live and row.state != "sending" and not self._tracked(row):
                self._follow(row.job_id)
            elif old is not None and old.own and old.live and not row.live:
                self._end(row)

        self._keep_looking()

    def _tracked(self, row: JobRow) -> bool:
        """Whether the client that is connected now has submitted it: it fills gaps and survives restarts."""
        return self._senders.get(row.job_id) is self._connection.client

    def _follow(self, job_id: str) -> None:
        """Receive a job's further events; what has been is in its status."""
        self._connection.ask(m.QueryJob(job_id, _AFTER_ALL), m.JobStatus, lambda got: self._told(job_id, got))

    def _keep_looking(self) -> None:
        """Events of jobs submitted elsewhere may be missed: look again while such a job lives."""
        if self._look_again is None and any(row.live and not self._tracked(row) for row in self.rows):
            self._look_again = self._home.later(LOOK_AGAIN_S, self._again)

    def _again(self) -> None:
        self._look_again = None
        self.refresh()

    def _told(self, job_id: str, outcome: m.JobStatus | FaceplateError) -> None:
        if isinstance(outcome, FaceplateError):
            self._change(job_id, cancelling=False)
            self._notices.error(outcome)
            return
        row = self.find(outcome.job_id)
        if row is None:
            self.rows = (_updated(None, outcome), *self.rows)
        else:
            self._replace(_updated(row, outcome))
        self.changed.emit()
        self._keep_looking()

    def _event(self, event: m.JobEvent) -> None:
        row = self.find(event.job_id)
        if row is None:
            return
        self._replace(_after(row, event))
        if not self._telling:  # events come in bursts; observers are told once for each
            self._telling = True
            self._home.post(self._tell)
        if event.TYPE in m.TERMINAL_EVENTS and row.own:
            self._end(_after(row, event))

    def _tell(self) -> None:
        self._telling = False
        self.changed.emit()

    def _end(self, row: JobRow) -> None:
        if row.error is not None:
            self._notices.error(row.error)
        self.ended.emit(row.job_id)

    def _change(self, job_id: str, **fields: Any) -> None:
        row = self.find(job_id)
        if row is not None:
            self._replace(replace(row, **fields))
            self.changed.emit()

    def _replace(self, row: JobRow) -> None:
        self.rows = tuple(row if old.job_id == row.job_id else old for old in self.rows)


def _after(row: JobRow, event: m.JobEvent) -> JobRow:
    """A row after an event."""
    if isinstance(event, m.JobStarted):
        return replace(
            row,
            state="running",
            total=event.total,
            device=event.device,
            shot=event.shot or row.shot,
            started=row.started or time.time(),
        )
    if isinstance(event, m.JobProgress):
        state = "running" if row.live else row.state
        picture = event.picture or row.picture
        return replace(
            row,
            state=state,
            stage=event.stage,
            stage_done=event.done,
            stage_total=event.total,
            note=event.note,
            picture=picture,
        )
    if isinstance(event, m.FrameDoneEvent):
        return replace(row, done=row.done + 1)
    if isinstance(event, m.FrameFailedEvent):
        failures = (*row.failures, from_wire(event.error).at(frame=event.frame))[-KEPT_MESSAGES:]
        return replace(row, failed=row.failed + 1, failures=failures)
    if isinstance(event, m.JobWarning):
        where = f" [frame {event.frame}]" if event.frame is not None else ""
        return replace(row, warnings=(*row.warnings, event.message + where)[-KEPT_MESSAGES:])
    error = from_wire(event.error) if isinstance(event, m.JobFailed) else None
    return replace(
        row,
        state=event.TYPE.removeprefix("job_"),
        cancelling=False,
        done=event.done,
        failed=event.failed,
        ended=time.time(),
        error=error,
    )


def _updated(row: JobRow | None, status: m.JobStatus) -> JobRow:
    """A row with what the server says of the job."""
    row = row or JobRow(status.job_id)
    return replace(
        row,
        kind=status.kind,
        effect=status.effect,
        state=status.state,
        cancelling=status.cancelling,
        done=status.done,
        failed=status.failed,
        total=status.total or row.total,
        created=status.created,
        started=status.started,
        ended=status.ended,
        device=status.device or row.device,
        output=str(status.job.get("output") or row.output),
        error=from_wire(status.error) if status.error else None,
    )
