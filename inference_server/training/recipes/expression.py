"""Expression dynamics optimisation (StylePortraitVideo, eq. 3-7): an edited actor moves the lips as the actor did.

What is optimised is an offset to every frame's edited code; all networks stay. One Adam step is taken on the offsets of
the whole shot: frames are worked off in micro-batches, whose gradients fill rows of one tensor, and the temporal term
is taken on that tensor as a whole. How many frames are worked on at once, and by how many processes, therefore changes
the result by no more than the rounding of convolutions over batches of another size, and may change from one start of
a run to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from inference_server.networks.hrnet import Square
from inference_server.networks.lpips import LPIPS
from inference_server.training.config import TrainConfig, split_config
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, CardFacts, CardPart, Losses, Parts, Phase, Sheet
from inference_server.training.recipes.adaptation import SHEET_SIDE
from inference_server.training.recipes.expression_terms import (
    EyeWindow,
    eye_term,
    eye_window,
    halvings,
    inner_lip,
    lip_maps,
    lip_term,
    offset_term,
    temporal_term,
    whole_picture,
)
from inference_server.training.recipes.gan import shown_at
from inference_server.training.recipes.synthesis import (
    Frames,
    Synthesis,
    check_codes,
    check_frames,
    evenly,
    fingerprint,
    misfit,
    rows_of,
    synthesis_of,
)
from inference_server.training.tables import from_table

OFFSETS = "main.offsets"
"""The result's name in the file that a run writes: float32 [F, rows, width], to be added to the edited codes."""


@dataclass(frozen=True)
class ExpressionSettings:
    """The weights of eq. 7 on the terms of `expression_terms`, Adam's numbers, and how many frames are shown.

    `lip_side`: of the face crops that the landmark network is shown; 256 is what it was trained on.
    `id`, `title`: of the card beside the result. `shot`: what codes, squares and masks were (filled in). `models`: what
    the networks are called where they are kept, by role; filled in by whoever loads them.
    """

    id: str = "my-shot-expression"
    title: str = "Lips that move as the actor's"
    lips: float = 5000.0
    eyes: float = 0.5
    regularisation: float = 8000.0
    temporal: float = 5000.0
    rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    lip_side: int = 256
    sheet_frames: int = 4
    shot: str = ""
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.lips, self.eyes, self.regularisation, self.temporal) < 0 or self.lips + self.eyes <= 0:
            raise ValueError("weights must not be negative, and lips and eyes not both 0")
        if self.sheet_frames < 1 or self.lip_side < 32:
            raise ValueError("sheet_frames must be 1 or more, lip_side 32 or more")


@dataclass(frozen=True)
class ExpressionShot:
    """An edited shot and the performance that it is to keep.

    codes       [F, rows, width] w_edit of every frame, all edits in them
    reference   I of eq. 3, whose lips are followed: the shot's aligned pictures, or codes like the above of the frames
                as edited before the edits of expression, drawn by the same generator (sequential editing)
    square      what the landmark network is shown of each picture, centre [F, 2] and side [F] (networks.hrnet)
    eye_mask    M_eye, 0..1 of any type: [S, S] for all frames or [F, S, S]
    placements  [F, 3, 3] of a StyleGAN3, or None
    joined      bool [F - 1], whether a frame and the next follow each other in the shot; None: all do
    """

    codes: Tensor
    reference: Frames | Tensor
    square: Square
    eye_mask: Tensor
    placements: Tensor | None = None
    joined: Tensor | None = None


@dataclass(frozen=True)
class ExpressionNetworks:
    """Networks that stay as they are, and their licences for the card.

    generator   the adapted one
    landmarks   [B, 3, 256, 256], ImageNet's statistics -> heat maps [B, points, h, w] (networks.hrnet)
    lips        first and last channel of the inner lip; None: those of 98 (WFLW) or 68 points (300W)
    synthesis   how to draw with a generator that is neither StyleGAN2 nor StyleGAN3
    """

    generator: nn.Module
    landmarks: nn.Module
    perceptual: LPIPS
    licences: tuple[str | Mapping[str, Any], ...]
    lips: tuple[int, int] | None = None
    synthesis: Synthesis | None = None


