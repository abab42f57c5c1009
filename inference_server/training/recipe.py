"""What the loop asks of a recipe, and nothing more.

A recipe is one way of training one kind of model: it builds modules and optimisers, loads data by index, and turns
a batch into losses. It keeps no state of its own between calls; everything that changes is in the modules and
optimisers, which the loop checkpoints. Random numbers come from the batch's draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from inference_server.training.draws import Draw


@dataclass(frozen=True)
class Parts:
    """What a recipe built, by name.

    `trained` modules go into checkpoints; `frozen` ones (teachers, loss networks) are rebuilt by the recipe. `ema`
    names the trained modules that get an averaged copy; one that does not begin where its module does (a published
    average, say) begins as the module in `ema_start`. Modules are built on the CPU; the loop moves them. Their train
    or eval mode is left as built.
    """

    trained: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    ema: tuple[str, ...] = ()
    ema_start: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One optimiser step within a step of the loop. A GAN has two; a lazy regulariser is one now and then."""

    name: str
    optimiser: str


@dataclass(frozen=True)
class Batch:
    """A micro-batch on the device: `tensors` are stacked samples [B, ...], `draws` one for each sample."""

    tensors: Mapping[str, Tensor]
    draws: tuple[Draw, ...]
    step: int
    device: torch.device

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal [B, *shape]."""
        return torch.stack([draw.normal(name, shape) for draw in self.draws]).to(self.device)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0, shape: Sequence[int] = ()) -> Tensor:
        """Uniform [B, *shape]."""
        return torch.stack([draw.uniform(name, low, high, shape) for draw in self.draws]).to(self.device)

    def integers(self, name: str, high: int) -> Tensor:
        """int64 [B], 0 <= value < high."""
        return torch.tensor([draw.integer(name, high) for draw in self.draws], device=self.device)


@dataclass(frozen=True)
class Losses:
    """`terms` are weighted scalars, means over the micro-batch, whose sum is minimised; `watched` are only plotted."""

    terms: Mapping[str, Tensor]
    watched: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows for people to look at: [rows, columns, 3, H, W], display-encoded sRGB in [-1, 1]."""

    pictures: Tensor
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardPart:
    """An exported module: which network it is, built with which configuration."""

    module: str
    network: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFacts:
    """What a recipe knows for the model card. `licences` are ids or tables, those of everything it learned from.

    `more`: further tables of the card, by name, as the store's cards have them.
    """

    id: str
    title: str
    purpose: str
    authors: tuple[str, ...]
    licences: tuple[str | Mapping[str, Any], ...]
    parts: Mapping[str, CardPart]
    notes: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Recipe(Protocol):
    """`modules` are trained and frozen ones together; for `sheet` and `score` the averaged copies stand in."""

    name: str

    @property
    def settings(self) -> Any:
        """The frozen dataclass behind the [recipe] table."""

    def build(self) -> Parts:
        """Modules and optimisers. torch's global generator is seeded before."""

    def size(self) -> int:
        """How many data items there are; 0 where every sample is drawn."""

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        """One sample as CPU tensors, without the batch dimension. Called from several threads at once."""

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        """What all phases of a step share (teachers' pictures, say); without gradients, on the device.

        The results for all micro-batches of a step are held until its end.
        """

    def phases(self, step: int) -> Sequence[Phase]:
        """The optimiser steps of this step, in order."""

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        """Forward pass of one micro-batch in one phase."""

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        """Pictures of how far it has come."""

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        """How good the model is on data kept aside, lower is better; None where there is no such number."""

    def card(self) -> CardFacts:
        """Facts for the card of the trained model."""
