"""The two-stage recipes on one shot's painted frames: what is shown of a run, what its card says, how it may begin.

Stage one learns from crops of the painted frames, turned, scaled and mirrored with their paint, the frame alone
recoloured and given grain, so that one or two pictures do not become all there is. Stage two learns to keep the shot
steady. Both are the recipes of `two_stage` and `two_stage_refiner` otherwise.

What is best is measured where the answer is known without being learned: in stage one on paint carried along the flow
to frames near the painted ones (keyframe_data), in stage two on windows of the shot by its own objective. With one or
two painted frames there is nothing to keep aside; with more, keeping one aside would cost the picture most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.two_stage import Refiner, Translator
from inference_server.training.draws import Draw
from inference_server.training.recipe import CardFacts, Sheet
from inference_server.training.recipes.keyframe_data import KeyframeData, PaintedPairs
from inference_server.training.recipes.two_stage import TranslatorSettings, TranslatorStart, TranslatorTraining
from inference_server.training.recipes.two_stage_refiner import RefinerSettings, RefinerStart, RefinerTraining

SHEET_ROWS, SHEET_SIDE = 4, 320
PURPOSE = "keyframe: carries painted frames over their shot."


class KeyframeTranslator(TranslatorTraining):
    """Stage one. `table`: the card's [two_stage], which `keyframe` reads."""

    name = "keyframe_translator"

    def __init__(
        self, settings: TranslatorSettings, start: TranslatorStart, data: KeyframeData, table: Mapping[str, Any]
    ) -> None:
        super().__init__(settings, start)
        self.data, self.table = data, table

    def sheet(self, modules: Mapping[str, nn.Module]) -> Sheet | None:
        """Frames between the painted ones, evenly spread, and what the network draws of them."""
        data, translator = self.data, modules["translator"]
        between = [i for i, number in enumerate(data.numbers) if number not in data.painted] or [0]
        picks = np.linspace(0, len(between) - 1, 2 * min(SHEET_ROWS, len(between)) + 1).round().astype(int)[1::2]
        places = [between[p] for p in dict.fromkeys(picks.tolist())]
        rows, columns = data.box(data.matte[places].max(axis=0), self.settings.crop)
        device = next(translator.parameters()).device
        shown = []
        for place in places:
            frame = data.picture(place)[None, :, rows, columns].to(device)
            shown.append(torch.cat([_fitted(frame), _fitted(translator(frame, frame.new_ones(1, 1)).float())]))
        return Sheet(torch.stack(shown), ("frame", "drawn"))

    def card(self) -> CardFacts:
        return _carded(super().card(), self.table)


class KeyframeRefiner(RefinerTraining):
    """Stage two; its result holds both networks."""

    name = "keyframe_refiner"

    def __init__(self, settings: RefinerSettings, start: RefinerStart, table: Mapping[str, Any]) -> None:
        super().__init__(settings, start)
        self.table = table

    def card(self) -> CardFacts:
        return _carded(super().card(), self.table)


def _carded(facts: CardFacts, table: Mapping[str, Any]) -> CardFacts:
    return replace(facts, purpose=PURPOSE, more={**facts.more, "two_stage": dict(table)})


def _fitted(picture: Tensor) -> Tensor:
    """Reduced to a sheet's size, its shape kept."""
    longest = max(picture.shape[-2:])
    if longest <= SHEET_SIDE:
        return picture
    size = tuple(max(1, round(side * SHEET_SIDE / longest)) for side in picture.shape[-2:])
    return F.interpolate(picture, size=size, mode="bilinear", antialias=True)


def one_style(translator: Translator, pairs: PaintedPairs) -> Translator:
    """A translator of one style to begin with, from one of several: the style that comes nearest to the paint.

    A style's plane is constant, so that what it adds to the first convolution is a constant for each channel, and can
    go into the norm behind it: inside the picture nothing changes.
    """
    if translator.styles == 1:
        return translator
    number = nearest_style(translator, pairs)
    alone = Translator(widths_of(translator), 1)
    state = dict(translator.state_dict())
    weight = state["net.first.conv1.weight"]  # [O, 3 + K, 3, 3]
    state["net.first.conv1.weight"] = weight[:, :3].clone()
    added = weight[:, 3 + number].sum(dim=(1, 2))
    state["net.first.norm1.running_mean"] = state["net.first.norm1.running_mean"] - added
    alone.load_state_dict(state, strict=True)
    return alone


@torch.no_grad()
def nearest_style(translator: Translator, pairs: PaintedPairs) -> int:
    """Which of the styles draws the painted frames nearest to their paint, by weighted L1."""
    was = translator.training
    translator.eval()
    far = torch.zeros(translator.styles)
    for item in range(pairs.size()):
        pair = pairs.pair(item, Draw(0, 0, item))
        weight = torch.ones_like(pair.x[:1]) if pair.weight is None else pair.weight
        for number in range(translator.styles):
            style = F.one_hot(torch.tensor([number]), translator.styles).float()
            away = (translator(pair.x[None], style)[0] - pair.y).abs().mean(dim=0, keepdim=True)
            far[number] += (weight * away).sum() / weight.sum().clamp(min=1e-6)
    translator.train(was)
    return int(far.argmin())


def widths_of(network: Translator | Refiner) -> tuple[int, ...]:
    """Of its levels, full resolution first."""
    blocks = [network.net.first, *network.net.down]
    return tuple(int(cast(Any, block).conv2.out_channels) for block in blocks)
