"""Adaptive augmentation: when its probability moves, what its changes do, and that penalties go through it."""

from __future__ import annotations

import math

import pytest
import torch

from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch
from inference_server.training.recipes import ada
from inference_server.training.recipes.ada import AdaptiveAugmentation, augmented
from inference_server.training.recipes.gan import r1_penalty
from inference_server.training.recipes.resampling import bilinear


def draws(count: int) -> tuple[Draw, ...]:
    return tuple(Draw(0, 0, i) for i in range(count))


def test_probability_follows_the_signs() -> None:
    own = AdaptiveAugmentation(target=0.6, length=100, interval=8)
    sure, unsure = torch.tensor([[1.0]] * 9 + [[-3.0]]), torch.tensor([[2.0]] * 7 + [[-0.1]] * 3)  # 0.8, 0.4
    own.observe(sure[:4])
    own.settle()
    assert float(own.p) == 0.0  # 4 of 8 pictures
    own.observe(sure[4:])
    assert float(own.p) == 0.0  # not within a step
    own.settle()
    assert float(own.p) == pytest.approx(10 / 100)
    assert float(own.count) == 0
    for _ in range(3):
        own.observe(sure)
        own.settle()
    assert float(own.p) == pytest.approx(0.4)
    for expected in (0.3, 0.2, 0.1, 0.0, 0.0):
        own.observe(unsure)
        own.settle()
        assert float(own.p) == pytest.approx(expected, abs=1e-6)
    off = AdaptiveAugmentation(target=0.0, length=1, interval=1)
    off.observe(sure)
    off.settle()
    assert float(off.p) == 0.0


def test_without_probability_the_discriminator_sees_the_pictures() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    batch = Batch({}, draws(2), 0, torch.device("cpu"))
    assert AdaptiveAugmentation()(pictures, batch, "x") is pictures
    torch.testing.assert_close(augmented(pictures, draws(2), 0.0, "x"), pictures)


def test_changes_are_a_samples_own_and_of_their_use() -> None:
    pictures = torch.rand(1, 3, 16, 16).expand(4, -1, -1, -1)
    one, two, other = (augmented(pictures, draws(4), 0.8, name) for name in ("real", "real", "fake"))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert len({float(p.mean()) for p in one}) == 4
    torch.testing.assert_close(augmented(pictures[:2], draws(4)[2:], 0.8, "real"), one[2:])


def test_colours() -> None:
    """Contrast, luma flip, hue and saturation act on the grey axis and around it as the paper says."""
    grey = torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64)
    turned = ada._turned(0.7)
    torch.testing.assert_close(turned @ grey, grey)
    torch.testing.assert_close(turned @ turned.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.trace(turned)) == pytest.approx(1 + 2 * math.cos(0.7))
    matrices = torch.stack([ada._colour(draw, 1.0) for draw in draws(600)])
    linear, offset = matrices[:, :, :3], matrices[:, :, 3]
    onto_grey = linear @ grey  # every change maps grey to grey
    torch.testing.assert_close(onto_grey - (onto_grey @ grey)[:, None] * grey, torch.zeros(600, 3, dtype=torch.float64))
    gain = onto_grey @ grey
    assert float((gain < 0).double().mean()) == pytest.approx(0.5, abs=0.07)  # luma flips
    assert float(gain.abs().log().std()) == pytest.approx(0.5 * math.log(2), rel=0.12)  # contrast
    saturation = linear.det().abs().log() - 3 * gain.abs().log()
    assert float((saturation / 2).std()) == pytest.approx(math.log(2), rel=0.12)
    brightness = (offset @ grey) / gain / math.sqrt(3)
    assert float(brightness.std()) == pytest.approx(0.2, rel=0.12)
    assert torch.equal(ada._colour(Draw(0, 0, 0), 0.0)[:, :3], torch.eye(3, dtype=torch.float64))


def test_quarter_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quarter turns alone turn the picture; each of the four comes up."""
    monkeypatch.setattr(ada, "sample_affine", lambda *_: torch.eye(3, dtype=torch.float64))
    monkeypatch.setattr(ada, "_colour", lambda *_: torch.eye(3, 4, dtype=torch.float64))
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    picture = torch.nn.functional.avg_pool2d(noise, 9, 1)
    seen = set()
    for draw in draws(16):
        result = augmented(picture, (draw,), 1.0, "x")
        apart = [float((result - picture.rot90(k, (2, 3))).abs().mean()) for k in range(4)]
        seen.add(min(range(4), key=apart.__getitem__))
        best, second, *_ = sorted(apart)
        assert best < 0.1 * second
    assert seen == {0, 1, 2, 3}


def test_sampling_has_exact_first_and_second_derivatives() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(2, 3, 6, 2, dtype=torch.float64) * 2.6 - 1.3  # also outside
    plain = torch.nn.functional.grid_sample(pictures, grid, "bilinear", "reflection", align_corners=True)
    assert torch.equal(bilinear(pictures, grid), plain)
    assert torch.autograd.gradcheck(lambda x: bilinear(x, grid), (pictures,))
    assert torch.autograd.gradgradcheck(lambda x: bilinear(x, grid).square(), (pictures,))


def test_gradient_penalty_goes_through_augmentation() -> None:
    """R1 of a linear discriminator is the squared length of augmentation's adjoint of its weights."""
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 8, 8, dtype=torch.float64, requires_grad=True)
    scores = (augmented(pictures, draws(2), 1.0, "r1") * weight).flatten(1).sum(dim=1)
    penalty = r1_penalty(scores, pictures)
    penalty.backward()
    with torch.no_grad():
        columns = torch.eye(3 * 64, dtype=torch.float64).view(-1, 3, 8, 8)
        expected = []
        for draw in draws(2):
            black = augmented(torch.zeros(1, 3, 8, 8, dtype=torch.float64), (draw,), 1.0, "r1")
            own = augmented(columns, (draw,) * len(columns), 1.0, "r1") - black  # the linear part as a matrix
            expected.append((own * weight).flatten(1).sum(dim=1).square().sum())
    torch.testing.assert_close(penalty.detach(), torch.stack(expected).mean())
    assert weight.grad is not None
    torch.testing.assert_close((weight.grad * weight).sum(), 2 * penalty)  # it is quadratic in the weights
