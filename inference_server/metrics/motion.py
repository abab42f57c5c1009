"""How steady a sequence is along the motion of another, and what a scan line shows over time.

The warp error is that of Lai et al. 2018: a frame is compared with the one before it, carried along by the optical flow
of the guide, which is the source of a stylised or edited sequence, where that motion can be seen at all. A pixel counts
where forward and backward flow agree and no motion border runs through it (Ruder et al. 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.faces.flow import warp
from inference_server.metrics.pictures import Frame, Frames, Mask, PerFrame

Flow = NDArray[np.float32]  # [H, W, 2] in pixels
FlowOf = Callable[[Frame, Frame], Flow]  # where a pixel of the first frame is in the second, minus where it is

FLOW_SIDE = 1024  # pixels: flow of larger pictures is measured on smaller copies
_COVERED = 0.999  # of a pixel's samples must lie inside the frame before


def dis() -> FlowOf:
    """OpenCV's dense inverse search, on the CPU; pictures with a longer side than FLOW_SIDE are made smaller for it."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(first: Frame, second: Frame) -> Flow:
        height, width = first.shape[:2]
        scale = min(1.0, FLOW_SIDE / max(height, width))
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        greys = [_grey(p if scale == 1 else cv2.resize(p, size, interpolation=cv2.INTER_AREA)) for p in (first, second)]
        found = np.asarray(search.calc(*greys, None), np.float32)  # type: ignore[call-overload]
        if scale == 1:
            return found
        large = np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return large * np.array([width / size[0], height / size[1]], np.float32)

    return flow


def _grey(picture: Any) -> NDArray[np.uint8]:
    eight = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(eight, cv2.COLOR_RGB2GRAY), np.uint8)


def visible(back: Flow, forth: Flow) -> NDArray[np.bool_]:
    """Pixels [H, W] of a frame that were seen in the frame before.

    back   flow from the frame to the one before it
    forth  flow from the one before to the frame
    """
    ones = np.ones((*back.shape[:2], 1), np.float32)
    carried = warp(np.concatenate([forth, ones], axis=-1), back)
    apart = ((back + carried[..., :2]) ** 2).sum(axis=-1)
    length = (back**2).sum(axis=-1)
    occluded = apart > 0.01 * (length + (carried[..., :2] ** 2).sum(axis=-1)) + 0.5
    gradients = sum(np.gradient(back[..., c])[axis] ** 2 for c in (0, 1) for axis in (0, 1))
    border = gradients > 0.01 * length + 0.002
    return np.asarray(~occluded & ~border & (carried[..., 2] > _COVERED))


@dataclass(frozen=True)
class Motion:
    """How one frame of the guide came from the frame before it: backward flow, and where it holds."""

    back: Flow
    seen: NDArray[np.bool_]

    @classmethod
    def between(cls, before: Frame, now: Frame, flow: FlowOf) -> Motion:
        back = flow(now, before)
        return cls(back, visible(back, flow(before, now)))

    def error(self, before: Frame, now: Frame, mask: Mask | None = None) -> float:
        """Mean squared difference of `now` and `before` carried along, over channels and seen pixels; nan for none."""
        squares = ((warp(before, self.back) - now).astype(np.float64) ** 2).mean(axis=-1)
        weights = self.seen.astype(np.float64) if mask is None else self.seen * np.asarray(mask, np.float64)
        total = float(weights.sum())
        return float((squares * weights).sum() / total) if total > 0 else float("nan")


@dataclass(frozen=True)
class WarpErrors:
    """`errors` [T - 1]: of every frame but the first; `seen` [T - 1]: the share of its pixels that counted."""

    errors: PerFrame
    seen: PerFrame

    @property
    def mean(self) -> float:
        """Over all frames that have one; nan where none has."""
        known = self.errors[np.isfinite(self.errors)]
        return float(known.mean()) if known.size else float("nan")


def flow_warp_error(
    frames: Frames, guide: Frames | None = None, *, mask: Mask | None = None, flow: FlowOf | None = None
) -> WarpErrors:
    """How much a sequence changes between frames besides what the guide's motion explains.

    frames  [T, H, W, 3]
    guide   [T, H, W, 3], the sequence whose motion is followed (the source); `frames` itself where it is not given
    mask    [H, W] or [T, H, W]: what counts of a frame
    flow    OpenCV's DIS where it is not given

    The guide's own error is what its grain, light and occlusions leave: a result is as steady as its source where both
    have the same. ValueError where shapes differ.
    """
    guide = frames if guide is None else guide
    if frames.shape != guide.shape or frames.ndim != 4:
        raise ValueError(f"expected two sequences [T, H, W, 3], got {list(frames.shape)} and {list(guide.shape)}")
    if mask is not None and mask.shape not in (frames.shape[:3], frames.shape[1:3]):
        raise ValueError(f"expected a mask {list(frames.shape[:3])}, got {list(mask.shape)}")
    flow = flow or dis()
    errors, seen = [], []
    for t in range(1, len(frames)):
        motion = Motion.between(guide[t - 1], guide[t], flow)
        here = mask[t] if mask is not None and mask.ndim == 3 else mask
        errors.append(motion.error(frames[t - 1], frames[t], here))
        seen.append(float(motion.seen.mean()))
    return WarpErrors(np.array(errors), np.array(seen))


def temporal_profile(frames: Frames, *, row: int | None = None, column: int | None = None) -> Frame:
    """One scan line over time: a row as [T, W, 3], time downward, or a column as [H, T, 3], time to the right.

    A steady sequence shows smooth streaks, a flickering one combs and dashes. ValueError unless just one of the two is
    named and lies in the picture.
    """
    if (row is None) == (column is None):
        raise ValueError("name a row or a column")
    height, width = frames.shape[1:3]
    if (row is not None and not 0 <= row < height) or (column is not None and not 0 <= column < width):
        raise ValueError(f"row {row} or column {column} lies outside the picture of {width}x{height}")
    if row is not None:
        return np.ascontiguousarray(frames[:, row])
    return np.ascontiguousarray(frames[:, :, column].swapaxes(0, 1))


def profile_sheet(profiles: Mapping[str, Frame], *, vertical: bool, least: int = 240) -> NDArray[np.uint8]:
    """Profiles of several sequences along the same line as one labelled picture, [H, W, 3] 8-bit sRGB.

    vertical  they are of a column: time runs to the right, and they lie side by side; else below each other
    least     pixels that time takes at least: every frame is repeated, never blended

    """
    label, gap = 22, 6
    tiles = []
    for name, profile in profiles.items():
        eight = np.rint(np.clip(profile, 0, 1) * 255).astype(np.uint8)
        axis = 1 if vertical else 0
        eight = np.repeat(eight, max(1, -(-least // eight.shape[axis])), axis=axis)
        tile = np.full((eight.shape[0] + label + gap, eight.shape[1] + gap, 3), 24, np.uint8)
        tile[label:-gap, :-gap] = eight
        cv2.putText(tile, name, (4, label - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (210, 210, 210), 1, cv2.LINE_AA)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1 if vertical else 0)
