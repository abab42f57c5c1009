"""The paper's pairs: a StyleGAN of faces and the same one fine-tuned on a style, shown the same random vector.

Whatever both have kept of their common origin stays in place: pose, features, hair. How much that is depends on how
long the second one was fine-tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from inference_server.networks.stylegan2 import Generator, truncate
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch
from inference_server.training.recipes.gan import shown_at
from inference_server.training.recipes.two_stage_data import Pair

CENTRE_CODES = 4096  # random codes whose mean is the centre of truncation


class Shared(nn.Module):
    """A generator and the centre of its codes: z [N, D] -> pictures [N, 3, S, S]. Noise maps are the stored ones, so
    that both pictures of a pair have the same."""

    centre: Tensor

    def __init__(self, generator: Generator, truncation: float) -> None:
        super().__init__()
        self.generator, self.truncation = generator.eval().requires_grad_(False), truncation
        z = Draw(0, 0, 0).normal("centre", (CENTRE_CODES, generator.style_dim))
        with torch.no_grad():
            self.register_buffer("centre", generator.mapping(z).mean(dim=0))

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        w = truncate(self.generator.mapping(z), self.truncation, self.centre)
        return self.generator.synthesis(w, self.generator.stored_noise())


class SharedCodePairs:
    """Pairs of one style from two generators that share z; `truncation` in W, towards each one's mean code (0.7 by
    analogy with VToonify's data). `side`: to which pictures are reduced.

    TrainingError `training.config` where the generators do not go together.
    """

    def __init__(self, base: Generator, tuned: Generator, truncation: float = 0.7, side: int = 256) -> None:
        if (base.size, base.style_dim) != (tuned.size, tuned.style_dim):
            raise TrainingError(
                "training.config",
                f"the generators make pictures of {base.size} and {tuned.size} px from {base.style_dim} and "
                f"{tuned.style_dim} numbers",
                remedy="Choose a generator and one that was fine-tuned from it.",
            )
        self._modules = {"base": Shared(base, truncation), "tuned": Shared(tuned, truncation)}
        self.style_dim, self.side = base.style_dim, min(side, base.size)

    def size(self) -> int:
        return 0

    def modules(self) -> Mapping[str, nn.Module]:
        return self._modules

    def pairs(self, modules: Mapping[str, nn.Module], batch: Batch) -> Sequence[Pair]:
        z = batch.normal("z", (self.style_dim,))
        x, y = (shown_at(modules[name](z), self.side).clamp(-1, 1) for name in ("base", "tuned"))
        return [Pair(frame, styled, torch.ones(1, device=batch.device)) for frame, styled in zip(x, y, strict=True)]
