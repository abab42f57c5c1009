"""Training the two-stage translator, stage one: a U-Net learns from pairs of pictures what a style makes of a frame.

The paper's losses (adversarial, L1 in pixels, contextual) on pairs from any source; where the paper gives no number the
defaults are ours, and the configurations say so. Stage two is `two_stage_refiner`.

Batch norm learns its running statistics while it trains, and from step `settle_norms` on uses them as constants, in
training too. What is trained from there on is exactly the network that is exported: small batches, crops and the
averaged copy's lag no longer make a difference between training and use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.two_stage import TRANSLATOR_WIDTHS, Translator
from inference_server.networks.vgg import VGG19
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, CardFacts, CardPart, Losses, Parts, Phase, Sheet
from inference_server.training.recipes import two_stage_losses as equations
from inference_server.training.recipes.two_stage_augment import Geometry, Photometry, cut, recoloured
from inference_server.training.recipes.two_stage_data import GeneratedPairs, Pair, PairSource
from inference_server.training.tables import from_table

HELD_OUT = 0x5EED  # seed of the draws for pairs kept aside; no run's own
SHEET_ROWS, SHEET_SIDE = 6, 256

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class TranslatorWeights:
    """Of the losses. `adversarial` 0: no discriminator is built. `perceptual` 0: nothing is compared in features."""

    l1: float = 4.0
    perceptual: float = 1.0
    adversarial: float = 0.5


@dataclass(frozen=True)
class TranslatorSettings:
    """`styles`: their names, in the order of a pair's weights. `crop`: side of the square pieces that are learned from.

    `conditional`: the discriminator sees the frame, too. `band`: of the contextual loss. `norm_momentum`: share of the
    newest batch in batch norm's running statistics; `settle_norms`: the step from which they are constants, 0 for
    never. `held_out`: how many of the pairs kept aside are scored. `data`: where the pairs are kept, `models`: what the
    networks are called where they are kept, by role; both are filled in by whoever loads them.
    """

    id: str = "my-two-stage-translator"
    title: str = "My video style"
    styles: tuple[str, ...] = ("style",)
    widths: tuple[int, ...] = TRANSLATOR_WIDTHS
    crop: int = 256
    rate: float = 2e-4
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weights: TranslatorWeights = field(default_factory=TranslatorWeights)
    conditional: bool = False
    band: float = 0.2
    norm_momentum: float = 0.05
    settle_norms: int = 0
    held_out: int = 8
    geometry: Geometry = field(default_factory=Geometry)
    photometry: Photometry = field(default_factory=Photometry)
    data: str = ""
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.styles or len(set(self.styles)) < len(self.styles):
            raise ValueError(f"styles {list(self.styles)} must be one name or more, each once")
        if len(self.widths) < 2 or self.crop % 2 ** (len(self.widths) - 1) or self.crop < 32:
            raise ValueError(f"crop {self.crop} must be a multiple of {2 ** (len(self.widths) - 1)}, 32 or more")
        if not 0 < self.norm_momentum <= 1 or self.settle_norms < 0 or self.held_out < 0:
            raise ValueError("norm_momentum is a share of 1; settle_norms and held_out must not be negative")
        if min(self.weights.l1, self.weights.perceptual, self.weights.adversarial) < 0:
            raise ValueError("weights must not be negative")


@dataclass(frozen=True)
class TranslatorStart:
    """What a run learns from. `held_out`: pairs that no step sees; without them there is no score, and the last step is
    kept. `features`: VGG19 with weights, or None for the stand-in. `begin`: a translator to go on from.

    `licences`: ids or tables of everything here; `notes`: what it is trained on, in words; both for the model card.
    """

    pairs: PairSource | GeneratedPairs
    held_out: PairSource | GeneratedPairs | None
    licences: tuple[str | Mapping[str, Any], ...]
    features: VGG19 | None = None
    begin: Translator | None = None
    notes: str = ""


class PatchDiscriminator(nn.Module):
    """Says of every patch of 70 x 70 px whether it is real: [N, C, H, W] -> scores [N, 1, h, w] (arXiv 1611.07004).

    Convolutions 4x4: 64, 128, 256 with stride 2, 512 and 1 with stride 1; leaky ReLU 0.2. Instance norm except in the
    first and last: a picture's score depends on no other picture of its micro-batch. 2,765,633 parameters for C = 3.
    """

    def __init__(self, in_channels: int, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for number, (wide, narrow) in enumerate(pairwise(widths), 2):
            stride = 1 if number == len(widths) else 2
            norm = nn.InstanceNorm2d(narrow, affine=True)
            layers += [nn.Conv2d(wide, narrow, 4, stride, 1, bias=False), norm, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.layers(pictures)
        return scores


class TranslatorTraining:
    """The recipe. TrainingError `training.config` where settings and start do not go together."""

    name = "two_stage_translator"

    def __init__(self, settings: TranslatorSettings, start: TranslatorStart) -> None:
        self.settings, self.start = settings, start
        begin = start.begin
        if begin is not None and begin.styles != len(settings.styles):
            raise TrainingError(
                "training.config",
                f"the translator to go on from holds {begin.styles} styles, recipe.styles names {len(settings.styles)}",
                remedy="Name as many styles as it holds, or begin anew.",
                value=list(settings.styles),
            )

    # ------------------------------------------------------------------------------------------------- modules

    def build(self) -> Parts:
        s = self.settings
        translator = begin_from(Translator(s.widths, len(s.styles)), self.start.begin)
        set_momentum(translator, s.norm_momentum)
        trained: dict[str, nn.Module] = {"translator": translator}
        frozen: dict[str, nn.Module] = {}
        if s.weights.perceptual:
            frozen["features"] = features_or_bands(self.start.features)
        if s.weights.adversarial:
            planes = len(s.styles) if len(s.styles) > 1 else 0
            trained["critic"] = PatchDiscriminator(3 + (3 if s.conditional else 0) + planes)
        if isinstance(self.start.pairs, GeneratedPairs):
            frozen |= self.start.pairs.modules()
        rates = {"translator": s.rate, "critic": s.critic_rate}
        optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(module.parameters(), rates[name], betas=s.betas) for name, module in trained.items()
        }
        return Parts(trained, optimisers, frozen, ("translator",))

    # ---------------------------------------------------------------------------------------------------- data

    def size(self) -> int:
        return self.start.pairs.size()

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        if isinstance(self.start.pairs, GeneratedPairs):
            return {}  # made on the device, in `prepare`
        return self.augmented(self.start.pairs.pair(item, draw), draw)

    def augmented(self, pair: Pair, draw: Draw) -> dict[str, Tensor]:
        """A pair as a sample: cut, turned, mirrored, the frame recoloured.

        x, y [3, S, S], style [K], weight [1, S, S].
        """
        s = self.settings
        weight = torch.ones_like(pair.x[:1]) if pair.weight is None else pair.weight
        both = cut(torch.cat([pair.x, pair.y, weight]), s.crop, draw, s.geometry)
        x = recoloured(both[:3].clamp(-1, 1), draw, s.photometry)
        return {"x": x, "y": both[3:6].clamp(-1, 1), "style": pair.style.to(x), "weight": both[6:].clamp(0, 1)}

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        pairs = self.start.pairs
        if isinstance(pairs, GeneratedPairs):
            made = [
                self.augmented(pair, draw) for pair, draw in zip(pairs.pairs(modules, batch), batch.draws, strict=True)
            ]
            batch = replace(batch, tensors={name: torch.stack([sample[name] for sample in made]) for name in made[0]})
        return fast_layout(batch)

    # -------------------------------------------------------------------------------------------------- losses

    def phases(self, step: int) -> Sequence[Phase]:
        """The discriminator first, where there is one."""
        critic = (Phase("critic", "critic"),) if self.settings.weights.adversarial else ()
        return (*critic, Phase("translator", "translator"))

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        w = self.settings.weights
        translator = cast(Translator, modules["translator"])
        settle(translator, batch.step, self.settings.settle_norms)
        if phase == "critic":
            with torch.no_grad():
                fake = self._shown(translator(batch["x"], batch["style"]), batch)
            real, false = self._scores(modules, batch["y"], batch), self._scores(modules, fake, batch)
            loss = equations.real_or_not(real, True) + equations.real_or_not(false, False)
            return Losses({"critic": loss}, {"score of real": real.mean(), "score of ours": false.mean()})
        output = translator(batch["x"], batch["style"])
        terms = self.content(modules, output, batch)
        if w.adversarial:
            scores = self._scores(modules, self._shown(output, batch), batch)
            terms["adversarial"] = w.adversarial * equations.real_or_not(scores, True)
        return Losses(terms)

    def content(self, modules: Mapping[str, nn.Module], output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Everything but the adversarial loss, weighted."""
        w = self.settings.weights
        terms = {"l1": w.l1 * equations.weighted_l1(output, batch["y"], batch["weight"])}
        if w.perceptual:
            shown = self._shown(output, batch)
            terms["perceptual"] = w.perceptual * equations.perceptual(
                modules["features"], shown, batch["y"], self.settings.band
            )
        return terms

    @staticmethod
    def _shown(output: Tensor, batch: Batch) -> Tensor:
        """The output where it counts, elsewhere the target: what does not count is no difference to anyone."""
        return batch["y"] + batch["weight"] * (output.float() - batch["y"])

    def _scores(self, modules: Mapping[str, nn.Module], pictures: Tensor, batch: Batch) -> Tensor:
        planes = [pictures]
        if self.settings.conditional:
            planes.append(batch["x"])
        if len(self.settings.styles) > 1:
            n, _, h, w = pictures.shape
            planes.append(batch["style"][:, :, None, None].expand(n, len(self.settings.styles), h, w))
        scores: Tensor = modules["critic"](torch.cat(planes, dim=1))
        return scores

    # ---------------------------------------------------------------------------------------- what is looked at

    def held_out(self, modules: Mapping[str, nn.Module], number: int) -> Batch | None:
        """One of the pairs kept aside as a micro-batch of whole, unchanged pictures; None where there are no more."""
        source, draw = self.start.held_out, Draw(HELD_OUT, 0, number)
        if source is None or number >= self.settings.held_out or 0 < source.size() <= number:
            return None
        device = next(modules["translator"].parameters()).device
        if isinstance(source, GeneratedPairs):
            (pair,) = source.pairs(modules, Batch({}, (draw,), 0, device))
        else:
            pair = source.pair(number, draw)
        weight = torch.ones_like(pair.x[:1]) if pair.weight is None else pair.weight
        named = {"x": pair.x, "y": pair.y, "style": pair.style, "weight": weight}
        return Batch({name: value[None].to(device) for name, value in named.items()}, (draw,), 0, device)

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        """The objective without its adversarial part on the pairs kept aside."""
        scores: list[Tensor] = []
        while (batch := self.held_out(modules, len(scores))) is not None:
            output = modules["translator"](batch["x"], batch["style"])
            scores.append(torch.stack(list(self.content(modules, output, batch).values())).sum())
        return float(torch.stack(scores).mean()) if scores else None

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        """Pairs kept aside: the frame, its target, ours."""
        rows: list[Tensor] = []
        while len(rows) < SHEET_ROWS and (batch := self.held_out(modules, len(rows))) is not None:
            output = modules["translator"](batch["x"], batch["style"])
            rows.append(torch.cat([small(p) for p in (batch["x"], batch["y"], output.float())]))
        return Sheet(torch.stack(rows), ("frame", "target", "ours")) if rows else None

    def card(self) -> CardFacts:
        s = self.settings
        return CardFacts(
            id=s.id,
            title=s.title,
            purpose=f"Translates frames into {'a style' if len(s.styles) == 1 else 'styles: ' + ', '.join(s.styles)}.",
            authors=("trained with Faceplate",),
            licences=self.start.licences,
            parts={"translator": translator_part(s.widths, s.styles)},
            notes=self.start.notes,
        )


