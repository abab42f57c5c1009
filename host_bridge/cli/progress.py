"""How a running job is shown: a bar for people, lines for farms, JSON for programs."""

from __future__ import annotations

import abc
import json
import sys
import time
from collections.abc import Callable
from typing import TextIO

from host_bridge.client import JobResult
from host_bridge.errors import FaceplateError, from_wire
from host_bridge.messages import FrameDoneEvent, FrameFailedEvent, JobEvent, JobProgress, JobStarted, JobWarning

_SILENCE_S = 10.0
MODES = ("auto", "bar", "farm", "json")


class Reporter(abc.ABC):
    """Base of the three. `shot` is the analysed shot's id once it is known."""

    def __init__(self, out: TextIO) -> None:
        self.shot = ""
        self._out = out

    @abc.abstractmethod
    def show(self, event: JobEvent) -> None:
        """Called for every event, in order."""

    @abc.abstractmethod
    def close(self, result: JobResult, error: FaceplateError | None) -> None:
        """Called once, after the last event."""

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class BarReporter(Reporter):
    """One line that is redrawn; warnings and failed frames stay above it."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._began = time.monotonic()
        self._width = 0

    def show(self, event: JobEvent) -> None:
        if isinstance(event, JobWarning | FrameFailedEvent):
            self._wipe()
            self._line(describe(event))
        elif isinstance(event, JobProgress) and event.total:
            part = event.done / event.total
            elapsed = time.monotonic() - self._began
            bar = "#" * round(part * 30)
            note = f"  {event.note}" if event.note else ""
            text = f"{event.stage:<8} [{bar:<30}] {event.done}/{event.total}  {elapsed:.0f} s{note}"
            self._out.write("\r" + text.ljust(self._width))
            self._out.flush()
            self._width = len(text)

    def close(self, result: JobResult, error: FaceplateError | None) -> None:
        self._wipe()
        self._line(_summary(result))

    def _wipe(self) -> None:
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._width = 0


class FarmReporter(Reporter):
    """Flushed lines that Deadline (`Progress: NN%`) and Open Job Description (`openjd_...`) read from the log."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._percent = -1
        self._spoke = time.monotonic()

    def show(self, event: JobEvent) -> None:
        if isinstance(event, JobStarted):
            self._line(f"openjd_status: {event.total} frames on {event.device}, shot {event.shot}")
        elif isinstance(event, JobProgress) and event.total:
            percent = 100 * event.done // event.total
            if event.stage == "render" and percent > self._percent:
                self._percent = percent
                self._line(f"Progress: {percent}%")
                self._line(f"openjd_progress: {percent}")
            elif event.stage != "render" and self._is_due(event):
                self._spoke = time.monotonic()
                note = f", {event.note}" if event.note else ""
                self._line(f"openjd_status: {event.stage} {event.done}/{event.total}{note}")
        elif isinstance(event, FrameDoneEvent):
            self._line(f"frame {event.frame} {event.status} {event.path} ({event.seconds:.2f} s)")
        elif isinstance(event, JobWarning | FrameFailedEvent):
            self._line(describe(event))

    def _is_due(self, event: JobProgress) -> bool:
        """Of progress that comes ten times a second: round numbers, the last, and something every ten seconds."""
        return event.done % 10 == 0 or event.done == event.total or time.monotonic() - self._spoke >= _SILENCE_S

    def close(self, result: JobResult, error: FaceplateError | None) -> None:
        if result.state != "finished":
            why = str(error).replace("\n", " ") if error else result.state
            self._line(f"openjd_fail: {why}")
        self._line(_summary(result))


class JsonReporter(Reporter):
    """One JSON object per line: every event's type and fields, then the result."""

    def show(self, event: JobEvent) -> None:
        self._line(json.dumps({"type": event.TYPE, **event.body()}))

    def close(self, result: JobResult, error: FaceplateError | None) -> None:
        fields = {
            "type": "result",
            "job_id": result.job_id,
            "state": result.state,
            "shot": self.shot,
            "done": result.done,
            "failed": result.failed,
            "seconds": round(result.seconds, 3),
            "error": error.to_wire() if error else None,
        }
        self._line(json.dumps(fields))


def open_reporter(mode: str, out: TextIO | None = None) -> Reporter:
    """The reporter of that mode; `auto` is a bar on a terminal and farm lines elsewhere.

    Bars and farm lines go to standard error, JSON to standard output, where nothing else is then.
    """
    out = out or (sys.stdout if mode == "json" else sys.stderr)
    if mode == "auto":
        mode = "bar" if out.isatty() else "farm"
    kinds: dict[str, Callable[[TextIO], Reporter]] = {"bar": BarReporter, "farm": FarmReporter, "json": JsonReporter}
    return kinds[mode](out)


def describe(event: JobWarning | FrameFailedEvent) -> str:
    """A warning or a failed frame as one line."""
    where = f"frame {event.frame}: " if event.frame is not None else ""
    if isinstance(event, JobWarning):
        return f"warning: {where}{event.message} ({event.code})"
    error = from_wire(event.error)
    path = f" [{error.path}]" if error.path else ""
    return f"failed: {where}{error.message}{path} ({error.code}). {error.remedy}"


def _summary(result: JobResult) -> str:
    if result.state == "finished" and not (result.done or result.failed):  # an analysis writes no frames
        return f"finished in {result.seconds:.1f} s"
    rate = f", {result.done / result.seconds:.2f} frames/s" if result.seconds and result.done else ""
    failed = f", {result.failed} failed" if result.failed else ""
    return f"{result.state}: {result.done} frames{failed} in {result.seconds:.1f} s{rate}"
