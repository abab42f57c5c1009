"""The durable job store: SQLite in WAL mode on local disk, on its own thread.

Decides what survives a killed server: a job before `job_accepted` is sent, an event before the client hears of it.
Work is queued with `do` and answered on the caller's loop; operations that wait at the same time share one
commit. Events of a job count from 1 without gaps, and progress is not an event.
"""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from host_bridge.endpoint import write_private
from host_bridge.errors import FaceplateError, JobError, ServerError
from host_bridge.messages import JobStatus

T = TypeVar("T")

_log = logging.getLogger("faceplate.jobs")
_SCHEMA = 1
_EVENTS_PER_ANSWER = 500
_BATCH = 256

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    asked TEXT NOT NULL,
    spec TEXT NOT NULL,
    owner TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL NOT NULL DEFAULT 0,
    ended REAL NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    device TEXT NOT NULL DEFAULT '',
    cancelling INTEGER NOT NULL DEFAULT 0,
    deaths TEXT NOT NULL DEFAULT '{}',
    error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, ended);
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    frame INTEGER,
    body TEXT NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class StoredJob:
    """A job as the scheduler takes it up after a restart: `deaths` counts worker deaths by frame ("" = no frame)."""

    id: str
    spec: dict[str, Any]
    owner: str
    priority: int
    created: float
    started: float
    attempt: int
    total: int
    cancelling: bool
    last_seq: int
    deaths: dict[str, int] = field(default_factory=dict)
    done: frozenset[int] = frozenset()
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)


