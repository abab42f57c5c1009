"""How a training run is shown: sentences for people, with the lines farms read; JSON for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from inference_server.training.dry_run import duration
from inference_server.training.events import (
    Event,
    Finished,
    Pictured,
    Progress,
    Saved,
    Started,
    Validated,
    Warned,
)

EVERY = 5.0  # seconds between two lines of progress
MODES = ("lines", "json")


def numbers(values: Mapping[str, float]) -> str:
    """Named numbers in one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


class Lines:
    """Writes events as they come: progress at most every five seconds, everything else at once.

    Farms find `Progress: NN%` (Deadline) and `openjd_progress: NN` (Open Job Description) at every new percent where
    the output is no terminal.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._farm = not self._out.isatty()
        self._last = -EVERY
        self._percent = -1

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        else:
            for line in sentences(event):
                self._say(line)

    def _progress(self, event: Progress) -> None:
        now = time.monotonic()
        percent = 100 * event.step // event.steps
        if self._farm and percent > self._percent:
            self._percent = percent
            self._say(f"Progress: {percent}%")
            self._say(f"openjd_progress: {percent}")
        if event.step < event.steps and now - self._last < EVERY:
            return
        self._last = now
        self._say(
            f"step {event.step} of {event.steps}  {event.seconds:.2f} s a step, {duration(event.seconds_left)} left  "
            f"loss {sum(event.losses.values()):.4g}: {numbers(event.losses)}"
        )

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def sentences(event: Event) -> list[str]:
    """An event that is no progress, in words."""
    if isinstance(event, Started):
        where = f"goes on after step {event.step}" if event.step else "begins"
        several = f" in {event.processes} processes" if event.processes > 1 else ""
        return [f"the run {where}; {event.steps} steps, {event.parameters:,} weights are trained{several}"]
    if isinstance(event, Validated):
        return [f"step {event.step}: score {event.score:.5g}" + (", the best so far" if event.best else "")]
    if isinstance(event, Saved):
        return [f"step {event.step}: saved; a stopped run goes on from here"]
    if isinstance(event, Pictured):
        what = "loss curves" if event.kind == "curves" else "samples"
        return [f"step {event.step}: {what} in {event.path}"]
    if isinstance(event, Warned):
        return [f"warning: {event.message} ({event.code}). {event.remedy}"]
    if isinstance(event, Finished):
        best = "" if event.exported_step == event.step else f"; step {event.exported_step} was the best and is kept"
        return [f"done after {event.step} steps{best}", f"weights {event.weights}", f"card    {event.card}"]
    return []