class Offsets(nn.Module):
    """An offset to every code, 0 at the start."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(shape))


@dataclass(frozen=True)
class _Target:
    """What a micro-batch is compared with: heat maps, and edited pictures masked and cut to the eyes' window."""

    maps: Tensor
    eyes: Tensor


def expression_config(document: Mapping[str, Any], processes: int = 1) -> tuple[TrainConfig, dict[str, Any]]:
    """The loop's configuration and the [recipe] table of a document (`configs/expression.toml`).

    A step of the loop is a step on the whole shot; its `batch` is the number of processes, each of which has its own
    frames. TrainingError `training.config` for fp16, whose gradients would need scaling.
    """
    config, table = split_config({**document, "batch": processes, "micro_batch": 1})
    if config.precision == "fp16":
        raise TrainingError(
            "training.config",
            "the expression optimisation does not run in fp16",
            remedy='Say precision = "bf16", or "fp32".',
            value=config.precision,
        )
    return config, table


class Expression:
    """The recipe, for a loop that was configured by `expression_config` with as many `processes`.

    `micro_batch` frames are worked on at once: it bounds the memory. What does not change from step to step is kept on
    the CPU (the heat maps that are wanted, and the edited picture around the eyes, 12 bytes a pixel of the window), and
    the eyes are compared in their window alone. `plain` keeps nothing and compares whole pictures: the same numbers in
    more time and without that memory. TrainingError `training.config` or `training.data` where things do not fit.
    """

    name = "expression"

    def __init__(
        self,
        table: Mapping[str, Any],
        shot: ExpressionShot,
        networks: ExpressionNetworks,
        micro_batch: int = 4,
        processes: int = 1,
        plain: bool = False,
    ) -> None:
        self.synthesis = networks.synthesis or synthesis_of(networks.generator)
        self._check(shot, micro_batch, processes)
        own = from_table(ExpressionSettings, table, "recipe.")
        reference = shot.reference if isinstance(shot.reference, Tensor) else None
        begun_with = (shot.codes, reference, *shot.square, shot.eye_mask, shot.placements, shot.joined)
        self.settings = replace(own, shot=fingerprint(*begun_with))
        self.shot, self.networks = shot, networks
        self.micro_batch, self.processes, self.plain = micro_batch, processes, plain
        points = getattr(networks.landmarks, "points", None)
        self.lips = networks.lips or inner_lip(points if isinstance(points, int) else 0)
        self.halved = halvings(shot.square, own.lip_side)
        self._kept: dict[tuple[int, int], _Target] = {}
        self._window: EyeWindow | None = None

    def _check(self, shot: ExpressionShot, micro_batch: int, processes: int) -> None:
        check_codes(shot.codes, self.synthesis, shot.placements)
        count, size = len(shot.codes), self.synthesis.size
        if isinstance(shot.reference, Tensor):
            check_codes(shot.reference, self.synthesis)
            if len(shot.reference) != count:
                raise misfit(f"{len(shot.reference)} codes of the reference for {count} edited ones")
        else:
            check_frames(shot.reference, count, size)
        square = shot.square
        if tuple(square.centre.shape) != (count, 2) or tuple(square.side.shape) != (count,):
            raise misfit(f"squares of {list(square.centre.shape)} and {list(square.side.shape)} for {count} frames")
        if not (square.centre.isfinite().all() and square.side.isfinite().all() and bool((square.side > 0).all())):
            raise misfit("squares that are not finite, or empty")
        if tuple(shot.eye_mask.shape) not in ((size, size), (count, size, size)):
            raise misfit(
                f"an eye mask of {list(shot.eye_mask.shape)}, expected [{size}, {size}], for each frame or once"
            )
        if shot.joined is not None and tuple(shot.joined.shape) != (count - 1,):
            raise misfit(f"joined of shape {list(shot.joined.shape)}, expected [{count - 1}]")
        if micro_batch < 1 or processes < 1:
            raise misfit(f"micro-batches of {micro_batch} in {processes} processes")

    def build(self) -> Parts:
        offsets = Offsets(*self.shot.codes.shape)
        s, n = self.settings, self.networks
        return Parts(
            trained={"offsets": offsets},
            optimisers={"offsets": torch.optim.Adam([offsets.offsets], s.rate, (s.beta1, s.beta2))},
            frozen={"g": n.generator.eval(), "landmarks": n.landmarks.eval(), "perceptual": n.perceptual.eval()},
        )

    def size(self) -> int:
        return 0  # a step is the whole shot; there is nothing to choose from

    def load(self, item: int, draw: Draw) -> Mapping[str, Tensor]:
        return {}

    def prepare(self, modules: Mapping[str, nn.Module], batch: Batch) -> Batch:
        return batch

    def phases(self, step: int) -> Sequence[Phase]:
        return (Phase("optimise", "offsets"),)

    # ------------------------------------------------------------------------------------------------ one step

    def losses(self, modules: Mapping[str, nn.Module], phase: str, batch: Batch) -> Losses:
        """Of the frames of one process; terms of the offsets themselves belong to the first.

        The gradient of each micro-batch is taken as soon as it is drawn, which lets go of it; what is returned has it.
        """
        part, s = batch.draws[0].index, self.settings
        offsets = cast(Offsets, modules["offsets"]).offsets  # [F, L, D]
        gradient = torch.zeros_like(offsets)
        lips, eyes = offsets.new_zeros(()), offsets.new_zeros(())
        for rows in self._micro_batches(part):
            own = offsets[rows].detach().requires_grad_(True)
            lip, eye = self.measure(modules, rows, own)
            with torch.autocast(batch.device.type, enabled=False):
                (gradient[rows],) = torch.autograd.grad(s.lips * lip + s.eyes * eye, own)
            lips, eyes = lips + s.lips * lip.detach(), eyes + s.eyes * eye.detach()
        # The offsets' own terms are the first process' alone, but all have the same names: they are added up by place.
        whole = offsets if part == 0 else torch.zeros_like(offsets)
        terms = {
            "lips": _with_gradient(lips, offsets, gradient),
            "eyes": eyes,
            "regularisation": s.regularisation * offset_term(whole),
            "temporal": s.temporal * temporal_term(whole, self.shot.joined),
        }
        watched = {"offset": whole.detach().square().mean().sqrt()}
        # The loop takes the mean over the processes' parts, and the sum is meant.
        terms = {name: value * self.processes for name, value in terms.items()}
        return Losses(terms, {name: value * self.processes for name, value in watched.items()})

    def _micro_batches(self, part: int) -> Iterator[slice]:
        """The frames of a process, always the same ones, in order."""
        count = len(self.shot.codes)
        first, end = (count * k // self.processes for k in (part, part + 1))
        for start in range(first, end, self.micro_batch):
            yield slice(start, min(start + self.micro_batch, end))

    def measure(self, modules: Mapping[str, nn.Module], rows: slice, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 3 and 4 of some frames with their offsets [B, L, D], before the weights: sums over frames."""
        drawn = self._drawn(modules["g"], self.shot.codes, rows, offsets)
        window = self._eye_window(modules)
        target = self._target(modules, rows, window)
        lip = eye = (offsets * 0).sum()
        if self.settings.lips:
            lip = lip_term(self._lips(modules, drawn, rows), target.maps.to(drawn.device))
        if self.settings.eyes:
            seen = self._eyes(drawn, rows, window)
            eye = eye_term(cast(LPIPS, modules["perceptual"]), seen, target.eyes.to(drawn.device), window)
        return lip, eye

    def _drawn(self, module: nn.Module, codes: Tensor, rows: slice, offsets: Tensor | None = None) -> Tensor:
        like = next(module.parameters())
        own = codes[rows].to(like) if offsets is None else codes[rows].to(like) + offsets
        places = range(*rows.indices(len(codes)))
        return self.synthesis.render(module, own, rows_of(self.shot.placements, places, like.device))

    def _lips(self, modules: Mapping[str, nn.Module], pictures: Tensor, rows: slice) -> Tensor:
        square = Square(self.shot.square.centre[rows], self.shot.square.side[rows])
        return lip_maps(modules["landmarks"], pictures, square, self.halved, self.settings.lip_side, self.lips)

    def _eyes(self, pictures: Tensor, rows: slice, window: EyeWindow) -> Tensor:
        """Masked and cut: [B, 3, h, w]."""
        mask = self.shot.eye_mask
        own = window.cut(mask[None] if mask.ndim == 2 else mask[rows])[:, None]  # [B or 1, 1, h, w]
        return window.cut(pictures) * own.to(pictures)

    def _eye_window(self, modules: Mapping[str, nn.Module]) -> EyeWindow:
        if self._window is None:
            cut = self.settings.eyes > 0 and not self.plain
            perceptual = cast(LPIPS, modules["perceptual"])
            self._window = eye_window(self.shot.eye_mask, perceptual) if cut else whole_picture(self.synthesis.size)
        return self._window

    @torch.no_grad()
    def _target(self, modules: Mapping[str, nn.Module], rows: slice, window: EyeWindow) -> _Target:
        """Measured once for each micro-batch, and kept unless `plain`."""
        key = (rows.start, rows.stop)
        found = self._kept.get(key)
        if found is not None:
            return found
        edited = self._drawn(modules["g"], self.shot.codes, rows)
        eyes = self._eyes(edited, rows, window)
        maps = self._lips(modules, self._reference(modules["g"], rows, edited), rows)
        target = _Target(maps, eyes) if self.plain else _Target(maps.cpu(), eyes.cpu())
        if not self.plain:
            self._kept[key] = target
        return target

    def _reference(self, module: nn.Module, rows: slice, like: Tensor) -> Tensor:
        """I of eq. 3: [B, 3, S, S]."""
        reference = self.shot.reference
        if isinstance(reference, Tensor):
            return self._drawn(module, reference, rows)
        return torch.stack([reference.picture(i) for i in range(rows.start, rows.stop)]).to(like)

    # ------------------------------------------------------------------------------------- what people look at

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet:
        """Frames of the shot: the performance, the edit before, and with the offsets as they are."""
        offsets, g, rows = cast(Offsets, modules["offsets"]).offsets, modules["g"], []
        for place in evenly(len(self.shot.codes), self.settings.sheet_frames):
            one = slice(place, place + 1)
            edited = self._drawn(g, self.shot.codes, one)
            now = self._drawn(g, self.shot.codes, one, offsets[one])
            pictures = (self._reference(g, one, edited), edited, now)
            rows.append(torch.cat([shown_at(p, min(SHEET_SIDE, self.synthesis.size)) for p in pictures]))
        return Sheet(torch.stack(rows).cpu(), ("performance", "edited", "now"))

    def score(self, modules: Mapping[str, nn.Module]) -> float | None:
        return None  # what is minimised is what counts

    def card(self) -> CardFacts:
        return CardFacts(
            id=self.settings.id,
            title=self.settings.title,
            purpose="Offsets to the edited codes of one shot, with which the lips move as the actor's.",
            authors=("optimised with Faceplate",),
            licences=self.networks.licences,
            parts={"main": CardPart("offsets", "code-offsets", {"shape": list(self.shot.codes.shape)})},
            notes=f"{len(self.shot.codes)} frames.",
        )


def _with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """`value` [] as a function of x whose gradient is already known."""
    return value.detach() + ((x - x.detach()) * gradient).sum()
