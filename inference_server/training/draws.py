"""Every random number of a training run is a function of (seed, step, index, name); none comes from a running stream.

That is why a checkpoint holds no generator state: a resumed run, another number of loader threads or another number
of processes draws the same numbers. Draws are made on the CPU and moved, so that devices agree on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def derive(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Draw:
    """The random numbers of one sample: `index` counts the samples of the whole batch of this step.

    Each draw has a name of its own, so that a draw added to a recipe leaves the others as they were.
    """

    seed: int
    step: int
    index: int

    def seed_of(self, name: str) -> int:
        """For a generator on another device: large noise maps, say, on which devices need not agree."""
        return derive(self.seed, self.step, self.index, name)

    def generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed_of(name))

    def normal(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator(name))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0, shape: Sequence[int] = ()) -> Tensor:
        return low + (high - low) * torch.rand(tuple(shape), generator=self.generator(name))

    def integer(self, name: str, high: int) -> int:
        """0 <= value < high."""
        return int(torch.randint(high, (), generator=self.generator(name)))


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[None]:
    """torch's global generators (dropout, noise layers, initialisation) follow `parts` inside, and are put back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(*parts))
        yield


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(derive(seed, "epoch", epoch)))


def item_at(seed: int, position: int, size: int) -> int:
    """Which of `size` items the sample at `position` (step * batch + index) is: a new order for each epoch.

    With `size` 0 there are no items, every sample is drawn, and the position itself is returned.
    """
    if size == 0:
        return position
    epoch, place = divmod(position, size)
    return int(_order(seed, epoch, size)[place])
