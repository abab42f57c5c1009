"""Detection and landmarks on the portrait, whole, small, turned, squeezed, cut off, twice, and not at all."""

from __future__ import annotations

import builtins
import itertools
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host_bridge.errors import FaceError
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.detect import Detection, Search, merge, tiles
from inference_server.faces.geometry import Roi, View, eye_distance
from inference_server.faces.runtime import Graph
from inference_server.faces.types import FaceFrame

Portrait = NDArray[np.uint8]


def textured(height: int, width: int) -> NDArray[np.uint8]:
    """A soft, irregular background."""
    noise = np.random.default_rng(1).normal(size=(height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 12) * 600 + 90, 0, 255).astype(np.uint8)


def error_of(found: FaceFrame, reference: FaceFrame, factor: float, shift: tuple[float, float]) -> float:
    """Mean distance of the landmarks from where the reference puts them, in eye distances."""
    expected = reference.landmarks[:, :2] * factor + np.array(shift)
    apart = np.hypot(*(found.landmarks[:, :2] - expected).T)
    return float(apart.mean()) / (eye_distance(reference.landmarks) * factor)


def test_portrait(portrait_face: FaceFrame) -> None:
    """The eyes, the nose and the mouth lie where they are in the picture."""
    points = portrait_face.landmarks
    assert points.shape == (478, 3)
    assert points.dtype == np.float32
    for index, place in {468: (202, 101), 473: (246, 103), 4: (226, 126), 61: (203, 139), 291: (248, 140)}.items():
        assert points[index, :2] == pytest.approx(place, abs=4), index
    assert portrait_face.score > 0.8
    x0, y0, x1, y1 = portrait_face.box
    assert (points[:, 0].min(), points[:, 1].max()) == pytest.approx((x0, y1))
    assert x0 < x1
    assert y0 < y1


@pytest.mark.parametrize("place", [(100, 100), (1333, 333), (1700, 880)])
def test_head_of_40_px_in_1080p(
    portrait: Portrait,
    portrait_face: FaceFrame,
    tools: FaceTools,
    place: tuple[int, int],
) -> None:
    factor = 40 / 175
    small = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    plate = textured(1080, 1920)
    x, y = place
    plate[y : y + small.shape[0], x : x + small.shape[1]] = small
    found = faces_of_picture(plate, tools)
    assert len(found) == 1
    assert error_of(found[0], portrait_face, factor, place) < 0.08
    assert faces_of_picture(plate, tools, search=Search.WHOLE) == []


def test_no_face_is_an_empty_list(tools: FaceTools) -> None:
    assert faces_of_picture(textured(360, 640), tools) == []
    assert faces_of_picture(np.zeros((40, 50, 3), np.uint8), tools) == []


def test_several_faces_each_once(portrait: Portrait, portrait_face: FaceFrame, tools: FaceTools) -> None:
    head = portrait[:250, 80:370]
    plate = textured(540, 1280)
    plate[20:270, 40:330] = head
    plate[200:450, 500:790] = head[:, ::-1]
    plate[50:175, 1000:1145] = cv2.resize(head, (145, 125), interpolation=cv2.INTER_AREA)
    found = faces_of_picture(plate, tools)
    centres = sorted(float(f.landmarks[1, 0]) for f in found)
    nose = float(portrait_face.landmarks[1, 0]) - 80
    assert centres == pytest.approx([40 + nose, 500 + 290 - nose, 1000 + nose / 2], abs=8)


