"""What both stages of VToonify's training have: parts, pairs kept aside, samples, score and card."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import Generator
from inference_server.networks.vtoonify import VToonify
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, CardFacts, CardPart, Sheet
from inference_server.training.recipes.vtoonify_losses import pooled
from inference_server.training.recipes.vtoonify_pairs import (
    Codes,
    Nets,
    Teachers,
    make_pairs,
    parsing_map,
    reduced_input,
)
from inference_server.training.recipes.vtoonify_settings import CommonSettings, network_arguments
from inference_server.training.recipes.vtoonify_start import begin, toonified

HELD_OUT = 0x5EED  # seed of the pairs kept aside; no run's own draws
SHEET_SIDE, SHEET_ROWS = 256, 4  # pictures of a sample sheet


class VToonifyTraining(ABC):
    """A stage is a recipe that adds what is learned from the teachers, and how."""

    name: str
    settings: CommonSettings

    def __init__(self, settings: CommonSettings, teachers: Teachers) -> None:
        self.teachers = teachers
        self._check(settings)

    def _check(self, settings: CommonSettings) -> None:
        """TrainingError `training.config` where settings and teachers do not go together."""
        t, sizes = self.teachers, settings.network
        exemplars = 0 if t.exemplars is None else len(t.exemplars)
        problem = ""
        if isinstance(t.style, DualStyleGAN) != (settings.backbone == "dualstylegan"):
            problem = f"backbone {settings.backbone!r} does not go with a {type(t.style).__name__} as style generator"
        elif (t.base.size, t.base.style_dim) != (sizes.out_size, sizes.style_dim):
            problem = (
                f"network.out_size {sizes.out_size} and style_dim {sizes.style_dim} are not those of the generator, "
                f"{t.base.size} and {t.base.style_dim}"
            )
        elif isinstance(t.style, DualStyleGAN) and settings.style.exemplar >= exemplars:
            problem = (
                f"style.exemplar is {settings.style.exemplar}, counted from 0, and there are {exemplars} exemplars"
            )
        if problem:
            raise TrainingError("training.config", problem, remedy="Correct [recipe] or choose the models that fit.")

    # ------------------------------------------------------------------------------------------ for the loop

    def translator(self) -> VToonify:
        """The network as it begins."""
        network = VToonify(**network_arguments(self.settings))
        try:
            begin(network, self._style_generator(), self.teachers.encoder)
        except RuntimeError as error:
            raise TrainingError(
                "training.config",
                f"the models do not fit the network of [recipe.network]: {str(error)[:300]}",
                remedy="Correct [recipe.network], or choose models of one size.",
            ) from error
        return network

    def frozen(self) -> dict[str, nn.Module]:
        t = self.teachers
        modules: dict[str, nn.Module] = {"style": self._style_generator(), "parser": t.parser, "codes": Codes(t)}
        if not isinstance(t.style, DualStyleGAN):
            modules["base"] = t.base
        if t.colours is not None:
            modules["colours"] = t.colours
        return modules

    def _style_generator(self) -> DualStyleGAN | Generator:
        """G1: DualStyleGAN as it is, or Toonify's blend of two StyleGAN2."""
        t = self.teachers
        if isinstance(t.style, DualStyleGAN):
            return t.style
        blended = copy.deepcopy(t.base)
        try:
            blended.load_state_dict(toonified(t.base, t.style, self.settings.data.blend), strict=True)
        except ValueError as error:
            raise TrainingError("training.config", f"data.{error}", remedy="One number for each layer.") from error
        return blended

    def adam(self, modules: Sequence[nn.Module]) -> torch.optim.Optimizer:
        parameters = [p for module in modules for p in module.parameters()]
        return torch.optim.Adam(parameters, self.settings.rate, betas=self.settings.betas)

    def size(self) -> int:
        return 0

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        return {}  # pairs are made on the device, in `prepare`

    # ------------------------------------------------------------------------------------- pairs kept aside

    def _held_out(self, modules: Mapping[str, nn.Module], number: int) -> Batch:
        """A micro-batch of one pair that no step draws, as late in the schedules as they go."""
        device = cast(Codes, modules["codes"]).directions.device
        step = self.settings.iterations
        return Batch({}, (Draw(HELD_OUT, step, number),), step, device)

    def _held_out_degree(self, number: int) -> float:
        """Style degrees spread evenly over the pairs kept aside, or the one there is."""
        style = self.settings.style
        return number / max(1, self.settings.held_out - 1) if style.any_degree else style.degree

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet:
        """Faces, what their teacher makes of them, and what the network does; D with a free degree at three degrees."""
        nets, network, s = Nets.of(modules), cast(VToonify, modules["translator"]), self.settings
        degrees = (0.0, 0.5, 1.0) if s.style.any_degree and s.backbone == "dualstylegan" else (s.style.degree,)
        rows = []
        for number in range(min(SHEET_ROWS, s.held_out)):
            batch = self._held_out(modules, number)
            pairs = make_pairs(nets, batch, s.data, s.style, degrees[-1])
            assert pairs.target is not None
            x = reduced_input(pairs.face, parsing_map(nets.parser, pairs.face, s.network.in_size))
            shown = [pairs.face, pairs.target, *(network(x, pairs.style, degree) for degree in degrees)]
            rows.append(torch.cat([pooled(p.clamp(-1, 1), min(SHEET_SIDE, p.shape[-1])) for p in shown]))
        named = tuple(f"result {degree:g}" for degree in degrees) if len(degrees) > 1 else ("result",)
        return Sheet(torch.stack(rows), ("face", f"target {degrees[-1]:g}" if len(degrees) > 1 else "target", *named))

    def score(self, modules: Mapping[str, nn.Module]) -> float:
        """The objective without its adversarial part, as at the end of the run, averaged over pairs kept aside."""
        scores = []
        for number in range(self.settings.held_out):
            batch = self._held_out(modules, number)
            batch = self._paired(modules, batch, self._held_out_degree(number), augmented=False)
            terms = self.objective(modules, batch, self._held_out_degree(number))
            scores.append(torch.stack(list(terms.values())).sum())
        return float(torch.stack(scores).mean())

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        return self._paired(modules, batch, self.degree(batch), augmented=True)

    @abstractmethod
    def degree(self, batch: Batch) -> float:
        """The style degree of a micro-batch: one for all its samples."""

    @abstractmethod
    def _paired(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float, augmented: bool) -> Batch:
        """The micro-batch with everything that its losses need of the teachers."""

    @abstractmethod
    def objective(self, modules: Mapping[str, nn.Module], batch: Batch, degree: float) -> dict[str, Tensor]:
        """Weighted losses of the network against its teachers."""

    # ------------------------------------------------------------------------------------------------- card

    def card(self) -> CardFacts:
        s, style = self.settings, self.settings.style
        what = ["VToonify-D" if s.backbone == "dualstylegan" else "VToonify-T"]
        if s.backbone == "dualstylegan":
            names = self.teachers.names
            one = names[style.exemplar] if style.exemplar < len(names) else f"number {style.exemplar}"
            what.append(f"any of {len(names)} styles" if style.any_style else f"style {one}")
            what.append("style degree 0 to 1" if style.any_degree else f"style degree {style.degree:g}")
            what.append("colours of the exemplar" if style.colour_transfer else "keeping the frame's colours")
        learned = ", ".join(f"{role} {name}" for role, name in sorted(s.models.items()))
        return CardFacts(
            id=s.id,
            title=s.title,
            purpose="Turns portrait frames into the style it was trained on.",
            authors=("trained in house",),
            licences=self.teachers.licences,
            parts={"main": CardPart("translator", "vtoonify", network_arguments(s))},
            notes=", ".join(what) + "." + (f" Learned from {learned}." if learned else "") + self._stage_note(),
            more={"vtoonify": self._variant()} if s.backbone == "dualstylegan" else {},
        )

    def _variant(self) -> dict[str, Any]:
        """The card's table of what a VToonify-D takes; what is missing there is free."""
        style = self.settings.style
        variant: dict[str, Any] = {"color_transfer": style.colour_transfer}
        if codes := self.settings.models.get("codes", "").partition("@")[0]:
            variant["codes"] = codes
        if not style.any_style:
            variant["style"] = style.exemplar
        if not style.any_degree:
            variant["degree"] = style.degree
        return variant

    def _stage_note(self) -> str:
        return ""
