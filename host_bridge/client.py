"""The client: one DEALER on one owned thread, a thread-safe face, and an answer or an error for every request.

Decides how a request is retried (same message id on a fresh socket, until its deadline), when events have a gap
(then `query_job` fills it), and what a failed handshake means. It says nothing and logs nothing while there is no
server; whoever wants to know asks `state` or gives `on_state`.
"""

from __future__ import annotations

import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import zmq
import zmq.utils.monitor

from host_bridge import messages as m
from host_bridge.endpoint import Connection, secure
from host_bridge.envelope import (
    PROTOCOL,
    REPLY_LIMITS,
    REQUEST_LIMITS,
    Envelope,
    Pen,
    malformed,
    new_id,
    pack,
    refused_key,
    unpack,
    version_error,
)
from host_bridge.errors import FaceplateError, JobError, RequestError, ServerError, from_wire
from host_bridge.jobspec import JobSpec, PreviewSpec
from host_bridge.liveness import Action, Liveness, Phase, Schedule
from host_bridge.mailbox import Mailbox

R = TypeVar("R", bound=m.Message)

_HANDSHAKE_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
    zmq.Event.HANDSHAKE_FAILED_AUTH,
)


# A dropped connection looks like a wrong server key until it has happened this often in a row (some 0.4 s).
_HANDSHAKES = 3


class Link(Enum):
    """How things stand with the server."""

    CONNECTING = "connecting"
    READY = "ready"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass
class _Request:
    """One unanswered request; only the client's thread touches it after it was handed over."""

    id: str
    message: m.Message
    future: Future[tuple[m.Message, tuple[bytes, ...]]]
    deadline: float
    sent: bool = False


@dataclass
class _Tracked:
    """A job whose events are wanted: `seq` of the last one delivered, and those held back behind a gap."""

    handle: JobHandle | None
    seq: int = 0
    filling: bool = False
    ended: bool = False


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
        return self._result.result(timeout_s)

    def cancel(self, timeout_s: float = 10.0) -> m.JobStatus:
        """Ask the server to end the job before its next frame."""
        self.accepted.result(timeout_s)
        return self._client.cancel(self.job_id, timeout_s=timeout_s)

    def _deliver(self, event: m.JobEvent) -> None:
        self._events.put(event)
        if isinstance(event, m.JobFinished | m.JobFailed | m.JobCancelled) and not self._result.done():
            error = from_wire(event.error) if isinstance(event, m.JobFailed) else None
            state = event.TYPE.removeprefix("job_")
            self._result.set_result(JobResult(self.job_id, state, event.done, event.failed, event.seconds, error))

    def _fail(self, error: FaceplateError) -> None:
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
        self._connect = connect if callable(connect) else lambda: connect
        self._name = name
        self._on_state = on_state
        self._on_event = on_event
        self._on_close = on_close
        self._state = Link.CONNECTING
        self._changed = threading.Condition()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._mailbox: Mailbox[Callable[[_Loop], None]] = Mailbox(self._context)
        self._loop = _Loop(self, self._context, self._mailbox, schedule or Schedule())
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
        raise self.error or _unreachable(f"no answer within {timeout_s:g} s")

    def send(
        self, message: m.Message, *, timeout_s: float = 10.0, message_id: str = ""
    ) -> Future[tuple[m.Message, tuple[bytes, ...]]]:
        """Send a request; the future holds the answer and its buffers, or the error. Retried until `timeout_s`."""
        request = _Request(message_id or new_id(), message, Future(), time.monotonic() + timeout_s)
        if not self._mailbox.put(lambda loop: loop.take(request)):
            request.future.set_exception(_unreachable("this client is closed"))
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

    def submit(self, job: JobSpec, *, priority: int = 0, timeout_s: float = 30.0, job_id: str = "") -> JobHandle:
        """Submit a job; returns at once. `handle.accepted` tells when it is on the server's disk, or why not.

        `job_id` (32 hex digits) repeats an earlier submission: the server answers with the job it has.
        """
        handle = JobHandle(self, job_id or new_id())
        request = _Request(handle.job_id, m.SubmitJob(job, priority), Future(), time.monotonic() + timeout_s)
        if not self._mailbox.put(lambda loop: loop.submit(request, handle)):
            handle._fail(_unreachable("this client is closed"))
        return handle

    def follow(self, job_id: str, *, after: int = 0, timeout_s: float = 10.0) -> JobHandle:
        """Receive the events of a job submitted elsewhere, from sequence number `after` on (0 = all)."""
        status = self.query(job_id, timeout_s=timeout_s)
        handle = JobHandle(self, status.job_id)
        handle.accepted.set_result(m.JobAccepted(status.job_id, status.state))
        if not self._mailbox.put(lambda loop: loop.follow(handle, after)):
            handle._fail(_unreachable("this client is closed"))
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

    def _set_state(self, state: Link, error: FaceplateError | None) -> None:
        with self._changed:
            changed = state is not self._state
            self._state, self.error = state, error
            self._changed.notify_all()
        if changed and self._on_state:
            self._on_state(state)


