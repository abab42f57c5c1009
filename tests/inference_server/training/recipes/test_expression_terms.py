"""The terms of the expression optimisation: gradients against numerical ones, scales, and where they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from inference_server.networks.hrnet import HRNet, Square
from inference_server.networks.lpips import LPIPS, Trunk
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.expression_terms import (
    eye_masks,
    eye_term,
    eye_window,
    face_crops,
    halvings,
    inner_lip,
    lip_maps,
    lip_term,
    offset_term,
    temporal_term,
    whole_picture,
)
from tests.inference_server.training.recipes import tiny_portrait as tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lips_have_the_numerical_gradient_in_the_picture() -> None:
    torch.manual_seed(1)
    network = HRNet(98, channels=(2, 2, 2, 2), modules=(1, 1, 1), blocks=1, stem=2).eval().double()
    network.requires_grad_(False)
    square = Square(random(2, 2) + 20, torch.tensor([31.0, 26.0], dtype=torch.float64))
    wanted = random(2, 8, 8, 8, seed=2)

    def term(pictures: Tensor) -> Tensor:
        return lip_term(lip_maps(network, pictures, square, 0, 32, (88, 95)), wanted)

    picture = random(2, 3, 40, 40, seed=3).requires_grad_()
    assert gradcheck(term, (picture,), fast_mode=True)
    (slope,) = torch.autograd.grad(term(picture), picture)
    assert slope.abs().max() > 0


def test_eyes_have_the_numerical_gradient_in_the_picture() -> None:
    network = tiny.lpips().double()
    wanted, window = random(2, 3, 40, 36), whole_picture(40)
    pictures = random(2, 3, 40, 36, seed=2).requires_grad_()
    assert gradcheck(lambda x: eye_term(network, x, wanted, window), (pictures,), fast_mode=True)


def test_offsets_have_the_numerical_gradient_which_is_0_at_the_start() -> None:
    joined = torch.tensor([True, False, True])
    offsets = random(4, 3, 2).requires_grad_()
    for term in (offset_term, temporal_term, lambda x: temporal_term(x, joined)):
        assert gradcheck(term, (offsets,))
        zero = torch.zeros(4, 3, 2, requires_grad=True)
        (slope,) = torch.autograd.grad(term(zero), zero)
        assert torch.equal(slope, torch.zeros_like(slope))


def test_norms_are_mean_squares_summed_over_frames() -> None:
    """Against sums of squares: 1/4096 of a heat map, 1/9216 of a code, whatever the number of frames."""
    maps, wanted = random(2, 8, 64, 64), random(2, 8, 64, 64, seed=2)
    assert float(lip_term(maps, wanted)) == pytest.approx(float((maps - wanted).square().sum()) / 4096)
    offsets = random(3, 18, 512)
    assert float(offset_term(offsets)) == pytest.approx(float(offsets.square().sum()) / 9216)
    assert float(temporal_term(offsets)) == pytest.approx(float((offsets[1:] - offsets[:-1]).square().sum()) / 9216)
    cut = temporal_term(offsets, torch.tensor([False, True]))
    assert float(cut) == pytest.approx(float((offsets[2] - offsets[1]).square().sum()) / 9216)
    assert float(temporal_term(offsets[:1])) == 0


def test_the_landmark_network_is_shown_the_square() -> None:
    """A picture whose values are its own coordinates, zeros outside; a large square is averaged down first."""
    size, side = 256, 32
    ramp = torch.arange(size).float() + 0.5
    picture = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.ones(size, size)])[None]
    square = Square(torch.tensor([[100.0, 60.0]]), torch.tensor([64.0]))
    assert halvings(square, side) == 1
    for halved in (0, 1):
        crop = face_crops(picture, square, halved, side)
        expected = (torch.arange(side) + 0.5) * 2
        torch.testing.assert_close(crop[0, 0, 5], expected + 68)
        torch.testing.assert_close(crop[0, 1, :, 9], expected + 28)
    outside = face_crops(picture, Square(torch.tensor([[0.0, 128.0]]), torch.tensor([64.0])), 0, side)[0, 2]
    assert torch.equal(outside[:, :15], torch.zeros(side, 15))
    assert torch.equal(outside[:, 16:], torch.ones(side, 16))
    noise = torch.randn(1, 3, size, size)
    whole = Square(torch.tensor([[128.0, 128.0]]), torch.tensor([256.0]))
    torch.testing.assert_close(
        face_crops(noise, whole, halvings(whole, side), side), torch.nn.functional.avg_pool2d(noise, 8)
    )
    assert halvings(Square(torch.zeros(1, 2), torch.tensor([20.0])), side) == 0


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_the_eyes_window_gives_the_distance_of_the_whole_picture(trunk: Trunk) -> None:
    """And its gradient: beyond the window nothing of the difference is seen."""
    torch.manual_seed(1)
    network = LPIPS(trunk, width_divisor=64).double()
    size = 512
    mask = torch.zeros(2, size, size, dtype=torch.uint8)
    mask[0, 255:262, 260:270] = 1
    mask[1, 257:266, 250:266] = 1
    window = eye_window(mask, network)
    assert (window.rows, window.columns) == (slice(32, 474), slice(32, 478))
    a, b = ((random(1, 3, size, size, seed=s) * mask[1:, None]).requires_grad_() for s in (1, 2))
    part = eye_term(network, window.cut(a), window.cut(b), window)
    full = eye_term(network, a, b, whole_picture(size))
    torch.testing.assert_close(full, network(a, b).sum())
    torch.testing.assert_close(part, full)
    slopes = [torch.autograd.grad(term, a)[0] * mask[1:, None] for term in (part, full)]
    assert slopes[1].abs().max() > 0
    torch.testing.assert_close(slopes[0], slopes[1])


def test_a_window_stops_at_the_pictures_edge_and_an_empty_mask_is_refused() -> None:
    network = tiny.lpips()
    mask = torch.zeros(64, 64)
    with pytest.raises(TrainingError, match="empty") as caught:
        eye_window(mask, network)
    assert caught.value.code == "training.data"
    mask[40, 3] = 0.5
    window = eye_window(mask, network)
    assert (window.rows, window.columns, window.shares) == (slice(0, 64), slice(0, 64), (1.0,) * 5)


def test_which_channels_the_inner_lip_is() -> None:
    assert (inner_lip(98), inner_lip(68)) == ((88, 95), (60, 67))
    with pytest.raises(TrainingError, match="29 points"):
        inner_lip(29)


def test_eye_masks_are_filled_and_grown() -> None:
    left = np.array([[[20, 30], [30, 26], [40, 30], [30, 34]], [[22, 30], [32, 26], [42, 30], [32, 34]]], np.float32)
    masks = eye_masks((left, left + np.float32([40, 0])), 100, grow=0.05)
    assert masks.shape == (2, 100, 100)
    assert masks.dtype == torch.uint8
    assert masks[0, 30, 15:46].all()
    assert masks[0, 30, 55:86].all()
    assert not masks[0, 30, :14].any()
    assert not masks[0, :20].any()
    assert masks[1, 30, 17:48].all()
    assert not masks[1, 30, :16].any()
