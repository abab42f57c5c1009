"""The plate: where it is, what the server found there, which frame is looked at, mask and style picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from host_bridge import messages as m
from host_bridge.errors import FaceplateError
from host_bridge.jobspec import MaskSpec, PlateSpec
from panels.controller.connection import Connection
from panels.controller.observe import Topic


@dataclass(frozen=True)
class PlateState:
    """`spec.pattern` "" = none chosen. `found` is what the server says of it, `error` why it cannot be read."""

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
    def numbers(self) -> tuple[int, ...]:
        """Frames that are on disk, in order."""
        raise NotImplementedError


class Plate:
    """`changed`: the state is another. `frame_changed(frame)`: another frame is looked at."""

    def __init__(self, connection: Connection) -> None:
        self.state = PlateState()
        self.frame = 0
        self.changed = Topic()
        self.frame_changed = Topic()

    def open(self, pattern: str) -> None:
        """Look at another plate; layer, part, view and shot of the former one are forgotten."""
        raise NotImplementedError

    def set(self, **fields: Any) -> None:
        """Change fields of `state.spec` (colorspace, premult, layer, part, view, missing)."""
        raise NotImplementedError

    def set_ocio(self, config: str) -> None:
        """Use another OCIO config (a path; "" = the server's own)."""

    def set_mask(self, mask: MaskSpec | None) -> None:
        """Use an artist's matte, or none."""

    def set_style_image(self, path: str) -> None:
        """Use a picture as the Style clip; "" = none."""

    def set_frame(self, frame: int) -> None:
        """Look at a frame; the nearest one on disk is taken."""

    def step(self, by: int) -> None:
        """Go on by so many of the frames on disk; stays at the ends."""

    def refresh(self) -> None:
        """Ask the server again what the plate is."""
