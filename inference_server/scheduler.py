"""Which job runs where, what happens when a worker dies, and what the clients are told.

Lives on the gateway's thread and never blocks: disk work goes to the job store, pixels to the workers. Rules:
one job on one worker, different jobs in parallel; higher priority first, then order of arrival; a preview goes in
between two frames; a frame that kills its worker is tried once more and then given up, the rest is done.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from host_bridge import messages as m
from host_bridge.envelope import Header
from host_bridge.errors import FaceplateError, JobError, from_wire
from host_bridge.jobspec import JobSpec, job_from_json
from inference_server import worklink as w
from inference_server.jobs import Database, JobStore, StoredJob
from inference_server.questions import Questions, Send, Workers, busy, worker_died
from inference_server.validation import clip_error

_log = logging.getLogger("faceplate.scheduler")

PROGRESS_S = 0.1
_DEATHS_PER_FRAME = 2
_DEATHS_PER_JOB = 12
_WATCHERS = 16


@dataclass
class Job:
    """A job that has not ended. `frame` is the one a worker has in hand; `held` keeps it from being given out."""

    id: str
    spec: JobSpec
    watchers: list[str]
    priority: int
    created: float
    started: float = 0.0
    attempt: int = 0
    total: int = 0
    seq: int = 0
    told_seq: int = 0
    done: set[int] = field(default_factory=set)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    worker: Any = None
    frame: int | None = None
    held: bool = False
    cancelling: bool = False
    cancel_sent: float = 0.0
    heard: float = 0.0
    progress: w.RunProgress | None = None
    progress_told: float = 0.0

    @property
    def running(self) -> bool:
        return self.worker is not None


class Scheduler:
    """See the module. `send` takes session, message, the header answered, buffers."""

    def __init__(
        self,
        store: JobStore,
        workers: Workers,
        send: Send,
        *,
        queue_length: int,
        cancel_grace_s: float,
        hang_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._workers = workers
        self._send = send
        self._queue_length = queue_length
        self._cancel_grace_s = cancel_grace_s
        self._hang_s = hang_s
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._accepting: dict[str, list[tuple[str, Header]]] = {}
        self.questions = Questions(workers, send)

    # what clients ask for

    def recover(self, stored: Iterable[StoredJob]) -> None:
        """Take up the jobs of a former server."""
        for record in stored:
            self._add(record)
            _log.info("job %s goes on with %d frames done", record.id, len(record.done))

    def submit(
        self,
        session: str,
        parent: Header,
        asked: m.SubmitJob,
        check: Callable[[JobSpec, Callable[[JobSpec | FaceplateError], None]], None],
    ) -> None:
        """Take a job, durably, or refuse it. `check` validates on another thread and calls back on this one."""
        job_id = parent.id
        fingerprint = hashlib.sha256(json.dumps(asked.body(), sort_keys=True).encode()).hexdigest()
        if job_id in self._accepting:
            self._accepting[job_id].append((session, parent))
            return
        self._accepting[job_id] = [(session, parent)]

        def looked_up(found: m.JobStatus | FaceplateError | None) -> None:
            if isinstance(found, FaceplateError):
                self._accepted(job_id, found)
            elif found is not None:
                self._watch(job_id, session)
                self._accepted(job_id, m.JobAccepted(job_id, found.state, duplicate=True))
            elif self.queued + len(self._accepting) > self._queue_length:
                self._accepted(job_id, busy(self._queue_length))
            else:
                failure = self._workers.failure()
                if failure:
                    self._accepted(job_id, failure)
                else:
                    check(asked.job, checked)

        def checked(spec: JobSpec | FaceplateError) -> None:
            if isinstance(spec, FaceplateError):
                self._accepted(job_id, spec)
                return
            priority = max(-100, min(100, asked.priority))
            record = StoredJob(job_id, spec.to_json(), session, priority, time.time(), 0.0, 0, 0, False, 0)
            self._store.do(lambda db: db.insert(record, fingerprint), lambda outcome: inserted(record, outcome))

        def inserted(record: StoredJob, outcome: FaceplateError | None) -> None:
            if isinstance(outcome, FaceplateError):
                self._accepted(job_id, outcome)
                return
            ahead = sum(not job.running and job.priority >= record.priority for job in self._jobs.values())
            self._add(record)
            self._accepted(job_id, m.JobAccepted(job_id, "queued", ahead=ahead))
            self.assign()

        self._store.do(lambda db: db.known(job_id, fingerprint), looked_up)

    def cancel(self, session: str, parent: Header, job_id: str) -> None:
        """End a job before its next frame; answers with its status."""

        def found(full: str | FaceplateError) -> None:
            if isinstance(full, FaceplateError):
                self._refuse(session, parent, full)
                return
            job = self._jobs.get(full)
            if job is not None and not job.cancelling:
                job.cancelling = True
                self._store.do(lambda db: db.cancelling(full), self._stored)
                if job.running:
                    job.cancel_sent = self._clock()
                    self._workers.send(job.worker, w.StopJob(full))
                else:
                    self._end(job, "cancelled", None)
            self.query(session, parent, m.QueryJob(full))

        self._store.do(lambda db: db.full_id(job_id), found)

    def resume(self, session: str, parent: Header, job_id: str) -> None:
        """Queue a failed or cancelled job again; answers with its status."""

        def reopened(record: StoredJob | FaceplateError) -> None:
            if isinstance(record, FaceplateError):
                self._refuse(session, parent, record)
                return
            self._add(replace(record, owner=session))
            self.query(session, parent, m.QueryJob(record.id))
            self.assign()

        self._store.do(lambda db: db.reopen(job_id), reopened)

    def query(self, session: str, parent: Header, asked: m.QueryJob) -> None:
        """Answer with a job's status; whoever asks for events gets those that follow, too."""

        def found(status: m.JobStatus | FaceplateError) -> None:
            if isinstance(status, FaceplateError):
                self._refuse(session, parent, status)
                return
            if asked.after >= 0:
                self._watch(status.job_id, session)
            self._send(session, status, parent, ())

        self._store.do(lambda db: db.status(asked.job_id, asked.after), found)

    def listing(self, session: str, parent: Header, asked: m.ListJobs) -> None:
        """Answer with the newest jobs."""

        def found(jobs: list[m.JobStatus] | FaceplateError) -> None:
            if isinstance(jobs, FaceplateError):
                self._refuse(session, parent, jobs)
            else:
                self._send(session, m.Jobs(jobs), parent, ())

        self._store.do(lambda db: db.listing(asked.state, asked.limit), found)

    @property
    def queued(self) -> int:
        return sum(not job.running for job in self._jobs.values())

    @property
    def running(self) -> int:
        return sum(job.running for job in self._jobs.values())

    def sequence(self, session: str) -> dict[str, int]:
        """The session's live jobs and the `seq` of the last event each was told."""
        mine = (job for job in self._jobs.values() if session in job.watchers)
        return {job.id: job.told_seq for _, job in zip(range(100), mine, strict=False)}

    # what workers say

    def assign(self) -> None:
        """Give free workers something to do."""
        self.questions.dispatch()
        for worker in self._workers.ready():
            if worker.job_id:
                continue
            waiting = [job for job in self._jobs.values() if not job.running and not job.held]
            if not waiting:
                return
            self._begin(min(waiting, key=lambda job: (-job.priority, job.created)), worker)

    def heard(self, worker: Any, message: w.LinkMessage, buffers: tuple[bytes, ...] = ()) -> None:
        """A worker's message and its buffers."""
        if isinstance(message, w.Answer):
            self.questions.answered(message, buffers)
            return
        if isinstance(message, w.WorkerActivity):
            for busy_job in [j for j in self._jobs.values() if j.worker is worker]:
                busy_job.heard = self._clock()  # it takes long, but it does not hang
        if not isinstance(message, w.RunMessage):
            return
        job = self._jobs.get(message.job_id)
        if job is None or job.worker is not worker or job.attempt != message.attempt:
            return  # of an attempt that is over
        job.heard = self._clock()
        if isinstance(message, w.RunPlanned):
            job.total = message.total
            self._tell(
                job,
                m.JobStarted(
                    job.id,
                    attempt=job.attempt,
                    device=worker.device,
                    shot=message.shot,
                    total=message.total,
                    plan=message.plan,
                ),
            )
        elif isinstance(message, w.RunProgress):
            job.progress = message
            self._flush(job)
        elif isinstance(message, w.RunFrameStarted):
            job.frame = message.frame
        elif isinstance(message, w.RunFrameDone):
            if job.frame == message.frame:
                job.frame = None
            job.failed.pop(message.frame, None)
            if message.frame not in job.done:
                job.done.add(message.frame)
                self._tell(
                    job,
                    m.FrameDoneEvent(job.id, 0, message.frame, message.path, message.status, message.seconds),
                )
        elif isinstance(message, w.RunFrameFailed):
            if job.frame == message.frame:
                job.frame = None
            job.failed[message.frame] = message.error
            self._tell(job, m.FrameFailedEvent(job.id, 0, message.frame, clip_error(from_wire(message.error))))
        elif isinstance(message, w.RunWarned):
            self._tell(job, m.JobWarning(job.id, 0, message.code, message.message[:2000], message.frame))
        else:
            self._run_ended(job, message)

    def died(self, worker: Any, why: str) -> None:
        """A worker process is gone, whatever the reason."""
        self.questions.bereaved(worker, why)
        job = self._jobs.get(worker.job_id)
        worker.job_id = ""
        if job is None or job.worker is not worker:
            return
        job.worker, job.held = None, True
        attempt = job.attempt
        self._store.do(lambda db: db.frame_in_hand(job.id, attempt), lambda noted: self._bereaved(job, noted, why))

    def _bereaved(self, job: Job, noted: int | FaceplateError | None, why: str) -> None:
        """Go on with a job whose worker died with the frame `noted` in hand."""
        frame, job.frame, job.held = job.frame, None, False
        if isinstance(noted, int) and noted not in job.done and noted not in job.failed:
            frame = noted
        if self._jobs.get(job.id) is not job:
            return
        if job.cancelling:
            self._end(job, "cancelled", None)
            return
        key = "" if frame is None else str(frame)
        job.deaths[key] = job.deaths.get(key, 0) + 1
        what = "before a frame was begun" if frame is None else f"in frame {frame}"
        self._tell(job, m.JobWarning(job.id, 0, "job.worker_died", f"the worker died {what} ({why})", frame))
        if job.deaths.get("", 0) >= _DEATHS_PER_FRAME or sum(job.deaths.values()) >= _DEATHS_PER_JOB:
            self._end(job, "failed", worker_died(f"the worker died repeatedly, last {what} ({why})", frame))
            return
        deaths = dict(job.deaths)
        self._store.do(lambda db: db.requeue(job.id, deaths), self._stored)
        self.assign()

    def tick(self) -> None:
        """What is due without anybody asking: progress, workers that hang, jobs nobody can do."""
        now = self._clock()
        for job in list(self._jobs.values()):
            self._flush(job)
            if not job.running:
                continue
            if job.cancelling and now - job.cancel_sent > self._cancel_grace_s:
                self._workers.kill(job.worker, f"did not stop a cancelled job within {self._cancel_grace_s:g} s")
            elif self._hang_s and now - job.heard > self._hang_s:
                self._workers.kill(job.worker, f"said nothing for {self._hang_s:g} s")
        failure = self._workers.failure()
        if failure is not None:
            for job in [j for j in self._jobs.values() if not j.running]:
                self._end(job, "failed", failure)
            self.questions.give_up(failure)

    # jobs

    def _add(self, record: StoredJob) -> None:
        self._jobs[record.id] = Job(
            id=record.id,
            spec=job_from_json(record.spec),
            watchers=[record.owner],
            priority=record.priority,
            created=record.created,
            started=record.started,
            attempt=record.attempt,
            total=record.total,
            seq=record.last_seq,
            told_seq=record.last_seq,
            done=set(record.done),
            failed=dict(record.failed),
            deaths=dict(record.deaths),
            cancelling=record.cancelling,
        )
        if record.cancelling:
            self._end(self._jobs[record.id], "cancelled", None)

    def _accepted(self, job_id: str, outcome: m.JobAccepted | FaceplateError) -> None:
        for index, (session, parent) in enumerate(self._accepting.pop(job_id)):
            if isinstance(outcome, FaceplateError):
                self._refuse(session, parent, outcome)
            else:
                self._send(session, replace(outcome, duplicate=outcome.duplicate or index > 0), parent, ())

    def _begin(self, job: Job, worker: Any) -> None:
        job.worker, worker.job_id = worker, job.id
        job.attempt += 1
        job.frame, job.progress, job.failed = None, None, {}
        job.started = job.started or time.time()
        job.heard = self._clock()
        attempt, device, started = job.attempt, worker.device, job.started
        banned = {
            frame: worker_died("the worker process died while rendering this frame, twice", int(frame)).to_wire()
            for frame, deaths in job.deaths.items()
            if frame and deaths >= _DEATHS_PER_FRAME
        }
        message = w.RunJob(job.id, attempt, str(self._store.leases / job.id), job.spec, sorted(job.done), banned)

        def leased(outcome: FaceplateError | None) -> None:
            if job.worker is not worker or job.attempt != attempt:
                return
            if isinstance(outcome, FaceplateError):
                worker.job_id, job.worker = "", None
                self._end(job, "failed", outcome)
            elif job.cancelling:
                worker.job_id, job.worker = "", None
                self._end(job, "cancelled", None)
            else:
                self._workers.send(worker, message)

        self._store.do(lambda db: db.begin(job.id, attempt, device, started), leased)

    def _run_ended(self, job: Job, message: w.RunEnded) -> None:
        job.worker.job_id, job.worker = "", None
        if message.state == "failed":
            self._end(job, "failed", from_wire(message.error or {}))
        elif message.state == "cancelled":
            self._end(job, "cancelled", None)
        elif job.failed:
            self._end(job, "failed", _frames_failed(job))
        else:
            self._end(job, "finished", None)
        self.assign()

    def _end(self, job: Job, state: str, error: FaceplateError | None) -> None:
        """The one place where a job ends, so that it ends once."""
        if self._jobs.pop(job.id, None) is None:
            return
        self._flush(job, final=True)
        seconds = time.time() - job.started if job.started else 0.0
        wire = clip_error(error) if error else None
        last: m.JobFinished | m.JobFailed | m.JobCancelled
        if state == "finished":
            last = m.JobFinished(job.id, 0, len(job.done), 0, seconds)
        elif state == "cancelled":
            last = m.JobCancelled(job.id, 0, len(job.done), len(job.failed), seconds)
        else:
            last = m.JobFailed(job.id, 0, len(job.done), len(job.failed), seconds, wire or {})
        now = time.time()
        _log.info("job %s %s: %d frames done, %d failed %s", job.id, state, len(job.done), len(job.failed), error or "")
        self._tell(job, last, lambda db: db.end(job.id, state, now, wire))

    # events

    def _tell(self, job: Job, event: Any, also: Callable[[Database], None] | None = None) -> None:
        """Number an event, store it, and send it when it is on disk."""
        job.seq += 1
        numbered = replace(event, seq=job.seq)
        body = numbered.body()

        def record(db: Database) -> None:
            db.event(job.id, numbered.seq, numbered.TYPE, body)
            if also:
                also(db)

        def stored(outcome: FaceplateError | None) -> None:
            if isinstance(outcome, FaceplateError):
                _log.error("event %d of job %s is not on disk: %s", numbered.seq, job.id, outcome)
            job.told_seq = numbered.seq
            for session in job.watchers:
                self._send(session, numbered, None, ())

        self._store.do(record, stored)

    def _flush(self, job: Job, *, final: bool = False) -> None:
        """Send the newest progress, at most ten a second."""
        now = self._clock()
        if job.progress is None or (now - job.progress_told < PROGRESS_S and not final):
            return
        progress, job.progress, job.progress_told = job.progress, None, now
        event = m.JobProgress(
            job.id, job.told_seq, progress.stage, progress.done, progress.total, progress.note, progress.picture
        )
        for session in job.watchers:
            self._send(session, event, None, ())

    def _watch(self, job_id: str, session: str) -> None:
        """Send a job's further events to a session, too; of very many watchers the oldest is left out."""
        job = self._jobs.get(job_id)
        if job is not None and session not in job.watchers:
            job.watchers = [*job.watchers[-(_WATCHERS - 1) :], session]

    def _refuse(self, session: str, parent: Header, error: FaceplateError) -> None:
        self._send(session, m.Error(clip_error(error)), parent, ())

    def _stored(self, outcome: object) -> None:
        if isinstance(outcome, FaceplateError):
            _log.error("%s", outcome)


def _frames_failed(job: Job) -> JobError:
    frames = sorted(job.failed)
    first = from_wire(job.failed[frames[0]])
    return JobError(
        "job.frames_failed",
        f"{len(frames)} of {job.total} frames failed; the first: {first.message} ({first.code})",
        value=frames[:10_000],
        frame=frames[0],
        path=first.path,
        remedy=first.remedy,
    )
