"""A decoded frame: every part's stored samples as they are in the file, and what surrounds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]  # [H, W] of float16, float32 or uint32, exactly as stored


@dataclass(frozen=True)
class Window:
    """A pixel rectangle: x0 <= x < x1, y0 <= y < y1 (exclusive ends, unlike EXR's header)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def intersect(self, other: Window) -> Window:
        """What both have; may be empty."""
        return Window(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))


@dataclass(frozen=True)
class Attribute:
    """A header attribute exactly as an EXR file stores it: `type` by its EXR name, `data` little-endian.

    `plates.attributes` turns it into a Python value and back.
    """

    type: str
    data: bytes


@dataclass(frozen=True)
class Part:
    """One part of a file. `channels` keeps the file's channel order; samples are [height, width] of the data window.

    `header` holds every attribute needed to write the part again as it was (type, compression, tiles, line
    order, timecode, chromaticities, custom attributes), by name. `name` is "" where a single-part file has none.
    """

    name: str
    channels: Mapping[str, Samples]
    data_window: Window
    display_window: Window
    pixel_aspect: float
    header: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def seen(self) -> Window:
        """The data window seen from the display window's upper-left corner, as landmarks and crops are."""
        data, x0, y0 = self.data_window, self.display_window.x0, self.display_window.y0
        return Window(data.x0 - x0, data.y0 - y0, data.x1 - x0, data.y1 - y0)


@dataclass(frozen=True)
class PlateFrame:
    """One frame of a plate: its file and all its parts."""

    frame: int
    path: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ChosenLayer:
    """The channels of a frame an effect will treat: part index, names of R, G, B and of alpha ("" = none)."""

    part: int
    red: str
    green: str
    blue: str
    alpha: str = ""


def rgb_of(frame: PlateFrame, layer: ChosenLayer) -> NDArray[np.float32]:
    """The chosen colour channels as float32 [H, W, 3], stored values, not unpremultiplied."""
    channels = frame.parts[layer.part].channels
    return np.stack([channels[n].astype(np.float32) for n in (layer.red, layer.green, layer.blue)], axis=-1)
