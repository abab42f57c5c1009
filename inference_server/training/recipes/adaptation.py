"""Video adaptation (StylePortraitVideo, eq. 1): the generator learns to draw one actor in one shot.

The codes that the encoder read stay as they are; the generator's weights are moved until its pictures of them are the
shot's. One random frame a step, LPIPS and the mean squared difference of pictures in -1..1, noise maps fixed. The
published rate is meant for weights that are stored near unit variance and scaled at run time, as both generators here
store them; a generator with its scales folded into the weights would need it divided by them.

Adapting to a further shot of the actor begins with the generator of an earlier one and takes a few steps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.lpips import LPIPS
from inference_server.training.config import TrainConfig, split_config
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch, CardFacts, CardPart, Losses, Parts, Phase, Sheet
from inference_server.training.recipes.gan import shown_at
from inference_server.training.recipes.synthesis import (
    AlignedShot,
    Synthesis,
    check_codes,
    check_frames,
    evenly,
    fingerprint,
    rows_of,
    synthesis_of,
)
from inference_server.training.tables import from_table

SHEET_SIDE = 256


@dataclass(frozen=True)
class AdaptationSettings:
    """Weights of the two losses, Adam's numbers, and how many frames are scored and shown.

    `id`, `title`: of the adapted generator's model card. `continual_steps`: the run's length when it begins with an
    earlier adaptation. `shot`: what the codes were (filled in). `models`: what the networks are called where they are
    kept, by role; filled in by whoever loads them.
    """

    id: str = "my-actor"
    title: str = "A generator adapted to an actor"
    perceptual: float = 1.0
    l2: float = 1.0
    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    continual_steps: int = 10
    score_frames: int = 8
    sheet_frames: int = 4
    shot: str = ""
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.perceptual, self.l2) < 0 or self.perceptual + self.l2 <= 0:
            raise ValueError("perceptual and l2 must not be negative, and not both 0")
        if min(self.continual_steps, self.score_frames, self.sheet_frames) < 1:
            raise ValueError("continual_steps, score_frames and sheet_frames must be 1 or more")


@dataclass(frozen=True)
class AdaptationStart:
    """What an adaptation begins with.

    generator   StyleGAN2 or StyleGAN3, the imported one or one adapted before; it is not changed
    config      the generator's arguments, as on its card
    perceptual  the distance of eq. 1; AlexNet's LPIPS at full size is what published work of this kind uses
    licences    ids or tables of everything here and of the shot, for the card
    synthesis   how to draw with a generator that is neither
    """

    generator: nn.Module
    config: Mapping[str, Any]
    perceptual: LPIPS
    licences: tuple[str | Mapping[str, Any], ...]
    synthesis: Synthesis | None = None


def adaptation_config(
    document: Mapping[str, Any], continual: bool = False, steps: int = 0
) -> tuple[TrainConfig, dict[str, Any]]:
    """The loop's configuration and the [recipe] table of a document (`configs/adaptation.toml`).

    `steps` 0: the document's, or with `continual` its `continual_steps`. A short run is scored and drawn at its end.
    """
    config, table = split_config(document)
    settings = from_table(AdaptationSettings, table, "recipe.")
    length = steps or (settings.continual_steps if continual else config.steps)
    validate, pictures = (min(n, length) for n in (config.validate_every, config.pictures_every))
    return replace(config, steps=length, validate_every=validate, pictures_every=pictures), table


class Adaptation:
    """The recipe. TrainingError `training.config` where generator, codes and pictures do not go together."""

    name = "adaptation"

    def __init__(self, table: Mapping[str, Any], shot: AlignedShot, start: AdaptationStart) -> None:
        self.synthesis = start.synthesis or synthesis_of(start.generator)
        check_codes(shot.codes, self.synthesis, shot.placements)
        check_frames(shot.frames, len(shot.codes), self.synthesis.size)
        own = from_table(AdaptationSettings, table, "recipe.")
        self.settings = replace(own, shot=fingerprint(shot.codes, shot.placements))
        self.shot, self.start = shot, start

    def build(self) -> Parts:
        g = copy.deepcopy(self.start.generator).eval().requires_grad_(False)
        trained = list(self.synthesis.trained(g))
        for parameter in trained:
            parameter.requires_grad_(True)
        s = self.settings
        return Parts(
            trained={"g": g},
            optimisers={"g": torch.optim.Adam(trained, s.rate, (s.beta1, s.beta2))},
            frozen={"before": copy.deepcopy(self.start.generator).eval(), "perceptual": self.start.perceptual.eval()},
        )

    def size(self) -> int:
        return len(self.shot.codes)

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        sample = {"picture": self.shot.frames.picture(item), "code": self.shot.codes[item].float()}
        if self.shot.placements is not None:
            sample["placement"] = self.shot.placements[item].float()
        return sample

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        return batch

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("adapt", "g"),)

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        drawn = self.synthesis.render(modules["g"], batch["code"], batch.tensors.get("placement"))
        s, terms = self.settings, {}
        perceptual, l2 = self._distances(modules, drawn, batch["picture"])
        if s.perceptual:
            terms["perceptual"] = s.perceptual * perceptual
        if s.l2:
            terms["l2"] = s.l2 * l2
        return Losses(terms)

    def _distances(self, modules: Mapping[str, nn.Module], drawn: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """LPIPS and mean squared difference, means over the batch."""
        network = cast(LPIPS, modules["perceptual"])
        with torch.no_grad():
            target = network.features(wanted)
        perceptual = network.compare(network.features(drawn), target).sum(dim=1).mean()
        return perceptual, F.mse_loss(drawn.float(), wanted)

    def _drawn(self, module: nn.Module, place: int) -> Tensor:
        """[1, 3, S, S] of one frame."""
        device = next(module.parameters()).device
        codes = self.shot.codes[[place]].to(device, torch.float32)
        return self.synthesis.render(module, codes, rows_of(self.shot.placements, [place], device))

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet:
        """Frames of the shot, and what the generator made and makes of their codes."""
        rows = []
        for place in evenly(self.size(), self.settings.sheet_frames):
            pictures = [self._drawn(modules[name], place) for name in ("before", "g")]
            source = self.shot.frames.picture(place)[None].to(pictures[0])
            rows.append(torch.cat([shown_at(p, min(SHEET_SIDE, self.synthesis.size)) for p in (source, *pictures)]))
        return Sheet(torch.stack(rows).cpu(), ("source", "before", "now"))

    def score(self, modules: Mapping[str, nn.Module]) -> float:
        """Eq. 1 over some frames, evenly spread over the shot; the same ones every time."""
        s, places = self.settings, evenly(self.size(), self.settings.score_frames)
        total = 0.0
        for place in places:
            drawn = self._drawn(modules["g"], place)
            perceptual, l2 = self._distances(modules, drawn, self.shot.frames.picture(place)[None].to(drawn))
            total += s.perceptual * float(perceptual) + s.l2 * float(l2)
        return total / len(places)

    def card(self) -> CardFacts:
        return CardFacts(
            id=self.settings.id,
            title=self.settings.title,
            purpose="A face generator adapted to one actor; it draws the shot that it was adapted to.",
            authors=("adapted with Faceplate",),
            licences=self.start.licences,
            parts={"main": CardPart("g", self.synthesis.network, self.start.config)},
            notes=f"{self.size()} frames.",
        )
