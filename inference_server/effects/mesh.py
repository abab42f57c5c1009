"""The head behind the landmarks: pose, size, and each person's shape in a common frame.

The *head frame* is that of the mean face: x to the picture's right, y down, z away from the camera, the unit is the
distance between the centres of the eyes, the origin lies midway between them. Effects state moves there, so that
they turn, tilt and scale with the head. Image positions are square pixels (x times the pixel aspect).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host_bridge.curves import Value
from inference_server.effects.common import EYE_FRAME
from inference_server.faces.types import LANDMARKS, FaceFrame
from inference_server.plates.types import Window

Points = NDArray[np.float64]

# Vertices of the mesh on the picture's left (for a face that looks at the camera) and on the middle line; `both`
# adds the other side.
OVAL = (10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
BROW_UPPER = (70, 63, 105, 66, 107)
BROW_LOWER = (46, 53, 52, 65, 55)
LID_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
LID_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
LIP_OUTER_UPPER = (61, 185, 40, 39, 37, 0)
LIP_OUTER_LOWER = (61, 146, 91, 181, 84, 17)
LIP_INNER_UPPER = (78, 191, 80, 81, 82, 13)
LIP_INNER_LOWER = (78, 95, 88, 178, 87, 14)
NOSE_RIDGE = (168, 6, 197, 195, 5, 4, 1)
NOSE_WING = (129, 102, 64, 48, 98, 97)
CHEEK = (50, 101, 205, 207, 187)
FOREHEAD = (9, 151, 108, 69, 104)
CHIN = (18, 200, 199, 175)
IRIS = (468, 469, 470, 471, 472)

# What expressions move least: forehead, temples, eye corners, nose bridge, upper cheekbones.
_RIGID = (10, 151, 9, 168, 6, 197, 195, 109, 67, 103, 54, 21, 162, 127, 234, 33, 133, 93)


@dataclass(frozen=True)
class MeanFace:
    """points [478, 3] in the head frame, mirror-symmetric; `mirror[i]` is vertex i's partner on the other side."""

    points: Points
    mirror: NDArray[np.int64]


@lru_cache(maxsize=1)
def mean_face() -> MeanFace:
    """The mean shape that ships with Faceplate."""
    data = json.loads((Path(__file__).parent / "mean_face.json").read_text(encoding="utf-8"))
    return MeanFace(np.array(data["points"], np.float64), np.array(data["mirror"], np.int64))


def both(vertices: Iterable[int]) -> tuple[int, ...]:
    """The vertices and their partners on the other side, each once, in a fixed order."""
    mirror = mean_face().mirror
    return tuple(dict.fromkeys(v for left in vertices for v in (left, int(mirror[left]))))


@dataclass(frozen=True)
class Pose:
    """Where a head is: image = scale * rotation @ head + translation, in square plate pixels.

    scale        pixels per eye distance, measured in three dimensions: a turned head does not shrink
    rotation     [3, 3]
    translation  [3]; where the point midway between the eyes lies
    shape        [478, 3] this frame's landmarks in the head frame
    """

    scale: float
    rotation: Points
    translation: Points
    shape: Points

    def project(self, head: Points) -> Points:
        """Head-frame points [N, 3] to square plate pixels [N, 2]."""
        return np.asarray(self.scale * head @ self.rotation[:2].T + self.translation[:2])

    def turn(self, moves: Points) -> Points:
        """Head-frame moves [N, 2] (dx, dy) to moves in square plate pixels [N, 2]."""
        return np.asarray(self.scale * moves @ self.rotation[:2, :2].T)


def pose_of(face: FaceFrame) -> Pose:
    """Least-squares similarity from the mean face to a frame's landmarks over the vertices expressions move least."""
    points = np.asarray(face.square(), np.float64)
    if points.shape != (LANDMARKS, 3):
        raise ValueError(f"expected landmarks [{LANDMARKS}, 3], got {list(points.shape)}")
    mean = mean_face()
    chosen = list(both(_RIGID))
    source, target = mean.points[chosen], points[chosen]
    source_mid, target_mid = source.mean(axis=0), target.mean(axis=0)
    source, target = source - source_mid, target - target_mid
    u, singular, vt = np.linalg.svd(target.T @ source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / (source**2).sum())
    if not scale > 1e-6:
        raise ValueError("the landmarks coincide: no head can be laid through them")
    translation = target_mid - scale * rotation @ source_mid
    return Pose(scale, rotation, translation, (points - translation) @ rotation / scale)


def crop_region(face: FaceFrame, values: Mapping[str, Value]) -> Window:
    """The crop that the `padding_*` parameters ask for, in plate pixels."""
    pose = pose_of(face)
    unit = pose.scale / EYE_FRAME
    pad = {side: _number(values, f"padding_{side}") * unit for side in ("left", "right", "top", "bottom")}
    x, y = float(pose.translation[0]), float(pose.translation[1])
    aspect = face.pixel_aspect
    return Window(
        math.floor((x - pad["left"]) / aspect),
        math.floor(y - pad["top"]),
        math.ceil((x + pad["right"]) / aspect),
        math.ceil(y + pad["bottom"]),
    )


def _number(values: Mapping[str, Value], name: str) -> float:
    value = values[name]
    if isinstance(value, str | tuple):
        raise TypeError(f"{name} is a number, not {value!r}")
    return float(value)
