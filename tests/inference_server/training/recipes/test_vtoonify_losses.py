"""Each loss against its equation on tensors made by hand; schedules at their corner points."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from inference_server.networks.lpips import LPIPS
from inference_server.networks.stylegan_layers import downsample2
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch
from inference_server.training.recipes import vtoonify_losses as equations
from inference_server.training.recipes.vtoonify import vtoonify_recipe
from inference_server.training.recipes.vtoonify_settings import LossSettings
from tests.inference_server.training.recipes import tiny_vtoonify as tiny

LOSSES = LossSettings()


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0.0), (999, 0.0), (1000, 0.0), (1500, 0.5), (1999, 0.999), (2000, 1.0), (9000, 1.0)]
)
def test_flicker_and_jitter_begin_at_half_and_grow_to_one(step: int, weight: float) -> None:
    assert equations.second_half(step, 2000) == pytest.approx(weight)


@pytest.mark.parametrize(("degree", "allowed"), [(0.0, 1.0), (0.5, 0.325), (0.8, 0.136), (1.0, 0.1)])
def test_the_allowed_mask_falls_with_the_degree(degree: float, allowed: float) -> None:
    assert equations.allowed_mask(degree, LOSSES) == pytest.approx(allowed)


def test_mask_sparsity_sums_what_exceeds() -> None:
    masks = [torch.full((2, 1, s, s), value) for s, value in ((4, 0.9), (8, 0.2), (16, 0.4))]
    masks[1][0] = 0.0  # the mean is over samples too: 0.1
    # g(0.5) = 0.325: only 0.9 and 0.4 exceed it
    loss = equations.mask_sparsity(masks, 0.5, LOSSES)
    assert float(loss) == pytest.approx((0.9 - 0.325) + (0.4 - 0.325), abs=1e-6)
    assert float(equations.mask_sparsity(masks, 0.0, LOSSES)) == 0.0


def test_logistic_losses() -> None:
    scores = torch.tensor([[0.0], [2.0]])
    assert float(equations.real_or_not(scores, True)) == pytest.approx((math.log(2) + math.log1p(math.exp(-2))) / 2)
    assert float(equations.real_or_not(scores, False)) == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)


def test_imitation_is_two_means_of_squares() -> None:
    feature, rgb = torch.zeros(1, 4, 2, 2), torch.ones(1, 3, 2, 2)
    of_feature, of_rgb = equations.imitation(feature, rgb, (torch.full((1, 4, 2, 2), 3.0), torch.zeros(1, 3, 2, 2)))
    assert (float(of_feature), float(of_rgb)) == (9.0, 1.0)


def test_perceptual_is_the_sum_over_four_however_the_batch_is_divided() -> None:
    torch.manual_seed(0)
    network = LPIPS("vgg", width_divisor=16)
    losses = LossSettings(perceptual_size=16)
    a, b = torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1
    summed = float(network(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)).sum())
    whole = float(equations.perceptual(network, a, b, losses))
    pieces = [float(equations.perceptual(network, a[i : i + 2], b[i : i + 2], losses)) for i in (0, 2)]
    assert whole == pytest.approx(summed, rel=1e-5)
    assert sum(pieces) / 2 == pytest.approx(summed, rel=1e-5)


def test_flicker_compares_the_same_place() -> None:
    result = torch.arange(64.0).view(1, 1, 8, 8)
    crop = result[..., 3:7, 1:5].clone()
    assert float(equations.flicker(result, crop, (3, 1))) == 0.0
    assert float(equations.flicker(result, crop + 2, (3, 1))) == 4.0
    assert float(equations.flicker(result, crop, (2, 1))) == 64.0


def test_halved_is_the_low_pass_again_and_again() -> None:
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(equations.halved(x, 2), downsample2(downsample2(x)))
    assert torch.equal(equations.halved(x, 0), x)
    torch.testing.assert_close(equations.pooled(x, 8), F.avg_pool2d(x, 2))


def batch(step: int, index: int = 0, seed: int = 0) -> Batch:
    return Batch({}, (Draw(seed, step, index), Draw(seed, step, index + 1)), step, torch.device("cpu"))


def test_the_degree_of_the_first_stage_is_zero_in_the_first_quarter() -> None:
    d = tiny.teachers()
    recipe = vtoonify_recipe(tiny.encoder_table(iterations=400, style={"any_degree": True}), d)
    assert {recipe.degree(batch(step)) for step in range(100)} == {0.0}
    later = [recipe.degree(batch(step)) for step in range(100, 400)]
    assert 0 < min(later) < 0.05
    assert 0.95 < max(later) < 1
    fixed = vtoonify_recipe(tiny.encoder_table(style={"degree": 0.7}), d)
    assert {fixed.degree(batch(step)) for step in (0, 200)} == {0.7}


def test_the_degree_of_the_second_stage_is_one_of_six() -> None:
    recipe = vtoonify_recipe(tiny.translator_table(style={"any_degree": True}), tiny.teachers())
    drawn = [recipe.degree(batch(step, index)) for step in range(40) for index in (0, 2, 4)]
    assert set(drawn) == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert recipe.degree(batch(3)) == recipe.degree(batch(3))  # the same in every phase of a step


def test_colours_are_jittered_in_versatile_colour_models_only() -> None:
    d = tiny.teachers()
    for any_style, colours, expected in ((True, True, 0.5), (False, True, 0.0), (True, False, 0.0)):
        style = {"any_style": any_style, "colour_transfer": colours}
        recipe = vtoonify_recipe(tiny.translator_table(iterations=100, style=style), d)
        assert recipe.jitter(75) == expected  # type: ignore[union-attr]
        assert recipe.jitter(50) == 0.0  # type: ignore[union-attr]
