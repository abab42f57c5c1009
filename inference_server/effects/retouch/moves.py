"""Attribute directions that move the face: which vertices go where.

Moves are in the head frame (see `mesh`) at strength 1, for the picture's left side and the middle line; the other
side mirrors them. Every direction also pins the vertices that must stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from inference_server.effects import mesh

_EYES = (*mesh.LID_UPPER, *mesh.LID_LOWER, *mesh.IRIS)
_LIPS = (61, 40, 37, 0, 91, 84, 17, 78, 13, 14)
_FOLD = (247, 30, 29, 27, 28, 56, 190)  # crease of the upper lid
_JAWLINE = (58, 172, 136, 150, 149, 176, 148, 152)


@dataclass(frozen=True)
class Direction:
    """`moves` vertex -> (dx, dy); `still` vertices that stay; `reach` of a point's move in eye distances;
    `backward` how large the moves are for negative strengths.

    `controls` are both sides' vertices and their moves [K, 2].
    """

    moves: Mapping[int, tuple[float, float]]
    still: tuple[int, ...]
    reach: float
    backward: float = 1.0
    controls: tuple[tuple[int, ...], mesh.Points] = field(init=False)

    def __post_init__(self) -> None:
        mirror = mesh.mean_face().mirror
        moved: dict[int, tuple[float, float]] = {}
        for vertex, (dx, dy) in self.moves.items():
            moved[vertex] = (dx, dy)
            partner = int(mirror[vertex])
            if partner != vertex:
                moved[partner] = (-dx, dy)
        for vertex in mesh.both(self.still):
            moved.setdefault(vertex, (0.0, 0.0))
        object.__setattr__(self, "controls", (tuple(moved), np.array(list(moved.values()), np.float64)))


def _all(vertices: tuple[int, ...], dx: float, dy: float) -> dict[int, tuple[float, float]]:
    return dict.fromkeys(vertices, (dx, dy))


DIRECTIONS: dict[str, Direction] = {
    "smile": Direction(
        {
            61: (-0.085, -0.095),
            78: (-0.075, -0.085),
            185: (-0.055, -0.06),
            146: (-0.065, -0.05),
            191: (-0.045, -0.045),
            95: (-0.045, -0.035),
            40: (-0.035, -0.036),
            91: (-0.045, -0.034),
            80: (-0.022, -0.012),
            88: (-0.022, -0.004),
            39: (-0.014, -0.008),
            181: (-0.018, -0.002),
            37: (-0.004, 0.008),
            84: (-0.005, 0.012),
            0: (0.0, 0.01),
            13: (0.0, 0.008),
            14: (0.0, 0.01),
            17: (0.0, 0.012),
            205: (-0.03, -0.055),
            207: (-0.04, -0.035),
            187: (-0.03, -0.05),
            50: (-0.012, -0.045),
            101: (-0.002, -0.03),
            129: (-0.012, -0.004),
            145: (0.0, -0.012),
            144: (0.0, -0.01),
            153: (0.0, -0.008),
        },
        (*mesh.LID_UPPER, *mesh.IRIS, *mesh.NOSE_RIDGE, 2, 97, *_JAWLINE, 132, 93, 234, 127, 199, 175),
        0.9,
        backward=0.6,
    ),
    "brow_raise": Direction(
        {
            **_all(mesh.BROW_UPPER, 0.0, -0.115),
            **_all(mesh.BROW_LOWER, 0.0, -0.11),
            **_all((69, 104, 108), 0.0, -0.06),
            **_all(_FOLD, 0.0, -0.022),
            151: (0.0, -0.05),
            9: (0.0, -0.045),
            8: (0.0, -0.02),
        },
        (*_EYES, 168, 6, 10, 109, 67, 103, 54, 21, 162, 127),
        0.75,
    ),
    "nose_width": Direction(
        {
            129: (-0.06, 0.0),
            102: (-0.065, 0.0),
            64: (-0.08, 0.0),
            48: (-0.08, 0.0),
            98: (-0.05, 0.0),
            97: (-0.02, 0.0),
        },
        (*mesh.NOSE_RIDGE, 2, *_LIPS, 50, 101, 205, 133, 153, 145),
        0.5,
    ),
    "jaw": Direction(
        {
            132: (-0.025, 0.0),
            58: (-0.065, 0.01),
            172: (-0.105, 0.015),
            136: (-0.105, 0.022),
            150: (-0.075, 0.028),
            149: (-0.045, 0.032),
            176: (-0.025, 0.034),
            148: (-0.012, 0.035),
            152: (0.0, 0.035),
            175: (0.0, 0.025),
            207: (-0.02, 0.0),
        },
        (*_LIPS, 18, 50, 205, 93, 234, 127, 2, *_EYES),
        1.1,
    ),
    "face_width": Direction(
        {
            54: (-0.02, 0.0),
            21: (-0.035, 0.0),
            162: (-0.05, 0.0),
            127: (-0.07, 0.0),
            234: (-0.09, 0.0),
            93: (-0.10, 0.0),
            132: (-0.10, 0.0),
            58: (-0.09, 0.0),
            172: (-0.075, 0.0),
            136: (-0.055, 0.0),
            150: (-0.035, 0.0),
            149: (-0.018, 0.0),
            50: (-0.03, 0.0),
            187: (-0.05, 0.0),
            207: (-0.04, 0.0),
        },
        (*_EYES, *_LIPS, *mesh.NOSE_RIDGE, *mesh.NOSE_WING, 105, 107, 10, 152, 151),
        1.3,
    ),
}

EYE_SIZE = float(np.log(1.22))  # of the linear scale at strength 1
SLIMNESS = float(np.log(1.13))
