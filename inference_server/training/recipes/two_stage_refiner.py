"""Training the two-stage translator, stage two: a refiner learns to make the frozen translator's pictures steady.

The paper's objective (its equation 3) is the warp loss and the temporal feature loss. Two terms of ours stand beside it
and say so: `stability`, since equation 2 as printed asks the face only to be the translator's picture, flicker
included, and `texture`, so that steadiness is not bought with blur. With both at 0 the objective is the paper's.

Windows are unrolled from their first frame as a shot is at inference, the refiner's own results fed back; they are
detached there, so that gradients go through one frame at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from inference_server.networks.two_stage import REFINER_WIDTHS, TRANSLATOR_WIDTHS, Memory, Refiner, Translator, refine
from inference_server.networks.vgg import VGG19
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, CardFacts, CardPart, Losses, Parts, Phase, Sheet
from inference_server.training.recipes import two_stage_losses as equations
from inference_server.training.recipes.two_stage import (
    HELD_OUT,
    SHEET_ROWS,
    begin_from,
    features_or_bands,
    set_momentum,
    settle,
    small,
    translator_part,
)
from inference_server.training.recipes.two_stage_data import ClipSource, Window
from inference_server.training.tables import from_table

SHOWN_CHANGE = 4.0  # by which sheets brighten how much a picture changes along the flow


@dataclass(frozen=True)
class RefinerWeights:
    """`warp` and `temporal` are the paper's lambdas; `stability` and `texture` are ours, 0 leaves them out."""

    warp: float = 10.0
    temporal: float = 0.1
    stability: float = 20.0
    texture: float = 0.5


@dataclass(frozen=True)
class RefinerSettings:
    """`length`: frames that are unrolled. `background`: what the background is to become: "source" (the paper's: the
    real background, moved along), "translated" (stylised like the rest) or "mixed" (`mix` of the source). `occluded`:
    what it is where the flow does not hold. `distance`: the norm of equation 2. `alpha`: how quickly stability gives
    way to a change of the source. The others as of stage one.
    """

    id: str = "my-two-stage"
    title: str = "My video style, refined"
    styles: tuple[str, ...] = ("style",)
    translator_widths: tuple[int, ...] = TRANSLATOR_WIDTHS
    widths: tuple[int, ...] = REFINER_WIDTHS
    length: int = 6
    crop: int = 256
    mirror: float = 0.5
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weights: RefinerWeights = field(default_factory=RefinerWeights)
    background: Literal["source", "translated", "mixed"] = "source"
    mix: float = 0.5
    occluded: Literal["translated", "source"] = "translated"
    distance: Literal["l1", "l2"] = "l2"
    alpha: float = 50.0
    norm_momentum: float = 0.02
    settle_norms: int = 0
    held_out: int = 4
    data: str = ""
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or self.crop % 2 ** (len(self.widths) - 1) or self.crop < 32:
            raise ValueError(f"crop {self.crop} must be a multiple of {2 ** (len(self.widths) - 1)}, 32 or more")
        if self.length < 2:
            raise ValueError(f"length {self.length} must be 2 frames or more")
        if not 0 <= self.mix <= 1 or not 0 <= self.mirror <= 1 or not 0 < self.norm_momentum <= 1:
            raise ValueError("mix, mirror and norm_momentum are shares of 1")
        w = self.weights
        if min(w.warp, w.temporal, w.stability, w.texture, self.alpha, self.settle_norms, self.held_out) < 0:
            raise ValueError("weights, alpha, settle_norms and held_out must not be negative")
        if w.warp == 0:
            raise ValueError("without the warp loss nothing holds the picture: weights.warp must be above 0")

    @property
    def source_share(self) -> float:
        """Of the background's target that is the source."""
        return {"source": 1.0, "translated": 0.0, "mixed": self.mix}[self.background]


@dataclass(frozen=True)
class RefinerStart:
    """What a run learns from: a trained translator and clips. The rest as `TranslatorStart`."""

    translator: Translator
    clips: ClipSource
    held_out: ClipSource | None
    licences: tuple[str | Mapping[str, Any], ...]
    features: VGG19 | None = None
    begin: Refiner | None = None
    notes: str = ""


