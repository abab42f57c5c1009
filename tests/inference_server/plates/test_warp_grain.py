"""Warps invent no values; grain stays where the sensor put it."""

from __future__ import annotations

import pytest
import torch

from inference_server.plates.grain import add_grain, decode, encode, split_grain
from inference_server.plates.warp import warp_picture


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_integer_shift_moves_pixels() -> None:
    x = _noise(3, 20, 24)
    d = torch.zeros(2, 20, 24)
    d[0] = 3
    d[1] = -2
    y = warp_picture(x, d)
    torch.testing.assert_close(y[:, 2:, :-3], x[:, :-2, 3:], atol=2e-5, rtol=1e-4)


def test_zero_displacement_keeps_bits() -> None:
    x = _noise(3, 9, 11) * 50
    assert torch.equal(warp_picture(x, torch.zeros(2, 9, 11)), x)


def test_a_highlight_neither_rings_nor_overshoots() -> None:
    x = torch.full((3, 32, 32), 0.2)
    x[:, 16, 16] = 37.0
    x[:, 8, 8] = -0.5
    for shift in (0.25, 0.5, 0.8):
        y = warp_picture(x, torch.full((2, 32, 32), shift))
        assert y.min() >= -0.5
        assert y.max() <= 37.0
        around = y[:, 12:22, 12:22]
        assert around.min() >= 0.2 - 1e-6  # no hole beside the highlight


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="displacement"):
        warp_picture(torch.zeros(3, 4, 4), torch.zeros(2, 4, 5))


def test_encoding_inverts() -> None:
    x = torch.tensor([-3.0, -0.01, 0.0, 0.18, 1.0, 37.0, 6e4])
    torch.testing.assert_close(decode(encode(x)), x, rtol=2e-5, atol=1e-7)
    assert encode(torch.zeros(1)) == 0


def test_base_and_grain_give_the_scene_back() -> None:
    scene = 0.3 + 0.01 * _noise(3, 64, 64)
    scene[:, 10, 10] = 37
    scene[:, 20, 20] = -0.4
    base, grain = split_grain(scene)
    torch.testing.assert_close(add_grain(base, grain), scene, rtol=1e-4, atol=1e-6)


def test_noise_goes_to_the_grain_and_edges_stay() -> None:
    clean = torch.full((3, 64, 64), 0.2)
    clean[:, :, 32:] = 0.6
    noisy = clean * (1 + 0.03 * _noise(3, 64, 64))
    base, grain = split_grain(noisy)
    flat = slice(8, 24)
    assert base[:, flat, flat].std() < 0.5 * noisy[:, flat, flat].std()
    step = base[:, :, 33].mean() - base[:, :, 30].mean()
    assert step > 0.36  # of 0.4: the edge is not smeared
    assert grain.abs().max() < 0.2


def test_a_clean_plate_has_no_grain() -> None:
    ramp = torch.linspace(0.1, 0.9, 64).repeat(3, 64, 1)
    _, grain = split_grain(ramp)
    assert grain.abs().max() < 5e-3


def test_grain_of_a_highlight_leaves_no_ghost() -> None:
    scene = 0.3 * (1 + 0.02 * _noise(3, 64, 64))
    scene[:, 32, 32] = 37
    base, grain = split_grain(scene)
    d = torch.full((2, 64, 64), -9.0)
    moved = add_grain(warp_picture(base, d), grain)
    assert (moved[:, 32, 32] - 0.3).abs().max() < 0.06  # where the highlight was
    assert moved[0, 41, 41] > 30  # where it went
