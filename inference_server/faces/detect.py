"""Where faces are in a frame.

The interface is `Detector`; the one here is MediaPipe's full-range model, run over the whole frame and, when asked,
over tiles of it. A tile's side is a fixed part of the frame's longer side, so that what is found depends on how large
a face is in the picture, not on its resolution: about 6 % of the longer side (face without hair) in the whole frame,
3 % in large tiles, 1.3 % in small ones (a head of 40 px in a 1920 px frame).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

from inference_server.faces.geometry import Box, Points, Roi, View, contained, iou, transform
from inference_server.faces.runtime import Graph


class Search(IntEnum):
    """How hard to look; each includes those before it."""

    WHOLE = 0
    LARGE_TILES = 1
    SMALL_TILES = 2


@dataclass(frozen=True)
class Detection:
    """A face: box and six points (picture-left eye, right eye, nose tip, mouth, left ear, right ear), square
    coordinates; score 0..1.
    """

    box: Box
    points: Points
    score: float

    @property
    def roi(self) -> Roi:
        """The upright square in which the landmark network looks for this face."""
        x0, y0, x1, y1 = self.box
        across = self.points[1] - self.points[0]
        angle = float(np.arctan2(across[1], across[0]))
        return Roi((x0 + x1) / 2, (y0 + y1) / 2, 1.5 * max(x1 - x0, y1 - y0), angle)


class Detector(Protocol):
    """Finds faces in one frame, knowing nothing of others. No face: an empty list, never an error."""

    def detect(self, view: View, search: Search) -> list[Detection]:
        """All faces at least as large as `search` reaches, each once, best score first."""
        ...


NETWORK_SIZE = 192
TILE_PARTS = {Search.LARGE_TILES: 2.0, Search.SMALL_TILES: 5.0}
OVERLAP = 0.25
LEAST_SIDE = 12.0  # pixels of a box; below, the mesh is a guess
SURE = 0.8  # a score that noise and folds of cloth do not reach (they stay below 0.7)
CONFIRMING = (2.0, 3.0)  # sides of the closer looks, in sides of the box
_GRAPH = """
input_stream: "image"
output_stream: "detections"
node {
  calculator: "FaceDetectionFullRangeCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
  options { [mediapipe.FaceDetectionOptions.ext] { min_score_thresh: %f } }
}
"""


class MediaPipeDetector:
    """MediaPipe's full-range face detector (mediapipe 0.10.21, the model inside its wheel) over frame and tiles."""

    def __init__(self, least_score: float = 0.5) -> None:
        self._graph = Graph(_GRAPH % least_score, ["detections"])

    def detect(self, view: View, search: Search = Search.SMALL_TILES) -> list[Detection]:
        """See Detector.detect. A face may reach out of the frame as long as its eyes are inside."""
        found: list[Detection] = []
        for level in Search:
            if level <= search:
                for tile in tiles(view, level):
                    found.extend(self._in_tile(view, tile))
        confirmed = (self._confirm(view, candidate) for candidate in merge(found))
        return merge([c for c in confirmed if c is not None])

    def _confirm(self, view: View, candidate: Detection) -> Detection | None:
        """What closer looks make of a doubtful find: many tiles see many things that are no faces."""
        x0, y0, x1, y1 = candidate.box
        side = max(x1 - x0, y1 - y0)
        if side < LEAST_SIDE:
            return None
        if candidate.score >= SURE:
            return candidate
        closest: Detection | None = None
        for factor in CONFIRMING:
            again = self._in_tile(view, Roi((x0 + x1) / 2, (y0 + y1) / 2, factor * side))
            closest = max(again, key=lambda d: iou(d.box, candidate.box), default=None)
            if closest is None or iou(closest.box, candidate.box) < 0.4:
                return None
        return closest

    def _in_tile(self, view: View, tile: Roi) -> list[Detection]:
        matrix = tile.matrix(NETWORK_SIZE)
        answer = self._graph(view.crop(tile, NETWORK_SIZE)).detections
        x0, y0, x1, y1 = view.box
        out = []
        for detection in answer or ():
            place = detection.location_data.relative_bounding_box
            corners = np.array([[place.xmin, place.ymin], [place.xmin + place.width, place.ymin + place.height]])
            points = np.array([[p.x, p.y] for p in detection.location_data.relative_keypoints])
            (bx0, by0), (bx1, by1) = transform(matrix, corners * NETWORK_SIZE)
            middle = (bx0 + bx1) / 2, (by0 + by1) / 2
            if x0 <= middle[0] <= x1 and y0 <= middle[1] <= y1:  # not in the repeated edge
                box = (float(bx0), float(by0), float(bx1), float(by1))
                out.append(Detection(box, transform(matrix, points * NETWORK_SIZE), float(detection.score[0])))
        return out


def tiles(view: View, level: Search) -> list[Roi]:
    """The squares that a level looks at: they cover the frame and overlap by a quarter."""
    x0, y0, x1, y1 = view.box
    width, height = x1 - x0, y1 - y0
    if level is Search.WHOLE:
        return [Roi((x0 + x1) / 2, (y0 + y1) / 2, max(width, height))]
    side = max(width, height) / TILE_PARTS[level]
    columns, rows = _starts(width, side), _starts(height, side)
    return [Roi(x0 + x + side / 2, y0 + y + side / 2, side) for y in rows for x in columns]


def _starts(length: float, side: float) -> list[float]:
    if length <= side:
        return [(length - side) / 2]
    count = int(np.ceil((length - side) / (side * (1 - OVERLAP)))) + 1
    return [float(v) for v in np.linspace(0.0, length - side, count)]


def merge(found: list[Detection]) -> list[Detection]:
    """One detection per face, best score first: boxes that share much of their area are the same face."""
    kept: list[Detection] = []
    for candidate in sorted(found, key=lambda d: (-d.score, d.box)):
        if not any(iou(candidate.box, k.box) > 0.35 or contained(candidate.box, k.box) > 0.7 for k in kept):
            kept.append(candidate)
    return kept
