"""The connection to a server: which one, how things stand, and asking it without ever waiting.

Nothing is connected until the host or the artist asks. Once it is, the client keeps trying by itself: a server that
goes away is shown as unreachable and found again when it is back, on another port and with other keys if need be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from host_bridge import launcher
from host_bridge import messages as m
from host_bridge.client import Client, Link
from host_bridge.endpoint import CONNECTION_FILE, runtime_dir
from host_bridge.endpoint import Connection as Address
from host_bridge.envelope import malformed
from host_bridge.errors import FaceplateError, ServerError
from panels.controller.observe import Errands, Home, Topic

A = TypeVar("A", bound=m.Message)
F = TypeVar("F")
R = TypeVar("R")
# Links besides those of `host_bridge.client.Link`.
OFFLINE, STARTING = "offline", "starting"
CONNECTING, READY, UNREACHABLE, REFUSED = "connecting", "ready", "unreachable", "refused"


@dataclass(frozen=True)
class ConnectionState:
    """`link`: offline (nobody asked yet), starting (a local server), connecting, ready, unreachable (tried again by
    itself) or refused. `endpoint` is the address, `wanted` what the artist named ("" = this machine's own server)."""

    link: str = OFFLINE
    endpoint: str = ""
    wanted: str = ""
    server: str = ""
    devices: tuple[str, ...] = ()
    max_preview: int = 2048
    log: str = ""
    error: FaceplateError | None = None

    @property
    def ready(self) -> bool:
        return self.link == READY


class Connection:
    """See the module. `changed`: the state is another; `welcomed(restarted)`: a server is there (again), `restarted`
    tells whether it is another process than before."""

    def __init__(self, home: Home, errands: Errands, name: str = "faceplate panel") -> None:
        self.state = ConnectionState()
        self.changed = Topic()
        self.welcomed = Topic()
        self.on_event: Callable[[m.JobEvent], None] | None = None  # called on the client's thread
        self.client: Client | None = None
        self._home = home
        self._errands = errands
        self._name = name
        self._attempt = 0
        self._greeted: tuple[int, str] | None = None

    @property
    def ready(self) -> bool:
        return self.state.ready

    # what the artist does

    def start(self) -> None:
        """Start this machine's server, or attach to the one that runs."""
        attempt = self._begin(STARTING, "")

        def started(outcome: object) -> None:
            if attempt != self._attempt:
                return
            if isinstance(outcome, FaceplateError):
                self._set(link=UNREACHABLE, error=outcome)
            else:
                self._open(launcher.source(_local_file()))

        self._errands.run(launcher.serve_detached, started)

    def attach(self) -> None:
        """Use $FACEPLATE_SERVER, else this machine's own server, as soon as it runs; start none."""
        self.connect_to(os.environ.get("FACEPLATE_SERVER", ""))

    def connect_to(self, endpoint: str) -> None:
        """Use the server of a connection file's path or of tcp://host:port; "" is this machine's own."""
        attempt = self._begin(CONNECTING, endpoint)

        def found(source: Callable[[], Address] | FaceplateError) -> None:
            if attempt != self._attempt:
                return
            if isinstance(source, FaceplateError):
                self._set(link=REFUSED, error=source)
            else:
                self._open(source)

        self._errands.run(lambda: launcher.source(endpoint or _local_file()), found)

    def disconnect(self) -> None:
        """Forget the server; it goes on by itself."""
        self._begin(OFFLINE, "")

    def stop_server(self, done: Callable[[m.Bye | FaceplateError], None]) -> None:
        """Stop the server, then disconnect. Unfinished jobs go on at its next start."""

        def stopped(outcome: m.Bye | FaceplateError) -> None:
            if not isinstance(outcome, FaceplateError):
                self.disconnect()
            done(outcome)

        self.ask(m.Shutdown(), m.Bye, stopped)

    def close(self) -> None:
        """Disconnect and wait until the client's thread has ended."""
        self._attempt += 1
        client, self.client = self.client, None
        if client is not None:
            client.close()

    # what the other parts use

    def ask(
        self, message: m.Message, answer: type[A], done: Callable[[A | FaceplateError], None], timeout_s: float = 20.0
    ) -> None:
        """Send a request; `done` gets the answer or the error on the home thread. Sent again after a reconnection."""

        def convert(reply: tuple[m.Message, tuple[bytes, ...]]) -> A:
            if not isinstance(reply[0], answer):
                raise malformed(f"{message.TYPE} was answered with {reply[0].TYPE}, expected {answer.TYPE}")
            return reply[0]

        client = self.client
        if client is None:
            error = self.state.error or not_connected()
            self._home.post(lambda: done(error))
        else:
            self.hand_over(client.send(message, timeout_s=timeout_s), convert, done)

    def hand_over(
        self, future: Future[F], convert: Callable[[F], R], done: Callable[[R | FaceplateError], None]
    ) -> None:
        """Give a future's result, converted, or its error to `done` on the home thread."""

        def finished(settled: Future[F]) -> None:
            outcome: R | FaceplateError
            try:
                outcome = convert(settled.result())
            except FaceplateError as error:
                outcome = error
            self._home.post(lambda: done(outcome))

        future.add_done_callback(finished)

    def lost(self, error: FaceplateError) -> bool:
        """Whether an answer is missing because the server went away: asked again after its welcome."""
        return error.code == "server.unreachable" and not self.ready

    def second_client(self, name: str) -> Client | None:
        """Another session with the same server, owned by the caller; None where there is no connection."""
        return Client(self.client.source, name=name) if self.client is not None else None

    def dismiss(self, client: Client) -> None:
        """Close a client without waiting for it."""
        self._errands.run(client.close, lambda _: None)

    # how things stand

    def _begin(self, link: str, wanted: str) -> int:
        """Leave the server there is; what is still on its way from it is not heard any more."""
        self._attempt += 1
        client, self.client = self.client, None
        if client is not None:
            self.dismiss(client)
        self.state = ConnectionState(link=link, wanted=wanted)
        self.changed.emit()
        return self._attempt

    def _open(self, source: Callable[[], Address]) -> None:
        attempt = self._attempt
        self.client = Client(
            source,
            name=self._name,
            on_state=lambda link: self._home.post(lambda: self._heard(attempt, link)),
            on_event=self._event,
        )

    def _event(self, event: m.JobEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _heard(self, attempt: int, link: Link) -> None:
        """The client says how things stand; between two tries it stays what the last one found."""
        client = self.client
        if attempt != self._attempt or client is None or link is not client.state:
            return
        if link is Link.READY and client.welcome is not None:
            welcome = client.welcome
            self._set(
                link=READY,
                endpoint=client.endpoint,
                server=welcome.server,
                devices=tuple(welcome.devices),
                max_preview=welcome.max_preview or 2048,
                log=welcome.log,
                error=None,
            )
            greeted, self._greeted = self._greeted, (welcome.pid, client.endpoint)
            self.welcomed.emit(greeted is not None and greeted != self._greeted)
        elif link in (Link.UNREACHABLE, Link.REFUSED):
            self._set(link=link.value, endpoint=client.endpoint, error=client.error)
        elif link is Link.CONNECTING and self.state.error is None:
            self._set(link=CONNECTING)

    def _set(self, **changes: Any) -> None:
        state = replace(self.state, **changes)
        if state != self.state:
            self.state = state
            self.changed.emit()


def not_connected() -> ServerError:
    """`server.not_running`, for what needs a server before one was asked for."""
    return ServerError(
        "server.not_running", "there is no server", remedy="Start one, or connect to one, in the tab Server."
    )


def _local_file() -> str:
    return str(runtime_dir() / CONNECTION_FILE)
