"""The two networks of a model in memory, ready to draw: folded, in one precision, loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from inference_server.effects.base import Resources
from inference_server.effects.two_stage.variants import Variant
from inference_server.effects.vtoonify.networks import DTYPES, exact
from inference_server.models.loading import load_network
from inference_server.networks.two_stage import Memory, Translator, ready, refine


class Pair:
    """A translator and its refiner, if it has one, in one precision."""

    def __init__(self, translator: Translator, refiner: nn.Module | None, dtype: torch.dtype) -> None:
        self.styles = translator.styles
        self._dtype = dtype
        self._translator = ready(translator.float(), dtype)
        self._refiner = None if refiner is None else ready(refiner.float(), dtype)

    def draw(
        self, frame: Tensor, style: Tensor | None, memory: Memory | None, refined: bool
    ) -> tuple[Tensor, Memory | None]:
        """[1, 3, H, W] in -1..1 and the weights of the styles [1, K] -> the drawing, likewise, and what to remember.

        Without `refined`, or a refiner, nothing is remembered.
        """
        seen = frame.to(self._dtype).contiguous(memory_format=torch.channels_last)
        with exact():
            drawn: Tensor = self._translator(seen) if style is None else self._translator(seen, style.to(self._dtype))
            if self._refiner is None or not refined:
                return drawn.float(), None
            drawn, memory = refine(self._refiner, seen, drawn, memory)
        return drawn.float(), memory


class Networks:
    """What is loaded: one model in one precision. Known by the weights' hash, so that a new file is loaded anew."""

    def __init__(self, resources: Resources) -> None:
        self._device = torch.device(resources.device)
        self._report: Callable[[str, float], None] = resources.report
        self._kept: tuple[str, Pair] | None = None

    def pair(self, variant: Variant, precision: str) -> Pair:
        """The networks of a variant. Raises ModelError `model.stored`."""
        wanted = f"{variant.model.sha256} {precision}"
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None  # let go before another is loaded beside it
            self._report(f"loading {variant.model.card.title}", 0.0)
            translator = cast(Translator, load_network(variant.model, self._device, part=variant.translator))
            refiner = load_network(variant.model, self._device, part=variant.refiner) if variant.refiner else None
            self._kept = (wanted, Pair(translator, refiner, DTYPES[precision]))
            self._report(f"loading {variant.model.card.title}", 1.0)
        return self._kept[1]
