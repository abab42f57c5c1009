"""The plate: where it is, what the server found there, which frame is looked at, mask and style picture."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from host_bridge import messages as m
from host_bridge.errors import FaceplateError
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec
from panels.controller.connection import Connection
from panels.controller.observe import Topic
from panels.controller.ranges import frames_of

# Fields of the plate that decide what the server finds there.
_FOUND_BY = ("pattern", "layer", "part", "view", "colorspace")


@dataclass(frozen=True)
class PlateState:
    """`spec.pattern` "" = none chosen. `found` is what the server says of it, `error` why it cannot be read.

    `color` is what the OCIO config offers: colourspaces, displays and views.
    """

    spec: PlateSpec = field(default_factory=lambda: PlateSpec(""))
    ocio: str = ""
    mask: MaskSpec | None = None
    style_image: str = ""
    shot: str = ""
    shot_range: str = ""
    found: m.Plate | None = None
    color: m.Color | None = None
    loading: bool = False
    error: FaceplateError | None = None
    color_error: FaceplateError | None = None

    @property
    def ready(self) -> bool:
        """Whether the server has found the plate."""
        return self.found is not None

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Frames that are on disk, in order."""
        return frames_of(self.found.frames) if self.found else ()


class Plate:
    """`changed`: the state is another. `frame_changed(frame)`: another frame is looked at."""

    def __init__(self, connection: Connection) -> None:
        self.state = PlateState()
        self.frame = 0
        self.changed = Topic()
        self.frame_changed = Topic()
        self._connection = connection
        self._asked = 0

    def open(self, pattern: str) -> None:
        """Look at another plate; layer, part, view and shot of the former one are forgotten."""
        old = self.state.spec
        spec = PlateSpec(absolute(pattern), old.colorspace, old.premult, missing=old.missing)
        self._look(replace(self.state, spec=spec, shot="", shot_range=""))

    def take(self, job: JobSpec, frame: int) -> None:
        """Look at the plate of a job (of the host's)."""
        self._look(
            replace(
                self.state,
                spec=job.plate,
                ocio=job.ocio,
                mask=job.mask,
                style_image=job.style_image,
                shot=job.shot,
                shot_range=job.shot_range,
            )
        )
        self._go(frame)

    def set(self, **fields: Any) -> None:
        """Change fields of `state.spec` (colorspace, premult, layer, part, view, missing)."""
        state = replace(self.state, spec=replace(self.state.spec, **fields))
        if set(fields) & set(_FOUND_BY):
            self._look(state)
        else:
            self._put(state)

    def set_ocio(self, config: str) -> None:
        """Use another OCIO config (a path or ocio://...; "" = the server's own)."""
        self._look(replace(self.state, ocio=config if config.startswith("ocio://") else absolute(config)))

    def set_mask(self, mask: MaskSpec | None) -> None:
        """Use an artist's matte, or none."""
        if mask is not None:
            mask = replace(mask, pattern=absolute(mask.pattern))
        self._put(replace(self.state, mask=mask))

    def set_style_image(self, path: str) -> None:
        """Use a picture as the Style clip; "" = none."""
        self._put(replace(self.state, style_image=absolute(path)))

    def set_shot(self, shot: str = "", shot_range: str = "") -> None:
        """Use this analysis ("" = found or made), and these frames as the shot ("" = all on disk)."""
        self._put(replace(self.state, shot=shot, shot_range=shot_range))

    def set_frame(self, frame: int) -> None:
        """Look at a frame; the nearest one on disk is taken."""
        numbers = self.state.numbers
        if numbers:
            at = bisect_left(numbers, frame)
            near = numbers[max(0, at - 1) : at + 1]
            frame = min(near, key=lambda n: abs(n - frame))
        self._go(frame)

    def step(self, by: int) -> None:
        """Go on by so many of the frames on disk; stays at the ends."""
        numbers = self.state.numbers
        if numbers:
            at = bisect_left(numbers, self.frame) + by
            self._go(numbers[max(0, min(at, len(numbers) - 1))])

    def refresh(self) -> None:
        """Ask the server again what the plate and the OCIO config are."""
        self._asked += 1
        asked = self._asked
        if not self._connection.ready:
            return
        self._connection.ask(m.ListColor(self.state.ocio), m.Color, lambda got: self._colored(asked, got), 60.0)
        if self.state.spec.pattern:
            self._put(replace(self.state, loading=True))
            question = m.DescribePlate(self.state.spec, self.state.ocio)
            self._connection.ask(question, m.Plate, lambda got: self._described(asked, got), 60.0)

    def _look(self, state: PlateState) -> None:
        self._put(replace(state, found=None, error=None, loading=False))
        self.refresh()

    def _described(self, asked: int, outcome: m.Plate | FaceplateError) -> None:
        if asked != self._asked:
            return
        if not isinstance(outcome, FaceplateError):
            try:
                frames_of(outcome.frames)
            except FaceplateError as error:
                outcome = error
        if isinstance(outcome, FaceplateError) and self._connection.lost(outcome):
            self._put(replace(self.state, loading=False))  # what was found is still true
        elif isinstance(outcome, FaceplateError):
            self._put(replace(self.state, found=None, error=outcome, loading=False))
        else:
            self._put(replace(self.state, found=outcome, error=None, loading=False))
            self.set_frame(self.frame)

    def _colored(self, asked: int, outcome: m.Color | FaceplateError) -> None:
        if asked != self._asked:
            return
        if isinstance(outcome, FaceplateError):
            self._put(replace(self.state, color_error=outcome))
        else:
            self._put(replace(self.state, color=outcome, color_error=None))

    def _put(self, state: PlateState) -> None:
        if state != self.state:
            self.state = state
            self.changed.emit()

    def _go(self, frame: int) -> None:
        if frame != self.frame:
            self.frame = frame
            self.frame_changed.emit(frame)


def absolute(path: str) -> str:
    """An absolute path: the server's working folder is another one. "" stays."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""
