"""Losses in VGG19's features that carry a style over (DualStyleGAN, arXiv 2203.13248; contextual loss 1803.02077)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Taps = Mapping[str, Tensor]  # features [N, C, h, w] by the name of the tap


def perceptual_loss(output: Taps, target: Taps, weights: Mapping[str, float]) -> Tensor:
    """Weighted sum over taps of the mean absolute difference of features."""
    return torch.stack([w * F.l1_loss(output[tap], target[tap]) for tap, w in weights.items()]).sum()


def style_loss(output: Taps, target: Taps, taps: tuple[str, ...] = ("relu2_1", "relu3_1")) -> Tensor:
    """Sum over taps of the mean squared difference of the channels' spatial means."""
    return torch.stack([F.mse_loss(output[t].mean((2, 3)), target[t].mean((2, 3))) for t in taps]).sum()


def contextual_loss(source: Tensor, target: Tensor, band: float = 0.2) -> Tensor:
    """How far the features of `source` are from occurring in `target`, wherever they are. Mean over the batch.

    source, target  [N, C, h, w] and [N, C, h', w']; both are centred by the target's mean over batch and space

    With d the cosine distance of feature i of the source to j of the target, relative to i's nearest:
    w = exp((1 - d / (min_j d + 1e-5)) / band), CX = w / sum_j w; the loss is -log(mean_j max_i CX + 1e-5).
    """
    centre = target.mean((0, 2, 3), keepdim=True)
    a, b = (F.normalize((x - centre).flatten(2), dim=1) for x in (source, target))  # [N, C, h*w]
    distance = 1 - a.transpose(1, 2) @ b  # [N, source, target]
    relative = distance / (distance.amin(dim=2, keepdim=True) + 1e-5)
    weight = torch.exp((1 - relative) / band)
    likeness = weight / weight.sum(dim=2, keepdim=True)
    score = likeness.amax(dim=1).mean(dim=1)  # [N]
    return -torch.log(score + 1e-5).mean()


def parameter_norms(modules: nn.Module) -> Tensor:
    """Sum over a module's parameters of their Euclidean norms."""
    return torch.stack([p.norm() for p in modules.parameters()]).sum()


def noise_correlation(maps: list[Tensor]) -> Tensor:
    """How far noise maps [N, 1, s, s] are from white: StyleGAN2's regulariser (arXiv 1912.04958, appendix D).

    For each map, and its halvings by 2x2 means down to 8 px: the squared mean product of each value with its right
    neighbour, and the same with the one below, around the edges.
    """
    terms = []
    for noise in maps:
        level = noise
        while True:
            terms += [(level * level.roll(1, dims)).mean().square() for dims in (2, 3)]
            if level.shape[-1] <= 8:
                break
            level = F.avg_pool2d(level, 2)
    return torch.stack(terms).sum()


@torch.no_grad()
def whiten_(maps: list[Tensor]) -> None:
    """Brings every noise map to mean 0 and standard deviation 1, in place."""
    for noise in maps:
        noise -= noise.mean()
        noise /= noise.std()
