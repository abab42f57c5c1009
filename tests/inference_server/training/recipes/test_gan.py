"""Adversarial losses, lazy regularisers and random codes against their equations."""

from __future__ import annotations

import math

import pytest
import torch

from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch
from inference_server.training.recipes.gan import (
    GanSettings,
    PathLength,
    discriminator_loss,
    generator_loss,
    lazy_adam,
    mixed_codes,
    r1_penalty,
    shown_at,
)
from inference_server.training.tables import from_table
from tests.inference_server.training.recipes.tiny_style import DIM, ROWS, generator


def batch_of(count: int, step: int = 0, first: int = 0) -> Batch:
    return Batch({}, tuple(Draw(5, step, first + i) for i in range(count)), step, torch.device("cpu"))


def test_logistic_losses() -> None:
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    softplus = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, 0.5, 3.0)]
    assert float(discriminator_loss(real, fake)) == pytest.approx(sum(softplus[:2]) / 2 + sum(softplus[2:]) / 2)
    wanted = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-3.0))) / 2
    assert float(generator_loss(fake)) == pytest.approx(wanted)


def test_r1_is_the_squared_slope_and_can_be_learned_from() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 4, 4, requires_grad=True)
    scale = torch.tensor(0.7, requires_grad=True)
    scores = (scale * x.square()).flatten(1).sum(dim=1, keepdim=True)  # slope 2 * scale * x
    penalty = r1_penalty(scores, x)
    squares = x.detach().square().flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(penalty, 4 * 0.7**2 * squares)
    penalty.backward()
    torch.testing.assert_close(scale.grad, 8 * 0.7 * squares)


def test_lazy_optimisers_and_phases_have_the_published_numbers() -> None:
    settings = GanSettings()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimisers = settings.optimisers([weight], [weight])
    g, d = (optimisers[name].param_groups[0] for name in "gd")
    assert g["lr"] == pytest.approx(0.002 * 4 / 5)
    assert g["betas"] == (0.0, pytest.approx(0.99**0.8))
    assert d["lr"] == pytest.approx(0.002 * 16 / 17)
    assert d["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert lazy_adam([weight], 0.5, 0).param_groups[0]["lr"] == 0.5
    names = [[phase.name for phase in settings.phases(step)] for step in (0, 4, 5, 16)]
    plain = ["discriminator", "generator"]
    assert names == [["discriminator", "r1", "generator", "path"], [*plain, "path"], plain, names[0]]
    bare = GanSettings(r1_every=0, path_every=0)
    assert [phase.name for phase in bare.phases(0)] == plain
    with pytest.raises(TrainingError, match="shares of 1"):
        from_table(GanSettings, {"mixing": 1.5})


def test_path_length_is_that_of_the_jacobian_and_follows_its_mean() -> None:
    """Pictures linear in the codes: the Jacobian is known, and so is every length."""
    torch.manual_seed(1)
    jacobian = torch.randn(2, 5, 3, 4, 4)  # rows, numbers of a row, picture
    module = PathLength(decay=0.25)

    def measured(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.randn(3, 2, 5, requires_grad=True)
        pictures = torch.einsum("nld,ldchw->nchw", codes, jacobian)
        torch.manual_seed(seed)
        penalty = module(pictures, codes)
        torch.manual_seed(seed)
        noise = torch.randn(3, 3, 4, 4) / 4  # divided by the root of 4 * 4 pixels
        slope = torch.einsum("ldchw,nchw->nld", jacobian, noise)
        return penalty, slope.square().sum(dim=2).mean(dim=1).sqrt()

    penalty, lengths = measured(2)
    torch.testing.assert_close(penalty, (lengths - 0.25 * lengths.mean()).square().mean())
    assert float(module.mean) == 0.0  # until the step is over
    again, more = measured(3)  # the second piece of the step sees the same mean
    torch.testing.assert_close(again, (more - 0.25 * more.mean()).square().mean())
    module.settle()
    mean = 0.25 * torch.cat([lengths, more]).mean()
    torch.testing.assert_close(module.mean, mean)
    module.settle()  # nothing new
    torch.testing.assert_close(module.mean, mean)
    third, last = measured(4)
    torch.testing.assert_close(third, (last - (mean + 0.25 * (last.mean() - mean))).square().mean())


def test_path_length_is_learned_from() -> None:
    g = generator().requires_grad_(True)
    codes = mixed_codes(g, batch_of(2), "path", 0.9)
    PathLength()(g.synthesis(codes, None), codes).backward()
    assert float(g.conv1.conv.weight.grad.abs().sum()) > 0
    assert float(g.style[1].weight.grad.abs().sum()) > 0


def test_mixed_codes() -> None:
    g = generator()
    whole = mixed_codes(g, batch_of(6), "x", 0.0)
    assert whole.shape == (6, ROWS, DIM)
    assert torch.equal(whole, whole[:, :1].expand_as(whole))
    mixed = mixed_codes(g, batch_of(400), "x", 0.9)
    torch.testing.assert_close(mixed[:6, 0], whole[:, 0])  # what begins a mixed code is the unmixed one
    changes = (mixed[:, 1:] != mixed[:, :-1]).any(dim=2)  # [N, L - 1]
    assert int(changes.sum(dim=1).max()) == 1
    assert float(changes.any(dim=1).float().mean()) == pytest.approx(0.9, abs=0.05)
    counts = changes.sum(dim=0) / changes.sum()
    torch.testing.assert_close(counts, torch.full((ROWS - 1,), 1 / (ROWS - 1)), atol=0.06, rtol=0)
    torch.testing.assert_close(mixed_codes(g, batch_of(3, first=2), "x", 0.9), mixed[2:5])  # a sample's own draws
    assert not torch.equal(mixed_codes(g, batch_of(6), "y", 0.0), whole)


def test_shown_at() -> None:
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(shown_at(ramp, 2), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert shown_at(ramp, 4) is ramp
    assert shown_at(ramp, 8).shape == (1, 1, 8, 8)
