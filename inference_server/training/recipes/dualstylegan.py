"""Progressive fine-tuning of a DualStyleGAN (arXiv 2203.13248, section 3.3).

Two recipes. `DualPretrain` is stages 1 and 2: on faces alone the extrinsic path learns to do what style mixing does,
first for colour, then for more and more structure. `DualTransfer` is stage 3: it learns a collection of style
pictures. In both the StyleGAN2 inside stays as it is; only the ModRes blocks, the colour transforms and the structure
transform are trained. Defaults are the published numbers; what is not published says so.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inference_server.networks.arcface import ALIGNED_SIZE, ArcFace, IdentityLoss
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import Discriminator, mix
from inference_server.networks.vgg import VGG19
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch, CardFacts, CardPart, Parts, Sheet
from inference_server.training.recipes.adversarial import AdversarialTraining, Modules, of, unfit
from inference_server.training.recipes.codes import CollectionCodes, FaceEncoder
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.recipes.gan import GanSettings, fresh_noise, shown_at
from inference_server.training.recipes.style_losses import (
    contextual_loss,
    parameter_norms,
    perceptual_loss,
    style_loss,
)
from inference_server.training.tables import from_table

SHEET_ROWS, SHEET_SIDE = 4, 256

Licences = tuple[str | Mapping[str, Any], ...]


def trained_parameters(network: DualStyleGAN) -> Iterator[nn.Parameter]:
    """What is trained of a DualStyleGAN: `res.*` and `style.*`, never the StyleGAN2 inside."""
    return itertools.chain(network.res.parameters(), network.style.parameters())


def _trainable(network: DualStyleGAN) -> DualStyleGAN:
    own = copy.deepcopy(network).requires_grad_(False)
    for parameter in trained_parameters(own):
        parameter.requires_grad_(True)
    return own


def _noise_of(batch: Batch, layers: int) -> list[Tensor]:
    return [batch[f"noise {k}"] for k in range(layers)]


# ------------------------------------------------------------------------------------------------- stages 1 and 2


@dataclass(frozen=True)
class PretrainSettings:
    """Stages 1 and 2 (`stage` tells the tables of the two recipes apart).

    `crossovers[i]` lasts `crossover_steps[i]` steps: so many rows of the target's code are the content's, the others
    the style's. Every `encoded_every`-th step the style code is read from a picture by the encoder. `pictures`: real
    faces for the discriminator (the published training had FFHQ); without, the targets stand in, which is ours.
    `perceptual`: weights of VGG19's taps, on pictures of `compare_at` px.
    """

    stage: Literal["pretrain"] = "pretrain"
    pictures: str = ""
    id: str = "my-dualstylegan-pretrain"
    title: str = "DualStyleGAN before it learns a style"
    crossovers: tuple[int, ...] = (7, 6, 5)
    crossover_steps: tuple[int, ...] = (300, 300, 3000)
    encoded_every: int = 4
    adversarial: float = 0.1
    perceptual: dict[str, float] = field(default_factory=lambda: {"relu1_1": 0.5, "relu2_1": 0.5, "relu3_1": 0.5})
    compare_at: int = 256
    models: dict[str, str] = field(default_factory=dict)
    gan: GanSettings = field(default_factory=lambda: GanSettings(ada_target=0.0))

    def __post_init__(self) -> None:
        if not self.crossovers or len(self.crossovers) != len(self.crossover_steps):
            raise ValueError("crossovers and crossover_steps must be equally many, at least one")
        if self.encoded_every < 0:
            raise ValueError("encoded_every must not be negative; 0 leaves the encoder out")

    def crossover(self, step: int) -> int:
        """The rows that are the content's at a step; the last stage goes on for ever."""
        ends = itertools.accumulate(self.crossover_steps)
        return next((c for c, end in zip(self.crossovers, ends, strict=True) if step < end), self.crossovers[-1])


@dataclass(frozen=True)
class PretrainStart:
    """What stages 1 and 2 start from. `network`: a DualStyleGAN of which the StyleGAN2 inside is trained on faces and
    the rest is as initialised; `config`: its arguments.
    """

    network: DualStyleGAN
    config: Mapping[str, Any]
    discriminator: Discriminator
    features: VGG19
    licences: Licences
    encoder: FaceEncoder | None = None


