"""Whether a painted frame lies on its plate: one shift and one size, measured on the edges that both have.

Paint changes colours and adds lines; most outlines stay where they are. Phase correlation of the edges gives the shift,
an affine refinement (ECC) of a blurred version the rest. Beyond `MOST` pixels, paint would teach a network to smear,
and it is the artist's to put right: nothing is moved silently.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

MOST, NOTICED = 2.0, 0.8  # pixels: more is an error, more than the second is told
LEAST_AGREEMENT = 0.25  # correlation of the edges below which nothing can be said
_WORK = 768  # longest side at which is measured
_STEPS = 60
_LEAST_OVERLAP = 0.25  # of the picture
_LOCAL = 8.0  # measured pixels


@dataclass(frozen=True)
class Lineup:
    """How paint lies on the plate.

    dx, dy     pixels by which the paint is shifted (right, down), at the picture's middle
    scale      its size; 1 is the plate's
    off        how far it is off at most in the middle two thirds of the picture, pixels
    agreement  correlation of the edges once lined up, -1..1
    """

    dx: float
    dy: float
    scale: float
    off: float
    agreement: float

    def __str__(self) -> str:
        resized = f", {self.scale:.4f} times as large" if abs(self.scale - 1) > 5e-4 else ""
        return f"shifted by {self.dx:+.1f}, {self.dy:+.1f} px{resized}"


def line_up(plate: NDArray[np.float32], paint: NDArray[np.float32]) -> Lineup:
    """Measure two pictures [H, W, 3] of one size, display-encoded 0..1."""
    height, width = plate.shape[:2]
    reduced = min(1.0, _WORK / max(height, width))
    a, b = (_edges(picture, reduced) for picture in (plate, paint))
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(a, b, window)
    start = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    found = [_refined(a, b, matrix) for matrix in (start, np.eye(2, 3, dtype=np.float32))]
    matrix, agreement = max(found, key=lambda f: f[1])
    rows, columns = a.shape
    middle = np.array([columns / 2, rows / 2])
    moved = (matrix.astype(np.float64) @ [*middle, 1.0] - middle) / reduced
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2].astype(np.float64)))))
    off = float(np.hypot(*moved)) + abs(scale - 1) * float(np.hypot(height, width)) / 3
    return Lineup(float(moved[0]), float(moved[1]), scale, off, agreement)


def _edges(picture: NDArray[np.float32], scale: float) -> Plane:
    """How much stronger each edge is than its surroundings: the strongest are held back, so that a few black lines do
    not rule, and a busy part of the picture does not pass for another busy part.
    """
    grey: Plane = np.asarray(picture @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)
    if scale < 1:
        size = (max(16, round(grey.shape[1] * scale)), max(16, round(grey.shape[0] * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.2), np.float32)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    held = np.sqrt(np.minimum(strength, 0.5))
    return np.asarray(held - cv2.GaussianBlur(held, (0, 0), _LOCAL), np.float32)


def _refined(a: Plane, b: Plane, start: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The affine change from a's coordinates to b's, and the correlation under it (-1 where there is none)."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-5)
    try:
        _, matrix = cv2.findTransformECC(a, b, start.copy(), cv2.MOTION_AFFINE, stop, None, 5)  # type: ignore[call-overload]
    except cv2.error:  # it did not come to rest: nothing in common, or nothing in the picture
        return start, -1.0
    size, how = (a.shape[1], a.shape[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(b, matrix, size, flags=how)
    both = cv2.warpAffine(np.ones_like(b), matrix, size, flags=how) > 0.99
    if both.mean() < _LEAST_OVERLAP:
        return start, -1.0
    x, y = a[both] - a[both].mean(), seen[both] - seen[both].mean()
    return np.asarray(matrix, np.float32), float((x * y).mean() / max(float(x.std() * y.std()), 1e-9))
