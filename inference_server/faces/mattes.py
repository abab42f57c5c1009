"""Which pixels belong to which part of a face.

What the mesh describes (face, skin, brows, eyes, irises, nose, lips, mouth) is drawn from it at plate resolution;
what it does not reach (hair, ears, neck, hat, ...) comes from the face's segmentation map, where that has such a class.
A region whose source is missing is left out, never returned as zeros. Edges are anti-aliased and then softened by a
width that follows the size of the face, so a face gets the same matte at every resolution.

`face` is the oval of the mesh, carried up over the forehead toward the hairline (the mesh ends short of it), with
everything inside. `skin` is `face` without brows, eyes, lips, mouth and, where known, hair; it includes the nose.
`mouth` is the opening between the lips.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference_server.faces.geometry import eye_distance
from inference_server.faces.types import FaceFrame

Matte = NDArray[np.float32]  # [h, w] 0..1
Outline = NDArray[np.float64]  # [N, 2]

# MediaPipe vertices around each part, in drawing order.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
    *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
LEFT_IRIS = (469, 470, 471, 472)
RIGHT_IRIS = (474, 475, 476, 477)
NOSE = (
    *(168, 193, 122, 196, 236, 198, 209, 129, 64, 98, 97, 2),
    *(326, 327, 294, 358, 429, 420, 456, 419, 351, 417),
)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
# Parts that stand out of the oval when the head is turned away.
PROTRUDING = (
    (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 327, 129, 358, 64, 294, 122, 351),
    (*LIPS, 18, 200, 199, 175, 152, 148, 377),
    (*LEFT_BROW, *LEFT_EYE, 9, 8, 168, 127, 234),
    (*RIGHT_BROW, *RIGHT_EYE, 9, 8, 168, 356, 454),
)

PARTS = {
    "brows": (LEFT_BROW, RIGHT_BROW),
    "eyes": (LEFT_EYE, RIGHT_EYE),
    "irises": (LEFT_IRIS, RIGHT_IRIS),
    "nose": (NOSE,),
    "lips and mouth": (LIPS,),
    "mouth": (MOUTH,),
}

# Softness of a region's edge: sigma in eye distances.
SOFTNESS = {
    "face": 0.04,
    "brows": 0.025,
    "eyes": 0.014,
    "irises": 0.012,
    "nose": 0.06,
    "lips and mouth": 0.018,
    "mouth": 0.012,
}
LEAST_SIGMA = 0.6  # pixels
FOREHEAD = 0.10  # how far the oval's top is raised, in heights of the oval
MESH_REGIONS = ("face", "skin", "brows", "eyes", "irises", "nose", "lips", "mouth")


class Rectangle(Protocol):
    """A pixel rectangle in display-window coordinates: x0 <= x < x1, y0 <= y < y1."""

    @property
    def x0(self) -> int: ...
    @property
    def y0(self) -> int: ...
    @property
    def x1(self) -> int: ...
    @property
    def y1(self) -> int: ...


def available_regions(face: FaceFrame) -> tuple[str, ...]:
    """The regions that `region_mattes` can give for this face."""
    classes = face.segmentation.classes if face.segmentation is not None else ()
    return (*MESH_REGIONS, *(name for name in classes if name not in MESH_REGIONS))


def region_mattes(face: FaceFrame, region: Rectangle, names: Iterable[str]) -> dict[str, Matte]:
    """Soft mattes [h, w] of the named regions within a rectangle of the plate; a pure function.

    Names without a source for this face are left out (see `available_regions`).
    """
    canvas = _Canvas(face, region)
    out: dict[str, Matte] = {}
    for name in names:
        if name in MESH_REGIONS:
            out[name] = canvas.mesh_region(name)
        elif face.segmentation is not None and name in face.segmentation.classes:
            out[name] = canvas.segmented(name)
    return out


def silhouette(landmarks: ArrayLike, forehead: float = FOREHEAD) -> Outline:
    """The face's outline [36, 2] from a mesh [478, 2 or 3]: the oval with its top raised toward the hairline."""
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    outline = points[list(OVAL)]
    up = points[10] - points[152]
    temples = (points[127] + points[356]) / 2
    # How far above the temples a point lies: 0 there, 1 at the top of the oval.
    rise = (outline - temples) @ up / max(float((points[10] - temples) @ up), 1e-6)
    return np.asarray(outline + np.clip(rise, 0.0, 1.0)[:, None] ** 1.5 * forehead * up)


def smooth_outline(outline: Outline, steps: int = 6) -> Outline:
    """A closed Catmull-Rom curve through the outline's points, `steps` points for each."""
    t = (np.arange(steps) / steps)[:, None, None]
    before, here, after, later = (np.roll(outline, shift, axis=0)[None] for shift in (1, 0, -1, -2))
    curve = 0.5 * (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - later) * t**2
        + (3 * here - before - 3 * after + later) * t**3
    )  # [steps, N, 2]
    return np.asarray(curve.transpose(1, 0, 2).reshape(-1, 2))


