"""Where a network's crop lies in each frame of a shot, and the way there and back.

In the crop of `place` the eyes are 64 pixels apart. A crop that follows the head takes its place from the track,
smoothed over time once more (`steadied`), because a crop that shakes makes a network's drawing shake; its scale follows
the distance of the eyes measured in three dimensions, so that a turning head does not zoom. It keeps one size over the
shot, the padding, of which is dropped what no frame of the plate could fill (`fitted`); where a frame has less, the
plate is mirrored at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inference_server.effects import resample
from inference_server.effects.base import Arrays, ShotData
from inference_server.effects.mesh import pose_of
from inference_server.faces.align import MULTIPLE_OF, TARGET_EYE_DISTANCE, UPSCALE, landmarks68
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.types import Window

LEAST = 64  # pixels a side of the crop has at least
FACING = math.cos(math.radians(25))
_SIGMA = 2.0  # frames over which the crop's place is smoothed
_REACH = 3  # sigmas

Padding = tuple[float, float, float, float]  # left, right, top, bottom


@dataclass(frozen=True)
class Placement:
    """A crop [height, width] in a frame: crop x = sx * plate x + tx, y likewise."""

    sx: float
    tx: float
    sy: float
    ty: float
    width: int
    height: int

    def scaled(self, scale: float) -> Placement:
        """The same in a plate reduced to that scale."""
        return self if scale == 1 else replace(self, sx=self.sx / scale, sy=self.sy / scale)

    @property
    def window(self) -> Window:
        """The pixels of the plate that go into the crop, those under the filters' ends too; may leave the plate."""
        more_x, more_y = (self._margin(s) for s in (self.sx, self.sy))
        return Window(
            math.floor(-self.tx / self.sx) - more_x,
            math.floor(-self.ty / self.sy) - more_y,
            math.ceil((self.width - self.tx) / self.sx) + more_x,
            math.ceil((self.height - self.ty) / self.sy) + more_y,
        )

    def _margin(self, scale: float) -> int:
        return 4 + math.ceil(2 / scale)

    def to_crop(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Plate points [N, 2] in crop coordinates."""
        return np.asarray(points * [self.sx, self.sy] + [self.tx, self.ty])

    def sampling(self, region: Window) -> tuple[resample.Matrix, resample.Matrix]:
        """Rows and columns matrices that make the crop of the plate's pixels in `region`."""
        out = []
        for size, s, t, start, length in (
            (self.height, self.sy, self.ty, region.y0, region.height),
            (self.width, self.sx, self.tx, region.x0, region.width),
        ):
            taps = resample.cubic((np.arange(size) + 0.5 - t) / s, 1 / s)
            out.append(resample.matrix(taps, length, start))
        return out[0], out[1]

    def returning(self, region: Window, upscale: int = UPSCALE) -> tuple[resample.Matrix, resample.Matrix]:
        """Rows and columns matrices that make the pixels of `region` of the crop at `upscale` times its size."""
        out = []
        for size, s, t, start, end in (
            (self.height, self.sy, self.ty, region.y0, region.y1),
            (self.width, self.sx, self.tx, region.x0, region.x1),
        ):
            taps = resample.cubic(upscale * (s * (np.arange(start, end) + 0.5) + t), upscale * s)
            out.append(resample.matrix(taps, upscale * size))
        return out[0], out[1]

    def distances(self, region: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How far inside the crop the rows and the columns of `region` lie, in crop pixels; below 0 outside.

        Infinite toward a side on which the crop reaches the end of the plate. `region` is `window` cut to the plate.
        """
        asked = self.window
        out = []
        for size, s, t, start, end, cut_low, cut_high in (
            (self.height, self.sy, self.ty, region.y0, region.y1, region.y0 > asked.y0, region.y1 < asked.y1),
            (self.width, self.sx, self.tx, region.x0, region.x1, region.x0 > asked.x0, region.x1 < asked.x1),
        ):
            from_low = s * (np.arange(start, end) + 0.5) + t
            from_high = size - from_low
            # Half a plate pixel short of the plate's edge is reaching it.
            if cut_low and s * start + t >= -0.5 * s:
                from_low = np.full_like(from_low, np.inf)
            if cut_high and size - (s * end + t) >= -0.5 * s:
                from_high = np.full_like(from_high, np.inf)
            out.append(np.minimum(from_low, from_high))
        return out[0], out[1]


# --- for a shot ------------------------------------------------------------------------------------------------------


def joined(a: Window, b: Window) -> Window:
    """The smallest window that holds both."""
    return Window(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))


def first_good(faces: Sequence[FaceFrame], window: Window) -> tuple[FaceFrame, bool]:
    """The face that stands for the shot, as where a fixed crop is laid, and whether it is a good one.

    Good is: found by the detector or set by hand, within 25 degrees of facing the camera, eyes, nose, mouth and jaw
    within the plate. The first such frame of the shot; without one the frame that comes nearest.
    """

    def standing(face: FaceFrame) -> tuple[bool, bool, float]:
        points = landmarks68(face.landmarks)
        inside = (points > (window.x0, window.y0)).all() and (points < (window.x1, window.y1)).all()
        return bool(inside), face.state is not FaceState.INTERPOLATED, float(pose_of(face).rotation[2, 2])

    best = (False, False, -math.inf)
    chosen = faces[0]
    for face in faces:
        now = standing(face)
        if now[0] and now[1] and now[2] >= FACING:
            return face, True
        if now > best:
            best, chosen = now, face
    return chosen, False


def centred(face: FaceFrame) -> NDArray[np.float64]:
    """(x, y, log of square plate pixels per crop pixel): the middle of the eyes, square coordinates."""
    pose = pose_of(face)
    return np.array([pose.translation[0], pose.translation[1], math.log(pose.scale / TARGET_EYE_DISTANCE)])


def steadied(frames: Sequence[int], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places [F, 3] smoothed over time; a gap in the frames counts with its length."""
    at = np.asarray(frames, np.float64)
    out = np.empty_like(places)
    for i, frame in enumerate(at):
        near = np.abs(at - frame) <= _REACH * _SIGMA
        away, values = at[near] - frame, places[near]
        weights = np.exp(-0.5 * (away / _SIGMA) ** 2)
        weights /= weights.sum()
        middle, mean = weights @ away, weights @ values
        spread = weights @ (away - middle) ** 2
        # The value here of the line through them: at the shot's ends a mean would lag behind a steady move.
        slope = (weights * (away - middle)) @ (values - mean) / spread if spread > 1e-9 else 0.0
        out[i] = mean - slope * middle
    return out


def fitted(places: NDArray[np.float64], window: Window, aspect: float, padding: Padding) -> Padding:
    """The padding that is left when what no frame of the plate could fill is dropped."""
    units = np.exp(places[:, 2])
    room = (
        (places[:, 0] - window.x0 * aspect) / units,
        (window.x1 * aspect - places[:, 0]) / units,
        (places[:, 1] - window.y0) / units,
        (window.y1 - places[:, 1]) / units,
    )
    left, right, top, bottom = (max(min(p, float(r.max())), 1.0) for p, r in zip(padding, room, strict=True))
    return left, right, top, bottom


def place(at: NDArray[np.float64], aspect: float, padding: Padding) -> Placement:
    """The crop with that padding around a place; sides are rounded up to what the network takes, evenly."""
    unit = math.exp(at[2])
    left, right, top, bottom = padding
    width, height = _ceiled(left + right), _ceiled(top + bottom)
    left += (width - left - right) / 2
    top += (height - top - bottom) / 2
    return Placement(aspect / unit, left - at[0] / unit, 1 / unit, top - at[1] / unit, width, height)


def _ceiled(length: float) -> int:
    return max(math.ceil(length / MULTIPLE_OF - 1e-6) * MULTIPLE_OF, LEAST)


def stored(frames: Sequence[int], placements: Sequence[Placement]) -> Arrays:
    """Placements as arrays of a shot."""
    first = placements[0]
    return {
        "frames": np.array(frames, np.int64),
        "placements": np.array([[p.sx, p.tx, p.sy, p.ty] for p in placements]),
        "size": np.array([first.height, first.width], np.int64),
    }


def placement_at(shot: ShotData, frame: int) -> Placement | None:
    """The stored placement of a frame in the plate as it is rendered (`shot.scale`); None where there is none."""
    frames = shot.arrays.get("frames")
    if frames is None:
        return None
    found = np.nonzero(frames == frame)[0]
    if len(found) == 0:
        return None
    sx, tx, sy, ty = (float(v) for v in shot.arrays["placements"][found[0]])
    height, width = (int(v) for v in shot.arrays["size"])
    return Placement(sx, tx, sy, ty, width, height).scaled(shot.scale)


def padding_of(values: Mapping[str, object]) -> Padding:
    """The four padding parameters."""
    left, right, top, bottom = (float(str(values[f"padding_{side}"])) for side in ("left", "right", "top", "bottom"))
    return left, right, top, bottom
