"""The client: one DEALER on one owned thread, a thread-safe face, and an answer or an error for every request.

Requests are sent, repeated and matched with answers on the client's own thread (`client_loop.py`). A client says
nothing and logs nothing while there is no server; whoever wants to know asks `state` or gives `on_state`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq

from host_bridge import messages as m
from host_bridge.client_loop import Link, Loop, Request, unreachable
from host_bridge.endpoint import Connection
from host_bridge.envelope import malformed, new_id
from host_bridge.errors import FaceplateError, ServerError, from_wire
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from host_bridge.liveness import Schedule
from host_bridge.mailbox import Mailbox

__all__ = ["Client", "JobHandle", "JobResult", "Link", "PreviewPixels"]

R = TypeVar("R", bound=m.Message)


@dataclass(frozen=True)
class JobResult:
    """How a job ended: `state` is finished, failed or cancelled."""

    job_id: str
    state: str
    done: int
    failed: int
    seconds: float
    error: FaceplateError | None = None


@dataclass(frozen=True)
class PreviewPixels:
    """A preview's answer and its pixels: row-major uint8 [h, w, 3]; b"" when it was replaced by a newer request."""

    result: m.PreviewResult
    pixels: bytes


class JobHandle:
    """A job this client submitted or follows."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.job_id = job_id
        self.accepted: Future[m.JobAccepted] = Future()
        self._client = client
        self._events: queue.SimpleQueue[m.JobEvent | FaceplateError] = queue.SimpleQueue()
        self._result: Future[JobResult] = Future()

    def events(self, timeout_s: float | None = None) -> Iterator[m.JobEvent]:
        """Every event in order, each once, up to and with the last one. One iterator per handle.

        Raises the error that refused the job, and ServerError (`server.unreachable`) after `timeout_s` of silence.
        """
        while True:
            try:
                item = self._events.get(timeout=timeout_s)
            except queue.Empty:
                raise ServerError(
                    "server.unreachable",
                    f"no event of job {self.job_id} for {timeout_s:g} s",
                    value=self.job_id,
                    remedy="The job is stored and goes on when the server does; ask `faceplate jobs show`.",
                ) from None
            if isinstance(item, FaceplateError):
                raise item
            yield item
            if item.TYPE in m.TERMINAL_EVENTS:
                return

    def wait(self, timeout_s: float | None = None) -> JobResult:
        """Block until the job has ended. Raises the error that refused it, or TimeoutError."""
        try:
            return self._result.result(timeout_s)
        except FutureTimeout as error:  # another class than TimeoutError before Python 3.11
            raise TimeoutError(f"job {self.job_id} has not ended within {timeout_s} s") from error

    def cancel(self, timeout_s: float = 10.0) -> m.JobStatus:
        """Ask the server to end the job before its next frame."""
        self.accepted.result(timeout_s)
        return self._client.cancel(self.job_id, timeout_s=timeout_s)

    def deliver(self, event: m.JobEvent) -> None:
        """The client's thread hands over the next event."""
        self._events.put(event)
        if isinstance(event, m.JobFinished | m.JobFailed | m.JobCancelled) and not self._result.done():
            error = from_wire(event.error) if isinstance(event, m.JobFailed) else None
            state = event.TYPE.removeprefix("job_")
            self._result.set_result(JobResult(self.job_id, state, event.done, event.failed, event.seconds, error))

    def fail(self, error: FaceplateError) -> None:
        """The client's thread hands over why there will be no events."""
        if not self.accepted.done():
            self.accepted.set_exception(error)
        if not self._result.done():
            self._result.set_exception(error)
        self._events.put(error)


