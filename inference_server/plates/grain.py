"""Film grain and sensor noise, kept apart from what an effect moves.

Grain belongs to the sensor, not to the face: a warp must not drag it along. It is measured in a signed
logarithmic encoding, where noise has about the same size in light and shade, and put back in that
encoding, so that the grain of a highlight does not stay behind as a ghost on the skin that takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

_KNEE = 0.02  # scene-linear value below which the encoding is linear
_RADIUS = 2
_QUANTILE_TO_SIGMA = 1.4826  # MAD of a normal distribution


def encode(scene: Tensor) -> Tensor:
    """Signed log encoding of scene-linear values, any shape; odd, monotone, exact at 0."""
    return torch.asinh(scene / _KNEE)


def decode(coded: Tensor) -> Tensor:
    """Inverse of `encode`."""
    return torch.sinh(coded) * _KNEE


def split_grain(scene: Tensor) -> tuple[Tensor, Tensor]:
    """Separate fine noise from the picture.

    scene  [3, h, w] scene-linear, finite, unbounded
    Returns base [3, h, w] scene-linear without grain, and grain [3, h, w] in the encoding: `add_grain(base, grain)`
    gives the scene back up to float rounding. What stands out of the noise (edges, pores, catch lights) stays in
    the base.
    """
    coded = encode(scene)
    smooth = _box(coded)
    detail = coded - smooth
    sigma = _noise_level(detail)  # [3, 1, 1]
    variance = (_box(coded * coded) - smooth * smooth).clamp_min(0)
    floor = (2.0 * sigma).square() + 1e-10
    keep = variance / (variance + floor)  # 1 on edges, 0.2 on flat noise
    keep = _highest(keep)  # nor beside an edge
    grain = detail * ((1 - keep) / 0.6).clamp(max=1)
    limit = 3.0 * sigma + 1e-8
    grain = limit * torch.tanh(grain / limit)
    return decode(coded - grain), grain


def add_grain(scene: Tensor, grain: Tensor, amount: float = 1.0) -> Tensor:
    """Put `grain` back onto a picture; 1 is what was there. Where the grain is 0 the scene is unchanged bit for bit.

    scene [3, h, w] scene-linear; grain as returned by `split_grain`.
    """
    return torch.where(grain == 0, scene, decode(encode(scene) + amount * grain))


def sharpen(scene: Tensor, amount: float) -> Tensor:
    """Unsharp mask in the encoding: sharper above 0, softer below; 0 is the scene itself. [3, h, w] scene-linear."""
    coded = encode(scene)
    return decode(coded + amount * (coded - _box(coded)))


def _noise_level(detail: Tensor) -> Tensor:
    """Robust standard deviation of the high-pass per channel, [3, 1, 1]; blind to edges (median)."""
    flat = detail.abs().reshape(detail.shape[0], -1)
    return (flat.median(dim=1).values * _QUANTILE_TO_SIGMA)[:, None, None]


def _box(x: Tensor) -> Tensor:
    """Mean over a (2r + 1) square, borders replicated; [C, h, w]."""
    padded = functional.pad(x[None], (_RADIUS,) * 4, mode="replicate")[0]
    return _slide(padded, torch.add) / float((2 * _RADIUS + 1) ** 2)


def _highest(x: Tensor) -> Tensor:
    """Maximum over a (2r + 1) square; [C, h, w]."""
    return _slide(functional.pad(x[None], (_RADIUS,) * 4, mode="replicate")[0], torch.maximum)


def _slide(padded: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`combine` over a sliding (2r + 1) square, along rows, then columns; on CPUs far faster than pooling."""
    size = 2 * _RADIUS + 1
    height, width = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    across = reduce(combine, [padded[:, :, i : i + width] for i in range(size)])
    return reduce(combine, [across[:, i : i + height] for i in range(size)])
