"""Fine-tuning a StyleGAN2 on a folder of aligned pictures: a face generator learns to draw in their style.

First stage of a new DualStyleGAN collection (arXiv 2203.13248, section 4.1), and by itself the second generator that
VToonify-T blends. The defaults are the published numbers: 600 steps of 32 pictures, the run's length and batch being
those of the configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.stylegan2 import Discriminator, Generator, truncate
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch, CardFacts, CardPart, Parts, Sheet
from inference_server.training.recipes.adversarial import AdversarialTraining, Modules, of, unfit
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.recipes.gan import GanSettings, fresh_noise, mixed_codes, shown_at
from inference_server.training.tables import from_table

SHEET_ROWS, SHEET_SIDE, SHEET_TRUNCATION = 4, 256, 0.7


@dataclass(frozen=True)
class FinetuneSettings:
    """`pictures`: the folder. `id`, `title`: of the result's model card. `mirror`: half of the pictures are mirrored.

    `models`: what the networks it starts from are called where they are kept, by role; filled in by whoever loads them.
    """

    pictures: str = ""
    id: str = "my-style-stylegan2"
    title: str = "StyleGAN2 fine-tuned on my style"
    mirror: bool = True
    models: dict[str, str] = field(default_factory=dict)
    gan: GanSettings = field(default_factory=GanSettings)


@dataclass(frozen=True)
class FinetuneStart:
    """A trained StyleGAN2. `config`: the generator's arguments. `averaged`: its average, where it is kept apart.

    `licences`: ids or tables of everything here and of the pictures, for the card.
    """

    generator: Generator
    discriminator: Discriminator
    config: Mapping[str, Any]
    licences: tuple[str | Mapping[str, Any], ...]
    averaged: Generator | None = None


class StyleganFinetune(AdversarialTraining):
    """The recipe. TrainingError `training.config` or `training.data` where start and pictures do not go together."""

    name = "stylegan_finetune"

    def __init__(self, table: Mapping[str, Any], start: FinetuneStart) -> None:
        self.settings = from_table(FinetuneSettings, table, "recipe.")
        super().__init__(self.settings.gan)
        self.start = start
        if start.discriminator.size != start.generator.size:
            raise unfit(f"a generator of {start.generator.size} px, a discriminator of {start.discriminator.size} px")
        self.pictures = PictureFolder(self.settings.pictures, start.generator.size)

    def build(self) -> Parts:
        g = copy.deepcopy(self.start.generator).requires_grad_(True)
        d = copy.deepcopy(self.start.discriminator).requires_grad_(True)
        before = self.start.averaged or self.start.generator
        return Parts(
            trained={"g": g, "d": d, **self.book_keeping()},
            optimisers=self.gan.optimisers(g.parameters(), d.parameters()),
            frozen={"before": copy.deepcopy(before)},
            ema=("g",),
            ema_start={"g": before},
        )

    def size(self) -> int:
        return len(self.pictures)

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        picture = self.pictures.picture(item)
        if self.settings.mirror and draw.integer("mirror", 2):
            picture = picture.flip(2)
        return {"picture": picture}

    def prepare(self, modules: Modules, batch: Batch) -> Batch:
        self.settle(modules)
        return batch

    def real(self, batch: Batch) -> Tensor:
        return batch["picture"]

    def fake(self, modules: Modules, batch: Batch, name: str) -> tuple[Tensor, Tensor, list[Tensor]]:
        g = of(Generator, modules, "g")
        codes = mixed_codes(g, batch, name, self.gan.mixing)
        noise = fresh_noise(g, len(codes), batch.device)
        return g.synthesis(codes, noise), codes, noise

    def sheet(self, modules: Modules) -> Sheet:
        """The same codes before and after."""
        before, g = of(Generator, modules, "before"), of(Generator, modules, "g")
        z = torch.stack([Draw(0, 0, i).normal("sheet", (g.style_dim,)) for i in range(SHEET_ROWS)])
        columns = []
        for generator in (before, g):
            w = truncate(generator.mapping(z.to(g.input.input)), SHEET_TRUNCATION)
            rows = [generator.synthesis(code[None], generator.stored_noise()) for code in w]
            columns.append(torch.cat([shown_at(row, min(SHEET_SIDE, g.size)) for row in rows]))
        return Sheet(torch.stack(columns, dim=1), ("before", "fine-tuned"))

    def card(self) -> CardFacts:
        return CardFacts(
            id=self.settings.id,
            title=self.settings.title,
            purpose="A face generator that draws in a style; VToonify-T and the destylization of a collection need it.",
            authors=("trained with Faceplate",),
            licences=self.start.licences,
            parts={"main": CardPart("g", "stylegan2", self.start.config)},
            notes=f"{len(self.pictures)} pictures.",
        )