def translator_recipe(table: Mapping[str, Any], start: TranslatorStart) -> TranslatorTraining:
    """The recipe of a [recipe] table. Raises TrainingError `training.config`."""
    return TranslatorTraining(from_table(TranslatorSettings, table, "recipe."), start)


# ---------------------------------------------------------------------------------- what both stages' recipes share


def translator_part(widths: Sequence[int], styles: Sequence[str]) -> CardPart:
    """The translator in a model card."""
    return CardPart("translator", "two-stage-translator", {"widths": list(widths), "styles": len(styles)})


def features_or_bands(features: VGG19 | None) -> nn.Module:
    """VGG19 where it is at hand, the stand-in without weights otherwise."""
    return equations.Bands() if features is None else features


def begin_from(network: Net, begin: nn.Module | None, widths: str = "widths") -> Net:
    """The network with the weights of `begin`, where there is one; TrainingError where they do not fit `widths`."""
    if begin is not None:
        try:
            network.load_state_dict(begin.state_dict(), strict=True)
        except RuntimeError as error:
            raise TrainingError(
                "training.config",
                f"the model to begin with does not fit recipe.{widths}: {str(error)[:300]}",
                remedy=f"Set recipe.{widths} to those of that model.",
            ) from error
    return network


def set_momentum(network: nn.Module, momentum: float) -> None:
    """How fast running statistics follow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def settle(network: nn.Module, step: int, settle_norms: int) -> None:
    """Training mode, except that from step `settle_norms` on (0: never) batch norms use their running statistics."""
    if not network.training:
        return  # looked at, not trained
    settled = 0 < settle_norms <= step
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not settled)


def fast_layout(batch: Batch) -> Batch:
    """Pictures with the channels last on CUDA, where convolutions keep that layout and are faster in it; on the CPU
    their backward pass is slower.
    """
    if batch.device.type != "cuda":
        return batch
    tensors = {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in batch.tensors.items()
    }
    return replace(batch, tensors=tensors)


def small(pictures: Tensor, side: int = SHEET_SIDE) -> Tensor:
    """The middle square of pictures [N, 3, H, W] for a sheet: [N, 3, side, side]."""
    edge = min(pictures.shape[-2:])
    top, left = (pictures.shape[-2] - edge) // 2, (pictures.shape[-1] - edge) // 2
    square = pictures[..., top : top + edge, left : left + edge].clamp(-1, 1)
    return F.interpolate(square, size=(side, side), mode="bilinear", antialias=True)
