"""The 478 landmarks of a face, given roughly where it is.

The interface is `Landmarker`; the one here is MediaPipe's attention mesh, run on an upright crop of the frame and once
more on the crop that its own answer suggests, which makes the result nearly independent of the first guess.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from inference_server.faces.detect import Detection, Detector, Search
from inference_server.faces.geometry import (
    Points,
    Roi,
    View,
    bounding_box,
    contained,
    iou,
    roi_of_landmarks,
)
from inference_server.faces.runtime import Graph, normalized_rect
from inference_server.faces.types import LANDMARKS, FaceFrame, FaceState, SegmentationMap

Mesh = Points  # [478, 3] float64 square coordinates, z in the same units

NETWORK_SIZE = 192
PASSES = 2
_GRAPH = """
input_stream: "image"
input_stream: "roi"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""


class Landmarker(Protocol):
    """Finds the mesh of the face in a region of one frame."""

    def find(self, view: View, roi: Roi) -> Mesh | None:
        """The mesh [478, 3] in square coordinates, or None where the region holds no face."""
        ...


class MediaPipeLandmarker:
    """MediaPipe's face mesh with attention (mediapipe 0.10.21, the model inside its wheel), 478 points."""

    def __init__(self) -> None:
        # The crop is made here, upright and antialiased, so the graph always looks at the whole of its picture.
        self._graph = Graph(
            _GRAPH,
            ["landmarks"],
            side_inputs={"with_attention": True},
            constants=lambda: {"roi": normalized_rect()},
            hints={"roi": "PROTO", "landmarks": "PROTO"},
        )

    def find(self, view: View, roi: Roi) -> Mesh | None:
        """See Landmarker.find."""
        mesh = self._once(view, roi)
        for _ in range(PASSES - 1):
            if mesh is None:
                return None
            mesh = self._once(view, roi_of_landmarks(mesh))
        return mesh

    def _once(self, view: View, roi: Roi) -> Mesh | None:
        answer = self._graph(view.crop(roi, NETWORK_SIZE)).landmarks
        if answer is None or len(answer.landmark) != LANDMARKS:
            return None
        points = np.array([(p.x, p.y, p.z) for p in answer.landmark])
        matrix = roi.matrix(1)
        out = np.empty((LANDMARKS, 3))
        out[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        out[:, 2] = points[:, 2] * roi.side
        return out


def find_faces(view: View, detector: Detector, landmarker: Landmarker, search: Search) -> list[tuple[Mesh, Detection]]:
    """Every face of a frame that detector and landmarker agree on, each once, best score first."""
    out: list[tuple[Mesh, Detection]] = []
    for detection in detector.detect(view, search):
        mesh = landmarker.find(view, detection.roi)
        if mesh is not None and plausible(mesh, detection) and not any(same_face(mesh, other) for other, _ in out):
            out.append((mesh, detection))
    return out


def plausible(mesh: Mesh, detection: Detection) -> bool:
    """Whether the mesh is of the detected face: near its box and of its size."""
    x0, y0, x1, y1 = bounding_box(mesh)
    dx0, dy0, dx1, dy1 = detection.box
    size, detected = max(x1 - x0, y1 - y0), max(dx1 - dx0, dy1 - dy0)
    apart = np.hypot((x0 + x1 - dx0 - dx1) / 2, (y0 + y1 - dy0 - dy1) / 2)
    return bool(apart < 0.5 * detected and 0.5 < size / detected < 2.0)


def same_face(a: Mesh, b: Mesh) -> bool:
    """Whether two meshes of one frame lie on the same face."""
    box_a, box_b = bounding_box(a), bounding_box(b)
    return iou(box_a, box_b) > 0.5 or contained(box_a, box_b) > 0.8


def face_frame(
    mesh: Mesh,
    *,
    frame: int,
    pixel_aspect: float,
    score: float,
    track: int = 0,
    state: FaceState = FaceState.DETECTED,
    segmentation: SegmentationMap | None = None,
) -> FaceFrame:
    """A face in plate pixels from its mesh in square coordinates."""
    landmarks = np.array(mesh, dtype=np.float64)
    landmarks[:, [0, 2]] /= pixel_aspect
    return FaceFrame(
        track=track,
        frame=frame,
        state=state,
        landmarks=landmarks.astype(np.float32),
        box=bounding_box(landmarks),
        score=score,
        pixel_aspect=pixel_aspect,
        segmentation=segmentation,
    )