class DualPretrain(AdversarialTraining):
    """Stages 1 and 2. TrainingError `training.config`, `training.data` where parts do not go together."""

    name = "dualstylegan_pretrain"

    def __init__(self, table: Mapping[str, Any], start: PretrainStart) -> None:
        self.settings = from_table(PretrainSettings, table, "recipe.")
        super().__init__(self.settings.gan, self.settings.adversarial)
        self.start = start
        size, rows = start.network.generator.size, start.network.n_latent
        if start.discriminator.size != size:
            raise unfit(f"a generator of {size} px, a discriminator of {start.discriminator.size} px")
        if not all(0 < c < rows for c in self.settings.crossovers):
            raise unfit(f"crossovers {self.settings.crossovers} do not lie within the {rows} rows of a code")
        if self.settings.encoded_every and start.encoder is None:
            raise unfit("encoded_every asks for an encoder and there is none")
        folder = self.settings.pictures
        self.pictures = PictureFolder(folder, size) if folder else None

    def build(self) -> Parts:
        g = _trainable(self.start.network)
        d = copy.deepcopy(self.start.discriminator).requires_grad_(True)
        frozen: dict[str, nn.Module] = {"features": self.start.features}
        if self.start.encoder is not None:
            frozen["encoder"] = self.start.encoder
        return Parts(
            trained={"g": g, "d": d, **self.book_keeping()},
            optimisers=self.gan.optimisers(trained_parameters(g), d.parameters()),
            frozen=frozen,
            ema=("g",),
        )

    def size(self) -> int:
        return 0 if self.pictures is None else len(self.pictures)

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        return {} if self.pictures is None else {"picture": self.pictures.picture(item)}

    def prepare(self, modules: Modules, batch: Batch) -> Batch:
        self.settle(modules)
        g = of(DualStyleGAN, modules, "g").generator
        noise = fresh_noise(g, len(batch.draws), batch.device)
        content, style = (g.mapping(batch.normal(f"z {name}", (g.style_dim,))) for name in ("content", "style"))
        content, style = g.expand(content), g.expand(style)  # [N, L, D]
        every = self.settings.encoded_every
        extrinsic = style
        if every and batch.step % every == 0:
            extrinsic = g.mapping(of(FaceEncoder, modules, "encoder")(g.synthesis(style, noise)))
        target = g.synthesis(mix(content, style, self.settings.crossover(batch.step)), noise)
        maps = {f"noise {k}": value for k, value in enumerate(noise)}
        codes = {"intrinsic": content, "extrinsic": extrinsic, "target": target}
        return Batch({**batch.tensors, **maps, **codes}, batch.draws, batch.step, batch.device)

    def real(self, batch: Batch) -> Tensor:
        return batch["target"] if self.pictures is None else batch["picture"]

    def fake(self, modules: Modules, batch: Batch, name: str) -> tuple[Tensor, Tensor, list[Tensor]]:
        """With the target's own noise maps: how they differ is no matter of style."""
        g = of(DualStyleGAN, modules, "g")
        codes = batch["intrinsic"].detach().requires_grad_(True)
        noise = _noise_of(batch, g.generator.num_layers)
        return g(codes, batch["extrinsic"], noise=noise), codes, noise

    def further_losses(
        self, modules: Modules, batch: Batch, pictures: Tensor, codes: Tensor, noise: list[Tensor]
    ) -> dict[str, Tensor]:
        features, side = of(VGG19, modules, "features"), self.settings.compare_at
        with torch.no_grad():
            wanted = features(shown_at(batch["target"], side))
        return {"perceptual": perceptual_loss(features(shown_at(pictures, side)), wanted, self.settings.perceptual)}

    def sheet(self, modules: Modules) -> Sheet:
        """Content, style, what mixing makes of them and what the extrinsic path does."""
        network = of(DualStyleGAN, modules, "g")
        g, rows = network.generator, []
        for i in range(SHEET_ROWS):
            draws = (Draw(0, 0, i).normal(f"sheet {name}", (1, g.style_dim)) for name in ("content", "style"))
            content, style = (g.expand(g.mapping(z.to(g.input.input))) for z in draws)
            noise = g.stored_noise()
            target = mix(content, style, self.settings.crossovers[-1])
            shown = [*(g.synthesis(w, noise) for w in (content, style, target)), network(content, style, noise=noise)]
            rows.append(torch.cat([shown_at(p, min(SHEET_SIDE, g.size)) for p in shown]))
        return Sheet(torch.stack(rows), ("content", "style", "target", "ours"))

    def card(self) -> CardFacts:
        return CardFacts(
            id=self.settings.id,
            title=self.settings.title,
            purpose="Start of training a DualStyleGAN on a style.",
            authors=("trained with Faceplate",),
            licences=self.start.licences,
            parts={
                "main": CardPart("g", "dualstylegan", self.start.config),
                "discriminator": CardPart("d", "stylegan2-discriminator", discriminator_config(self.start.config)),
            },
        )


