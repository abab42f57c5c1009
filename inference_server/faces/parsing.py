"""Soft classes around a face, at low resolution: what the mesh does not reach.

The interface is `Parser`. The one here needs no checkpoint: MediaPipe's selfie segmentation says what is a person,
and within the person the colours of this very face tell hair, ears and neck apart: skin is what looks like the face
inside the mesh, hair what surrounds its upper half and does not, cloth what lies well below the chin. A hat cannot be
told from hair this way, so there is no such class. Classes are for soft mattes; they are not labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.faces import mattes
from inference_server.faces.align import invert
from inference_server.faces.geometry import (
    Matrix,
    Picture8,
    Points,
    View,
    eye_distance,
    roi_of_landmarks,
    transform,
)
from inference_server.faces.runtime import Graph

Plane = NDArray[np.float32]  # [S, S]

MAP_SIZE = 112  # three classes of this size are 37 kB for every face and frame of a stored shot
MAP_MARGIN = 2.6  # side of the map in sides of the face's box: 0.8 boxes of space on each side
NETWORK_SIZE = 256
_BINS = 12
_GRAPH = """
input_stream: "image"
input_side_packet: "model"
output_stream: "mask"
node {
  calculator: "SelfieSegmentationCpu"
  input_stream: "IMAGE:image"
  input_side_packet: "MODEL_SELECTION:model"
  output_stream: "SEGMENTATION_MASK:mask"
}
"""


@dataclass(frozen=True)
class ParsedFace:
    """Classes around one face in one frame, not smoothed over time.

    values   [K, S, S] float32 0..1
    matrix   [2, 3] square coordinates to map coordinates (0..S)
    picture  [S, S, 3] uint8, what the map was made from: flow between frames is measured on it
    """

    values: NDArray[np.float32]
    matrix: Matrix
    picture: Picture8


class Parser(Protocol):
    """Gives soft classes around a face of one frame, knowing nothing of other frames."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the channels; a region's name (hair, ears, neck, hat, ...) becomes that region's matte."""
        ...

    def parse(self, view: View, mesh: Points) -> ParsedFace:
        """The classes around the face whose mesh [478, 3] is given in square coordinates."""
        ...


class MediaPipeParser:
    """Selfie segmentation (mediapipe 0.10.21, the model inside its wheel) and the face's own colours."""

    classes: tuple[str, ...] = ("hair", "ears", "neck")

    def __init__(self) -> None:
        self._graph = Graph(_GRAPH, ["mask"], side_inputs={"model": 0}, hints={"mask": "IMAGE_FRAME"})

    def parse(self, view: View, mesh: Points) -> ParsedFace:
        """See Parser.parse."""
        roi = roi_of_landmarks(mesh, MAP_MARGIN)
        large = view.crop(roi, NETWORK_SIZE)
        mask = np.asarray(self._graph(large).mask, dtype=np.float32)
        person = np.asarray(_reduce(mask), dtype=np.float32).reshape(MAP_SIZE, MAP_SIZE)
        picture = np.asarray(_reduce(large), dtype=np.uint8)
        matrix = invert(roi.matrix(MAP_SIZE))
        points = transform(matrix, mesh[:, :2])
        values = np.stack(_tell_apart(picture, person, points)) * _fade()
        return ParsedFace(values.astype(np.float32), matrix, picture)


