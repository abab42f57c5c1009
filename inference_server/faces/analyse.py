"""Faces of single pictures and of whole shots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference_server.faces.detect import Detector, Search
from inference_server.faces.geometry import View
from inference_server.faces.landmarks import Landmarker, face_frame, find_faces
from inference_server.faces.types import FaceFrame


def faces_of_picture(
    picture: NDArray[np.generic],
    detector: Detector,
    landmarker: Landmarker,
    *,
    frame: int = 0,
    origin: tuple[int, int] = (0, 0),
    pixel_aspect: float = 1.0,
    search: Search = Search.SMALL_TILES,
) -> list[FaceFrame]:
    """The faces of one picture on its own, best score first; an empty list when there is none.

    picture  [H, W, 3] uint8, or floating 0..1, RGB display-encoded sRGB; its first pixel lies at `origin` in the
             display window
    """
    view = View.of(picture, origin, pixel_aspect)
    return [
        face_frame(mesh, frame=frame, pixel_aspect=pixel_aspect, score=detection.score, track=index)
        for index, (mesh, detection) in enumerate(find_faces(view, detector, landmarker, search))
    ]
