"""Where a face's square lies in each frame of a shot, and pixels on the way there and back.

The *aligned* square is FFHQ's, laid through the shot's own smoothed landmarks and smoothed once more over time: the
centre lightly, its half axes more (sigmas as STIT publishes them), because a square that shakes makes the inversion
shake. An encoder only reads aligned faces.

What a generator draws is the *view*. For StyleGAN2 it is the aligned square. For StyleGAN3 it is an upright square of
one size for the shot that follows the head in whole plate pixels: rotation, scale and the rest of the motion are the
generator's own input transform U = A^-1 V (A, V: picture coordinates of the aligned square and of the view to the
plate; stylegan3 sheet, 13.1), so that the face is drawn where it is and only scaled and shifted back.

A square is a map [2, 3] from picture coordinates, 0..1 along its sides, to plate pixels. Square pixels are assumed
nowhere: a plate's pixel aspect is in the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from host_bridge.errors import EffectError
from inference_server.effects.base import Arrays, ShotData
from inference_server.effects.displacement import smoothstep
from inference_server.effects.style_portrait.imported import STYLEGAN2, STYLEGAN3_T
from inference_server.faces.align import ffhq_quad, invert, landmarks68
from inference_server.faces.smooth import gaussian_over_time
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window

Square = NDArray[np.float64]  # [2, 3]

_CENTRE_SIGMA, _AXIS_SIGMA = 1.0, 3.0  # frames
_MARGIN = 4  # plate pixels that filters look at beyond a square
_FADE = 0.04  # of the side: over which a matte ends at the view's edge
LARGEST_ZOOM = 1.6
"""How much larger than in its farthest frame a StyleGAN3 face may be: the view, which has that one's size, cuts it."""
LARGEST_TURN_T = 5.0
"""Degrees from the shot's mean roll that config T may turn a face: it is made to follow shifts. At 5 degrees it agrees
with a turned picture to 30 dB, R to 70 (random weights, 256 px); at 12 degrees T has 23 dB left.
"""


@dataclass(frozen=True)
class Placing:
    """One frame's squares. `user` [3, 3] is the generator's transform; None where it draws the aligned square."""

    aligned: Square
    view: Square
    user: NDArray[np.float64] | None = None

    def scaled(self, scale: float) -> Placing:
        """The same in a plate reduced to that scale."""
        return Placing(self.aligned * scale, self.view * scale, self.user)


def window_of(square: Square) -> Window:
    """The plate pixels under a square, those under the filters' ends too; may leave the plate."""
    corners = square[:, :2] @ np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]) + square[:, 2:]
    (x0, y0), (x1, y1) = corners.min(axis=1), corners.max(axis=1)
    return Window(math.floor(x0) - _MARGIN, math.floor(y0) - _MARGIN, math.ceil(x1) + _MARGIN, math.ceil(y1) + _MARGIN)


# --- over a shot -----------------------------------------------------------------------------------------------------


def lay(faces: Mapping[int, FaceFrame], kind: str = STYLEGAN2, drawn: bool = True) -> list[Placing]:
    """The squares of a shot's faces (frame -> face, in order) for a generator of that kind.

    `drawn` False draws StyleGAN3's faces in the aligned square, too. Raises EffectError `effect.parameter` naming the
    frame whose face config T, or any StyleGAN3, cannot be made to draw in its place.
    """
    if not faces:
        return []
    frames = list(faces)
    centres, axes = zip(*(_vectors(face) for face in faces.values()), strict=True)
    centre, axis = _smoothed(frames, np.stack(centres), np.stack(axes))
    aspect = next(iter(faces.values())).pixel_aspect
    aligned = [_square(c, x, aspect) for c, x in zip(centre, axis, strict=True)]
    if kind == STYLEGAN2 or not drawn:
        return [Placing(a, a) for a in aligned]
    return _views(frames, aligned, centre, axis, aspect, kind)


