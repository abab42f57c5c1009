"""How analysis looks at a frame: square pixels, reduced copies, and upright square crops of any place and tilt.

Three coordinate systems, all with pixel centres at half: plate (as in faces.types), square (plate with x times the
pixel aspect, so that angles and circles are true), and crop (0..size in a square crop).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference_server.faces.align import Matrix, invert

Picture8 = NDArray[np.uint8]  # [H, W, 3] RGB display-encoded sRGB
Points = NDArray[np.float64]  # [N, 2]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Roi:
    """A square of side `side` around (x, y), turned by `angle` radians (clockwise as seen), square coordinates."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def matrix(self, size: int) -> Matrix:
        """Crop coordinates (0..size) to square coordinates [2, 3]."""
        scale = self.side / size
        c, s = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        half = size / 2
        return np.array([[c, -s, self.x - c * half + s * half], [s, c, self.y - s * half - c * half]])

    def scaled(self, factor: float) -> Roi:
        return Roi(self.x, self.y, self.side * factor, self.angle)


def transform(matrix: Matrix, points: ArrayLike) -> Points:
    """Points [..., 2] through an affine map [2, 3]."""
    p = np.asarray(points, dtype=np.float64)
    return np.asarray(p @ matrix[:, :2].T + matrix[:, 2])


def chain(first: Matrix, then: Matrix) -> Matrix:
    """The affine map that applies `first`, then `then`."""
    return np.column_stack([then[:, :2] @ first[:, :2], then[:, :2] @ first[:, 2] + then[:, 2]])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    inside = _intersection(a, b)
    union = _area(a) + _area(b) - inside
    return inside / union if union > 0 else 0.0


def contained(a: Box, b: Box) -> float:
    """The part of the smaller box that lies in the other."""
    least = min(_area(a), _area(b))
    return _intersection(a, b) / least if least > 0 else 0.0


def bounding_box(points: ArrayLike) -> Box:
    """The box around points [N, 2 or more]."""
    p = np.asarray(points, dtype=np.float64)[:, :2]
    (x0, y0), (x1, y1) = p.min(axis=0), p.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _intersection(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


@dataclass(frozen=True)
class View:
    """A frame as analysis sees it: the data window's picture and where it lies in the display window.

    Reduced copies are made when first asked for and live as long as the view, which is one frame long.
    """

    picture: Picture8
    origin: tuple[int, int] = (0, 0)
    pixel_aspect: float = 1.0
    _reduced: list[Picture8] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.picture.ndim != 3 or self.picture.shape[2] != 3 or self.picture.dtype != np.uint8:
            raise ValueError(f"a view is uint8 [H, W, 3], not {self.picture.dtype} {list(self.picture.shape)}")
        if not self.pixel_aspect > 0:
            raise ValueError(f"pixel aspect is above 0, not {self.pixel_aspect}")

    @classmethod
    def of(cls, picture: NDArray[np.generic], origin: tuple[int, int], pixel_aspect: float) -> View:
        """A view of uint8 or floating RGB (0..1 display-encoded sRGB; clipped, not-a-number as black) [H, W, 3]."""
        if picture.dtype == np.uint8:
            return cls(np.ascontiguousarray(picture, dtype=np.uint8), origin, pixel_aspect)
        if not np.issubdtype(picture.dtype, np.floating):
            raise ValueError(f"a picture is uint8 or floating, not {picture.dtype}")
        bounded: NDArray[Any] = np.minimum(picture.astype(np.float32, copy=False), np.float32(1))
        # OpenCV rounds and saturates in one pass, and turns what is not a number into 0.
        scaled = cv2.multiply(bounded, np.full(4, 255.0), dtype=cv2.CV_8U)
        return cls(np.asarray(scaled, dtype=np.uint8), origin, pixel_aspect)

    @property
    def box(self) -> Box:
        """What the picture covers, square coordinates."""
        height, width = self.picture.shape[:2]
        x0, y0 = self.origin
        return x0 * self.pixel_aspect, float(y0), (x0 + width) * self.pixel_aspect, float(y0 + height)

    def level(self, index: int) -> Picture8:
        """The picture halved `index` times by area."""
        if index == 0:
            return self.picture
        while len(self._reduced) < index:
            last = self._reduced[-1] if self._reduced else self.picture
            size = (max(last.shape[1] // 2, 1), max(last.shape[0] // 2, 1))
            self._reduced.append(np.asarray(cv2.resize(last, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
        return self._reduced[index - 1]

    def crop(self, roi: Roi, size: int) -> Picture8:
        """The region [size, size, 3], bilinear from a copy reduced enough not to alias; edges are repeated outward."""
        return self.warp(roi.matrix(size), size)

    def warp(self, matrix: Matrix, size: int) -> Picture8:
        """The crop [size, size, 3] whose crop coordinates `matrix` [2, 3] takes to square coordinates."""
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        index = max(int(np.floor(np.log2(max(scale, 1.0)) + 0.25)), 0)
        while index > 0 and min(self.picture.shape[:2]) >> index < 16:
            index -= 1
        source = self.level(index)
        fx, fy = source.shape[1] / self.picture.shape[1], source.shape[0] / self.picture.shape[0]
        to_source = np.array([[fx / self.pixel_aspect, 0.0, -self.origin[0] * fx], [0.0, fy, -self.origin[1] * fy]])
        m = chain(matrix, to_source)
        m[:, 2] += m[:, :2] @ np.array([0.5, 0.5]) - 0.5  # from centres at half to centres at whole numbers
        return np.asarray(
            cv2.warpAffine(
                source, m, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
            ),
            dtype=np.uint8,
        )


def roi_of_landmarks(landmarks: ArrayLike, margin: float = 1.5) -> Roi:
    """The upright square around a mesh [478, 2 or 3] in square coordinates, `margin` times its longer side."""
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    across = points[263] - points[33]  # outer eye corners, picture left to right
    angle = float(np.arctan2(across[1], across[0]))
    c, s = np.cos(angle), np.sin(angle)
    upright = points @ np.array([[c, -s], [s, c]])
    low, high = upright.min(axis=0), upright.max(axis=0)
    middle = np.array([[c, -s], [s, c]]) @ ((low + high) / 2)
    return Roi(float(middle[0]), float(middle[1]), float((high - low).max() * margin), angle)


def eye_distance(landmarks: ArrayLike) -> float:
    """Distance between the middles of the eyes of a mesh [478, 2 or 3], in its units."""
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    left, right = (points[33] + points[133]) / 2, (points[362] + points[263]) / 2
    return float(np.hypot(*(right - left)))


__all__ = [
    "Box",
    "Matrix",
    "Picture8",
    "Points",
    "Roi",
    "View",
    "bounding_box",
    "chain",
    "contained",
    "eye_distance",
    "invert",
    "iou",
    "roi_of_landmarks",
    "transform",
]
