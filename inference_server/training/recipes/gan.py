"""What the StyleGAN2 recipes share: adversarial losses, lazy regularisation, random codes and noise.

Sources: StyleGAN2 (arXiv 1912.04958) for the losses and for how often they are taken, with the numbers that the public
DualStyleGAN recipe uses. A regulariser that is taken every k-th step has k times its weight, and its optimiser k/(k+1)
of the rate, because it steps k+1 times where it would have stepped k times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.stylegan2 import Generator
from inference_server.training.recipe import Batch, Phase


@dataclass(frozen=True)
class GanSettings:
    """`rate`: before the correction for lazy regularisers. `r1_every`, `path_every` 0: without that regulariser.

    `path_share`: the share of a batch that the path length is measured on. `mixing`: how often a generated picture
    takes its rows from two codes. `ada_target` 0 switches augmentation off; `ada_length` is how many pictures it
    takes for the probability to go from 0 to 1, `ada_interval` how many are looked at before it moves.
    """

    rate: float = 0.002
    r1: float = 10.0
    r1_every: int = 16
    path: float = 2.0
    path_every: int = 4
    path_share: float = 0.5
    path_decay: float = 0.01
    mixing: float = 0.9
    ada_target: float = 0.6
    ada_length: int = 500_000
    ada_interval: int = 256

    def __post_init__(self) -> None:
        if min(self.r1_every, self.path_every, self.ada_interval - 1, self.ada_length - 1) < 0:
            raise ValueError("r1_every, path_every must not be negative, ada_length and ada_interval be 1 or more")
        if not 0 < self.path_share <= 1 or not 0 <= self.mixing <= 1 or not 0 <= self.ada_target < 1:
            raise ValueError("path_share, mixing and ada_target are shares of 1")

    def optimisers(
        self, generator: Iterable[nn.Parameter], discriminator: Iterable[nn.Parameter]
    ) -> dict[str, torch.optim.Optimizer]:
        """ "g" and "d"."""
        return {
            "g": lazy_adam(generator, self.rate, self.path_every),
            "d": lazy_adam(discriminator, self.rate, self.r1_every),
        }

    def phases(self, step: int) -> Sequence[Phase]:
        """discriminator, now and then r1, generator, now and then path."""
        r1 = (Phase("r1", "d"),) if self.r1_every and step % self.r1_every == 0 else ()
        path = (Phase("path", "g"),) if self.path_every and step % self.path_every == 0 else ()
        return (Phase("discriminator", "d"), *r1, Phase("generator", "g"), *path)


def lazy_adam(parameters: Iterable[nn.Parameter], rate: float, every: int) -> torch.optim.Adam:
    """Adam with betas (0, 0.99), corrected for a regulariser that steps it once more every `every` steps (0: none)."""
    ratio = every / (every + 1) if every else 1.0
    return torch.optim.Adam(parameters, rate * ratio, betas=(0.0**ratio, 0.99**ratio))


# ------------------------------------------------------------------------------------------------------- losses


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The logistic loss: mean softplus(-real) + mean softplus(fake) of scores [N, 1]."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating loss: mean softplus(-fake)."""
    return F.softplus(-fake).mean()


def r1_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """Mean over the batch of the squared length of d score / d picture; the pictures must ask for gradients."""
    (slope,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return slope.square().flatten(1).sum(dim=1).mean()


class PathLength(nn.Module):
    """StyleGAN2's path length regulariser and the running mean of lengths that it pulls towards.

    Lengths are collected while a step goes on and enter the mean when the next one begins (`settle`), so that
    the pieces of a step, whichever process works them off, see the same mean.
    """

    mean: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        self.decay = decay
        for name in ("mean", "total", "count"):
            self.register_buffer(name, torch.zeros(()))

    def settle(self) -> None:
        if self.count > 0:
            self.mean += self.decay * (self.total / self.count - self.mean)
            self.total.zero_()
            self.count.zero_()

    def forward(self, pictures: Tensor, codes: Tensor) -> Tensor:
        """Mean of (length - mean length)^2 for pictures [N, 3, H, W] made from codes [N, L, D].

        A length is that of the transposed Jacobian times a random picture, as a root mean square over the rows.
        """
        height, width = pictures.shape[-2:]
        noise = torch.randn_like(pictures) / math.sqrt(height * width)
        (slope,) = torch.autograd.grad((pictures * noise).sum(), codes, create_graph=True)
        lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()  # [N]
        with torch.no_grad():
            target = self.mean + self.decay * (lengths.mean() - self.mean)
            self.total += over_processes(lengths.sum())
            self.count += over_processes(lengths.new_tensor(float(len(lengths))))
        return (lengths - target).square().mean()


def over_processes(value: Tensor) -> Tensor:
    """The sum of a number over all processes of the run, which must all ask for it at the same place."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


# ---------------------------------------------------------------------------------------------- codes and noise


def mixed_codes(generator: Generator, batch: Batch, name: str, mixing: float, count: int | None = None) -> Tensor:
    """W+ codes [N, L, D] of fresh random z; with probability `mixing` a sample takes its later rows from a second z.

    `count` takes the first samples of the batch only.
    """
    rows, width = generator.n_latent, generator.style_dim
    first, second = (generator.mapping(batch.normal(f"{name} z{i}", (width,))[:count]) for i in (1, 2))  # [N, D]
    mixed = batch.uniform(f"{name} mixed")[:count] < mixing
    crossover = 1 + batch.integers(f"{name} crossover", rows - 1)[:count]
    crossover = torch.where(mixed, crossover, torch.full_like(crossover, rows))  # [N]
    from_first = torch.arange(rows, device=batch.device) < crossover[:, None]  # [N, L]
    return torch.where(from_first[..., None], first[:, None], second[:, None])


def share_of(batch: Batch, share: float) -> int:
    """How many samples of a micro-batch a share of it is, at least one."""
    return max(1, int(len(batch.draws) * share))


def fresh_noise(generator: Generator, batch: int, device: torch.device) -> list[Tensor]:
    """Noise maps for every layer, from torch's global generator, which the loop seeds for each phase."""
    return [torch.randn(batch, 1, side, side, device=device) for side in generator.noise_sizes()]


def shown_at(pictures: Tensor, side: int) -> Tensor:
    """Square pictures at the side that losses compare them at: averaged down, or enlarged where they are smaller."""
    size = pictures.shape[-1]
    if size > side:
        return F.adaptive_avg_pool2d(pictures, side)
    return pictures if size == side else F.interpolate(pictures, size=(side, side), mode="bilinear")
