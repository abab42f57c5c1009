"""Whole shots made from the portrait: one pass, one analysis."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host_bridge.errors import ShotError
from host_bridge.repairs import BoxKeys, Merge, Repairs, TrackEdit
from inference_server.faces.analyse import AnalysisProgress, FaceTools, Frame, analyse_frames
from inference_server.faces.detect import Detection, Search
from inference_server.faces.geometry import View, eye_distance
from inference_server.faces.parsing import MediaPipeParser
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.types import Window
from inference_server.shots.types import ShotAnalysis

WIDTH, HEIGHT = 320, 240
DISPLAY = Window(0, 0, WIDTH, HEIGHT)


def placed(portrait: NDArray[np.uint8], x: float, y: float, scale: float = 1.0) -> NDArray[np.uint8]:
    """The portrait with its own (222, 120), the middle of the face, at (x, y)."""
    matrix = np.array([[scale, 0, x - scale * 222], [0, scale, y - scale * 120]])
    moved = cv2.warpAffine(portrait, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


def run(
    frames: Iterable[Frame], tools: FaceTools, repairs: Repairs | None = None, aspect: float = 1.0
) -> tuple[ShotAnalysis, list[AnalysisProgress]]:
    steps = analyse_frames(frames, tools, display_window=DISPLAY, pixel_aspect=aspect, repairs=repairs)
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            return end.value, progress


def walk(portrait: NDArray[np.uint8], count: int, hidden: range = range(0)) -> Iterator[Frame]:
    for i in range(count):
        picture = placed(portrait, 120 + 4 * i, 110 + 5 * np.sin(i / 3))
        if i in hidden:
            picture[:] = cv2.GaussianBlur(picture, (0, 0), 25)
        yield Frame(1001 + i, picture)


@pytest.fixture(scope="module")
def shot(portrait: NDArray[np.uint8], tools: FaceTools) -> tuple[ShotAnalysis, list[AnalysisProgress]]:
    with_parser = FaceTools(tools.detector, tools.landmarker, MediaPipeParser())
    return run(walk(portrait, 14, hidden=range(6, 9)), with_parser)


def test_a_shot_with_a_dropout(shot: tuple[ShotAnalysis, list[AnalysisProgress]], portrait_face: FaceFrame) -> None:
    analysis, progress = shot
    assert analysis.frames == tuple(range(1001, 1015))
    assert [p.done for p in progress] == list(range(1, 15))
    assert progress[0].tracks == (1,)
    assert progress[7].tracks == ()
    (track,) = analysis.tracks
    assert track.states.tolist() == [FaceState.DETECTED] * 6 + [FaceState.INTERPOLATED] * 3 + [FaceState.DETECTED] * 5
    for i in range(14):
        face = analysis.face_at(1, 1001 + i)
        assert face is not None
        expected = portrait_face.landmarks[:, :2] + [120 + 4 * i - 222, 110 + 5 * np.sin(i / 3) - 120]
        apart = np.hypot(*(face.landmarks[:, :2] - expected).T).mean()
        assert apart / eye_distance(face.landmarks) < 0.06, i
        assert face.segmentation is not None
        assert face.segmentation.classes == MediaPipeParser.classes
        # hair lies above the forehead also where the map was carried over from a neighbour
        x, y = face.segmentation.matrix @ [*(face.landmarks[10, :2] - [0, 12]), 1.0]
        assert face.segmentation.values[0, int(y), int(x)] > 0.5, i
    assert analysis.jitter_after < 0.7 * analysis.jitter_before


def test_the_same_frames_give_the_same_bits(
    portrait: NDArray[np.uint8], tools: FaceTools, shot: tuple[ShotAnalysis, list[AnalysisProgress]]
) -> None:
    with_parser = FaceTools(tools.detector, tools.landmarker, MediaPipeParser())
    again, _ = run(walk(portrait, 14, hidden=range(6, 9)), with_parser)
    for one, other in zip(shot[0].tracks, again.tracks, strict=True):
        for name in ("landmarks", "states", "scores", "segmentation", "matrices"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert again.jitter_before == shot[0].jitter_before


def test_no_face_no_tracks(tools: FaceTools) -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 0.18, np.float32)
    analysis, progress = run((Frame(i, grey) for i in (3, 5)), tools)
    assert analysis.tracks == ()
    assert analysis.frames == (3, 5)
    assert len(progress) == 2
    assert run((), tools)[0].frames == ()


def test_a_cut_ends_a_track(portrait: NDArray[np.uint8], tools: FaceTools) -> None:
    """The same face at the same place before and after another picture: two shots in one plate, two tracks."""
    other = 255 - np.ascontiguousarray(placed(portrait, 160, 110)[::-1])
    pictures = [placed(portrait, 160, 110)] * 3 + [other] * 2 + [placed(portrait, 160, 110)] * 3
    analysis, _ = run((Frame(i, p) for i, p in enumerate(pictures)), tools)
    upright = [t for t in analysis.tracks if t.states[0] or t.states[-1]]
    assert [t.states.tolist() for t in upright] == [[1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]]
    assert analysis.cuts == (3, 5)


def test_windows_and_pixel_aspect(portrait: NDArray[np.uint8], tools: FaceTools) -> None:
    """A data window that moves from frame to frame leaves the face where it is in the display window."""
    picture = placed(portrait, 150, 120)
    squeezed = np.asarray(cv2.resize(picture, (WIDTH // 2, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    frames = [
        Frame(1, squeezed),
        Frame(2, np.ascontiguousarray(squeezed[10:, 6:]), (6, 10)),
        Frame(3, np.pad(squeezed, ((8, 0), (5, 0), (0, 0))), (-5, -8)),
    ]
    analysis, _ = run(frames, tools, aspect=2.0)
    (track,) = analysis.tracks
    assert analysis.pixel_aspect == 2.0
    for points in track.landmarks:
        assert points[4, :2] == pytest.approx((150 / 2 + 2, 126), abs=3)
    assert np.abs(np.diff(track.landmarks[:, :, :2], axis=0)).max() < 2.0


def test_repairs_are_applied(portrait: NDArray[np.uint8], tools: FaceTools) -> None:
    """Boxes carry a face through frames in which nothing can be found; ranges end it; unknown tracks are refused."""
    around = {1003: (78.0, 60.0, 178.0, 175.0), 1006: (90.0, 60.0, 190.0, 175.0)}
    repairs = Repairs(boxes=(BoxKeys(1, around),), tracks=(TrackEdit(1, True, None, 1007),))
    hidden = range(3, 6)
    analysis, _ = run(walk(portrait, 9, hidden), tools, repairs)
    (track,) = analysis.tracks
    assert track.states.tolist() == [1, 1, 3, 3, 3, 3, 1, 0, 0]
    for i in hidden:
        points = track.landmarks[i]
        assert points[:, 0].mean() == pytest.approx(120 + 4 * i, abs=8)
    with pytest.raises(ShotError, match="track 8"):
        run(walk(portrait, 2), tools, Repairs(merge=(Merge(1, 8),)))


def test_frames_must_rise(portrait: NDArray[np.uint8], tools: FaceTools) -> None:
    with pytest.raises(ValueError, match="rise"):
        run([Frame(2, placed(portrait, 100, 100)), Frame(2, placed(portrait, 100, 100))], tools)


class _Counting:
    """The detector, remembering how hard it was asked to look."""

    def __init__(self, tools: FaceTools) -> None:
        self._detector = tools.detector
        self.asked: list[Search] = []

    def detect(self, view: View, search: Search) -> list[Detection]:
        self.asked.append(search)
        return self._detector.detect(view, search)


def test_a_small_face_is_searched_once_and_then_followed(portrait: NDArray[np.uint8], tools: FaceTools) -> None:
    """A head of 50 px in 1080p: tiles at the start of the shot, its own mesh afterwards, everything when it is gone."""
    detector = _Counting(tools)
    small = cv2.resize(portrait, (146, 146), interpolation=cv2.INTER_AREA)
    frames = []
    for i in range(5):
        plate = np.full((1080, 1920, 3), 70, np.uint8)
        if i < 4:
            plate[500 + 2 * i : 646 + 2 * i, 900 + 5 * i : 1046 + 5 * i] = small
        frames.append(Frame(1001 + i, plate))
    analysis, _ = run(frames, FaceTools(detector, tools.landmarker, None))
    (track,) = analysis.tracks
    assert track.states.tolist() == [1, 1, 1, 1, 0]
    assert detector.asked == [
        Search.SMALL_TILES,
        Search.WHOLE,
        Search.WHOLE,
        Search.WHOLE,
        Search.WHOLE,
        Search.SMALL_TILES,
    ]
    moved = track.landmarks[3, :, :2].mean(axis=0) - track.landmarks[0, :, :2].mean(axis=0)
    assert moved == pytest.approx([15, 6], abs=1.5)


class _Fixed:
    """A detector and landmarker that take no time, to run long shots."""

    def __init__(self, face: FaceFrame) -> None:
        self._mesh = face.landmarks.astype(np.float64) * 0.4

    def detect(self, view: object, search: object) -> list[object]:
        (x0, y0), (x1, y1) = self._mesh[:, :2].min(axis=0), self._mesh[:, :2].max(axis=0)
        return [Detection((x0, y0, x1, y1), np.zeros((6, 2)), 0.9)]

    def find(self, view: object, roi: object) -> NDArray[np.float64]:
        return self._mesh


def test_memory_grows_only_by_what_is_kept(portrait_face: FaceFrame) -> None:
    """Frames are 1.4 MB; a frame more costs its landmarks (two copies while analysing), not its pixels."""
    fixed = _Fixed(portrait_face)
    tools = FaceTools(fixed, fixed, None)  # type: ignore[arg-type]

    def peak(count: int) -> int:
        noise = np.random.default_rng(0).random((300, 400, 3)).astype(np.float32)
        tracemalloc.start()
        run((Frame(i, np.roll(noise, i, axis=1)) for i in range(count)), tools)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    kept = 478 * 3 * 4
    assert (peak(90) - peak(30)) / 60 < 12 * kept