def discriminator_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the discriminator that goes with a generator's."""
    return {k: config[k] for k in ("size", "channel_multiplier", "channel_max") if k in config}


# ------------------------------------------------------------------------------------------------------- stage 3


@dataclass(frozen=True)
class TransferSettings:
    """Stage 3. `codes`: the folder in which the pictures were destylized, where codes come from one.

    `free_from`: rows of the intrinsic code from here on are fresh normal z vectors. `jitter`: standard deviation of
    what is added to the extrinsic W+ code. Steps alternate between a random intrinsic code and, with the perceptual
    loss, the picture's own. `regularisation`: times the sum of the norms of the parameters of `res.*` (0.015 for
    cartoon; 0.01 by default). Whether the discriminator's pictures are augmented is not published; they are few, so
    they are, as in fine-tuning.
    """

    stage: Literal["transfer"] = "transfer"
    pictures: str = ""
    codes: str = ""
    id: str = "my-style-dualstylegan"
    title: str = "DualStyleGAN of my style"
    free_from: int = 8
    jitter: float = 0.1
    adversarial: float = 1.0
    style: float = 0.25
    contextual: float = 0.25
    band: float = 0.2
    perceptual: dict[str, float] = field(default_factory=lambda: {"relu2_1": 0.5, "relu3_1": 1.0})
    identity: float = 1.0
    regularisation: float = 0.01
    compare_at: int = 256
    models: dict[str, str] = field(default_factory=dict)
    gan: GanSettings = field(default_factory=GanSettings)


@dataclass(frozen=True)
class TransferStart:
    """What stage 3 starts from: a pre-trained DualStyleGAN (`config`: its arguments; `averaged`: its average, where it
    is kept apart) with its discriminator, loss networks, and the codes of the pictures.
    """

    network: DualStyleGAN
    config: Mapping[str, Any]
    discriminator: Discriminator
    features: VGG19
    identity: ArcFace
    codes: CollectionCodes
    licences: Licences
    averaged: DualStyleGAN | None = None


