"""What the server is doing: devices, memory, queue, and long steps such as loading a model."""

from __future__ import annotations

from collections.abc import Callable

from host_bridge import messages as m
from host_bridge.errors import FaceplateError
from panels.controller.connection import Connection
from panels.controller.observe import Home, Topic

POLL_S = 1.0


class Server:
    """`changed`: there is a newer status. It is asked for once a second while watched, while a job runs, or while a
    preview keeps waiting; `busy` says whether that is so."""

    def __init__(self, home: Home, connection: Connection, busy: Callable[[], bool]) -> None:
        self.status: m.Pong | None = None
        self.changed = Topic()
        self._home = home
        self._connection = connection
        self._busy = busy
        self._watching = False
        self._poll: Callable[[], None] | None = None
        self._asking = False

    @property
    def activity(self) -> tuple[str, float]:
        """The long step a device is in and how far it is (0..1); ("", 0.0) when none."""
        for device in self.status.devices if self.status is not None else ():
            if device.activity:
                return device.activity, device.activity_done
        return "", 0.0

    def watch(self, on: bool) -> None:
        """The tab is looked at, or not."""
        self._watching = on
        if on:
            self.refresh()

    def refresh(self) -> None:
        """Ask now, unless an answer is on its way."""
        if self._connection.ready and not self._asking:
            self._asking = True
            self._connection.ask(m.Ping(), m.Pong, self._answered, timeout_s=5.0)

    def update(self) -> None:
        """Something may have begun that is worth asking about."""
        if not self._connection.ready and self.status is not None:
            self.status = None
            self.changed.emit()
        if self._poll is None and self._connection.ready and (self._watching or self._busy()):
            self._poll = self._home.later(POLL_S, self._due)

    def _due(self) -> None:
        self._poll = None
        if self._watching or self._busy():
            self.refresh()
        elif self.activity[0]:
            self.refresh()  # once more, so that nothing is left standing that has ended

    def _answered(self, outcome: m.Pong | FaceplateError) -> None:
        self._asking = False
        if not isinstance(outcome, FaceplateError) and outcome != self.status:
            self.status = outcome
            self.changed.emit()
        self.update()
