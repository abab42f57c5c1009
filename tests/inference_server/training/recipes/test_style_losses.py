"""Contextual, style, perceptual and noise losses against their equations, written out with loops."""

from __future__ import annotations

import math

import pytest
import torch

from inference_server.training.recipes.style_losses import (
    contextual_loss,
    noise_correlation,
    parameter_norms,
    perceptual_loss,
    style_loss,
    whiten_,
)


def test_contextual_loss_by_hand() -> None:
    torch.manual_seed(0)
    source, target = torch.randn(2, 4, 2, 3), torch.randn(2, 4, 3, 1)
    centre = target.mean((0, 2, 3))
    losses = []
    for x, y in zip(source, target, strict=True):
        a = [(v - centre) / (v - centre).norm() for v in x.flatten(1).T]
        b = [(v - centre) / (v - centre).norm() for v in y.flatten(1).T]
        likeness = []
        for i in a:
            distances = [1 - float(i @ j) for j in b]
            weights = [math.exp((1 - d / (min(distances) + 1e-5)) / 0.2) for d in distances]
            likeness.append([w / sum(weights) for w in weights])
        score = sum(max(row[j] for row in likeness) for j in range(len(b))) / len(b)
        losses.append(-math.log(score + 1e-5))
    assert float(contextual_loss(source, target, 0.2)) == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_contextual_loss_ignores_places_and_knows_features() -> None:
    torch.manual_seed(1)
    features = torch.randn(1, 16, 6, 6)
    moved = features.flatten(2)[:, :, torch.randperm(36)].view_as(features)
    other = torch.randn(1, 16, 6, 6)
    same = float(contextual_loss(features, features))
    assert same == pytest.approx(-math.log(1 + 1e-5), abs=1e-3)
    assert float(contextual_loss(moved, features)) == pytest.approx(same, abs=1e-4)
    assert float(contextual_loss(other, features)) > 0.5


def test_style_and_perceptual_losses() -> None:
    a = {"relu2_1": torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]]), "relu3_1": torch.tensor([[[[4.0]]]])}
    b = {"relu2_1": torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]]), "relu3_1": torch.tensor([[[[1.0]]]])}
    assert float(style_loss(a, b)) == (2**2 + 1**2) / 2 + 3**2  # means of channels 2, 0 against 0, 1; 4 against 1
    weights = {"relu2_1": 0.5, "relu3_1": 1.0}
    assert float(perceptual_loss(a, b, weights)) == 0.5 * (1 + 3 + 1 + 1) / 4 + 3


def test_norms_of_parameters() -> None:
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
        layer.bias.fill_(-2.0)
    assert float(parameter_norms(layer).detach()) == 7.0


def test_noise_correlation_by_hand() -> None:
    torch.manual_seed(2)
    small, large = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 16, 16)
    halved = large.view(1, 1, 8, 2, 8, 2).mean((3, 5))
    expected = 0.0
    for level in (small, large, halved):
        side = level.shape[-1]
        x, y = 0.0, 0.0
        for r in range(side):
            for c in range(side):
                x += float(level[0, 0, r, c] * level[0, 0, r, c - 1])
                y += float(level[0, 0, r, c] * level[0, 0, r - 1, c])
        expected += (x / side**2) ** 2 + (y / side**2) ** 2
    assert float(noise_correlation([small, large])) == pytest.approx(expected, rel=1e-4)
    flat = torch.ones(1, 1, 8, 8)
    assert float(noise_correlation([flat])) == 2.0


def test_whiten() -> None:
    maps = [torch.randn(1, 1, 8, 8) * 3 + 1, torch.randn(1, 1, 4, 4)]
    whiten_(maps)
    for noise in maps:
        assert float(noise.mean()) == pytest.approx(0, abs=1e-6)
        assert float(noise.std()) == pytest.approx(1, abs=1e-6)
