"""How a head moves: from the frames on either side, never across a cut."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.plates.types import Window
from inference_server.shots.motion import head_motion
from inference_server.shots.types import ShotAnalysis, Track

FRAMES = (1001, 1002, 1003, 1005, 1006, 1020)


def _shot(cuts: tuple[int, ...] = (), absent: tuple[int, ...] = ()) -> ShotAnalysis:
    """A face that moves 3 pixels right and 1 up, and grows by 2 %, in a frame's time."""
    rng = np.random.default_rng(0)
    face = rng.uniform(-50, 50, (478, 3))
    landmarks = np.stack(
        [
            np.column_stack([face[:, :2] * (1 + 0.02 * t) + (400 + 3 * t, 300 - t), face[:, 2]])
            for t in (frame - FRAMES[0] for frame in FRAMES)
        ]
    ).astype(np.float32)
    states = np.array([0 if frame in absent else 1 for frame in FRAMES], np.uint8)
    n = len(FRAMES)
    track = Track(
        1, landmarks, states, np.ones(n, np.float32), (), np.zeros((n, 0, 1, 1), np.uint8), np.zeros((n, 2, 3))
    )
    return ShotAnalysis(FRAMES, Window(0, 0, 800, 600), 1.0, 0.0, (track,), cuts=cuts)


def _at_centre(shot: ShotAnalysis, frame: int) -> list[float]:
    motion = head_motion(shot, 1, frame)
    assert motion is not None
    t = frame - FRAMES[0]
    return list(motion @ np.array([400 + 3 * t, 300 - t, 1.0]))


@pytest.mark.parametrize("frame", FRAMES[:5])
def test_the_motion_is_that_of_one_frames_time_wherever_neighbours_lie(frame: int) -> None:
    assert _at_centre(_shot(), frame) == pytest.approx([3.0, -1.0], abs=1e-3)


def test_growth_moves_the_edge_and_not_the_middle() -> None:
    motion = head_motion(_shot(), 1, 1002)
    assert motion is not None
    scale = 1 + 0.02
    assert motion[0, 0] == pytest.approx(0.02 / scale, abs=1e-4)
    assert motion[1, 1] == pytest.approx(0.02 / scale, abs=1e-4)


def test_nothing_is_known_across_a_cut_a_hole_or_where_the_face_is_missing() -> None:
    assert head_motion(_shot(), 1, 1020) is None
    assert head_motion(_shot(cuts=(1002, 1003)), 1, 1002) is None
    assert head_motion(_shot(absent=(1001, 1003)), 1, 1002) is None
    assert head_motion(_shot(absent=(1002,)), 1, 1002) is None
    assert _at_centre(_shot(cuts=(1003,)), 1002) == pytest.approx([3.0, -1.0], abs=1e-3)
