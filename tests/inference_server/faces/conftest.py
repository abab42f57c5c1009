"""One detector and landmarker for all tests: their models take a second to load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.detect import MediaPipeDetector
from inference_server.faces.landmarks import MediaPipeLandmarker
from inference_server.faces.types import FaceFrame


@pytest.fixture(scope="session")
def detector() -> MediaPipeDetector:
    return MediaPipeDetector()


@pytest.fixture(scope="session")
def landmarker() -> MediaPipeLandmarker:
    return MediaPipeLandmarker()


@pytest.fixture(scope="session")
def tools(detector: MediaPipeDetector, landmarker: MediaPipeLandmarker) -> FaceTools:
    """Without a parser: most tests need none."""
    return FaceTools(detector, landmarker, None)


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """The public-domain portrait of an astronaut, [512, 512, 3]; the head is about 175 px high."""
    from skimage import data

    picture: Any = data.astronaut()
    return np.asarray(picture, dtype=np.uint8)


@pytest.fixture(scope="session")
def portrait_face(portrait: NDArray[np.uint8], tools: FaceTools) -> FaceFrame:
    (face,) = faces_of_picture(portrait, tools)
    return face