class DualTransfer(AdversarialTraining):
    """Stage 3. TrainingError `training.config`, `training.data` where parts, pictures and codes do not go together."""

    name = "dualstylegan_transfer"

    def __init__(self, table: Mapping[str, Any], start: TransferStart) -> None:
        self.settings = from_table(TransferSettings, table, "recipe.")
        super().__init__(self.settings.gan, self.settings.adversarial)
        self.start = start
        g = start.network.generator
        if start.discriminator.size != g.size:
            raise unfit(f"a generator of {g.size} px, a discriminator of {start.discriminator.size} px")
        if start.codes.intrinsic.shape[1:] != (g.n_latent, g.style_dim):
            raise unfit(f"codes of {list(start.codes.intrinsic.shape[1:])}, a generator of {[g.n_latent, g.style_dim]}")
        self.pictures = PictureFolder(self.settings.pictures, g.size)
        self.places = start.codes.order_of(self.pictures.names)

    def build(self) -> Parts:
        g = _trainable(self.start.network)
        d = copy.deepcopy(self.start.discriminator).requires_grad_(True)
        return Parts(
            trained={"g": g, "d": d, **self.book_keeping()},
            optimisers=self.gan.optimisers(trained_parameters(g), d.parameters()),
            frozen={"features": self.start.features, "identity": IdentityLoss(self.start.identity)},
            ema=("g",),
            ema_start={} if self.start.averaged is None else {"g": self.start.averaged},
        )

    def size(self) -> int:
        return len(self.pictures)

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        codes, place = self.start.codes, self.places[item]
        return {
            "picture": self.pictures.picture(item),
            "content": codes.intrinsic[place],
            "exemplar": codes.extrinsic[place],
        }

    def paired(self, step: int) -> bool:
        """Whether the intrinsic codes of a step are the pictures' own."""
        return step % 2 == 1

    def prepare(self, modules: Modules, batch: Batch) -> Batch:
        self.settle(modules)
        g = of(DualStyleGAN, modules, "g").generator
        rows, width, free = g.n_latent, g.style_dim, min(self.settings.free_from, g.n_latent)
        z = batch["content"]
        if not self.paired(batch.step):
            z = batch.normal("z", (width,))[:, None].expand(-1, rows, -1)
        z = torch.cat([z[:, :free], batch.normal("free rows", (rows - free, width))], dim=1)
        jitter = self.settings.jitter * batch.normal("jitter", (rows, width))
        codes = {"intrinsic": g.mapping(z), "extrinsic": g.mapping(batch["exemplar"]) + jitter}
        return Batch({**batch.tensors, **codes}, batch.draws, batch.step, batch.device)

    def real(self, batch: Batch) -> Tensor:
        return batch["picture"]

    def fake(self, modules: Modules, batch: Batch, name: str) -> tuple[Tensor, Tensor, list[Tensor]]:
        g = of(DualStyleGAN, modules, "g")
        codes = batch["intrinsic"].detach().requires_grad_(True)
        noise = fresh_noise(g.generator, len(codes), batch.device)
        return g(codes, batch["extrinsic"], noise=noise), codes, noise

    def further_losses(
        self, modules: Modules, batch: Batch, pictures: Tensor, codes: Tensor, noise: list[Tensor]
    ) -> dict[str, Tensor]:
        s, network = self.settings, of(DualStyleGAN, modules, "g")
        features, identity = of(VGG19, modules, "features"), of(IdentityLoss, modules, "identity")
        with torch.no_grad():
            wanted = features(shown_at(batch["picture"], s.compare_at))
            plain = network.generator.synthesis(codes, noise)
        made = features(shown_at(pictures, s.compare_at))
        terms = {
            "style": s.style * style_loss(made, wanted),
            "contextual": s.contextual * contextual_loss(made["relu3_1"], wanted["relu3_1"], s.band),
            "identity": s.identity * identity(shown_at(pictures, ALIGNED_SIZE), shown_at(plain, ALIGNED_SIZE)),
            "regularisation": s.regularisation * parameter_norms(network.res),
        }
        if self.paired(batch.step):
            terms["perceptual"] = perceptual_loss(made, wanted, s.perceptual)
        return terms

    def sheet(self, modules: Modules) -> Sheet:
        """Exemplar, its content without the style, with it, and the style on another face."""
        network = of(DualStyleGAN, modules, "g")
        g, codes, rows = network.generator, self.start.codes, []
        like, noise = g.input.input, g.stored_noise()
        for item in range(min(SHEET_ROWS, len(self.pictures))):
            own, style = (g.mapping(c[self.places[item]][None].to(like)) for c in (codes.intrinsic, codes.extrinsic))
            other = g.mapping(Draw(0, 0, item).normal("sheet", (1, g.style_dim)).to(like))
            shown = [
                self.pictures.picture(item)[None].to(like),
                g.synthesis(own, noise),
                network(own, style, noise=noise),
                network(other, style, noise=noise),
            ]
            rows.append(torch.cat([shown_at(p, min(SHEET_SIDE, g.size)) for p in shown]))
        return Sheet(torch.stack(rows), ("exemplar", "content", "styled", "other face"))

    def card(self) -> CardFacts:
        return CardFacts(
            id=self.settings.id,
            title=self.settings.title,
            purpose="Portraits in the style of an exemplar; teacher when a VToonify-D is trained.",
            authors=("trained with Faceplate",),
            licences=self.start.licences,
            parts={"main": CardPart("g", "dualstylegan", self.start.config)},
            notes=f"{len(self.pictures)} exemplars.",
        )