@pytest.mark.parametrize("degrees", [-35, 25])
def test_tilted_head(
    portrait: Portrait,
    portrait_face: FaceFrame,
    tools: FaceTools,
    degrees: float,
) -> None:
    turn = cv2.getRotationMatrix2D((222, 120), degrees, 1.0)
    turned = cv2.warpAffine(portrait, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    (found,) = faces_of_picture(np.asarray(turned, np.uint8), tools)
    expected = portrait_face.landmarks[:, :2] @ turn[:, :2].T + turn[:, 2]
    apart = np.hypot(*(found.landmarks[:, :2] - expected).T)
    assert apart.mean() / eye_distance(portrait_face.landmarks) < 0.06


def test_face_partly_out_of_frame(portrait: Portrait, portrait_face: FaceFrame, tools: FaceTools) -> None:
    """Cut through a cheek and through the chin; landmarks may lie outside the picture."""
    for rows, columns in ((slice(0, 300), slice(195, 512)), (slice(0, 158), slice(80, 380))):
        (found,) = faces_of_picture(portrait[rows, columns], tools)
        shift = (-float(columns.start), -float(rows.start))
        assert error_of(found, portrait_face, 1.0, shift) < 0.25


def test_pixel_aspect_and_origin(portrait: Portrait, portrait_face: FaceFrame, tools: FaceTools) -> None:
    """An anamorphic plate whose data window begins outside the display window."""
    squeezed = np.asarray(cv2.resize(portrait, (256, 512), interpolation=cv2.INTER_AREA), np.uint8)
    (found,) = faces_of_picture(squeezed, tools, origin=(-30, 7), pixel_aspect=2.0)
    assert found.pixel_aspect == 2.0
    expected = portrait_face.landmarks[:, :2] * [0.5, 1.0] + [-30, 7]
    assert np.hypot(*((found.landmarks[:, :2] - expected) * [2.0, 1.0]).T).mean() < 3.0
    assert eye_distance(found.square()) == pytest.approx(eye_distance(portrait_face.square()), rel=0.05)


def test_floats_and_bytes_agree(portrait: Portrait, portrait_face: FaceFrame, tools: FaceTools) -> None:
    picture = portrait.astype(np.float32) / np.float32(255)
    picture[0, 0] = np.nan
    picture[0, 1] = 37.0
    (found,) = faces_of_picture(picture, tools)
    assert np.abs(found.landmarks - portrait_face.landmarks).max() < 0.5


def test_a_frame_does_not_depend_on_the_one_before(
    portrait: Portrait, portrait_face: FaceFrame, tools: FaceTools
) -> None:
    faces_of_picture(textured(200, 300), tools)
    faces_of_picture(np.ascontiguousarray(portrait[:, ::-1]), tools)
    (again,) = faces_of_picture(portrait, tools)
    assert np.array_equal(again.landmarks, portrait_face.landmarks)
    assert again.score == portrait_face.score


def test_tiles_cover_the_frame_and_overlap() -> None:
    view = View(np.zeros((1080, 1920, 3), np.uint8), (-100, 20), 1.0)
    for search in (Search.LARGE_TILES, Search.SMALL_TILES):
        squares = tiles(view, search)
        for axis, (low, high) in enumerate([(-100, 1820), (20, 1100)]):
            spans = sorted({((r.x, r.y)[axis] - r.side / 2, (r.x, r.y)[axis] + r.side / 2) for r in squares})
            assert spans[0][0] <= low
            assert spans[-1][1] >= high
            for (_, end), (start, _) in itertools.pairwise(spans):
                assert end - start >= 0.24 * squares[0].side


def test_merge_keeps_one_of_each_face() -> None:
    def found(x: float, size: float, score: float) -> Detection:
        return Detection((x, 0.0, x + size, size), np.zeros((6, 2)), score)

    kept = merge([found(0, 100, 0.7), found(10, 95, 0.9), found(20, 50, 0.6), found(300, 80, 0.5)])
    assert [d.score for d in kept] == [0.9, 0.5]


def test_crop_maps_pixels_where_its_matrix_says() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[150:154, 100:102] = 255  # centred on (101, 152)
    view = View(picture, (10, -20), 2.0)
    roi = Roi(2 * (10 + 101) + 12.0, -20 + 152 - 7.0, 60.0, 0.4)
    crop = view.crop(roi, 240).astype(np.float64)[..., 0]
    rows, columns = np.mgrid[0:240, 0:240] + 0.5
    middle = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    assert roi.matrix(240) @ [*middle, 1.0] == pytest.approx([222.0, 132.0], abs=0.1)


def test_missing_package_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("mediapipe"):
            raise ModuleNotFoundError("No module named 'mediapipe'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(FaceError, match="mediapipe") as caught:
        Graph("", [])
    assert caught.value.code == "face.detector"
    assert "pip install" in caught.value.remedy


def test_nothing_is_printed() -> None:
    """Neither the libraries' chatter nor anything else reaches the terminal."""
    code = (
        "import numpy as np\n"
        "from inference_server.faces.detect import MediaPipeDetector\n"
        "from inference_server.faces.landmarks import MediaPipeLandmarker\n"
        "from inference_server.faces.geometry import Roi, View\n"
        "view = View(np.zeros((64, 64, 3), np.uint8))\n"
        "MediaPipeDetector().detect(view)\n"
        "MediaPipeLandmarker().find(view, Roi(32, 32, 60))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
