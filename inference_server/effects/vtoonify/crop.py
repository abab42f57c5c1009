"""The crops of VToonify: `follow` and `fixed`, laid by effects.placement, and `published`, the rule of its authors.

`follow` moves with the tracked head; `fixed` is the same of the first good frame. `published` is
faces.align.plan_video_crop of the first good frame, resampled with its authors' blur and resize.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from host_bridge.errors import EffectError
from inference_server.effects import placement, resample
from inference_server.effects.base import Arrays, ShotData
from inference_server.effects.placement import Padding, Placement, centred, fitted, place, steadied
from inference_server.faces.align import (
    BLUR_KERNEL,
    LEFT_EYE,
    MULTIPLE_OF,
    RIGHT_EYE,
    VideoCrop,
    landmarks68,
    plan_video_crop,
)
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window

_ANCHOR = 2  # OpenCV's, of a kernel of four


@dataclass(frozen=True)
class PublishedPlacement(Placement):
    """A crop by the numbers of the published rule, for a plate of that many columns."""

    published: VideoCrop
    plate_width: int

    def scaled(self, scale: float) -> Placement:
        """The same in a plate reduced to that scale, resampled by Faceplate's own filter."""
        if scale == 1:
            return self
        return Placement(self.sx / scale, self.tx, self.sy / scale, self.ty, self.width, self.height)

    def _margin(self, scale: float) -> int:
        return 8

    def sampling(self, region: Window) -> tuple[resample.Matrix, resample.Matrix]:
        """Rows and columns matrices that blur, resize and cut the plate's pixels in `region` as its authors do."""
        crop = self.published
        rows = np.arange(crop.top, crop.bottom) + 0.5
        columns = np.arange(crop.left, crop.right) + 0.5
        down = resample.linear(rows * crop.frame_h / crop.resized_h, crop.frame_h)
        across = resample.linear(columns * crop.frame_w / crop.resized_w, crop.frame_w)
        down = _blurred(down, crop.frame_h, crop.blur_passes)
        across = _blurred(across, crop.frame_w, crop.blur_passes)
        rows_matrix = resample.matrix(down, region.height, region.y0)
        if crop.frame_w == self.plate_width:
            return rows_matrix, resample.matrix(across, region.width, region.x0)
        # Pixels that are not square: the plate's columns become those of a square-pixel picture first.
        step = self.plate_width / crop.frame_w
        unsqueezed = resample.matrix(
            resample.cubic((np.arange(crop.frame_w) + 0.5) * step, step), region.width, region.x0
        )
        return rows_matrix, resample.matrix(across, crop.frame_w) @ unsqueezed


def plan_shot(
    faces: Mapping[int, FaceFrame], good: FaceFrame, window: Window, mode: str, padding: Padding
) -> tuple[Placement, ...]:
    """The crop of each frame, in their order. Raises EffectError as `place_published`."""
    aspect = good.pixel_aspect
    if mode == "published":
        return (place_published(good, window, padding),) * len(faces)
    if mode == "fixed":
        places = centred(good)[None]
        return (place(places[0], aspect, fitted(places, window, aspect, padding)),) * len(faces)
    places = steadied(list(faces), np.stack([centred(face) for face in faces.values()]))
    padding = fitted(places, window, aspect, padding)
    return tuple(place(at, aspect, padding) for at in places)


def place_published(face: FaceFrame, window: Window, padding: Padding) -> PublishedPlacement:
    """The published crop of a plate's display window. EffectError `effect.parameter` where there is none."""
    points = landmarks68(face.square())
    aspect = face.pixel_aspect
    width, height = round(window.width * aspect), window.height
    whole = (round(padding[0]), round(padding[1]), round(padding[2]), round(padding[3]))
    try:
        crop = plan_video_crop(points[LEFT_EYE], points[RIGHT_EYE], (height, width), whole)
        if min(crop.crop_h, crop.crop_w) < 2 * MULTIPLE_OF:
            raise ValueError(f"padding {whole} leaves a crop of {crop.crop_w}x{crop.crop_h} px")
    except ValueError as error:
        raise EffectError(
            "effect.parameter",
            f"the published crop cannot be laid: {error}",
            value="published",
            frame=face.frame,
            remedy="Give more padding, or use crop=follow or crop=fixed.",
        ) from error
    return of_published(crop, window.width)


def of_published(crop: VideoCrop, plate_width: int) -> PublishedPlacement:
    """The published rule's numbers as a placement in a plate of that many columns."""
    (sx, _, tx), (_, sy, ty) = crop.matrix
    squeeze = crop.frame_w / plate_width
    return PublishedPlacement(sx * squeeze, tx, sy, ty, crop.crop_w, crop.crop_h, crop, plate_width)


def stored(frames: Sequence[int], placements: Sequence[Placement]) -> Arrays:
    """Placements as arrays of a shot."""
    arrays, first = placement.stored(frames, placements), placements[0]
    if not isinstance(first, PublishedPlacement):
        return arrays
    c = first.published
    numbers = (c.frame_h, c.frame_w, c.resized_h, c.resized_w, c.top, c.bottom, c.left, c.right, c.blur_passes)
    published = np.array([*numbers, first.plate_width], np.int64)
    return {**arrays, "published": published, "published_scale": np.array(c.scale)}


def placement_at(shot: ShotData, frame: int) -> Placement | None:
    """The stored placement of a frame in the plate as it is rendered (`shot.scale`); None where there is none."""
    known = placement.placement_at(shot, frame)
    if known is None or "published" not in shot.arrays:
        return known
    h, w, rh, rw, top, bottom, left, right, passes, plate = (int(v) for v in shot.arrays["published"])
    scale = float(shot.arrays["published_scale"])
    return of_published(VideoCrop(h, w, scale, rh, rw, top, bottom, left, right, passes), plate).scaled(shot.scale)


def _blurred(taps: resample.Taps, size: int, passes: int) -> resample.Taps:
    """The same taps on a picture of `size` inputs that went through the published blur so often."""
    index, weights = taps
    for _ in range(passes):
        spread = index[..., None] + (np.arange(len(BLUR_KERNEL)) - _ANCHOR)
        index = resample.mirrored(spread, size, 1).reshape(len(index), -1)
        weights = (weights[..., None] * np.array(BLUR_KERNEL)).reshape(len(weights), -1)
    return index, weights