class Client:
    """A connection to a server. All public methods may be called from any thread; `close` ends it.

    `connect` returns where to connect and is asked again for every fresh socket, so that a restarted server's new
    connection file is found. `on_state` and `on_event` are called on the client's thread and must be quick.
    """

    def __init__(
        self,
        connect: Callable[[], Connection] | Connection,
        *,
        name: str = "faceplate",
        on_state: Callable[[Link], None] | None = None,
        on_event: Callable[[m.JobEvent], None] | None = None,
        schedule: Schedule | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.session = new_id()
        self.error: FaceplateError | None = None
        self.welcome: m.Welcome | None = None
        self.source = connect if callable(connect) else lambda: connect
        self.name = name
        self._on_state = on_state
        self.on_event = on_event
        self._on_close = on_close
        self._state = Link.CONNECTING
        self._changed = threading.Condition()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._mailbox: Mailbox[Callable[[Loop], None]] = Mailbox(self._context)
        self._loop = Loop(self, self._context, self._mailbox, schedule or Schedule())
        self._thread = threading.Thread(target=self._loop.run, name="faceplate-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> Link:
        return self._state

    @property
    def endpoint(self) -> str:
        """Where it connects, or did last."""
        return self._loop.endpoint

    def wait_ready(self, timeout_s: float = 5.0) -> m.Welcome:
        """Block until the server has answered hello; raises what went wrong (`server.wrong_key`, `request.version`,
        `server.unreachable`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._state in (Link.READY, Link.REFUSED, Link.CLOSED), timeout_s)
            if self._state is Link.READY and self.welcome:
                return self.welcome
        raise self.error or unreachable(f"no answer within {timeout_s:g} s")

    def send(
        self, message: m.Message, *, timeout_s: float = 10.0, message_id: str = ""
    ) -> Future[tuple[m.Message, tuple[bytes, ...]]]:
        """Send a request; the future holds the answer and its buffers, or the error. Retried until `timeout_s`."""
        request = Request(message_id or new_id(), message, Future(), time.monotonic() + timeout_s)
        if not self._mailbox.put(lambda loop: loop.take(request)):
            request.future.set_exception(unreachable("this client is closed"))
        return request.future

    def ask(self, message: m.Message, answer: type[R], *, timeout_s: float = 10.0) -> R:
        """Send a request and block for its answer."""
        reply, _ = self.send(message, timeout_s=timeout_s).result()
        if not isinstance(reply, answer):
            raise malformed(f"{message.TYPE} was answered with {reply.TYPE}, expected {answer.TYPE}")
        return reply

    def ping(self, timeout_s: float = 5.0) -> m.Pong:
        """How busy the server is."""
        return self.ask(m.Ping(), m.Pong, timeout_s=timeout_s)

    def list_effects(self, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Descriptors of every effect (host_bridge/effects.py)."""
        return self.ask(m.ListEffects(), m.Effects, timeout_s=timeout_s).effects

    def list_color(self, ocio: str = "", timeout_s: float = 60.0) -> m.Color:
        """What an OCIO config offers, and its hash."""
        return self.ask(m.ListColor(ocio), m.Color, timeout_s=timeout_s)

    def list_models(self, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Model cards and whether each is present."""
        return self.ask(m.ListModels(), m.Models, timeout_s=timeout_s).models

    def describe_plate(self, plate: PlateSpec, ocio: str = "", timeout_s: float = 30.0) -> m.Plate:
        """A plate's frames, size, layers and colourspace."""
        return self.ask(m.DescribePlate(plate, ocio), m.Plate, timeout_s=timeout_s)

    def list_faces(self, job: JobSpec, frame: int, timeout_s: float = 60.0) -> m.Faces:
        """The faces of a frame and the tracks of its shot."""
        return self.ask(m.ListFaces(job, frame), m.Faces, timeout_s=timeout_s)

    def import_model(
        self, path: str, model: str = "", *, accept_licence: bool = False, template: str = "", timeout_s: float = 20.0
    ) -> m.Models:
        """Start to import a model file; `imports` tells how far it is."""
        return self.ask(m.ImportModel(path, model, accept_licence, template), m.Models, timeout_s=timeout_s)

    def imports(self, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Imports since the server's start, newest first."""
        return self.ask(m.ListModels(), m.Models, timeout_s=timeout_s).imports

    def submit(self, job: JobSpec, *, priority: int = 0, timeout_s: float = 30.0, job_id: str = "") -> JobHandle:
        """Submit a job; returns at once. `handle.accepted` tells when it is on the server's disk, or why not.

        `job_id` (32 hex digits) repeats an earlier submission: the server answers with the job it has.
        """
        handle = JobHandle(self, job_id or new_id())
        request = Request(handle.job_id, m.SubmitJob(job, priority), Future(), time.monotonic() + timeout_s)
        if not self._mailbox.put(lambda loop: loop.submit(request, handle)):
            handle.fail(unreachable("this client is closed"))
        return handle

    def follow(self, job_id: str, *, after: int = 0, timeout_s: float = 10.0) -> JobHandle:
        """Receive the events of a job submitted elsewhere, from sequence number `after` on (0 = all)."""
        status = self.query(job_id, timeout_s=timeout_s)
        handle = JobHandle(self, status.job_id)
        handle.accepted.set_result(m.JobAccepted(status.job_id, status.state))
        if not self._mailbox.put(lambda loop: loop.follow(handle, after)):
            handle.fail(unreachable("this client is closed"))
        return handle

    def cancel(self, job_id: str, timeout_s: float = 10.0) -> m.JobStatus:
        """End a job before its next frame."""
        return self.ask(m.CancelJob(job_id), m.JobStatus, timeout_s=timeout_s)

    def resume(self, job_id: str, timeout_s: float = 10.0) -> m.JobStatus:
        """Queue a failed or cancelled job again."""
        return self.ask(m.ResumeJob(job_id), m.JobStatus, timeout_s=timeout_s)

    def query(self, job_id: str, *, after: int = -1, timeout_s: float = 10.0) -> m.JobStatus:
        """A job's state; with `after` >= 0 its events after that one (at most some hundreds, see `more`)."""
        return self.ask(m.QueryJob(job_id, after), m.JobStatus, timeout_s=timeout_s)

    def list_jobs(self, state: str = "", limit: int = 100, timeout_s: float = 10.0) -> list[m.JobStatus]:
        """The newest jobs."""
        return self.ask(m.ListJobs(state, limit), m.Jobs, timeout_s=timeout_s).jobs

    def preview(self, spec: PreviewSpec, *, stamp: int = 0, timeout_s: float = 60.0) -> Future[PreviewPixels]:
        """Ask for one picture; an unfinished earlier request is answered `replaced`."""
        done: Future[PreviewPixels] = Future()

        def convert(answer: Future[tuple[m.Message, tuple[bytes, ...]]]) -> None:
            error = answer.exception()
            if error is not None:
                done.set_exception(error)
                return
            reply, buffers = answer.result()
            if isinstance(reply, m.PreviewResult) and _fits(reply, buffers):
                done.set_result(PreviewPixels(reply, buffers[0] if buffers else b""))
            else:
                done.set_exception(malformed("the preview's buffer does not have the size its shape says"))

        self.send(m.Preview(spec, stamp), timeout_s=timeout_s).add_done_callback(convert)
        return done

    def shutdown(self, timeout_s: float = 10.0) -> None:
        """Stop the server."""
        self.ask(m.Shutdown(), m.Bye, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection; unanswered requests fail. Harmless when done twice. Not from a callback."""
        self._mailbox.put(lambda loop: loop.stop())
        self._thread.join()
        self._context.term()
        on_close, self._on_close = self._on_close, None
        if on_close:
            on_close()

    def set_state(self, state: Link, error: FaceplateError | None) -> None:
        """The client's thread says how things stand."""
        with self._changed:
            changed = state is not self._state
            self._state, self.error = state, error
            self._changed.notify_all()
        if changed and self._on_state:
            self._on_state(state)


def _fits(reply: m.PreviewResult, buffers: tuple[bytes, ...]) -> bool:
    if reply.state != "made":
        return not buffers
    sizes = [s for s in reply.shape if isinstance(s, int) and s > 0]
    return (
        reply.dtype == "uint8"
        and len(sizes) == len(reply.shape) == 3
        and sizes[2] == 3
        and len(buffers) == 1
        and len(buffers[0]) == sizes[0] * sizes[1] * sizes[2]
    )
