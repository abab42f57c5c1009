"""How sequences on disk become the pictures that are compared: one look, in the display window, at the plate's size.

A plate goes through its OCIO colourspace to display-encoded sRGB after the same exposure for all. PNG, TIFF and JPEG
without a named colourspace are taken as display-encoded sRGB already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import PlateError
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.metrics.pictures import Frame
from inference_server.plates.color import ColorConfig
from inference_server.plates.images import source_format
from inference_server.plates.layers import choose
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import format_frames, parse_frames, plan_frames
from inference_server.plates.types import PlateFrame, Window, rgb_of
from inference_server.source import MaskSource, PlateSource

_ENCODED = ("png", "tiff", "jpeg")  # pictures that nobody stores scene-linear without saying so


@dataclass(frozen=True)
class Looked:
    """A frame: picture [H, W, 3] of the display window (black beyond the data window), and its pixels' aspect."""

    picture: Frame
    pixel_aspect: float


@dataclass(frozen=True)
class Pictures:
    """A sequence as it is compared. `exposure` in stops."""

    name: str
    source: PlateSource
    exposure: float = 0.0

    @classmethod
    def open(cls, name: str, plate: PlateSpec, config: ColorConfig, exposure: float = 0.0) -> Pictures:
        """Find the sequence. Raises PlateError, ColorError."""
        return cls(name, PlateSource.open(JobSpec("analyse", plate), config), exposure)

    @property
    def frames(self) -> tuple[int, ...]:
        return self.source.sequence.frames

    def read(self, frame: int) -> Looked:
        """Raises PlateError, with the frame."""
        plate = read_plate(self.source.sequence.files[frame], frame)
        part = plate.parts[self.source.layer(plate).part]
        display, seen = part.display_window, part.seen
        canvas = np.zeros((display.height, display.width, 3), np.float32)
        inside = seen.intersect(Window(0, 0, display.width, display.height))
        if not inside.empty:
            looked = np.nan_to_num(self._look(plate), nan=0.0, posinf=1.0, neginf=0.0)
            y, x = inside.y0 - seen.y0, inside.x0 - seen.x0
            canvas[inside.y0 : inside.y1, inside.x0 : inside.x1] = looked[y : y + inside.height, x : x + inside.width]
        return Looked(canvas, part.pixel_aspect)

    def _look(self, plate: PlateFrame) -> NDArray[np.float32]:
        encoded = source_format(plate).partition(" ")[0] in _ENCODED and not self.source.spec.plate.colorspace
        if encoded and self.exposure == 0:
            spec = self.source.spec.plate
            return rgb_of(plate, choose(plate, spec.layer, spec.part, spec.view)).clip(0, 1)
        if encoded:
            raise PlateError(
                "plate.format",
                "an exposure needs a plate whose colourspace is known",
                frame=plate.frame,
                path=plate.path,
                remedy="Name it with --colorspace-a or --colorspace-b, or leave --exposure out.",
            )
        return self.source.picture(plate, self.exposure)


def common_frames(sequences: list[Pictures], frames: str) -> tuple[int, ...]:
    """The frames to compare: those asked for, which all must have, else those that all have.

    Raises PlateError `plate.missing_frame`, `plate.no_frames`, RequestError `request.frame_range`.
    """
    if frames.strip():
        for one in sequences:
            plan_frames(one.source.sequence, frames).raise_missing()
        return parse_frames(frames)
    shared = set(sequences[0].frames).intersection(*(one.frames for one in sequences[1:]))
    if not shared:
        have = "; ".join(f"{one.name} has {format_frames(one.frames)}" for one in sequences)
        raise PlateError(
            "plate.no_frames",
            "the sequences have no frame in common",
            value=have,
            path=sequences[1].source.sequence.pattern.text,
            remedy=f"{have}. Compare sequences of the same frame numbers.",
        )
    return tuple(sorted(shared))


def read_same(sequences: list[Pictures], frame: int) -> list[Looked]:
    """The frame of all of them; PlateError `plate.size_changed` unless they have one size."""
    looked = [one.read(frame) for one in sequences]
    sizes = [one.picture.shape[:2] for one in looked]
    for one, size in zip(sequences, sizes, strict=True):
        if size != sizes[0]:
            raise PlateError(
                "plate.size_changed",
                f"{one.name} is {size[1]}x{size[0]}, {sequences[0].name} {sizes[0][1]}x{sizes[0][0]}",
                value=list(size),
                frame=frame,
                path=one.source.sequence.files[frame],
                remedy="Compare sequences of one format.",
            )
    return looked


def read_mask(mask: MaskSource, frame: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """The mask [H, W] over the display window. Raises PlateError."""
    window = Window(0, 0, size[1], size[0])
    return mask.read(frame, window, window)
