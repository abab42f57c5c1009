"""Metrics on arrays, against cases whose answer is known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from inference_server.faces.groups import RIGID
from inference_server.metrics import (
    flow_warp_error,
    gaze,
    gaze_drift,
    head_drift,
    landmark_drift,
    motion,
    ms_ssim,
    mse,
    psnr,
    psnr_of_mse,
    temporal_profile,
)
from inference_server.metrics.motion import profile_sheet, visible
from inference_server.metrics.pictures import C1, scales_of
from tests.portrait import still


def _noise(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).random(shape, np.float32)


def _flat(value: float, size: int = 192) -> Any:
    return np.full((1, size, size, 3), value, np.float32)


def test_equal_pictures_are_at_the_best_value() -> None:
    a = _noise(2, 192, 200, 3)
    assert mse(a, a).tolist() == [0, 0]
    assert np.isinf(psnr(a, a)).all()
    assert ms_ssim(a, a).tolist() == [1, 1]


def test_a_known_difference_has_its_known_error() -> None:
    a, b = _flat(0.5), _flat(0.6)
    b[..., 1:] = 0.5  # one channel of three is off by 0.1
    assert mse(a, b)[0] == pytest.approx(0.01 / 3, rel=1e-5)
    assert psnr(a, b)[0] == pytest.approx(10 * np.log10(300), abs=1e-4)
    assert psnr_of_mse(np.array([0.0, 0.02]).mean()) == pytest.approx(20)


def test_a_mask_says_what_counts() -> None:
    a = _noise(2, 192, 192, 3)
    b = a.copy()
    b[:, :, :96] = _noise(2, 192, 96, 3, seed=2)
    left, right = np.zeros((192, 192), np.float32), np.zeros((2, 192, 192), np.float32)
    left[:, :90], right[:, :, 160:] = 1, 1
    assert mse(a, b, right).tolist() == [0, 0]
    np.testing.assert_allclose(mse(a, b, left), ((a - b)[:, :, :90] ** 2).mean(axis=(1, 2, 3)), rtol=1e-5)
    half = np.full((192, 192), 0.5)  # how much, not only what: the weights' sum is taken out
    np.testing.assert_allclose(mse(a, b, half), mse(a, b), rtol=1e-6)
    assert ms_ssim(a, b, left)[0] < 0.3 < 0.6 < ms_ssim(a, b, right)[0]
    assert ms_ssim(a, a, left).tolist() == [1, 1]
    assert np.isnan(mse(a, b, np.zeros((192, 192)))).all()
    assert np.isnan(ms_ssim(a, b, np.zeros((192, 192)))).all()


def test_one_scale_is_scikit_images_structural_similarity() -> None:
    a = _noise(1, 21, 20, 3)
    b = (0.7 * a + 0.3 * _noise(1, 21, 20, 3, seed=2)).astype(np.float32)
    assert scales_of(21, 20) == 1
    other = structural_similarity(
        a[0].astype(float), b[0].astype(float), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=1.0, channel_axis=-1,
    )  # fmt: skip
    assert ms_ssim(a, b)[0] == pytest.approx(other, abs=1e-5)
    assert 0.3 < other < 0.95


def test_five_scales_of_flat_pictures_differ_in_brightness_alone() -> None:
    """Contrast and structure are 1 at every scale; brightness counts in the last, with its weight."""
    assert [scales_of(s, 300) for s in (11, 22, 44, 88, 175, 176)] == [1, 2, 3, 4, 4, 5]
    brightness = (2 * 0.2 * 0.8 + C1) / (0.2**2 + 0.8**2 + C1)
    assert ms_ssim(_flat(0.2), _flat(0.8))[0] == pytest.approx(brightness**0.1333, abs=1e-4)


def test_structure_counts_more_than_brightness() -> None:
    a = still(192)[None]
    shuffled = np.ascontiguousarray(a[:, ::-1])
    brighter = np.clip(a + 0.02, 0, 1).astype(np.float32)
    assert ms_ssim(a, shuffled)[0] < 0.5 < 0.9 < ms_ssim(a, brighter)[0]


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 192, 192, 3\] and \[1, 96, 96, 3\]"):
        mse(_flat(0), _flat(0, 96))
    with pytest.raises(ValueError, match="expected a mask"):
        psnr(_flat(0), _flat(0), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="11 pixels"):
        ms_ssim(_flat(0, 10), _flat(0, 10))


def _moving(count: int = 4, step: float = 2.0, size: int = 160) -> Any:
    """A picture that moves to the left by `step` pixels a frame, display-encoded."""
    wide = np.sqrt(still(224))
    frames = []
    for t in range(count):
        matrix = np.array([[1, 0, -8 - step * t], [0, 1, -8]], np.float32)
        frames.append(cv2.warpAffine(wide, matrix, (size, size), flags=cv2.INTER_LINEAR))
    return np.stack(frames).astype(np.float32)


def test_motion_is_no_error_and_flicker_is() -> None:
    source = _moving()
    own = flow_warp_error(source)
    assert own.errors.shape == own.seen.shape == (3,)
    assert own.seen.min() > 0.7
    unwarped = float(((source[1:] - source[:-1]) ** 2).mean())
    assert own.mean < 0.05 * unwarped  # the motion explains the differences
    flicker = source + np.array([0, 0.1, 0, 0.1], np.float32)[:, None, None, None]
    assert flow_warp_error(flicker, source).mean == pytest.approx(0.01, rel=0.1)
    still_picture = np.repeat(source[:1], 4, axis=0)  # a result that does not follow its source
    assert flow_warp_error(still_picture, source).mean > 5 * own.mean


def test_a_mask_keeps_flicker_elsewhere_out() -> None:
    source = _moving()
    flicker = source.copy()
    flicker[1::2, :80] += 0.2
    below = np.zeros((160, 160), np.float32)
    below[90:] = 1
    assert flow_warp_error(flicker, source, mask=below).mean < 1e-3 < flow_warp_error(flicker, source).mean
    assert np.isnan(flow_warp_error(source, mask=np.zeros((4, 160, 160))).mean)


def test_what_was_hidden_or_outside_before_does_not_count() -> None:
    back = np.zeros((40, 60, 2), np.float32)
    back[..., 0] = 5.0  # a pixel was 5 to the right: the last 5 columns were outside
    seen = visible(back, -back)
    assert seen[:, :54].all()
    assert not seen[:, 56:].any()
    contradicting = visible(back, np.zeros_like(back))
    assert not contradicting.any()
    back[:, 30:, 0] = 0.0  # a border of motion runs here
    assert not visible(back, -back)[:, 29:31].any()


def test_flow_of_large_pictures_is_measured_on_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "FLOW_SIDE", 120)
    small = _moving(2, 4.0)
    large = np.stack([cv2.resize(f, (320, 320), interpolation=cv2.INTER_CUBIC) for f in small])
    error = flow_warp_error(large)
    assert error.seen[0] > 0.6
    assert error.mean < 0.1 * float(((large[1] - large[0]) ** 2).mean())


def test_a_profile_is_the_scan_line_over_time() -> None:
    frames = _noise(5, 30, 40, 3)
    row, column = temporal_profile(frames, row=7), temporal_profile(frames, column=11)
    assert row.shape == (5, 40, 3)
    assert column.shape == (30, 5, 3)
    assert np.array_equal(row[3], frames[3, 7])
    assert np.array_equal(column[:, 3], frames[3, :, 11])
    sheet = profile_sheet({"a": column, "b": column}, vertical=True, least=100)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= 2 * 100
    assert np.array_equal(sheet[22, :100:20], np.rint(column[0] * 255).astype(np.uint8))
    for wrong in ({}, {"row": 1, "column": 1}, {"row": 30}, {"column": -1}):
        with pytest.raises(ValueError):
            temporal_profile(frames, **wrong)


def _mesh(count: int = 3) -> Any:
    """Meshes with eyes 100 apart, 40 wide and 12 open, the irises in their middle."""
    out = np.random.default_rng(3).normal(0, 60, (count, 478, 3))
    for centre, (iris, left, right, upper, lower) in zip(
        (-50, 50), ((468, 33, 133, 159, 145), (473, 362, 263, 386, 374)), strict=True
    ):
        for index, (x, y) in {
            iris: (centre, 0), left: (centre - 20, 0), right: (centre + 20, 0), upper: (centre, -6), lower: (centre, 6)
        }.items():  # fmt: skip
            out[:, index, :2] = x, y
    return out


def _placed(meshes: Any, angle: float, scale: float, shift: tuple[float, float]) -> Any:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    out = meshes.copy()
    out[..., :2] = meshes[..., :2] @ np.array([[c, s], [-s, c]]) + shift
    return out


def test_drift_is_in_hundredths_of_the_eye_distance() -> None:
    a = _mesh()
    b = a.copy()
    b[1, :, 0] += 3
    b[2, 0, 1] += 10  # one point of 478
    np.testing.assert_allclose(landmark_drift(a, b), [0, 3, 10 / np.sqrt(478)], atol=1e-9)
    np.testing.assert_allclose(head_drift(a, b), [0, 3, 0], atol=1e-9)
    np.testing.assert_allclose(landmark_drift(2 * a, 2 * b), landmark_drift(a, b), atol=1e-9)
    b[0] = np.nan
    assert np.isnan(landmark_drift(a, b)).tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"\[3, 477, 3\]"):
        landmark_drift(a[:, 1:], b[:, 1:])


def test_head_drift_is_the_heads_and_not_the_skins() -> None:
    a = _mesh()
    slid, turned = a.copy(), a.copy()
    slid[1, RIGID[0], 0] += 20  # one point of the bone slides by 20
    assert landmark_drift(a[:, :], slid)[1] > 0.9
    assert head_drift(a, slid)[1] < 20 / len(RIGID) * 3
    spread = np.sqrt(((a[1, RIGID, :2] - a[1, RIGID, :2].mean(axis=0)) ** 2).sum(axis=-1).mean())
    turned[1, :, :2] = 1.1 * (a[1, :, :2] - a[1, RIGID, :2].mean(axis=0)) + a[1, RIGID, :2].mean(axis=0)
    np.testing.assert_allclose(head_drift(a, turned), [0, 0.1 * spread, 0], atol=1e-9)  # 100 % is the eye distance


def test_gaze_is_the_irises_and_not_the_heads() -> None:
    a = _mesh()
    assert np.allclose(gaze(a), 0)
    looking = a.copy()
    looking[1, [468, 473], 0] += 8  # a fifth of an eye's width
    looking[2, [468, 473], 1] += 4
    np.testing.assert_allclose(gaze(looking)[1], [[0.2, 0], [0.2, 0]], atol=1e-9)
    np.testing.assert_allclose(gaze(looking)[2], [[0, 0.1], [0, 0.1]], atol=1e-9)
    np.testing.assert_allclose(gaze_drift(a, looking), [0, 20, 10], atol=1e-9)
    moved = _placed(looking, 0.4, 1.7, (30, -12))  # the whole head turned, larger, elsewhere
    np.testing.assert_allclose(gaze_drift(a, moved), [0, 20, 10], atol=1e-6)


def test_a_shut_eye_looks_nowhere() -> None:
    a = _mesh()
    b = a.copy()
    b[1, [468, 473], 0] += 8
    b[1, [159, 386], 1] = b[1, [145, 374], 1] - 1
    b[2, 159, 1] = b[2, 145, 1]  # one eye: the other one still counts
    b[2, 473, 0] += 4
    drift = gaze_drift(a, b)
    assert np.isnan(drift).tolist() == [False, True, False]
    assert drift[2] == pytest.approx(10)
