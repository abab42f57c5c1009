"""What is asked of workers besides jobs: previews, faces, what a plate is, what an OCIO config offers.

A question that needs the device goes to a free worker, else in between two frames of a busy one; each worker has one of
them at a time. The others are answered beside its work. A newer preview of a session replaces an older one that has not
begun. Every question is answered, also when its worker dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from host_bridge import messages as m
from host_bridge.envelope import Header
from host_bridge.errors import FaceplateError, JobError, ServerError, from_wire
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server import worklink as w
from inference_server.validation import clip_error

_MAX_ASKS = 200
_ASIDE_PER_WORKER = 4


class Worker(Protocol):
    """What the scheduler sees of a worker process."""

    device: str
    job_id: str
    warm_plate: str

    @property
    def ready(self) -> bool: ...


class Workers(Protocol):
    """What the scheduler needs of the supervisor."""

    def ready(self) -> Sequence[Any]: ...

    def send(self, worker: Any, message: w.LinkMessage) -> None: ...

    def kill(self, worker: Any, why: str) -> None: ...

    def failure(self) -> FaceplateError | None:
        """Why no worker will ever be ready, None while one may."""
        ...


Send = Callable[[str, m.Message, "Header | None", "tuple[bytes, ...]"], None]


@dataclass
class _Ask:
    """A question: who asked, what to send once a worker is free for it, and what the answer is.

    `known` are fields of the answer that the client gave itself; `plate` the plate a worker may have warm.
    """

    session: str
    parent: Header
    message: w.LinkMessage
    answer: type[m.Message]
    known: Mapping[str, Any] = field(default_factory=dict)
    plate: str = ""
    worker: Any = None

    @property
    def id(self) -> str:
        return self.parent.id

    @property
    def aside(self) -> bool:
        return isinstance(self.message, w.Aside)


class Questions:
    """See the module. Lives on the gateway's thread; `send` takes session, message, the header answered, buffers."""

    def __init__(self, workers: Workers, send: Send) -> None:
        self._workers = workers
        self._send = send
        self._waiting: list[_Ask] = []
        self._asked: dict[str, _Ask] = {}

    def preview(self, session: str, parent: Header, spec: PreviewSpec, stamp: int) -> None:
        """Make a picture soon; one of this session that has not begun is answered `replaced`."""
        for older in [a for a in self._waiting if a.session == session and a.answer is m.PreviewResult]:
            if older.id != parent.id:
                self._waiting.remove(older)
                self._send(session, replaced_preview(**older.known), older.parent, ())
        known = {"stamp": stamp, "frame": spec.frame}
        message = w.MakePreview(parent.id, spec)
        self._ask(_Ask(session, parent, message, m.PreviewResult, known, spec.job.plate.pattern))

    def faces(self, session: str, parent: Header, job: JobSpec, frame: int) -> None:
        """Ask for the faces of a frame."""
        message = w.TellFaces(parent.id, job, frame)
        self._ask(_Ask(session, parent, message, m.Faces, plate=job.plate.pattern))

    def color(self, session: str, parent: Header, ocio: str) -> None:
        """Ask what an OCIO config offers."""
        self._ask(_Ask(session, parent, w.TellColor(parent.id, ocio), m.Color))

    def plate(self, session: str, parent: Header, plate: PlateSpec, ocio: str) -> None:
        """Ask what a plate is."""
        self._ask(_Ask(session, parent, w.TellPlate(parent.id, plate, ocio), m.Plate))

    def give_up(self, failure: FaceplateError) -> None:
        """Answer everything that waits: no worker will ever be ready."""
        for ask in self._waiting:
            self._refuse(ask, failure)
        self._waiting.clear()

    def bereaved(self, worker: Any, why: str) -> None:
        """The worker died; answer what it was asked."""
        for ask in [a for a in self._asked.values() if a.worker is worker]:
            del self._asked[ask.id]
            self._refuse(ask, worker_died(f"the worker died while answering ({why})", None))

    def _ask(self, ask: _Ask) -> None:
        failure = self._workers.failure()
        if ask.id in self._asked or any(a.id == ask.id for a in self._waiting):
            return  # a retry of what is under way: one answer is coming
        if failure is not None:
            self._refuse(ask, failure)
        elif len(self._waiting) >= _MAX_ASKS:
            self._refuse(ask, busy(_MAX_ASKS))
        else:
            self._waiting.append(ask)
            self.dispatch()

    def dispatch(self) -> None:
        """Give waiting questions to workers."""
        for ask in list(self._waiting):
            free = [worker for worker in self._workers.ready() if self._load(worker, ask.aside) < 1]
            if not free:
                continue  # one of the other kind may still go
            worker = min(free, key=lambda v: (bool(v.job_id), v.warm_plate != ask.plate))
            self._waiting.remove(ask)
            self._asked[ask.id] = ask
            ask.worker = worker
            worker.warm_plate = ask.plate or worker.warm_plate
            self._workers.send(worker, ask.message)

    def _load(self, worker: Any, aside: bool) -> float:
        """How much of what it may have in hand of that kind a worker has."""
        count = sum(a.worker is worker and a.aside is aside for a in self._asked.values())
        return count / _ASIDE_PER_WORKER if aside else count

    def answered(self, message: w.Answer, buffers: tuple[bytes, ...]) -> None:
        """A worker's answer."""
        ask = self._asked.pop(message.ask_id, None)
        if ask is not None:
            try:
                if message.error is not None:
                    raise from_wire(message.error)
                answer = m.from_body(ask.answer, {**message.body_fields, **ask.known})
                self._send(ask.session, answer, ask.parent, buffers)
            except FaceplateError as error:
                self._refuse(ask, error)
        self.dispatch()

    def _refuse(self, ask: _Ask, error: FaceplateError) -> None:
        self._send(ask.session, m.Error(clip_error(error)), ask.parent, ())


def replaced_preview(stamp: int, frame: int) -> m.PreviewResult:
    """The answer to a preview that a newer request of the same session has overtaken."""
    return m.PreviewResult(stamp, frame, "replaced", final=False, note="a newer request took its place")


def worker_died(message: str, frame: int | None) -> JobError:
    """`job.worker_died`."""
    return JobError(
        "job.worker_died",
        message,
        frame=frame,
        remedy="See the worker's log next to the server's log; out of memory is the usual reason.",
    )


def busy(limit: int) -> ServerError:
    """`server.busy`."""
    return ServerError(
        "server.busy",
        f"{limit} requests wait already",
        value=limit,
        remedy="Wait for jobs to end, or raise queue_length in server.toml.",
    )