def _vectors(face: FaceFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and half axis to the right of a face's FFHQ square, square plate pixels."""
    quad, _ = ffhq_quad(landmarks68(face.square()))
    return quad.mean(axis=0), (quad[3] - quad[0]) / 2


def _square(centre: NDArray[np.float64], axis: NDArray[np.float64], aspect: float) -> Square:
    down = np.array([-axis[1], axis[0]])
    out = np.column_stack([2 * axis, 2 * down, centre - axis - down])
    out[0] /= aspect
    return out


def _smoothed(
    frames: Sequence[int], centres: NDArray[np.float64], axes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each uninterrupted stretch of frames for itself."""
    steps = np.diff(frames)
    cuts = [] if not len(steps) else (np.flatnonzero(steps > steps.min()) + 1).tolist()
    parts = [np.arange(len(frames))[a:b] for a, b in zip([0, *cuts], [*cuts, len(frames)], strict=True)]
    centre, axis = centres.copy(), axes.copy()
    for part in parts:
        centre[part] = gaussian_over_time(centres[part], _CENTRE_SIGMA)
        axis[part] = gaussian_over_time(axes[part], _AXIS_SIGMA)
    return centre, axis


def _views(
    frames: Sequence[int],
    aligned: Sequence[Square],
    centre: NDArray[np.float64],
    axis: NDArray[np.float64],
    aspect: float,
    kind: str,
) -> list[Placing]:
    length = np.hypot(axis[:, 0], axis[:, 1])
    # Of the smallest: drawn smaller than it was learned, a face loses its fine sines (sheet, section 5).
    half = float(length.min())
    mean = axis.sum(axis=0)
    # R turns faces cleanly, so its view is upright; T's leans as the head does on average.
    right = mean / max(float(np.hypot(*mean)), 1e-9) if kind == STYLEGAN3_T else np.array([1.0, 0.0])
    out = []
    for i, frame in enumerate(frames):
        zoom = length[i] / half
        turn = math.degrees(abs(math.atan2(right[0] * axis[i, 1] - right[1] * axis[i, 0], right @ axis[i])))
        if zoom > LARGEST_ZOOM:
            raise _cannot_follow(
                frame, f"it is {zoom:.2f} times as large as where it is farthest, {LARGEST_ZOOM:g} can be"
            )
        if kind == STYLEGAN3_T and turn > LARGEST_TURN_T:
            raise _cannot_follow(
                frame, f"it leans {turn:.1f} degrees from the shot's mean, config T follows {LARGEST_TURN_T:g}"
            )
        at = np.rint(centre[i] / [aspect, 1.0]) * [aspect, 1.0]
        view = _square(at, half * right, aspect)
        out.append(Placing(aligned[i], view, relative(aligned[i], view)))
    return out


def relative(aligned: Square, view: Square) -> NDArray[np.float64]:
    """U [3, 3]: a position in the view to the same in the aligned picture, origins in the centres, sides 1."""
    to_corner = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    down = np.vstack([invert(aligned), [0.0, 0.0, 1.0]]) @ np.vstack([view, [0.0, 0.0, 1.0]])
    return np.asarray(np.linalg.inv(to_corner) @ down @ to_corner)


def _cannot_follow(frame: int, why: str) -> EffectError:
    return EffectError(
        "effect.parameter",
        f"StyleGAN3 cannot draw this face in its place: {why}",
        value="drawn",
        frame=frame,
        remedy="Use place=warped, a StyleGAN2 or (where a face leans) config R, or analyse a shorter range "
        "(--shot-range).",
    )


def stored(frames: Sequence[int], placings: Sequence[Placing]) -> Arrays:
    """Placings as arrays of a shot."""
    arrays: dict[str, NDArray[np.generic]] = {
        "frames": np.array(frames, np.int64),
        "aligned": np.stack([p.aligned for p in placings]),
        "view": np.stack([p.view for p in placings]),
    }
    if placings[0].user is not None:
        arrays["user"] = np.stack([p.user for p in placings if p.user is not None])
    return arrays


def index_of(shot: ShotData, frame: int) -> int | None:
    """Where a frame is in the shot's arrays; None where it is not."""
    frames = shot.arrays.get("frames")
    if frames is None:
        return None
    found = np.flatnonzero(frames == frame)
    return int(found[0]) if len(found) else None


def placing_at(shot: ShotData, frame: int) -> Placing | None:
    """The stored squares of a frame in the plate as it is rendered (`shot.scale`); None where there are none."""
    at = index_of(shot, frame)
    if at is None:
        return None
    user = shot.arrays["user"][at] if "user" in shot.arrays else None
    return Placing(shot.arrays["aligned"][at], shot.arrays["view"][at], user).scaled(shot.scale)


# --- pixels ----------------------------------------------------------------------------------------------------------


def cut(picture: Tensor, region: Window, square: Square, size: int) -> Tensor:
    """The square [C, size, size] of a picture [C, h, w] of `region`: averaged where it shrinks, else cubic.

    What lies beyond the picture is mirrored.
    """
    steps = np.hypot(square[0, :2], square[1, :2]).max() / size  # plate pixels per pixel of the square
    (sx, sy), small = _reduced(picture, steps)
    at = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(at, at)
    x = (square[0, 0] * u + square[0, 1] * v + square[0, 2] - region.x0) * sx
    y = (square[1, 0] * u + square[1, 1] * v + square[1, 2] - region.y0) * sy
    return _sample(small, x, y, "reflection")


def put_back(pictures: Tensor, square: Square, region: Window) -> Tensor:
    """Pictures [C, S, S] of a square as the pixels [C, h, w] of `region`: averaged where they shrink, else cubic."""
    back = invert(square)
    size = pictures.shape[-1]
    steps = size * np.hypot(back[0, :2], back[1, :2]).max()  # picture pixels per plate pixel
    (sx, sy), small = _reduced(pictures, steps)
    x, y = np.meshgrid(np.arange(region.x0, region.x1) + 0.5, np.arange(region.y0, region.y1) + 0.5)
    u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) * size * sx
    v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) * size * sy
    return _sample(small, u, v, "border")


