"""Repair files: what they may say, what they do, and Nuke's tracks as their source."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from host_bridge.errors import ShotError
from host_bridge.repairs import BoxKeys, PointKeys, Repairs, Split, repairs_from_json
from inference_server.faces.geometry import eye_distance
from inference_server.faces.nuke_tracks import curve_values, read_nuke_tracks
from inference_server.faces.repairs import move_points, restructure
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.shots.types import Track

FRAMES = tuple(range(1001, 1011))

WHOLE: dict[str, Any] = {
    "version": 1,
    "split": [{"track": 1, "frame": 1006, "new": 5}],
    "merge": [{"into": 5, "track": 2}],
    "tracks": [{"track": 5, "enabled": False}, {"track": 1, "enabled": True, "first": 1002, "last": 1004}],
    "boxes": [{"track": 1, "keys": {"1003": [10.0, 20.0, 50.0, 80.0], "1005": [20.0, 20.0, 60.0, 90.0]}}],
    "points": [{"track": 1, "landmark": 61, "reach": 0.5, "keys": {"1001": [641.5, 402.0]}}],
}


def track(face: FaceFrame, number: int, present: range) -> Track:
    states = np.zeros(len(FRAMES), np.uint8)
    states[list(present)] = FaceState.DETECTED
    landmarks = np.stack([face.landmarks + np.array([2.0 * i, 0, 0]) for i in range(len(FRAMES))]).astype(np.float32)
    scores = (states > 0) * np.float32(0.1 * number)
    empty = np.zeros((len(FRAMES), 0, 0, 0), np.uint8)
    return Track(number, landmarks, states, scores, (), empty, np.zeros((len(FRAMES), 2, 3), np.float32))


def seen(track: Track) -> list[int]:
    return [f for f, s in zip(FRAMES, track.states, strict=True) if s]


def test_json_round_trip() -> None:
    repairs = repairs_from_json(json.loads(json.dumps(WHOLE)))
    assert repairs.to_json() == WHOLE
    assert repairs_from_json({"version": 1}) == Repairs()
    assert Repairs().empty
    assert not repairs.empty


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"colour": []}, "colour"),
        ({"split": [{"track": 1, "frame": 1006}]}, "lacks 'new'"),
        ({"split": {}}, "split"),
        ({"merge": [{"into": 1, "track": True}]}, "merge"),
        ({"boxes": [{"track": 1, "keys": {}}]}, "empty"),
        ({"boxes": [{"track": 1, "keys": {"1001": [5, 5, 4, 9]}}]}, "not empty"),
        ({"boxes": [{"track": 1, "keys": {"first": [1, 2, 3, 4]}}]}, "frame numbers"),
        ({"points": [{"track": 1, "landmark": 478, "keys": {"1": [0, 0]}}]}, "478"),
        ({"points": [{"track": 1, "landmark": 1, "keys": {"1": [0, float("nan")]}}]}, "2 numbers"),
        ({"points": [{"track": 1, "landmark": 1, "reach": 0, "keys": {"1": [0, 0]}}]}, "above 0"),
    ],
)
def test_wrong_files_are_refused_with_their_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ShotError, match=said) as caught:
        repairs_from_json(WHOLE | change)
    assert caught.value.code == "shot.edit"


def test_split_merge_range_and_enable(portrait_face: FaceFrame) -> None:
    tracks = [track(portrait_face, 1, range(8)), track(portrait_face, 2, range(7, 10))]
    one, five = restructure(tracks, FRAMES, repairs_from_json(WHOLE))
    assert (one.id, seen(one), one.enabled) == (1, [1002, 1003, 1004], True)
    assert (five.id, seen(five), five.enabled) == (5, [1006, 1007, 1008, 1009, 1010], False)
    assert five.scores[5:] == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2])  # where both are, `into` wins
    assert [seen(t) for t in tracks] == [list(range(1001, 1009)), [1008, 1009, 1010]]  # arguments are left alone


@pytest.mark.parametrize(
    "change",
    [
        {"split": [{"track": 9, "frame": 1001, "new": 3}]},
        {"split": [{"track": 1, "frame": 1003, "new": 2}]},
        {"merge": [{"into": 1, "track": 1}]},
        {"tracks": [{"track": 7}]},
    ],
)
def test_repairs_that_do_not_fit_the_shot(portrait_face: FaceFrame, change: dict[str, Any]) -> None:
    tracks = [track(portrait_face, 1, range(8)), track(portrait_face, 2, range(7, 10))]
    with pytest.raises(ShotError) as caught:
        restructure(tracks, FRAMES, repairs_from_json({"version": 1, **change}))
    assert caught.value.code == "shot.edit"


def test_a_point_is_where_it_was_put_and_its_neighbours_follow(portrait_face: FaceFrame) -> None:
    before = track(portrait_face, 1, range(10))
    corner = before.landmarks[:, 61, :2]
    keys = {1003: (float(corner[2, 0] + 4), float(corner[2, 1])), 1007: (float(corner[6, 0]), float(corner[6, 1] - 8))}
    (after,) = move_points([before], FRAMES, Repairs(points=(PointKeys(1, 61, keys),)), 1.0)
    moved = after.landmarks[:, :, :2] - before.landmarks[:, :, :2]
    assert moved[2, 61] == pytest.approx([4, 0], abs=1e-3)
    assert moved[4, 61] == pytest.approx([2, -4], abs=1e-3)  # halfway
    assert moved[0, 61] == pytest.approx([4, 0], abs=1e-3)  # held before the first key
    assert moved[9, 61] == pytest.approx([0, -8], abs=1e-3)  # and after the last
    assert 0 < abs(moved[2, 0, 0]) < 3.5  # the middle of the lip comes along
    assert np.abs(moved[2, 263]).max() < 0.2  # the far eye stays
    assert after.states.tolist() == [1, 1, 3, 3, 3, 3, 3, 1, 1, 1]
    far = {1001: (float(corner[0, 0] + 6), float(corner[0, 1]))}
    (whole,) = move_points([before], FRAMES, Repairs(points=(PointKeys(1, 61, far, reach=20.0),)), 1.0)
    assert np.ptp((whole.landmarks - before.landmarks)[0, :, 0]) < 0.2  # a long reach moves all alike
    assert eye_distance(whole.landmarks[0]) == pytest.approx(eye_distance(before.landmarks[0]), rel=0.01)


def test_two_points_are_both_met(portrait_face: FaceFrame) -> None:
    before = track(portrait_face, 1, range(10))
    put = {i: before.landmarks[0, i, :2] + d for i, d in ((61, (3.0, 1.0)), (291, (-2.0, 2.0)), (0, (0.0, -2.0)))}
    points = tuple(PointKeys(1, i, {1001: (float(p[0]), float(p[1]))}) for i, p in put.items())
    (after,) = move_points([before], FRAMES, Repairs(points=points), 2.0)
    for i, place in put.items():
        assert after.landmarks[0, i, :2] == pytest.approx(place, abs=2e-3)


def test_a_point_without_a_face_is_an_error(portrait_face: FaceFrame) -> None:
    repairs = Repairs(points=(PointKeys(1, 61, {1010: (1.0, 1.0)}),))
    with pytest.raises(ShotError, match="no face"):
        move_points([track(portrait_face, 1, range(5))], FRAMES, repairs, 1.0)


def test_boxes_move_linearly_between_keys() -> None:
    keys = BoxKeys(1, {1003: (10.0, 20.0, 50.0, 80.0), 1005: (20.0, 20.0, 60.0, 90.0)})
    assert keys.at(1004) == (15.0, 20.0, 55.0, 85.0)
    assert keys.at(1002) is None
    assert keys.at(1006) is None


def test_split_needs_no_json() -> None:
    assert Repairs(split=(Split(1, 1006, 5),)).to_json() == {"version": 1, "split": WHOLE["split"]}


# --- Nuke --------------------------------------------------------------------------------------------------------

TRACKER = """set cut_paste_input [stack 0]
Tracker4 {
 inputs 1
 tracks { { 1 31 2 }
 { { 5 1 20 enable e 1 }
 { 3 1 75 name name 1 } }
 {
  { {curve K x1001 1} "nose tip" {curve x1001 980.5 981.25 x1005 990}
    {curve K x1001 600 601.5 x1005 610 x1006 611} {curve x1001 0} }
  { {curve K x1001 1} "left eye" {curve x1002 900} {curve x1002 700} {} }
 }
 }
}
"""


def test_nuke_tracker_node() -> None:
    """y counts upward from the lower edge there and downward from the upper edge here."""
    assert read_nuke_tracks(TRACKER, 1080) == {
        "nose tip": {1001: (980.5, 480.0), 1002: (981.25, 478.5), 1005: (990.0, 470.0)},
        "left eye": {1002: (900.0, 380.0)},
    }


def test_nuke_older_tracker_and_ascii_curve() -> None:
    old = "Tracker3 {\n track1 {{curve i x1 10 12} {curve i x1 20 22}}\n}\n"
    assert read_nuke_tracks(old, 100) == {"track1": {1: (10.0, 80.0), 2: (12.0, 78.0)}}
    assert read_nuke_tracks("# frame x y\n1001 10.5 20\n1002, 11, 21.5\n", 100) == {
        "curve": {1001: (10.5, 80.0), 1002: (11.0, 78.5)}
    }


def test_curve_marks_and_slopes_are_skipped() -> None:
    assert curve_values("K x1001 5.5 s0.25 t0.1 6.25 x1010 -7e-1 x1010.5 9 L x1012 8") == {
        1001: 5.5,
        1002: 6.25,
        1010: -0.7,
        1012: 8.0,
    }


@pytest.mark.parametrize("text", ["", "hello", "1 2\n3 4\n", "Blur { size {{curve x1 1 2}} }"])
def test_text_without_a_track_is_an_error(text: str) -> None:
    with pytest.raises(ShotError) as caught:
        read_nuke_tracks(text, 100)
    assert caught.value.code == "shot.edit"
