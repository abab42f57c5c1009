"""What is known about a face in a shot: the data every effect works from.

Coordinates are plate pixels in the display window's frame of reference (the display window's own origin is
(0, 0) at its upper-left corner; a data window may begin at negative coordinates). A pixel's centre lies at
half: the first pixel covers 0..1. Pixels need not be square; `pixel_aspect` (width / height of one) lets
`square()` give coordinates with equal units in x and y.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from host_bridge.repairs import LANDMARKS as LANDMARKS

FloatArray = NDArray[np.float32]


class FaceState(IntEnum):
    """How a face's landmarks in a frame came to be."""

    ABSENT = 0
    DETECTED = 1
    INTERPOLATED = 2
    MANUAL = 3


@dataclass(frozen=True)
class SegmentationMap:
    """Soft classes around one face, at low resolution, already smoothed over time.

    `classes` names the channels of `values`, [K, H, W] in 0..1. `matrix` [2, 3] maps plate pixel coordinates to
    map pixel coordinates (both with centres at half).
    """

    classes: tuple[str, ...]
    values: FloatArray
    matrix: FloatArray


@dataclass(frozen=True)
class FaceFrame:
    """One face in one frame.

    landmarks  [478, 3] MediaPipe's mesh order; x, y in plate pixels, z in plate-x units (smaller is nearer)
    box        (x0, y0, x1, y1) around the landmarks, plate pixels
    """

    track: int
    frame: int
    state: FaceState
    landmarks: FloatArray
    box: tuple[float, float, float, float]
    score: float
    pixel_aspect: float
    segmentation: SegmentationMap | None = None

    def square(self) -> FloatArray:
        """Landmarks with x scaled to square pixels, [478, 3]."""
        out = self.landmarks.copy()
        out[:, 0] *= self.pixel_aspect
        out[:, 2] *= self.pixel_aspect
        return out
