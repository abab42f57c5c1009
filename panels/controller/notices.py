"""What the artist should know and did not ask for: errors of things done in the background, warnings, good news."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from host_bridge.errors import FaceplateError
from panels.controller.observe import Topic

KEPT = 100


@dataclass(frozen=True)
class Notice:
    """`level` is error, warning or info; `error` carries code and remedy where there is one."""

    level: str
    text: str
    remedy: str = ""
    error: FaceplateError | None = None
    time: float = field(default_factory=time.time)


class Notices:
    """`noticed(notice)`: something is to be shown. The newest `KEPT` are kept, newest first."""

    def __init__(self) -> None:
        self.kept: tuple[Notice, ...] = ()
        self.noticed = Topic()

    def error(self, error: FaceplateError) -> None:
        where = "".join(
            (f" [frame {error.frame}]" if error.frame is not None else "", f" [{error.path}]" * bool(error.path))
        )
        self._add(Notice("error", error.message + where, error.remedy, error))

    def warning(self, text: str, remedy: str = "") -> None:
        self._add(Notice("warning", text, remedy))

    def info(self, text: str) -> None:
        self._add(Notice("info", text))

    def _add(self, notice: Notice) -> None:
        self.kept = (notice, *self.kept[: KEPT - 1])
        self.noticed.emit(notice)