def fade(square: Square, region: Window, device: torch.device) -> Tensor:
    """[h, w] of `region`: 1 well inside the square, 0 at its edge and beyond."""
    back = invert(square)
    x, y = np.meshgrid(np.arange(region.x0, region.x1) + 0.5, np.arange(region.y0, region.y1) + 0.5)
    u = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    v = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    inside = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) / _FADE
    return smoothstep(torch.from_numpy(inside.astype(np.float32)).to(device))


def to_plate_pixels(field: Tensor, square: Square) -> Tensor:
    """Displacements [2, ...] in parts of the square's side as plate pixels."""
    m = torch.from_numpy(square[:, :2]).to(field.device, field.dtype)
    return torch.stack([m[0, 0] * field[0] + m[0, 1] * field[1], m[1, 0] * field[0] + m[1, 1] * field[1]])


def _reduced(picture: Tensor, steps: float) -> tuple[tuple[float, float], Tensor]:
    """The picture averaged to about one sample where `steps` were, and its new size in parts of the old (x, y)."""
    if steps <= 1:
        return (1.0, 1.0), picture
    h, w = picture.shape[-2:]
    size = (max(round(h / steps), 2), max(round(w / steps), 2))
    small = functional.interpolate(picture[None], size=size, mode="bicubic", align_corners=False, antialias=True)[0]
    return (size[1] / w, size[0] / h), small


def _sample(picture: Tensor, x: NDArray[np.float64], y: NDArray[np.float64], beyond: str) -> Tensor:
    """`picture` [C, h, w] at positions [H, W] (centres at half)."""
    h, w = picture.shape[-2:]
    grid = np.stack([x * (2.0 / w) - 1.0, y * (2.0 / h) - 1.0], axis=-1).astype(np.float32)
    at = torch.from_numpy(grid).to(picture.device, picture.dtype)[None]
    return functional.grid_sample(picture[None], at, mode="bicubic", padding_mode=beyond, align_corners=False)[0]