class _Loop:
    """What the client's thread does; nothing here is touched by another thread."""

    def __init__(
        self,
        client: Client,
        context: zmq.Context[zmq.Socket[bytes]],
        mailbox: Mailbox[Callable[[_Loop], None]],
        schedule: Schedule,
    ) -> None:
        self._client = client
        self._context = context
        self._mailbox = mailbox
        self._pen = Pen(client.session)
        self._live = Liveness.start(time.monotonic(), schedule)
        self._poller = zmq.Poller()
        self._pending: dict[str, _Request] = {}
        self._jobs: dict[str, _Tracked] = {}
        self._dealer: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._server_session = ""
        self._server_key = ""
        self.endpoint = ""
        self._welcomed = False
        self._shook_hands = False
        self._failed_handshakes = 0
        self._connection: Connection | None = None
        self._running = True

    # the loop

    def run(self) -> None:
        """Serve until stopped; whatever ends it, nobody is left waiting."""
        try:
            self._serve()
        finally:
            self._end()

    def _serve(self) -> None:
        self._poller.register(self._mailbox.socket, zmq.POLLIN)
        self._open()
        while self._running:
            ready = dict(self._poller.poll(self._wait_ms()))
            if self._mailbox.socket in ready:
                for command in self._mailbox.drain():
                    command(self)
            if self._dealer in ready:
                self._receive()
            if self._monitor in ready:
                self._watch()
            self._expire()
            self._live, action = self._live.tick(time.monotonic())
            if action is Action.RECONNECT:
                self._open()
            elif action is Action.PING:
                self._write(self._pen.header(m.Ping.TYPE).id, m.Ping())
            elif self._live.phase is Phase.LOST and self._dealer is not None:
                self._close(Link.UNREACHABLE, _unreachable(f"{self.endpoint} does not answer"))

    def _end(self) -> None:
        self._close(Link.CLOSED, None)
        self._poller.unregister(self._mailbox.socket)
        for command in self._mailbox.close():
            command(self)
        gone = _unreachable("this client was closed")
        for request in list(self._pending.values()):
            self._settle(request, gone)
        for tracked in self._jobs.values():
            if tracked.handle and not tracked.ended:
                tracked.handle._fail(gone)

    def _wait_ms(self) -> int:
        due = [self._live.due(), *(r.deadline for r in self._pending.values())]
        return max(0, min(1000, int((min(due) - time.monotonic()) * 1000) + 1))

    def stop(self) -> None:
        self._running = False

    # requests

    def take(self, request: _Request) -> None:
        self._pending[request.id] = request
        if self._client.state is Link.REFUSED and self._client.error:
            self._settle(request, self._client.error)
        elif self._welcomed:
            self._send(request)

    def submit(self, request: _Request, handle: JobHandle) -> None:
        self._jobs[request.id] = _Tracked(handle)
        request.future.add_done_callback(lambda answer: self._submitted(answer, handle))
        self.take(request)

    def _submitted(self, answer: Future[tuple[m.Message, tuple[bytes, ...]]], handle: JobHandle) -> None:
        error = answer.exception()
        if error is None:
            reply, _ = answer.result()
            if isinstance(reply, m.JobAccepted):
                handle.accepted.set_result(reply)
                if reply.duplicate:
                    self._fill(handle.job_id)
                return
            error = malformed(f"submit_job was answered with {reply.TYPE}")
        self._jobs.pop(handle.job_id, None)
        handle._fail(error if isinstance(error, FaceplateError) else _unreachable(str(error)))

    def follow(self, handle: JobHandle, after: int) -> None:
        if handle.job_id in self._jobs:
            handle._fail(
                RequestError(
                    "request.bad_value",
                    f"this client follows job {handle.job_id} already",
                    value=handle.job_id,
                    remedy="Use the handle you have, or another client.",
                )
            )
            return
        self._jobs[handle.job_id] = _Tracked(handle, after)
        self._fill(handle.job_id)

    def _send(self, request: _Request) -> None:
        try:
            request.sent = self._write(request.id, request.message)
        except FaceplateError as error:
            self._settle(request, error)

    def _write(self, message_id: str, message: m.Message) -> bool:
        if self._dealer is None:
            return False
        header = self._pen.header(message.TYPE, message_id)
        try:
            self._dealer.send_multipart(pack(Envelope(header, None, message.body()), REQUEST_LIMITS), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _settle(self, request: _Request, outcome: FaceplateError | tuple[m.Message, tuple[bytes, ...]]) -> None:
        self._pending.pop(request.id, None)
        if not request.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, FaceplateError):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)

    def _expire(self) -> None:
        now = time.monotonic()
        for request in [r for r in self._pending.values() if r.deadline <= now]:
            why = self._client.error or _unreachable(f"{self.endpoint or 'the server'} did not answer in time")
            self._settle(request, why)

    # the socket

    def _open(self) -> None:
        self._close(Link.CONNECTING, self._client.error)
        try:
            connection = self._client._connect()
            self._connection = connection
            self.endpoint, self._server_key = connection.endpoint, connection.server_key
            dealer = self._context.socket(zmq.DEALER)
            self._dealer = dealer
            dealer.linger = 0
            dealer.ipv6 = "[" in connection.endpoint
            dealer.reconnect_ivl = 100
            dealer.reconnect_ivl_max = 1000
            dealer.maxmsgsize = max(REPLY_LIMITS.body, REPLY_LIMITS.buffer)
            secure(dealer, connection)
            self._monitor = dealer.get_monitor_socket(
                zmq.Event.HANDSHAKE_SUCCEEDED
                | zmq.Event.DISCONNECTED
                | zmq.Event.CONNECT_RETRIED
                | _HANDSHAKE_FAILED[0]
                | _HANDSHAKE_FAILED[1]
                | _HANDSHAKE_FAILED[2]
            )
            dealer.connect(connection.endpoint)
            self._poller.register(dealer, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
        except FaceplateError as error:
            self._give_up(Link.UNREACHABLE, error)
            return
        except zmq.ZMQError as error:
            self._give_up(Link.UNREACHABLE, _unreachable(f"cannot connect to {self.endpoint}: {error}"))
            return
        self._write(self._pen.header(m.Hello.TYPE).id, m.Hello(self._client._name, platform.node()))

    def _close(self, state: Link, error: FaceplateError | None) -> None:
        self._welcomed = self._shook_hands = False
        self._failed_handshakes = 0
        for request in self._pending.values():
            request.sent = False
        for tracked in self._jobs.values():
            tracked.filling = False
        for sock in (self._dealer, self._monitor):
            if sock is not None and sock in self._poller:
                self._poller.unregister(sock)
        if self._dealer is not None:
            self._dealer.disable_monitor()
            self._dealer.close()
        if self._monitor is not None:
            self._monitor.close()
        self._dealer = self._monitor = None
        self._client._set_state(state, error)

    def _give_up(self, state: Link, error: FaceplateError) -> None:
        self._close(state, error)
        self._live = self._live.lost(time.monotonic())

    def _watch(self) -> None:
        while self._monitor is not None:
            try:
                event = zmq.utils.monitor.recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            kind = zmq.Event(event["event"])
            if kind is zmq.Event.HANDSHAKE_SUCCEEDED:
                self._shook_hands = True
            elif kind in _HANDSHAKE_FAILED:
                self._failed_handshakes += 1
                if kind is zmq.Event.HANDSHAKE_FAILED_AUTH or self._failed_handshakes >= _HANDSHAKES:
                    self._refuse(refused_key(self.endpoint, self._server_key))
            elif kind is zmq.Event.CONNECT_RETRIED and self._moved():
                self._open()
                return
            elif kind is zmq.Event.DISCONNECTED and self._shook_hands:
                self._give_up(Link.UNREACHABLE, _unreachable(f"{self.endpoint} closed the connection"))

    def _moved(self) -> bool:
        """Whether the server is announced elsewhere now, having been restarted."""
        try:
            return self._client._connect() != self._connection
        except FaceplateError:
            return False  # not announced yet

    def _receive(self) -> None:
        while self._dealer is not None:
            try:
                frames = self._dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._live = self._live.heard(time.monotonic())
            try:
                self._handle(unpack(frames, REPLY_LIMITS))
            except FaceplateError as error:
                if error.code == "request.version":
                    self._refuse(version_error(str(error.value), their_role="server"))
                # Anything else from a known server's key is noise we cannot place; its request runs to its deadline.

    # what arrives

    def _handle(self, envelope: Envelope) -> None:
        type_, parent = envelope.header.type, envelope.parent
        if parent is None:
            event = m.event_from_body(type_, envelope.body)
            if event is not None:
                self._event(event)
            return
        request = self._pending.get(parent.id)
        if type_ == m.Error.TYPE:
            error = from_wire(envelope.body.get("error") or {})
            if error.code == "request.version":
                self._refuse(error)
            elif request:
                self._settle(request, error)
            return
        cls = m.BY_TYPE.get(type_)
        if cls is None:
            return
        message = m.from_body(cls, envelope.body)
        if isinstance(message, m.Welcome):
            self._welcome(message, envelope.header.session)
        elif isinstance(message, m.Pong):
            for job_id, seq in message.jobs.items():
                if job_id in self._jobs and seq > self._jobs[job_id].seq:
                    self._fill(job_id)
        if request:
            self._settle(request, (message, envelope.buffers))

    def _welcome(self, message: m.Welcome, session: str) -> None:
        restarted = bool(self._server_session) and session != self._server_session
        fresh = not self._welcomed
        self._server_session, self._welcomed = session, True
        self._client.welcome = message
        self._client._set_state(Link.READY, None)
        if not fresh:
            return
        for request in list(self._pending.values()):
            if not request.sent:
                self._send(request)
        for job_id, tracked in self._jobs.items():
            if not tracked.ended and (restarted or tracked.seq or job_id not in self._pending):
                self._fill(job_id)

    def _refuse(self, error: FaceplateError) -> None:
        self._give_up(Link.REFUSED, error)
        for request in list(self._pending.values()):
            self._settle(request, error)

    # events

    def _event(self, event: m.JobEvent) -> None:
        tracked = self._jobs.get(event.job_id)
        if tracked is None:
            if self._client._on_event:
                self._client._on_event(event)
            return
        if tracked.ended:
            return
        if isinstance(event, m.JobProgress):
            if event.seq > tracked.seq:
                self._fill(event.job_id)
        elif event.seq <= tracked.seq:
            return
        elif event.seq > tracked.seq + 1:
            self._fill(event.job_id)
            return
        else:
            tracked.seq = event.seq
        tracked.ended = event.TYPE in m.TERMINAL_EVENTS
        if self._client._on_event:
            self._client._on_event(event)
        if tracked.handle:
            tracked.handle._deliver(event)
        if tracked.ended:
            del self._jobs[event.job_id]

    def _fill(self, job_id: str) -> None:
        tracked = self._jobs.get(job_id)
        if tracked is None or tracked.filling or not self._welcomed:
            return
        tracked.filling = True
        request = _Request(new_id(), m.QueryJob(job_id, tracked.seq), Future(), time.monotonic() + 10.0)
        request.future.add_done_callback(lambda answer: self._filled(job_id, answer))
        self.take(request)

    def _filled(self, job_id: str, answer: Future[tuple[m.Message, tuple[bytes, ...]]]) -> None:
        tracked = self._jobs.get(job_id)
        if tracked is None:
            return
        tracked.filling = False
        error = answer.exception()
        if error is not None:
            if isinstance(error, JobError) and error.code == "job.unknown" and job_id not in self._pending:
                del self._jobs[job_id]
                if tracked.handle:
                    tracked.handle._fail(error)
            return  # a lost connection: asked again after the next welcome
        status, _ = answer.result()
        if not isinstance(status, m.JobStatus):
            return
        for body in status.events:
            event = m.event_from_body(str(body.get("type")), body)
            if event is None:
                continue
            if event.TYPE in m.TERMINAL_EVENTS and event.seq < status.last_seq:
                tracked.seq = event.seq  # of an attempt before the job was resumed
            else:
                self._event(event)
        if self._jobs.get(job_id) is not tracked:
            return
        if status.more:
            self._fill(job_id)
            return
        tracked.seq = max(tracked.seq, status.last_seq)
        if status.ended:
            # Its last event could not be stored (a full disk); the record still says how it ended.
            last = {"job_id": job_id, "seq": tracked.seq + 1, "done": status.done, "failed": status.failed}
            event = m.event_from_body(f"job_{status.state}", {**last, "error": status.error or {}})
            if event is not None:
                self._event(event)


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


def _unreachable(why: str) -> ServerError:
    return ServerError(
        "server.unreachable", why, remedy=f"Check `faceplate status`, or start a server (protocol {PROTOCOL})."
    )
