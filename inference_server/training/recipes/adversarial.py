"""The GAN part that the recipes of StyleGAN2 and DualStyleGAN share: phases, the discriminator's side, path length.

A recipe of its own says what is generated, what is real, and what else than the discriminator's opinion counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from inference_server.networks.stylegan2 import Discriminator
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, Losses, Phase
from inference_server.training.recipes.ada import AdaptiveAugmentation
from inference_server.training.recipes.gan import (
    GanSettings,
    PathLength,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    share_of,
)

Modules = Mapping[str, nn.Module]
M = TypeVar("M", bound=nn.Module)


class AdversarialTraining(ABC):
    """Modules by name: "g" generates, "d" is a Discriminator, "ada" and "path" hold what they learn on the way.

    `adversarial`: weight of the discriminator's opinion among the generator's losses.
    """

    def __init__(self, gan: GanSettings, adversarial: float = 1.0) -> None:
        self.gan, self.adversarial = gan, adversarial

    @abstractmethod
    def fake(self, modules: Modules, batch: Batch, name: str) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Pictures [N, 3, S, S], the codes [N, L, D] they were made from (differentiable), their noise maps.

        `name` tells the phase, for draws of its own.
        """

    @abstractmethod
    def real(self, batch: Batch) -> Tensor:
        """The training pictures of a batch, [N, 3, S, S] in -1..1."""

    def further_losses(
        self, modules: Modules, batch: Batch, pictures: Tensor, codes: Tensor, noise: list[Tensor]
    ) -> dict[str, Tensor]:
        """What the generator minimises beside the adversarial loss, weighted."""
        return {}

    def score(self, modules: Modules) -> float | None:
        """None: how good pictures against a discriminator are is for people to see; the last step is kept."""
        return None

    def book_keeping(self) -> dict[str, nn.Module]:
        """ "ada" and "path", fresh."""
        g = self.gan
        return {
            "ada": AdaptiveAugmentation(g.ada_target, g.ada_length, g.ada_interval),
            "path": PathLength(g.path_decay),
        }

    def settle(self, modules: Modules) -> None:
        """Between two steps: what the last one taught about augmentation and path lengths comes into force."""
        of(AdaptiveAugmentation, modules, "ada").settle()
        of(PathLength, modules, "path").settle()

    def phases(self, step: int) -> Sequence[Phase]:
        return self.gan.phases(step)

    def losses(self, modules: Modules, phase: str, batch: Batch) -> Losses:
        d, ada = of(Discriminator, modules, "d"), of(AdaptiveAugmentation, modules, "ada")
        if phase == "discriminator":
            with torch.no_grad():
                pictures, _, _ = self.fake(modules, batch, phase)
            fake = d(ada(pictures, batch, f"{phase} fake"))
            real = d(ada(self.real(batch), batch, f"{phase} real"))
            ada.observe(real.detach())
            watched = {"score of real": real.mean(), "score of fake": fake.mean(), "augmentation": ada.p.clone()}
            return Losses({"discriminator": discriminator_loss(real, fake)}, watched)
        if phase == "r1":
            pictures = self.real(batch).detach().requires_grad_(True)
            penalty = r1_penalty(d(ada(pictures, batch, phase)), pictures)
            return Losses({"r1": 0.5 * self.gan.r1 * self.gan.r1_every * penalty}, {"slope": penalty})
        if phase == "path":
            part = first(batch, share_of(batch, self.gan.path_share))
            pictures, codes, _ = self.fake(modules, part, phase)
            penalty = of(PathLength, modules, "path")(pictures, codes)
            return Losses({"path": self.gan.path * self.gan.path_every * penalty})
        pictures, codes, noise = self.fake(modules, batch, phase)
        score = d(ada(pictures, batch, phase))
        terms = {"generator": self.adversarial * generator_loss(score)}
        return Losses(terms | self.further_losses(modules, batch, pictures, codes, noise))


def of(kind: type[M], modules: Modules, name: str) -> M:
    """The module of that name; its kind is what the recipe itself built."""
    return cast(M, modules[name])


def first(batch: Batch, count: int) -> Batch:
    """The first samples of a micro-batch."""
    return Batch({k: v[:count] for k, v in batch.tensors.items()}, batch.draws[:count], batch.step, batch.device)


def unfit(what: str) -> TrainingError:
    """The error for networks or data that do not go together."""
    return TrainingError(
        "training.config", what, remedy="Choose models of one size, and pictures prepared for it, in [recipe]."
    )
