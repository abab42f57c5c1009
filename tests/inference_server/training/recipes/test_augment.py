"""Random affine changes: exact where nothing changes, the right way round, as often and as strong as said."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inference_server.training.draws import Draw
from inference_server.training.recipes.augment import SYM6, AffineSettings, apply_affine, sample_affine

EYE = torch.eye(3, dtype=torch.float64)


def blobs(side: int = 48) -> Tensor:
    """A smooth picture without symmetry, [1, 1, side, side]."""
    y, x = torch.meshgrid(torch.arange(side) - (side - 1) / 2, torch.arange(side) - (side - 1) / 2, indexing="ij")
    first = torch.exp(-((x - 8) ** 2 + (y - 5) ** 2) / 18)
    return (first + 0.5 * torch.exp(-((x + 10) ** 2 + (y + 2) ** 2) / 30))[None, None]


def shifted(x: float, y: float) -> Tensor:
    matrix = EYE.clone()
    matrix[0, 2], matrix[1, 2] = x, y
    return matrix


def turned(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)


def test_the_filter_is_orthonormal_to_its_shifts() -> None:
    taps = torch.tensor(SYM6, dtype=torch.float64)
    assert float(taps.sum()) == pytest.approx(math.sqrt(2), abs=1e-9)
    for shift in range(0, 12, 2):
        assert float((taps[shift:] * taps[: 12 - shift]).sum()) == pytest.approx(float(shift == 0), abs=1e-9)


def test_next_to_no_change_changes_next_to_nothing() -> None:
    """The way through the double rate loses nothing, up to the border; the identity itself is not resampled."""
    noise = torch.randn(1, 2, 20, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(apply_affine(noise, [shifted(1e-9, 0)]), noise, rtol=0, atol=1e-4)
    assert torch.equal(apply_affine(noise, [EYE]), noise)


def test_changes_go_the_way_they_say() -> None:
    picture = blobs()
    right = apply_affine(picture, [shifted(3, 0)])
    torch.testing.assert_close(right[..., 6:-6, 9:-6], picture[..., 6:-6, 6:-9], rtol=0, atol=2e-3)
    down = apply_affine(picture, [shifted(0, 2)])
    torch.testing.assert_close(down[..., 8:-6, 6:-6], picture[..., 6:-8, 6:-6], rtol=0, atol=2e-3)
    mirrored = apply_affine(picture, [torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))])
    torch.testing.assert_close(mirrored, picture.flip(3), rtol=0, atol=5e-3)
    quarter = apply_affine(picture, [turned(90)])
    torch.testing.assert_close(quarter, picture.rot90(1, (2, 3)), rtol=0, atol=5e-3)


def test_half_precision_moves_as_far() -> None:
    picture = blobs(256)
    exact = apply_affine(picture, [turned(30)])
    with torch.autocast("cpu", torch.bfloat16):
        half = apply_affine(picture.bfloat16(), [turned(30)])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.01)


def test_larger_is_larger_and_outside_is_mirrored() -> None:
    picture = blobs()
    large = apply_affine(picture, [torch.diag(torch.tensor([1.5, 1.5, 1.0], dtype=torch.float64))])
    # bilinear at the double rate and the low-pass flatten peaks a little
    assert float(large.sum()) == pytest.approx(2.25 * float(picture.sum()), rel=0.05)
    ramp = torch.arange(40.0).expand(1, 1, 40, 40).clone()
    moved = apply_affine(ramp, [shifted(10, 0)])
    expected = (torch.arange(40.0) - 10).abs()
    torch.testing.assert_close(moved[0, 0, 20, [3, 16, 30]], expected[[3, 16, 30]], rtol=0, atol=0.1)


def test_channels_move_together_and_samples_apart() -> None:
    picture = blobs().repeat(2, 3, 1, 1)
    moved = apply_affine(picture, [turned(20), EYE])
    assert torch.equal(moved[0, 0], moved[0, 2])
    assert torch.equal(moved[1], picture[1])
    assert float((moved[0] - picture[0]).abs().max()) > 0.1


def matrices(settings: AffineSettings, count: int = 1500) -> Tensor:
    return torch.stack([sample_affine(Draw(1, step, 0), settings, 1024) for step in range(count)])


def test_how_often_and_how_much() -> None:
    found = matrices(AffineSettings())
    again = sample_affine(Draw(1, 7, 0), AffineSettings(), 1024)
    assert torch.equal(again, found[7])
    unchanged = float((found == EYE).all(dim=2).all(dim=1).double().mean())
    # mirrored a tenth of the time; shift, scale, stretch, fine shift a fifth each; a rotation a fifth
    assert unchanged == pytest.approx(0.9 * 0.8**5, abs=0.035)
    mirrored = float((torch.linalg.det(found) < 0).double().mean())
    assert mirrored == pytest.approx(0.1, abs=0.025)
    area = torch.linalg.det(found).abs().log() / 2  # a stretch keeps it
    scaled = area[area.abs() > 1e-9]
    assert len(scaled) / len(found) == pytest.approx(0.2, abs=0.035)
    assert float(scaled.std()) == pytest.approx(0.1 * math.log(2), rel=0.15)
    assert float(found[:, :2, 2].abs().max()) < 1.0  # less than a pixel: published


def test_shifts_of_the_side_move_for_real() -> None:
    by = matrices(AffineSettings(shift_unit="side"), 300)[:, :2, 2].abs()
    assert 60 < float(by.max()) < 1024
    assert float((by[by > 0] % 1).max()) > 0  # the fine shift is no whole number


def test_probability_zero_and_one() -> None:
    assert torch.equal(matrices(AffineSettings(probability=0.0), 20), EYE.expand(20, 3, 3))
    every = matrices(AffineSettings(probability=1.0), 40)
    assert not bool((every[:, :2, :2] == EYE[:2, :2]).all(dim=2).all(dim=1).any())
