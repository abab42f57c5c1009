"""What the server is doing: devices, memory, queue, and long steps such as loading a model."""

from __future__ import annotations

from host_bridge import messages as m
from panels.controller.observe import Topic


class Server:
    """`changed`: there is a newer status. It is asked for once a second while watched, while a job runs, or while a
    preview keeps waiting."""

    status: m.Pong | None
    changed: Topic

    @property
    def activity(self) -> tuple[str, float]:
        """The long step a device is in and how far it is (0..1); ("", 0.0) when none."""
        raise NotImplementedError

    def watch(self, on: bool) -> None:
        """The tab is looked at, or not."""