class RefinerTraining:
    """The recipe; its result holds translator and refiner. TrainingError `training.config` where settings and start do
    not go together."""

    name = "two_stage_refiner"

    def __init__(self, settings: RefinerSettings, start: RefinerStart) -> None:
        self.settings, self.start = settings, start
        if start.translator.styles != len(settings.styles):
            raise TrainingError(
                "training.config",
                f"the translator holds {start.translator.styles} styles, recipe.styles names {len(settings.styles)}",
                remedy="Name the styles that it was trained with.",
                value=list(settings.styles),
            )

    # ------------------------------------------------------------------------------------------------- modules

    def build(self) -> Parts:
        """The translator is among the trained modules because the result holds it; no optimiser has it."""
        s = self.settings
        translator = begin_from(
            Translator(s.translator_widths, len(s.styles)), self.start.translator, "translator_widths"
        )
        translator.requires_grad_(False).eval()
        refiner = begin_from(Refiner(s.widths), self.start.begin, "widths")
        set_momentum(refiner, s.norm_momentum)
        optimiser = torch.optim.Adam(refiner.parameters(), s.rate, betas=s.betas)
        features = features_or_bands(self.start.features)
        trained = {"translator": translator, "refiner": refiner}
        return Parts(trained, {"refiner": optimiser}, {"features": features}, ("refiner",))

    # ---------------------------------------------------------------------------------------------------- data

    def size(self) -> int:
        return self.start.clips.size()

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        s = self.settings
        window = self.start.clips.window(item, draw, s.length)
        h, w = window.frames.shape[-2:]
        if min(h, w) < s.crop:
            raise TrainingError(
                "training.data",
                f"clip {item} is {w} x {h} px, smaller than recipe.crop {s.crop}",
                remedy="Choose a smaller crop.",
                value=[w, h],
            )
        top, left = draw.integer("top", h - s.crop + 1), draw.integer("left", w - s.crop + 1)
        return cropped(window, top, left, s.crop, float(draw.uniform("mirrored")) < s.mirror)

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        """Adds G_XY of every frame, [N, T, 3, H, W]: the translator learns nothing here."""
        frames = batch["frames"]
        n, length = frames.shape[:2]
        style = batch["style"].repeat_interleave(length, dim=0)
        with torch.no_grad():
            pictures = cast(Translator, modules["translator"])(frames.flatten(0, 1), style)
        return replace(batch, tensors={**batch.tensors, "intermediate": pictures.float().unflatten(0, (n, length))})

    # -------------------------------------------------------------------------------------------------- losses

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("refiner", "refiner"),)

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        refiner = cast(Refiner, modules["refiner"])
        settle(refiner, batch.step, self.settings.settle_norms)
        return Losses(self.objective(modules, batch)[0])

    def objective(self, modules: Mapping[str, nn.Module], batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms, means over the window's frames, and the refined pictures [N, T, 3, H, W].

        Before the first frame, frame and results are repeated, as at inference; there the flow is zero and holds.
        """
        s, w = self.settings, self.settings.weights
        features = modules["features"]
        frames, given = batch["frames"], batch["intermediate"]
        memory: Memory | None = None
        previous, seen = given[:, 0], None
        sums: dict[str, list[Tensor]] = {}
        pictures: list[Tensor] = []
        for t in range(frames.shape[1]):
            last = max(t - 1, 0)
            y, memory = refine(modules["refiner"], frames[:, t], given[:, t], memory)
            flow, valid = batch["flow"][:, t], batch["valid"][:, t]
            mattes = (batch["background"][:, last], batch["background"][:, t])
            target = equations.warp_target(
                frames[:, last], frames[:, t], mattes, given[:, t], flow, valid, s.source_share, s.occluded
            )
            terms = {"warp": w.warp * equations.distance(target, y, s.distance)}
            if w.stability:
                pair = (frames[:, last], frames[:, t])
                terms["stability"] = w.stability * equations.stability((previous, y), pair, flow, valid, s.alpha)
            if w.temporal or w.texture:
                taps = features(y)
            if w.temporal:
                if seen is None:
                    with torch.no_grad():
                        seen = equations.deep(features, features(previous))
                now = equations.deep(features, taps)
                terms["temporal"] = w.temporal * equations.feature_l1(seen, now)
                seen = [tap.detach() for tap in now]
            if w.texture:
                with torch.no_grad():
                    wanted = equations.texture(features, features(target))
                terms["texture"] = w.texture * equations.feature_l1(equations.texture(features, taps), wanted)
            for name, value in terms.items():
                sums.setdefault(name, []).append(value)
            previous = y.detach()
            memory = Memory(memory.frames, (previous, memory.refined[1]))
            pictures.append(previous)
        return {name: torch.stack(values).mean() for name, values in sums.items()}, torch.stack(pictures, dim=1)

    # ---------------------------------------------------------------------------------------- what is looked at

    def held_out(self, modules: Mapping[str, nn.Module], number: int) -> Batch | None:
        """One of the windows kept aside, whole; None where there are no more."""
        source, draw = self.start.held_out, Draw(HELD_OUT, 0, number)
        if source is None or number >= min(self.settings.held_out, source.size()):
            return None
        device = next(modules["refiner"].parameters()).device
        window = source.window(number, draw, self.settings.length).tensors()
        batch = Batch({name: value[None].to(device) for name, value in window.items()}, (draw,), 0, device)
        return self.prepare(modules, batch)

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        """The objective on the windows kept aside."""
        scores: list[Tensor] = []
        while (batch := self.held_out(modules, len(scores))) is not None:
            terms, _ = self.objective(modules, batch)
            scores.append(torch.stack(list(terms.values())).sum())
        return float(torch.stack(scores).mean()) if scores else None

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        """The last frame of windows kept aside, and how much translated and refined picture change along the flow."""
        rows: list[Tensor] = []
        while len(rows) < SHEET_ROWS and (batch := self.held_out(modules, len(rows))) is not None:
            _, refined = self.objective(modules, batch)
            given, flow, valid = batch["intermediate"], batch["flow"][:, -1], batch["valid"][:, -1]
            shown = [batch["frames"][:, -1], given[:, -1], refined[:, -1]]
            for pictures in (given, refined):
                moved, inside = equations.warped(pictures[:, -2], flow)
                change = (pictures[:, -1].float() - moved).abs() * valid * inside
                shown.append(change * SHOWN_CHANGE - 1)
            rows.append(torch.cat([small(picture.float()) for picture in shown]))
        columns = ("frame", "translated", "refined", "change of translated", "change of refined")
        return Sheet(torch.stack(rows), columns) if rows else None

    def card(self) -> CardFacts:
        s = self.settings
        kinds = {"source": "the frame's own", "translated": "stylised", "mixed": f"{s.mix:g} of the frame's own"}
        styles = "a style" if len(s.styles) == 1 else f"styles: {', '.join(s.styles)}"
        return CardFacts(
            id=s.id,
            title=s.title,
            purpose=f"Translates video into {styles}; the background is {kinds[s.background]}.",
            authors=("trained with Faceplate",),
            licences=self.start.licences,
            parts={
                "translator": translator_part(s.translator_widths, s.styles),
                "refiner": CardPart("refiner", "two-stage-refiner", {"widths": list(s.widths)}),
            },
            notes=self.start.notes,
        )


def refiner_recipe(table: Mapping[str, Any], start: RefinerStart) -> RefinerTraining:
    """The recipe of a [recipe] table. Raises TrainingError `training.config`."""
    return RefinerTraining(from_table(RefinerSettings, table, "recipe."), start)


def cropped(window: Window, top: int, left: int, side: int, mirrored: bool) -> dict[str, Tensor]:
    """A square of a window, mirrored where asked for, as a sample by name; the flow is mirrored with it."""
    tensors = window.tensors()
    for name in ("frames", "flow", "background", "valid"):
        value = tensors[name][..., top : top + side, left : left + side]
        tensors[name] = value.flip(-1) if mirrored else value
    if mirrored:
        tensors["flow"] = tensors["flow"] * tensors["flow"].new_tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    return tensors
