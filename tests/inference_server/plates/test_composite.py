"""The composite keeps stored bits wherever it must, and follows its equations everywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from host_bridge.errors import EffectError
from inference_server.plates.color import ColorConfig, PlateColor
from inference_server.plates.composite import Straight, composite, fill_non_finite, quantise_matte, straighten


@pytest.fixture(scope="module")
def color() -> PlateColor:
    return ColorConfig().transform("lin_rec709")


@pytest.fixture(scope="module")
def acescg() -> PlateColor:
    return ColorConfig().transform("ACEScg")


def _plate(dtype: type = np.float16, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0.4, 0.5, (12, 10, 3)).astype(dtype)
    values[2, 3] = (np.nan, 0.5, np.inf)
    values[5, 5] = (37.0, -0.25, 65504.0)
    return values


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view({2: np.uint16, 4: np.uint32}[values.dtype.itemsize])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("mode", ["replace", "delta"])
@pytest.mark.parametrize("premult", ["auto", "premultiplied", "straight", "ignore"])
def test_zero_matte_keeps_every_stored_bit(acescg: PlateColor, dtype: type, mode: str, premult: str) -> None:
    stored = _plate(dtype)
    alpha = np.random.default_rng(2).random((12, 10)).astype(dtype)
    ready = straighten(stored, alpha, premult, True, acescg)
    matte = quantise_matte(np.zeros((12, 10), np.float32))
    out = composite(stored, ready, ready.scene + 5, ready.scene, matte, mode, acescg)
    assert (_bits(out) == _bits(stored)).all()


def test_non_finite_samples_survive_any_matte_value(color: PlateColor) -> None:
    stored = _plate(np.float32)
    ready = straighten(stored, None, "auto", True, color)
    assert np.isfinite(ready.scene).all()
    out = composite(
        stored, ready, ready.scene * 0 + 1, None, quantise_matte(np.ones((12, 10), np.float32)), "replace", color
    )
    assert np.isnan(out[2, 3, 0])
    assert np.isposinf(out[2, 3, 2])
    assert out[2, 3, 1] == 1  # the finite sample of the same pixel is edited


def test_half_is_clamped_to_its_finite_range(color: PlateColor) -> None:
    stored = np.full((2, 2, 3), 1000, np.float16)
    ready = straighten(stored, None, "auto", True, color)
    out = composite(
        stored,
        ready,
        np.full((2, 2, 3), 1e6, np.float32),
        None,
        quantise_matte(np.ones((2, 2), np.float32)),
        "replace",
        color,
    )
    assert (out == np.float16(65504)).all()


@pytest.mark.parametrize("space", ["lin_rec709", "ACEScg", "sRGB - Texture"])
def test_equations(space: str) -> None:
    color = ColorConfig().transform(space)
    rng = np.random.default_rng(3)
    stored = rng.uniform(0.1, 0.9, (6, 6, 3)).astype(np.float32)
    ready = straighten(stored, None, "auto", True, color)
    edited = ready.scene * np.float32(0.5)
    recon = ready.scene * np.float32(0.9)
    m = quantise_matte(rng.random((6, 6)).astype(np.float32))
    w = m.astype(np.float32)[..., None]
    replaced = color.to_scene(composite(stored, ready, edited, None, m, "replace", color))
    np.testing.assert_allclose(replaced, ready.scene + w * (edited - ready.scene), atol=2e-5)
    delta = color.to_scene(composite(stored, ready, edited, recon, m, "delta", color))
    np.testing.assert_allclose(delta, ready.scene + w * (edited - recon), atol=2e-5)


def test_soft_edge_of_a_premultiplied_plate_is_multiplied_by_alpha(color: PlateColor) -> None:
    alpha = np.array([[1.0, 0.5, 0.25, 0.0]], np.float32)
    straight = np.full((1, 4, 3), 0.8, np.float32)
    stored = straight * alpha[..., None]
    stored[0, 3] = 0.3  # a glow: colour without alpha
    ready = straighten(stored, alpha, "auto", True, color)
    np.testing.assert_allclose(ready.scene[0, :3], 0.8, rtol=1e-6)
    edited = np.full((1, 4, 3), 0.4, np.float32)
    out = composite(stored, ready, edited, None, quantise_matte(np.ones((1, 4), np.float32)), "replace", color)
    np.testing.assert_allclose(out[0, :3, 0], [0.4, 0.2, 0.1], rtol=1e-6)
    assert (out[0, 3] == stored[0, 3]).all()  # alpha 0 passes through


def test_straight_and_ignored_alpha(color: PlateColor) -> None:
    alpha = np.array([[0.5, 0.0]], np.float32)
    stored = np.full((1, 2, 3), 0.8, np.float32)
    edited = np.full((1, 2, 3), 0.4, np.float32)
    ones = quantise_matte(np.ones((1, 2), np.float32))
    straight = composite(
        stored, straighten(stored, alpha, "straight", True, color), edited, None, ones, "replace", color
    )
    np.testing.assert_allclose(straight[0, :, 0], [0.4, 0.8])
    ignored = composite(stored, straighten(stored, alpha, "ignore", True, color), edited, None, ones, "replace", color)
    np.testing.assert_allclose(ignored[0, :, 0], [0.4, 0.4])


def test_an_all_zero_alpha_leaves_the_plate(color: PlateColor) -> None:
    stored = _plate(np.float16)
    ready = straighten(stored, np.zeros((12, 10), np.float16), "auto", True, color)
    assert not ready.valid.any()
    out = composite(
        stored, ready, ready.scene + 1, None, quantise_matte(np.ones((12, 10), np.float32)), "replace", color
    )
    assert (_bits(out) == _bits(stored)).all()


def test_filling_takes_the_neighbourhood_of_the_same_channel() -> None:
    values = np.full((7, 7, 3), 0.25, np.float32)
    values[3, 3, 1] = np.nan
    filled = fill_non_finite(values)
    assert filled[3, 3, 1] == np.float32(0.25)
    hole = np.full((9, 9, 3), np.nan, np.float32)
    assert (fill_non_finite(hole) == 0).all()


def test_quantised_matte_is_what_half_holds() -> None:
    matte = quantise_matte(np.array([[0.1, 1e-9, np.nan, 2.0, -1.0]], np.float32))
    assert matte.dtype == np.float16
    assert matte[0, 1] == 0
    assert matte[0, 2] == 0
    assert matte[0, 3] == 1
    assert matte[0, 4] == 0


def test_an_effect_that_returns_nan_is_an_error(color: PlateColor) -> None:
    stored = np.ones((2, 2, 3), np.float32)
    ready = Straight(stored, np.ones((2, 2), np.float32), np.ones((2, 2), np.bool_))
    with pytest.raises(EffectError) as caught:
        composite(stored, ready, stored * np.nan, None, quantise_matte(np.ones((2, 2), np.float32)), "replace", color)
    assert caught.value.code == "effect.failed"
