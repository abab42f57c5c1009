"""A job's plate: which files, which layer, which colours, and what analysis and viewers see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from host_bridge.errors import PlateError
from host_bridge.jobspec import JobSpec, MaskSpec
from inference_server.plates.color import LUMINANCE, ColorConfig, PlateColor, to_picture
from inference_server.plates.composite import Straight, straighten
from inference_server.plates.images import source_format
from inference_server.plates.layers import choose, choose_channel
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import Sequence, find_sequence
from inference_server.plates.types import ChosenLayer, PlateFrame, Window
from inference_server.shots.store import AnalysisSettings


def is_associated(plate: PlateFrame) -> bool:
    """Whether the file's format stores premultiplied colour: EXR does, TIFF, PNG and DPX as read here do not."""
    return not source_format(plate)


@dataclass(frozen=True)
class PlateSource:
    """A job's plate and how to look at it."""

    spec: JobSpec
    config: ColorConfig
    color: PlateColor
    sequence: Sequence

    @classmethod
    def open(cls, spec: JobSpec, config: ColorConfig) -> PlateSource:
        """Find the sequence and the colourspace. Raises PlateError, ColorError."""
        return cls(
            spec, config, config.transform(spec.plate.colorspace), find_sequence(spec.plate.pattern, spec.plate.view)
        )

    @cached_property
    def settings(self) -> AnalysisSettings:
        """What a stored analysis must have been made with to fit this job."""
        return AnalysisSettings.of(self.spec.plate, self.color.space, self.config.hash, self.sequence.pattern.view)

    def layer(self, plate: PlateFrame) -> ChosenLayer:
        """The channels this job treats."""
        return choose(
            plate, self.spec.plate.layer, self.spec.plate.part, self.sequence.pattern.view or self.spec.plate.view
        )

    def straight(self, plate: PlateFrame, rows: slice | None = None, columns: slice | None = None) -> Straight:
        """The chosen colour, or a part of it, unpremultiplied in scene-linear Rec.709."""
        layer = self.layer(plate)
        part = plate.parts[layer.part]
        cut = (rows or slice(None), columns or slice(None))
        rgb = np.stack([part.channels[n][cut] for n in (layer.red, layer.green, layer.blue)], axis=-1)
        alpha = part.channels[layer.alpha][cut] if layer.alpha else None
        return straighten(rgb, alpha, self.spec.plate.premult, is_associated(plate), self.color)

    def picture(self, plate: PlateFrame, exposure: float) -> NDArray[np.float32]:
        """[H, W, 3] display-encoded sRGB 0..1 of the data window after `exposure`."""
        return to_picture(torch.from_numpy(self.straight(plate).scene), exposure).numpy()

    def origin(self, plate: PlateFrame) -> tuple[int, int]:
        """Where the data window begins, seen from the display window's corner."""
        seen = plate.parts[self.layer(plate).part].seen
        return seen.x0, seen.y0

    def luminance(self, plate: PlateFrame) -> NDArray[np.float32]:
        """[H, W] scene-linear luminance of the data window."""
        return np.asarray(self.straight(plate).scene @ np.array(LUMINANCE, np.float32), np.float32)


def load_style(path: str, config: ColorConfig, colorspace: str) -> torch.Tensor:
    """The exemplar picture, [3, H, W] display-encoded sRGB, at most 512 pixels wide or high.

    EXR is read as the plate's colourspace, every other format as sRGB. Raises PlateError.
    """
    plate = read_plate(path)
    layer = choose(plate, "", "", "")
    part = plate.parts[layer.part]
    rgb = np.stack([part.channels[n].astype(np.float32) for n in (layer.red, layer.green, layer.blue)], axis=-1)
    if is_associated(plate):
        rgb = to_picture(torch.from_numpy(config.transform(colorspace).to_scene(np.nan_to_num(rgb))), 0.0).numpy()
    scale = 512 / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.float32)
    return torch.from_numpy(np.ascontiguousarray(rgb.clip(0, 1).transpose(2, 0, 1)))


@dataclass(frozen=True)
class MaskSource:
    """An artist's matte: a sequence, or one picture for the whole shot."""

    spec: MaskSpec
    files: Mapping[int, str]
    still: str = ""

    @classmethod
    def open(cls, spec: MaskSpec) -> MaskSource:
        found = find_sequence(spec.pattern)
        if found.pattern.is_sequence:
            return cls(spec, found.files)
        return cls(spec, {}, next(iter(found.files.values())))

    def path(self, frame: int) -> str:
        """The file for `frame`. Raises PlateError `plate.matte` where there is none."""
        path = self.still or self.files.get(frame, "")
        if not path:
            raise PlateError(
                "plate.matte",
                "the mask has no such frame",
                value=frame,
                frame=frame,
                path=self.spec.pattern,
                remedy="Render the mask over the whole range, or give a single picture.",
            )
        return path

    def read(self, frame: int, data: Window, display: Window) -> NDArray[np.float32]:
        """[H, W] over the plate's data window, 0..1; 0 outside the mask's own data window.

        Raises PlateError `plate.matte` where the channel is not there or the picture has another size.
        """
        path = self.path(frame)
        plate = read_plate(path, frame)
        index, name = choose_channel(plate, self.spec.channel)
        part, samples = plate.parts[index], plate.parts[index].channels[name]
        found = part.display_window
        if (found.width, found.height) != (display.width, display.height):
            raise PlateError(
                "plate.matte",
                f"the mask is {found.width}x{found.height}, the plate {display.width}x{display.height}",
                value=[found.width, found.height],
                frame=frame,
                path=path,
                remedy="Render the mask in the plate's format.",
            )
        out = np.zeros((data.height, data.width), np.float32)
        # Both windows seen from their own display window's corner.
        dx = (part.data_window.x0 - found.x0) - (data.x0 - display.x0)
        dy = (part.data_window.y0 - found.y0) - (data.y0 - display.y0)
        x0, y0 = max(0, dx), max(0, dy)
        x1, y1 = min(data.width, dx + part.data_window.width), min(data.height, dy + part.data_window.height)
        if x1 > x0 and y1 > y0:
            values = samples[y0 - dy : y1 - dy, x0 - dx : x1 - dx].astype(np.float32)
            out[y0:y1, x0:x1] = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        return out