class _Canvas:
    """One call of `region_mattes`: what several regions share is drawn once."""

    def __init__(self, face: FaceFrame, region: Rectangle) -> None:
        self._face = face
        self._offset = np.array([region.x0, region.y0], dtype=np.float64)
        self._size = (max(region.y1 - region.y0, 0), max(region.x1 - region.x0, 0))
        self._points = face.landmarks[:, :2].astype(np.float64) - self._offset
        self._aspect = face.pixel_aspect
        self._eyes = eye_distance(face.square())  # square pixels: the plate's vertical unit
        self._drawn: dict[str, Matte] = {}

    def mesh_region(self, name: str) -> Matte:
        if name not in self._drawn:
            self._drawn[name] = self._skin() if name == "skin" else self._draw(name)
        return self._drawn[name]

    def segmented(self, name: str) -> Matte:
        """A class of the segmentation map, brought to the rectangle; 0 outside the map."""
        source = self._face.segmentation
        height, width = self._size
        if source is None or height == 0 or width == 0:
            return np.zeros(self._size, dtype=np.float32)
        to_map = source.matrix.astype(np.float64)
        # rectangle index -> plate -> map -> map index, centres at whole numbers on both ends
        shift = to_map[:, :2] @ (self._offset + 0.5) + to_map[:, 2] - 0.5
        sampled = cv2.warpAffine(
            np.ascontiguousarray(source.values[source.classes.index(name)], dtype=np.float32),
            np.column_stack([to_map[:, :2], shift]),
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        return np.clip(sampled, 0.0, 1.0).astype(np.float32)

    def _skin(self) -> Matte:
        skin = self.mesh_region("face").copy()
        for name in ("brows", "eyes", "lips and mouth"):
            skin *= 1.0 - self.mesh_region(name)
        if self._face.segmentation is not None and "hair" in self._face.segmentation.classes:
            skin *= 1.0 - self.segmented("hair")
        return skin

    def _draw(self, name: str) -> Matte:
        if name == "face":
            hulls = [_hull(self._points[list(part)]) for part in PROTRUDING]
            return self._fill([smooth_outline(silhouette(self._points)), *hulls], SOFTNESS[name])
        if name == "lips":
            return self.mesh_region("lips and mouth") * (1.0 - self.mesh_region("mouth"))
        curves = [smooth_outline(self._points[list(part)]) for part in PARTS[name]]
        filled = self._fill(curves, SOFTNESS[name])
        if name == "irises":
            filled *= self.mesh_region("eyes")
        return filled

    def _fill(self, outlines: list[Outline], softness: float) -> Matte:
        """The union of the outlines, anti-aliased, edge softened; only what they touch is worked on."""
        out = np.zeros(self._size, dtype=np.float32)
        sigma_y = max(softness * self._eyes, LEAST_SIGMA)
        sigma_x = max(softness * self._eyes / self._aspect, LEAST_SIGMA)
        reach_x, reach_y = int(np.ceil(3.5 * sigma_x)) + 2, int(np.ceil(3.5 * sigma_y)) + 2
        every = np.concatenate(outlines)
        # Drawn beyond the rectangle's edge by the reach of the blur, so that the edge cuts nothing off.
        x0 = max(int(np.floor(every[:, 0].min())) - reach_x, -reach_x)
        y0 = max(int(np.floor(every[:, 1].min())) - reach_y, -reach_y)
        x1 = min(int(np.ceil(every[:, 0].max())) + reach_x, self._size[1] + reach_x)
        y1 = min(int(np.ceil(every[:, 1].max())) + reach_y, self._size[0] + reach_y)
        if x1 <= 0 or y1 <= 0 or x0 >= self._size[1] or y0 >= self._size[0] or x1 <= x0 or y1 <= y0:
            return out
        local = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
        for outline in outlines:
            fixed = np.rint((np.clip(outline, -8192, 8192) - [x0, y0] - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(local, [fixed.reshape(-1, 1, 2)], (255,), lineType=cv2.LINE_AA, shift=4)
        soft = cv2.GaussianBlur(
            local.astype(np.float32) / np.float32(255), (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_CONSTANT
        )
        cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x1, self._size[1]), min(y1, self._size[0])
        out[cy0:cy1, cx0:cx1] = np.minimum(soft[cy0 - y0 : cy1 - y0, cx0 - x0 : cx1 - x0], 1.0)
        return out


def _hull(points: Outline) -> Outline:
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], dtype=np.float64)
