"""Training VToonify: the encoder first, then encoder and fusion together (arXiv 2209.11224, sections 4.1.2 and 4.2.2).

Two recipes for both backbones, D (DualStyleGAN) and T (Toonify). Generator and ModRes blocks stay the teacher's.
Either stage exports a whole VToonify: after the first one it gives a rough portrait and its encoder begins the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import Discriminator, truncate
from inference_server.networks.vtoonify import START, ConditionalDiscriminator, VToonify
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, Losses, Parts, Phase
from inference_server.training.recipes import vtoonify_losses as equations
from inference_server.training.recipes.vtoonify_pairs import (
    Nets,
    Pairs,
    Teachers,
    cropped_input,
    make_pairs,
    moved,
    noise_maps,
    parsing_map,
    reduced_input,
)
from inference_server.training.recipes.vtoonify_settings import (
    CommonSettings,
    EncoderSettings,
    TranslatorSettings,
    vtoonify_settings,
)
from inference_server.training.recipes.vtoonify_stage import VToonifyTraining
from inference_server.training.recipes.vtoonify_start import TRAINED


def vtoonify_recipe(table: Mapping[str, Any], teachers: Teachers) -> EncoderTraining | TranslatorTraining:
    """The recipe that a [recipe] table asks for by its `stage`: "encoder" or "translator"."""
    settings = vtoonify_settings(table)
    if isinstance(settings, EncoderSettings):
        return EncoderTraining(settings, teachers)
    return TranslatorTraining(settings, teachers)


class EncoderTraining(VToonifyTraining):
    """First stage: the encoder's last feature becomes the teacher's feature at 32 px (equations 1 and 8)."""

    settings: EncoderSettings

    def __init__(self, settings: EncoderSettings, teachers: Teachers) -> None:
        self.settings = settings
        self.name = f"vtoonify_{'d' if settings.backbone == 'dualstylegan' else 't'}_encoder"
        super().__init__(settings, teachers)

    def build(self) -> Parts:
        network = self.translator()
        return Parts({"translator": network}, {"encoder": self.adam([network.encoder])}, self.frozen(), ("translator",))

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("imitation", "encoder"),)

    def degree(self, batch: Batch) -> float:
        s = self.settings
        if not s.style.any_degree:
            return s.style.degree
        if batch.step < s.plain_share * s.iterations:
            return 0.0
        return float(batch.draws[0].uniform("degree"))

    def _paired(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float, augmented: bool) -> Batch:
        nets, s = Nets.of(modules), self.settings
        pairs = make_pairs(nets, batch, s.data, s.style, degree, targets=False)
        content, noise = truncate(pairs.content, s.data.truncation), noise_maps(nets.base, batch, "target noise")
        if isinstance(nets.style, DualStyleGAN):
            weights = [degree] * nets.style.n_latent
            feature, rgb = nets.style.features(content, pairs.style, weights, noise, START)
        else:
            feature, rgb = nets.style.features(content, noise, START)
        x = reduced_input(pairs.face, parsing_map(nets.parser, pairs.face, s.network.in_size))
        return replace(batch, tensors={"x": x, "style": pairs.style, "feature": feature, "rgb": rgb})

    def objective(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float) -> dict[str, Tensor]:
        network = cast(VToonify, modules["translator"])
        _, feature, rgb = network.encode(batch["x"], batch["style"], degree)
        of_feature, of_rgb = equations.imitation(feature, rgb, (batch["feature"], batch["rgb"]))
        return {"feature": of_feature, "picture at 32 px": of_rgb}

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        return Losses(self.objective(modules, batch, self.degree(batch)))

    def _stage_note(self) -> str:
        return " Only its encoder is trained: a start for the second stage."


class TranslatorTraining(VToonifyTraining):
    """Second stage: encoder and fusion learn the teacher's portraits at full size (equations 2 to 5, 9)."""

    settings: TranslatorSettings

    def __init__(self, settings: TranslatorSettings, teachers: Teachers) -> None:
        self.settings = settings
        self.name = f"vtoonify_{'d' if settings.backbone == 'dualstylegan' else 't'}"
        super().__init__(settings, teachers)

    def _check(self, settings: CommonSettings) -> None:
        super()._check(settings)
        assert isinstance(settings, TranslatorSettings)
        sizes, crop = settings.network, settings.losses.flicker_crop
        grid = sizes.out_size // sizes.in_size * (sizes.in_size // START)
        problem = ""
        if crop % grid or not 2 * grid <= crop <= sizes.out_size:
            problem = f"losses.flicker_crop {crop} must be a multiple of {grid}, up to {sizes.out_size}"
        elif self.teachers.perceptual is None or self.teachers.colours is None:
            problem = "the second stage needs the perceptual distance and the colour encoder"
        if problem:
            raise TrainingError("training.config", problem, remedy="Correct [recipe].")

    def build(self) -> Parts:
        network, s = self.translator(), self.settings
        sizes = (s.losses.adversarial_size, s.network.channel_multiplier, s.network.channel_max)
        critic: Discriminator
        if s.backbone == "dualstylegan":
            assert self.teachers.exemplars is not None
            size, multiplier, widest = sizes
            critic = ConditionalDiscriminator(size, len(self.teachers.exemplars), multiplier, widest)
        else:
            critic = Discriminator(*sizes)
        assert self.teachers.perceptual is not None
        return Parts(
            {"translator": network, "discriminator": critic},
            {
                "translator": self.adam([network.get_submodule(name) for name in TRAINED]),
                "discriminator": self.adam([critic]),
            },
            {**self.frozen(), "perceptual": self.teachers.perceptual},
            ("translator",),
        )

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("discriminator", "discriminator"), Phase("translator", "translator"))

    def degree(self, batch: Batch) -> float:
        s = self.settings
        if not s.style.any_degree:
            return s.style.degree
        return s.degrees[batch.draws[0].integer("degree", len(s.degrees))]

    def jitter(self, step: int) -> float:
        """How much of another face's colours there is: in versatile models with colour transfer only."""
        style = self.settings.style
        return (
            equations.second_half(step, self.settings.iterations) if style.colour_transfer and style.any_style else 0.0
        )

    def _paired(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float, augmented: bool) -> Batch:
        nets, s = Nets.of(modules), self.settings
        pairs: Pairs = make_pairs(nets, batch, s.data, s.style, degree, self.jitter(batch.step))
        if augmented:
            pairs = moved(pairs, batch, s.affine)
        assert pairs.target is not None
        tensors = {
            "face": pairs.face,
            "target": pairs.target,
            "parsing": parsing_map(nets.parser, pairs.face, s.network.in_size),
            "style": pairs.style,
            "number": pairs.numbers,
        }
        return replace(batch, tensors=tensors)

    def objective(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float) -> dict[str, Tensor]:
        terms, _, _ = self._terms(modules, batch, degree)
        return terms

    def _terms(
        self, modules: Mapping[str, nn.Module], batch: Batch, degree: float
    ) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
        """Everything but the adversarial loss; the result [N, 3, S, S] and D's masks."""
        s, w, nets = self.settings, self.settings.losses, Nets.of(modules)
        network = cast(VToonify, modules["translator"])
        assert nets.perceptual is not None
        x = reduced_input(batch["face"], batch["parsing"])
        result, masks = network.forward_with_masks(x, batch["style"], degree)
        terms = {
            "mse": w.mse * torch.nn.functional.mse_loss(result, batch["target"]),
            "perceptual": w.perceptual * equations.perceptual(nets.perceptual, result, batch["target"], w),
        }
        if masks:
            terms["mask"] = w.mask * equations.mask_sparsity(masks, degree, w)
        weight = w.flicker * equations.second_half(batch.step, s.iterations)
        if weight > 0:
            place = self.crop_place(batch)
            crop = cropped_input(batch["face"], batch["parsing"], w.flicker_crop, place)
            of_crop = network(crop, batch["style"], degree)
            terms["flicker"] = weight * equations.flicker(result, of_crop, place)
        return terms, result, masks

    def crop_place(self, batch: Batch) -> tuple[int, int]:
        """Top and left of the micro-batch's crop, anywhere it fits."""
        room = self.settings.network.out_size - self.settings.losses.flicker_crop + 1
        draw = batch.draws[0]
        return draw.integer("crop top", room), draw.integer("crop left", room)

    def _scores(self, modules: Mapping[str, nn.Module], pictures: Tensor, batch: Batch, degree: float) -> Tensor:
        critic = modules["discriminator"]
        small = equations.pooled(pictures, self.settings.losses.adversarial_size)
        if isinstance(critic, ConditionalDiscriminator):
            degrees = small.new_full((len(batch.draws),), degree)
            return critic.score(small, degrees, batch["number"])
        scores: Tensor = critic(small)
        return scores

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        degree, weight = self.degree(batch), self.settings.losses.adversarial
        if phase == "discriminator":
            with torch.no_grad():
                x = reduced_input(batch["face"], batch["parsing"])
                fake = cast(VToonify, modules["translator"])(x, batch["style"], degree)
            real = self._scores(modules, batch["target"], batch, degree)
            fakes = self._scores(modules, fake, batch, degree)
            loss = equations.real_or_not(real, True) + equations.real_or_not(fakes, False)
            return Losses({"discriminator": weight * loss}, {"real": real.mean(), "fake": fakes.mean()})
        terms, result, masks = self._terms(modules, batch, degree)
        scores = self._scores(modules, result, batch, degree)
        terms["adversarial"] = weight * equations.real_or_not(scores, True)
        watched = {f"mask {k}": mask.mean() for k, mask in enumerate(masks)}
        return Losses(terms, watched)
