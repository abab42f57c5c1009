"""Two small recipes: a regression with dropout, running statistics and averages, and a GAN of two optimisers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.training.draws import Draw, derive
from inference_server.training.recipe import Batch, CardFacts, CardPart, Losses, Parts, Phase, Sheet
from inference_server.training.tables import from_table


@dataclass(frozen=True)
class TinySettings:
    items: int = 11
    rate: float = 0.02
    dropout: float = 0.2
    norm: bool = True
    sleep: float = 0.0  # seconds each sample takes
    bad_item: int = -1
    explode_at: int = -1  # from this step on losses are not finite
    worsen_after: int = -1  # scores rise after this step
    name: str = "tiny"


def _card(identifier: str, module: str) -> CardFacts:
    return CardFacts(
        id=identifier,
        title="A tiny model",
        purpose="Tests of the training loop",
        authors=("Faceplate's tests",),
        licences=({"id": "own", "name": "Own work", "noncommercial": False, "summary": "Made in a test."},),
        parts={"net": CardPart(module, "stylegan2", {"size": 8})},
    )


class Tiny:
    """Learns to blur: 8 px pictures drawn by item, noise by draw."""

    name = "tiny"

    def __init__(self, table: Mapping[str, Any] | None = None) -> None:
        self.settings = from_table(TinySettings, table or {}, "recipe.")
        self.name = self.settings.name
        self.loaded: list[tuple[int, int, int]] = []
        self.scores = 0

    def build(self) -> Parts:
        norm: nn.Module = nn.BatchNorm2d(6) if self.settings.norm else nn.Identity()
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            norm,
            nn.LeakyReLU(0.2),
            nn.Dropout(self.settings.dropout),
            nn.Conv2d(6, 3, 3, padding=1),
        )
        blur = nn.AvgPool2d(3, 1, 1)
        return Parts(
            {"net": net}, {"net": torch.optim.Adam(net.parameters(), self.settings.rate)}, {"blur": blur}, ("net",)
        )

    def size(self) -> int:
        return self.settings.items

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        if item == self.settings.bad_item:
            raise OSError("no such picture")
        time.sleep(self.settings.sleep)
        self.loaded.append((draw.step, draw.index, item))
        picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(derive("item", item)))
        return {"source": picture + 0.05 * draw.normal("noise", (3, 8, 8))}

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        target = modules["blur"](batch["source"])
        return Batch({**batch.tensors, "target": target}, batch.draws, batch.step, batch.device)

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("fit", "net"),)

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        out = modules["net"](batch["source"])
        l2 = F.mse_loss(out, batch["target"])
        if 0 <= self.settings.explode_at <= batch.step:
            l2 = l2 * float("nan")
        return Losses({"l2": l2, "l1": 0.1 * F.l1_loss(out, batch["target"])}, {"mean": out.mean()})

    def _held_out(self) -> Tensor:
        return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(derive("held out")))

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        x = self._held_out()
        rows = torch.stack([x, modules["net"](x), modules["blur"](x)], dim=1)
        return Sheet(rows * 2 - 1, ("source", "ours", "target"))

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        self.scores += 1
        x = self._held_out()
        if 0 <= self.settings.worsen_after < self.scores:
            return 1000.0 + self.scores
        return float(F.mse_loss(modules["net"](x), modules["blur"](x)))

    def card(self) -> CardFacts:
        return _card("tiny", "net")


@dataclass(frozen=True)
class GanSettings:
    rate: float = 0.01
    penalty_every: int = 3


class TinyGan:
    """Points on a circle; every sample is drawn; the discriminator has a lazy gradient penalty."""

    name = "tiny_gan"

    def __init__(self, table: Mapping[str, Any] | None = None) -> None:
        self.settings = from_table(GanSettings, table or {}, "recipe.")

    def build(self) -> Parts:
        g = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2))
        d = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        rate = self.settings.rate
        optimisers = {
            "g": torch.optim.Adam(g.parameters(), rate, betas=(0.0, 0.99)),
            "d": torch.optim.Adam(d.parameters(), rate, betas=(0.0, 0.99)),
        }
        return Parts({"g": g, "d": d}, optimisers, ema=("g",))

    def size(self) -> int:
        return 0

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        angle = draw.uniform("angle", 0.0, 6.2831853)
        return {"real": torch.stack([angle.cos(), angle.sin()])}

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        return batch

    def phases(self, step: int) -> Sequence[Phase]:
        lazy = (Phase("penalty", "d"),) if step % self.settings.penalty_every == 0 else ()
        return (Phase("generator", "g"), Phase("discriminator", "d"), *lazy)

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        g, d = modules["g"], modules["d"]
        if phase == "penalty":
            real = batch["real"].detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
            return Losses({"penalty": slope.square().sum(dim=1).mean()})
        fake = g(batch.normal(f"z {phase}", (4,)))
        if phase == "generator":
            assert not any(p.requires_grad for p in d.parameters())
            return Losses({"generator": F.softplus(-d(fake)).mean()})
        loss = F.softplus(d(fake.detach())).mean() + F.softplus(-d(batch["real"])).mean()
        return Losses({"discriminator": loss})

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        return None

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        z = torch.randn(64, 4, generator=torch.Generator().manual_seed(7))
        radius = modules["g"](z).norm(dim=1)
        return float((radius - 1).square().mean())

    def card(self) -> CardFacts:
        return _card("tiny-gan", "g")
