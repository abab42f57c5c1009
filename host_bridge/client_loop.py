"""The client's thread: its socket, what it waits for, and the order of events. No other thread touches anything here.

Decides when a request is sent again, when events have a gap (then `query_job` fills it), and what a failed handshake
means. `client.py` is the thread-safe face of this; the two talk through a mailbox and futures.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

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
from host_bridge.liveness import Action, Liveness, Phase, Schedule
from host_bridge.mailbox import Mailbox

if TYPE_CHECKING:
    from host_bridge.client import Client, JobHandle

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
class Request:
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


class Loop:
    """What the client's thread does."""

    def __init__(
        self,
        client: Client,
        context: zmq.Context[zmq.Socket[bytes]],
        mailbox: Mailbox[Callable[[Loop], None]],
        schedule: Schedule,
    ) -> None:
        self._client = client
        self._context = context
        self._mailbox = mailbox
        self._pen = Pen(client.session)
        self._live = Liveness.start(time.monotonic(), schedule)
        self._poller = zmq.Poller()
        self._pending: dict[str, Request] = {}
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
                self._close(Link.UNREACHABLE, unreachable(f"{self.endpoint} does not answer"))

    def _end(self) -> None:
        self._close(Link.CLOSED, None)
        self._poller.unregister(self._mailbox.socket)
        for command in self._mailbox.close():
            command(self)
        gone = unreachable("this client was closed")
        for request in list(self._pending.values()):
            self._settle(request, gone)
        for tracked in self._jobs.values():
            if tracked.handle and not tracked.ended:
                tracked.handle.fail(gone)

    def _wait_ms(self) -> int:
        due = [self._live.due(), *(r.deadline for r in self._pending.values())]
        return max(0, min(1000, int((min(due) - time.monotonic()) * 1000) + 1))

    def stop(self) -> None:
        self._running = False

    # requests

    def take(self, request: Request) -> None:
        self._pending[request.id] = request
        if self._client.state is Link.REFUSED and self._client.error:
            self._settle(request, self._client.error)
        elif self._welcomed:
            self._send(request)

    def submit(self, request: Request, handle: JobHandle) -> None:
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
        handle.fail(error if isinstance(error, FaceplateError) else unreachable(str(error)))

    def follow(self, handle: JobHandle, after: int) -> None:
        if handle.job_id in self._jobs:
            handle.fail(
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

    def _send(self, request: Request) -> None:
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

    def _settle(self, request: Request, outcome: FaceplateError | tuple[m.Message, tuple[bytes, ...]]) -> None:
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
            why = self._client.error or unreachable(f"{self.endpoint or 'the server'} did not answer in time")
            self._settle(request, why)

    # the socket

    def _open(self) -> None:
        self._close(Link.CONNECTING, self._client.error)
        try:
            connection = self._client.source()
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
            self._give_up(Link.UNREACHABLE, unreachable(f"cannot connect to {self.endpoint}: {error}"))
            return
        self._write(self._pen.header(m.Hello.TYPE).id, m.Hello(self._client.name, platform.node()))

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
        self._client.set_state(state, error)

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
                self._give_up(Link.UNREACHABLE, unreachable(f"{self.endpoint} closed the connection"))

    def _moved(self) -> bool:
        """Whether the server is announced elsewhere now, having been restarted."""
        try:
            return self._client.source() != self._connection
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
        self._client.set_state(Link.READY, None)
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
            if self._client.on_event:
                self._client.on_event(event)
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
        if self._client.on_event:
            self._client.on_event(event)
        if tracked.handle:
            tracked.handle.deliver(event)
        if tracked.ended:
            del self._jobs[event.job_id]

    def _fill(self, job_id: str) -> None:
        tracked = self._jobs.get(job_id)
        if tracked is None or tracked.filling or not self._welcomed:
            return
        tracked.filling = True
        request = Request(new_id(), m.QueryJob(job_id, tracked.seq), Future(), time.monotonic() + 10.0)
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
                    tracked.handle.fail(error)
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


def unreachable(why: str) -> ServerError:
    """`server.unreachable` with the reason."""
    return ServerError(
        "server.unreachable", why, remedy=f"Check `faceplate status`, or start a server (protocol {PROTOCOL})."
    )