def _reduce(picture: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.asarray(cv2.resize(np.asarray(picture), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA))


def _fade() -> Plane:
    """1 inside, falling to 0 at the map's edge, so that what the map cuts off ends softly."""
    distance = np.minimum(np.arange(MAP_SIZE), np.arange(MAP_SIZE)[::-1]).astype(np.float32) / np.float32(6)
    edge = np.clip(distance, 0, 1)
    return np.asarray(edge[:, None] * edge[None, :], dtype=np.float32)


def _tell_apart(picture: Picture8, person: Plane, points: Points) -> tuple[Plane, Plane, Plane]:
    """Hair, ears and neck [S, S] from the map's picture, the person in it and the mesh [478, 2] in map coordinates."""
    eyes = eye_distance(points)
    colour = _colour_index(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB))
    rows, columns = np.mgrid[0:MAP_SIZE, 0:MAP_SIZE] + 0.5
    chin, brow = points[152], points[9]
    below = ((rows - chin[1]) / eyes).astype(np.float32)  # downward from the chin, eye distances
    aside = ((columns - chin[0]) / eyes).astype(np.float32)
    oval = _filled(mattes.silhouette(points, 0.0))
    features = np.zeros_like(oval)
    for part in (mattes.LEFT_BROW, mattes.RIGHT_BROW, mattes.LEFT_EYE, mattes.RIGHT_EYE, mattes.LIPS):
        np.maximum(features, _filled(points[list(part)]), out=features)
    around = cv2.distanceTransform((oval < 0.5).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(eyes)
    solid = person > 0.6

    # Samples. The mesh's upper forehead may lie under hair, so skin is learnt from the brows down.
    skin_at = (oval > 0.9) & (features < 0.1) & (rows > brow[1])
    skin = _likelihood(colour, skin_at)
    near_skin = _ramp(skin, 0.15, 0.4)
    hair_at = solid & (around > 0.15) & (around < 1.2) & (rows < points[4, 1]) & (near_skin < 0.3)
    hair = _likelihood(colour, hair_at)
    cloth = _likelihood(colour, solid & (below > 0.8) & (near_skin < 0.5))
    has_hair = min(float(hair_at.sum()) / (0.5 * eyes * eyes), 1.0)

    # Where each is to be expected, before its colour is looked at.
    ears_at = np.zeros_like(oval)
    for ear, inner in ((234, 454), (454, 234)):
        outward = (points[ear] - points[inner]) / max(float(np.hypot(*(points[ear] - points[inner]))), 1e-6)
        centre = points[ear] + outward * 0.15 * eyes
        spread = ((columns - centre[0]) / (0.38 * eyes)) ** 2 + ((rows - centre[1] - 0.1 * eyes) / (0.62 * eyes)) ** 2
        np.maximum(ears_at, np.exp(-(spread**2)).astype(np.float32), out=ears_at)
    column = np.exp(-((aside / 1.0) ** 4))
    neck_at = (_ramp(below, -0.9, -0.2) * (1 - _ramp(below, 0.9, 1.5)) * column).astype(np.float32)
    upper = 1 - _ramp(below, -0.3, 0.6)
    forehead = oval * (1 - _ramp((rows - brow[1]) / eyes, -0.5, 0.0))
    expect_skin = 0.03 + 0.9 * np.maximum(oval, np.maximum(0.6 * ears_at, 0.7 * neck_at))
    long_hair = (1 - column) * (1 - _ramp(below, 1.5, 2.5)) * (1 - _ramp(np.abs(aside), 1.5, 2.2))
    expect_hair = has_hair * np.maximum(upper * (1 - oval) * 0.8 + forehead * 0.35, 0.25 * long_hair)
    expect_cloth = 0.01 + 0.9 * _ramp(below, 0.2, 1.0) * (1 - 0.5 * neck_at)
    odds = np.stack([skin * expect_skin, hair * (expect_hair + 1e-4), cloth * expect_cloth]) + 1e-5
    parts = odds / odds.sum(axis=0)  # [3, S, S]
    guide = picture.astype(np.float32) / np.float32(255)
    soft = [
        np.clip(cv2.ximgproc.guidedFilter(guide, part.astype(np.float32), 3, 1e-3), 0, 1) * person for part in parts[:2]
    ]
    outside = 1 - cv2.GaussianBlur(oval, (0, 0), 0.04 * eyes)
    skin_outside = soft[0] * outside
    ears = skin_outside * np.minimum(ears_at * 1.6, 1)
    neck = skin_outside * np.minimum(neck_at * 1.6, 1) * (1 - np.minimum(ears_at * 1.6, 1))
    hair_soft = soft[1] * _grown_from(soft[1] > 0.2, hair_at)
    return hair_soft.astype(np.float32), ears.astype(np.float32), neck.astype(np.float32)


def _filled(outline: Points) -> Plane:
    canvas = np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.uint8)
    fixed = np.rint((np.clip(outline, -4096, 4096) - 0.5) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.fillPoly(canvas, [fixed], (255,), lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / np.float32(255)


def _grown_from(part: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> Plane:
    """1 where `part` hangs together with a seed, softly 0 elsewhere: a dark shirt is not hair."""
    count, labels = cv2.connectedComponents(part.astype(np.uint8))
    held = np.zeros(count, dtype=bool)
    held[np.unique(np.asarray(labels)[part & seeds])] = True
    kept = cv2.dilate((held[labels] & part).astype(np.float32), np.ones((5, 5), np.float32))
    return np.asarray(cv2.GaussianBlur(kept, (0, 0), 1.0), dtype=np.float32)


def _ramp(value: NDArray[np.generic], low: float, high: float) -> Plane:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((np.asarray(value, dtype=np.float32) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


_SHAPE = (_BINS, 2 * _BINS, 2 * _BINS)  # chroma has a small range: finer bins


def _colour_index(lab: NDArray[np.generic]) -> NDArray[np.intp]:
    """The histogram bin of each pixel [S, S]."""
    index = np.asarray(lab).astype(np.intp) * _SHAPE // 256
    return np.asarray((index[..., 0] * _SHAPE[1] + index[..., 1]) * _SHAPE[2] + index[..., 2])


def _likelihood(index: NDArray[np.intp], samples: NDArray[np.bool_]) -> Plane:
    """How well each pixel's colour fits the samples, [S, S] relative to their most common colour; 0 without samples."""
    if int(samples.sum()) < 12:
        return np.zeros(samples.shape, dtype=np.float32)
    counts = np.bincount(index[samples], minlength=int(np.prod(_SHAPE))).reshape(_SHAPE).astype(np.float32)
    for axis in range(3):  # a sample speaks for its neighbouring colours too
        near = counts * np.float32(0.5)
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        near[tuple(ahead)] += np.float32(0.25) * counts[tuple(behind)]
        near[tuple(behind)] += np.float32(0.25) * counts[tuple(ahead)]
        counts = near
    return np.asarray(counts.ravel()[index] / max(float(counts.max()), 1e-6), dtype=np.float32)
