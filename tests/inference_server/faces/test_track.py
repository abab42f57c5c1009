"""Identities, flow, gaps and smoothing, on meshes that move as told and on small drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.faces.flow import follow, patch_of
from inference_server.faces.geometry import Points, Roi, View, eye_distance
from inference_server.faces.groups import RIGID, SIGMA
from inference_server.faces.mattes import LEFT_EYE
from inference_server.faces.smooth import (
    LONGEST_GAP,
    fill_gaps,
    gaussian_over_time,
    jitter,
    smooth_meshes,
    smooth_track,
    stretches,
)
from inference_server.faces.track import FORGET, Tracker, blend, is_cut, thumbnail
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.shots.types import Track

BLANK = View(np.full((270, 480, 3), 90, np.uint8))


def nothing(_: Roi) -> Points | None:
    return None


@pytest.fixture(scope="module")
def head(portrait_face: FaceFrame) -> Points:
    """A mesh around the origin, eyes 40 px apart."""
    mesh = portrait_face.landmarks.astype(np.float64)
    mesh = mesh - mesh[:, :].mean(axis=0)
    return np.asarray(mesh * 40 / eye_distance(mesh))


def at(head: Points, x: float, y: float, scale: float = 1.0) -> Points:
    return np.asarray(head * scale + [x, y, 0])


def track_of(meshes: NDArray[np.float64], present: NDArray[np.bool_] | None = None) -> Track:
    count = len(meshes)
    seen = np.ones(count, bool) if present is None else present
    states = np.where(seen, FaceState.DETECTED, FaceState.ABSENT).astype(np.uint8)
    return Track(
        1,
        meshes.astype(np.float32),
        states,
        seen.astype(np.float32),
        ("hair",),
        np.zeros((count, 1, 4, 4), np.uint8),
        np.tile(np.array([[0.1, 0, 0], [0, 0.1, 0]], np.float32), (count, 1, 1)),
    )


# --- identities --------------------------------------------------------------------------------------------------


def test_crossing_faces_keep_their_tracks(head: Points) -> None:
    """Two faces pass each other, the farther one hidden while they overlap, found in changing order."""
    narrow = head * [0.85, 1.1, 1.0]
    tracker = Tracker()
    seen: dict[int, list[str]] = {1: [], 2: []}
    for i in range(30):
        right, left = at(head, 100 + 9 * i, 135), at(narrow, 380 - 9 * i, 130)
        hidden = abs(right[0, 0] - left[0, 0]) < 45
        faces = {"right": right} if hidden else {"right": right, "left": left}
        found = [(mesh, 0.9) for mesh in (faces.values() if i % 2 else reversed(list(faces.values())))]
        for sighting in tracker.step(BLANK, i, found, cut=False, look_at=nothing):
            name = min(faces, key=lambda n: float(np.abs(faces[n] - sighting.detected).max()))
            seen[sighting.track].append(name)
    assert sorted(len(set(names)) for names in seen.values()) == [1, 1]
    assert min(len(names) for names in seen.values()) >= 18


def test_dropout_keeps_the_track_and_a_long_absence_does_not(head: Points) -> None:
    tracker = Tracker()

    def step(i: int, present: bool) -> list[int]:
        found = [(at(head, 100 + 2 * i, 100), 0.9)] if present else []
        return [s.track for s in tracker.step(BLANK, i, found, cut=False, look_at=nothing)]

    ids = [step(i, i not in (4, 5, 6)) for i in range(10)]
    assert ids == [[1]] * 4 + [[]] * 3 + [[1]] * 3
    for i in range(10, 11 + FORGET):
        assert step(i, False) == []
    assert step(11 + FORGET, True) == [2]


def test_a_cut_starts_new_tracks(head: Points) -> None:
    tracker = Tracker()
    found = [(at(head, 200, 100), 0.9)]
    assert [s.track for s in tracker.step(BLANK, 0, found, cut=False, look_at=nothing)] == [1]
    assert [s.track for s in tracker.step(BLANK, 1, found, cut=True, look_at=nothing)] == [2]


def test_a_missed_face_is_looked_for_where_it_is_expected(head: Points) -> None:
    tracker = Tracker()
    asked: list[Roi] = []

    def look(roi: Roi) -> Points | None:
        asked.append(roi)
        return at(head, 206, 100)

    for i in range(3):
        tracker.step(BLANK, i, [(at(head, 200 + 2 * i, 100), 0.9)], cut=False, look_at=look)
    assert asked == []
    (sighting,) = tracker.step(BLANK, 3, [], cut=False, look_at=look)
    assert sighting.track == 1
    assert len(asked) == 1
    assert abs(asked[0].x - at(head, 206, 100)[:, 0].mean()) < 12
    assert tracker.step(BLANK, 4, [], cut=False, look_at=lambda _: at(head, 400, 200)) == []  # another face's place


def drawn(seed: int) -> NDArray[np.uint8]:
    import cv2

    noise = np.random.default_rng(seed).normal(size=(180, 320, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 9) * 900 + 60 + 40 * seed, 0, 255).astype(np.uint8)


def test_cut_but_not_flash_nor_motion() -> None:
    picture = drawn(1)
    one = thumbnail(View(picture))
    assert is_cut(one, thumbnail(View(drawn(3))))
    assert not is_cut(one, thumbnail(View(np.clip(picture.astype(int) * 2 + 30, 0, 255).astype(np.uint8))))
    assert not is_cut(one, thumbnail(View(np.roll(picture, 25, axis=1))))
    assert not is_cut(one, one)


# --- flow --------------------------------------------------------------------------------------------------------


def test_flow_carries_points_with_the_picture(portrait: NDArray[np.uint8], portrait_face: FaceFrame) -> None:
    """A shift of 7.25 and -4.5 px, larger than the Lucas-Kanade window, is recovered to a tenth of a pixel."""
    import cv2

    mesh = portrait_face.landmarks.astype(np.float64)
    moved = cv2.warpAffine(portrait, np.array([[1, 0, 7.25], [0, 1, -4.5]]), (512, 512), flags=cv2.INTER_CUBIC)
    carried, trust = follow(patch_of(View(portrait), mesh), View(np.asarray(moved, np.uint8)), mesh)
    good = trust > 0.5
    assert good.mean() > 0.8
    error = np.hypot(*(carried - mesh[:, :2] - [7.25, -4.5]).T)
    assert np.median(error[good]) < 0.1
    assert np.percentile(error[good], 95) < 0.5


def test_flow_is_not_trusted_where_the_picture_changed(portrait: NDArray[np.uint8], portrait_face: FaceFrame) -> None:
    mesh = portrait_face.landmarks.astype(np.float64)
    other = np.random.default_rng(0).integers(0, 255, portrait.shape).astype(np.uint8)
    _, trust = follow(patch_of(View(portrait), mesh), View(other), mesh)
    assert trust.mean() < 0.1


def test_blend_uses_flow_where_it_agrees_and_detection_where_not(head: Points) -> None:
    near, far = head.copy(), head.copy()
    near[:, 0] += 0.4  # 1 % of the eye distance
    far[:, 0] += 8.0  # 20 %
    trust = np.ones(len(head))
    towards = (blend(head, near, trust) - head)[:, 0] / 0.4
    assert towards[4] > 0.6  # the nose follows flow
    assert towards[159] < 0.4  # a lid does so much less
    assert np.abs(blend(head, far, trust) - head).max() < 1e-6
    assert np.array_equal(blend(head, near, np.zeros(len(head))), head)


# --- the whole shot ----------------------------------------------------------------------------------------------


def test_gaussian_leaves_steady_motion_and_reduces_noise() -> None:
    ramp = np.linspace(0, 50, 40)[:, None]
    assert gaussian_over_time(ramp, 3.0) == pytest.approx(ramp)
    noise = np.random.default_rng(0).normal(size=(400, 3))
    assert gaussian_over_time(noise, 3.0).std() == pytest.approx((2 * np.sqrt(np.pi) * 3) ** -0.5, rel=0.1)
    assert gaussian_over_time(noise[:1], 3.0) == pytest.approx(noise[:1])


def moving(head: Points, count: int) -> NDArray[np.float64]:
    """A head that turns, nods, nears and crosses the picture, without tremor."""
    out = []
    for i in range(count):
        yaw, roll, scale = 0.5 * np.sin(i / 9), 0.2 * np.sin(i / 13), 1 + 0.2 * np.sin(i / 17)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        out.append(head @ (scale * tilt @ turn).T + [200 + 3 * i, 150 + 20 * np.sin(i / 8), 0])
    return np.stack(out)


def test_smoothing_removes_tremor_and_keeps_motion(head: Points) -> None:
    clean = moving(head, 60)
    noisy = clean + np.random.default_rng(2).normal(size=clean.shape) * 0.4  # 1 % of the eye distance
    smooth = smooth_meshes(noisy)
    assert jitter([track_of(noisy)], pixel_aspect=1.0) > 2 * jitter([track_of(smooth)], pixel_aspect=1.0)
    errors = [(m - clean)[:, list(RIGID), :2] for m in (noisy, smooth)]
    tremor = [float(np.sqrt((np.diff(e, 2, axis=0) ** 2).mean())) for e in errors]
    assert tremor[0] > 8 * tremor[1]
    assert np.sqrt((errors[1] ** 2).mean()) < 0.5 * np.sqrt((errors[0] ** 2).mean())
    assert np.abs(smooth_meshes(clean) - clean).max() < 0.6  # motion itself: below 1.5 % of the eye distance
    assert np.array_equal(smooth_meshes(noisy), smooth)


def test_a_blink_survives(head: Points) -> None:
    """Lids that shut for 5 frames stay at least 85 % as shut, while the head moves and everything trembles."""
    clean = moving(head, 48)
    upper, lower = [160, 159, 158], [144, 145, 153]
    shut = np.zeros(48)
    shut[20:25] = [0.4, 0.9, 1.0, 0.8, 0.3]
    for u, low in zip(upper, lower, strict=True):
        clean[:, u] += shut[:, None] * 0.9 * (clean[:, low] - clean[:, u])
    noisy = clean + np.random.default_rng(3).normal(size=clean.shape) * 0.15
    opening = [np.hypot(*(m[:, 159] - m[:, 145])[:, :2].T) / eye_distance(head) for m in (clean, smooth_meshes(noisy))]
    depth = [o[15] - o.min() for o in opening]
    assert depth[1] > 0.85 * depth[0]
    assert int(opening[1].argmin()) == int(opening[0].argmin())
    assert SIGMA[list(LEFT_EYE)].max() <= 1.0


def test_gaps_are_interpolated_and_marked(head: Points) -> None:
    meshes = moving(head, 30)
    present = np.ones(30, bool)
    present[10:14] = False
    holed = track_of(np.where(present[:, None, None], meshes, 0.0), present)
    filled = fill_gaps(holed, pixel_aspect=1.0)
    assert filled.states.tolist() == [1] * 10 + [2] * 4 + [1] * 16
    assert filled.scores[10:14].tolist() == [0.0] * 4
    assert np.abs(filled.landmarks[10:14, :, :2] - meshes[10:14, :, :2]).max() < 3.0
    assert np.array_equal(filled.landmarks[~present ^ True], holed.landmarks[present])
    # The class map of a filled frame is carried with the face: the nose lies where it lay in the map.
    for i, near in ((10, 9), (13, 14)):
        there = filled.matrices[near] @ [*filled.landmarks[near, 4, :2], 1.0]
        here = filled.matrices[i] @ [*filled.landmarks[i, 4, :2], 1.0]
        assert here == pytest.approx(there, abs=0.3)
    assert fill_gaps(holed, pixel_aspect=1.0, cuts=[12]).states[11] == FaceState.ABSENT
    present[10 : 11 + LONGEST_GAP] = False
    assert fill_gaps(track_of(meshes, present), pixel_aspect=1.0).states[12] == FaceState.ABSENT


def test_stretches_are_smoothed_apart(head: Points) -> None:
    """Nothing leaks over an absence: each side is what it is alone."""
    meshes = moving(head, 40) + np.random.default_rng(4).normal(size=(40, 478, 3)) * 0.3
    present = np.ones(40, bool)
    present[18:22] = False
    whole = smooth_track(track_of(meshes, present), pixel_aspect=1.0)
    assert stretches(whole.states) == [(0, 18), (22, 40)]
    alone = smooth_track(track_of(meshes[22:]), pixel_aspect=1.0)
    assert np.array_equal(whole.landmarks[22:], alone.landmarks)


def test_pixel_aspect_does_not_change_what_smoothing_does(head: Points) -> None:
    meshes = moving(head, 20) + np.random.default_rng(5).normal(size=(20, 478, 3)) * 0.3
    plain = smooth_track(track_of(meshes), pixel_aspect=1.0)
    squeezed = smooth_track(track_of(meshes / [2.0, 1.0, 2.0]), pixel_aspect=2.0)
    assert np.abs(squeezed.landmarks * [2.0, 1.0, 2.0] - plain.landmarks).max() < 1e-3
    assert jitter([squeezed], pixel_aspect=2.0) == pytest.approx(jitter([plain], pixel_aspect=1.0), rel=1e-3)


def test_jitter_is_the_rms_second_difference_per_100_px(head: Points) -> None:
    meshes = np.stack([at(head, 100 + (2.0 if i % 2 else 0.0), 100) for i in range(9)])
    # +-2 px by turns: second difference 4 px, eyes 40 px apart
    assert jitter([track_of(meshes)], pixel_aspect=1.0) == pytest.approx(10.0, rel=1e-3)
    assert jitter([], pixel_aspect=1.0) == 0.0