class Database:
    """The operations; used on the store's thread only. Each raises JobError (`job.unknown`) for an unknown job."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.leases = folder / "leases"
        self.leases.mkdir(mode=0o700, exist_ok=True)
        self._keep = keep
        self._db = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > _SCHEMA:
            raise sqlite3.DatabaseError(f"the job store has schema {version}, this server knows {_SCHEMA}")
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version={_SCHEMA}")

    def execute(self, statement: str) -> None:
        self._db.execute(statement)

    def close(self) -> None:
        self._db.close()

    def known(self, job_id: str, asked: str) -> JobStatus | None:
        """The job of that id if there is one; JobError if it was asked for with another content."""
        row = self._db.execute("SELECT asked FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        if row["asked"] != asked:
            raise JobError(
                "job.state",
                f"the id {job_id} belongs to another job",
                value=job_id,
                remedy="Repeat a request unchanged, or give a new one a new id.",
            )
        return self.status(job_id)

    def insert(self, job: StoredJob, asked: str) -> None:
        """Record a new job."""
        self._db.execute(
            "INSERT INTO jobs (id, asked, spec, owner, priority, state, created) VALUES (?, ?, ?, ?, ?, 'queued', ?)",
            (job.id, asked, json.dumps(job.spec), job.owner, job.priority, job.created),
        )

    def begin(self, job_id: str, attempt: int, device: str, now: float) -> None:
        """A worker is about to get the job: from now on only this attempt may write."""
        write_private(self.leases / job_id, str(attempt))
        self._db.execute(
            "UPDATE jobs SET state = 'running', attempt = ?, device = ?, "
            "started = CASE WHEN started > 0 THEN started ELSE ? END WHERE id = ?",
            (attempt, device, now, job_id),
        )

    def frame_in_hand(self, job_id: str, attempt: int) -> int | None:
        """The frame a dead worker had begun, by the note it leaves beside its lease (worker.py)."""
        try:
            noted = (self.leases / f"{job_id}.frame").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        return int(noted[1]) if len(noted) == 2 and noted[0] == str(attempt) else None

    def requeue(self, job_id: str, deaths: dict[str, int]) -> None:
        """The job waits again, its worker having died."""
        self._revoke(job_id)
        self._db.execute("UPDATE jobs SET state = 'queued', deaths = ? WHERE id = ?", (json.dumps(deaths), job_id))

    def cancelling(self, job_id: str) -> None:
        self._db.execute("UPDATE jobs SET cancelling = 1 WHERE id = ?", (job_id,))

    def event(self, job_id: str, seq: int, type_: str, body: dict[str, Any]) -> None:
        """Record an event."""
        self._db.execute(
            "INSERT INTO events (job, seq, type, frame, body) VALUES (?, ?, ?, ?, ?)",
            (job_id, seq, type_, body.get("frame"), json.dumps(body)),
        )
        if type_ == "job_started":
            self._db.execute("UPDATE jobs SET total = ? WHERE id = ?", (body["total"], job_id))

    def end(self, job_id: str, state: str, now: float, error: dict[str, Any] | None) -> None:
        """The job has ended; old ended jobs are forgotten."""
        self._revoke(job_id)
        self._db.execute(
            "UPDATE jobs SET state = ?, ended = ?, cancelling = 0, error = ? WHERE id = ?",
            (state, now, json.dumps(error) if error else None, job_id),
        )
        self._db.execute(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state NOT IN ('queued', 'running') "
            "ORDER BY ended DESC LIMIT -1 OFFSET ?)",
            (self._keep,),
        )

    def reopen(self, job_id: str) -> StoredJob:
        """Queue an ended job again; JobError (`job.state`) for one that has not failed or been cancelled."""
        job_id = self._full_id(job_id)
        state = self._row(job_id)["state"]
        if state not in ("failed", "cancelled"):
            raise JobError(
                "job.state",
                f"the job is {state}",
                value=job_id,
                remedy="Only a failed or cancelled job can be resumed.",
            )
        self._db.execute(
            "UPDATE jobs SET state = 'queued', ended = 0, error = NULL, cancelling = 0, deaths = '{}' WHERE id = ?",
            (job_id,),
        )
        return self._stored(self._row(job_id), forget_failures=True)

    def recover(self) -> list[StoredJob]:
        """Jobs a former server left unfinished, in order; every lease it gave is taken back."""
        for lease in self.leases.iterdir():
            lease.unlink(missing_ok=True)
        self._db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        rows = self._db.execute("SELECT * FROM jobs WHERE state = 'queued' ORDER BY created").fetchall()
        return [self._stored(row) for row in rows]

    def status(self, job_id: str, after: int = -1) -> JobStatus:
        """A job's record; with `after` >= 0 its events after that sequence number."""
        job_id = self._full_id(job_id)
        row = self._row(job_id)
        events: list[dict[str, Any]] = []
        more = False
        if after >= 0:
            found = self._db.execute(
                "SELECT type, body FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?",
                (job_id, after, _EVENTS_PER_ANSWER + 1),
            ).fetchall()
            more = len(found) > _EVENTS_PER_ANSWER
            events = [{"type": r["type"], **json.loads(r["body"])} for r in found[:_EVENTS_PER_ANSWER]]
        return self._status(row, json.loads(row["spec"]), events, more)

    def listing(self, state: str, limit: int) -> list[JobStatus]:
        """The newest jobs, without spec and events."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE ? IN ('', state) ORDER BY created DESC LIMIT ?", (state, limit)
        ).fetchall()
        return [self._status(row, None, [], False) for row in rows]

    def full_id(self, job_id: str) -> str:
        return self._full_id(job_id)

    def _status(
        self, row: sqlite3.Row, spec: dict[str, Any] | None, events: list[dict[str, Any]], more: bool
    ) -> JobStatus:
        about = spec if spec is not None else json.loads(row["spec"])
        count = self._db.execute(
            "SELECT COUNT(DISTINCT CASE WHEN type = 'frame_done' THEN frame END) AS done, MAX(seq) AS seq "
            "FROM events WHERE job = ?",
            (row["id"],),
        ).fetchone()
        return JobStatus(
            job_id=row["id"],
            state=row["state"],
            cancelling=bool(row["cancelling"]),
            kind=about["kind"],
            effect=about["effect"],
            job=spec or {},
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            total=row["total"],
            done=count["done"],
            failed=len(self._failed(row["id"])),
            device=row["device"],
            error=json.loads(row["error"]) if row["error"] else None,
            last_seq=count["seq"] or 0,
            events=events,
            more=more,
        )

    def _stored(self, row: sqlite3.Row, *, forget_failures: bool = False) -> StoredJob:
        job_id = row["id"]
        done = {r[0] for r in self._db.execute("SELECT frame FROM events WHERE job=? AND type='frame_done'", (job_id,))}
        seq = self._db.execute("SELECT MAX(seq) FROM events WHERE job = ?", (job_id,)).fetchone()[0] or 0
        return StoredJob(
            id=job_id,
            spec=json.loads(row["spec"]),
            owner=row["owner"],
            priority=row["priority"],
            created=row["created"],
            started=row["started"],
            attempt=row["attempt"],
            total=row["total"],
            cancelling=bool(row["cancelling"]),
            last_seq=seq,
            deaths=json.loads(row["deaths"]),
            done=frozenset(done),
            failed={} if forget_failures else self._failed(job_id),
        )

    def _failed(self, job_id: str) -> dict[int, dict[str, Any]]:
        """Frames whose last word is frame_failed, and that no cancelled or failed attempt has handed back since."""
        failed: dict[int, dict[str, Any]] = {}
        rows = self._db.execute(
            "SELECT type, frame, body FROM events WHERE job = ? AND type IN ('frame_done', 'frame_failed') "
            "ORDER BY seq",
            (job_id,),
        )
        for row in rows:
            if row["type"] == "frame_failed":
                failed[row["frame"]] = json.loads(row["body"])["error"]
            else:
                failed.pop(row["frame"], None)
        return failed

    def _revoke(self, job_id: str) -> None:
        (self.leases / job_id).unlink(missing_ok=True)
        (self.leases / f"{job_id}.frame").unlink(missing_ok=True)

    def _row(self, job_id: str) -> sqlite3.Row:
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise unknown_job(job_id)
        assert isinstance(row, sqlite3.Row)
        return row

    def _full_id(self, job_id: str) -> str:
        if len(job_id) == 32:
            return job_id
        if not 6 <= len(job_id) < 32 or not all(c in "0123456789abcdef" for c in job_id):
            raise unknown_job(job_id)
        rows = self._db.execute("SELECT id FROM jobs WHERE id GLOB ? LIMIT 2", (job_id + "*",)).fetchall()
        if len(rows) != 1:
            raise unknown_job(job_id)
        return str(rows[0]["id"])


@dataclass
class _Task:
    """One queued operation and where its outcome goes."""

    run: Callable[[Database], Any]
    then: Callable[[Any], None]


class JobStore:
    """The store's thread. `post` brings a call to the loop's thread, where every `then` runs."""

    def __init__(self, folder: Path, keep: int, post: Callable[[Callable[[], None]], object]) -> None:
        try:
            self._database = Database(folder, keep)
        except (sqlite3.Error, OSError) as error:
            raise ServerError(
                "server.start_failed",
                f"the job store cannot be opened: {error}",
                path=str(folder),
                remedy="Move the folder away, or set `state` to a folder on a local disk.",
            ) from error
        self.folder = folder
        self._post = post
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="faceplate-jobs", daemon=True)

    @property
    def leases(self) -> Path:
        return self._database.leases

    def recover(self) -> list[StoredJob]:
        """Take up what a former server left; before `start`."""
        return self._database.recover()

    def start(self) -> None:
        self._thread.start()

    def do(self, run: Callable[[Database], T], then: Callable[[T | FaceplateError], None]) -> None:
        """Queue an operation. `then` gets its result after it is on disk, or the error, in the order of the calls."""
        self._tasks.put(_Task(run, then))

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._tasks.put(None)
        self._thread.join()
        self._database.close()

    def _work(self) -> None:
        running = True
        while running:
            batch: list[_Task] = []
            task = self._tasks.get()
            while True:
                if task is None:
                    running = False
                else:
                    batch.append(task)
                if not running or len(batch) >= _BATCH:
                    break
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
            outcomes = self._commit(batch)
            for done, outcome in zip(batch, outcomes, strict=True):
                self._post(_Answer(done.then, outcome))

    def _commit(self, batch: list[_Task]) -> list[Any]:
        outcomes: list[Any] = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for task in batch:
                self._database.execute("SAVEPOINT task")
                try:
                    outcomes.append(task.run(self._database))
                except FaceplateError as error:
                    self._database.execute("ROLLBACK TO task")
                    outcomes.append(error)
                except (sqlite3.Error, OSError) as error:
                    self._database.execute("ROLLBACK TO task")
                    outcomes.append(_store_failed(error))
                self._database.execute("RELEASE task")
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            _log.error("the job store cannot be written: %s", error)
            try:
                self._database.execute("ROLLBACK")
            except sqlite3.Error:
                _log.debug("nothing to roll back")
            return [_store_failed(error)] * len(batch)
        return outcomes


@dataclass(frozen=True)
class _Answer:
    """A `then` and what it is called with, as a call without arguments."""

    then: Callable[[Any], None]
    outcome: Any

    def __call__(self) -> None:
        self.then(self.outcome)


def unknown_job(job_id: str) -> JobError:
    """`job.unknown`."""
    return JobError(
        "job.unknown",
        f"there is no job {job_id[:40]!r}, or more than one",
        value=job_id[:40],
        remedy="See `faceplate jobs list`; give the whole id or its first 6 or more digits.",
    )


def _store_failed(error: Exception) -> ServerError:
    return ServerError(
        "server.internal",
        f"the job store cannot be written: {error}",
        remedy="Make room on the disk of the state folder; the request was not taken.",
    )
