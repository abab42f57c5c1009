"""What the two-stage translator is trained on: pairs of pictures, and windows of clips with their flow and matte.

The recipes know these two interfaces and nothing of files, teachers or caches. Everything is display-encoded sRGB in
[-1, 1] on the CPU, float32, and may be asked for by several threads at once. A source holds no running state: what it
gives depends on the item and the draw alone, so that a resumed run sees the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch


@dataclass(frozen=True)
class Pair:
    """A frame and what is made of it.

    x, y    [3, H, W], the frame and its stylised version, in register; any H, W
    style   [K], weights of the K styles that y was made with; they sum to 1
    weight  [1, H, W], 0..1, how much each pixel of y counts; None where all do (a keyframe painted in a matte only
            counts there)
    """

    x: Tensor
    y: Tensor
    style: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Window:
    """T frames of a clip that follow one another, and what is known of them.

    frames      [T, 3, H, W]
    style       [K], as of a pair
    flow        [T, 2, H, W], pixels (x to the right, y down): where each pixel of frame t was in frame t-1, seen from
                itself; zero in the first
    background  [T, 1, H, W], probability 0..1 that a pixel of frame t is background
    valid       [T, 1, H, W], 1 where the flow holds (its forward-backward check), 0 where it does not; 1 in the first
    """

    frames: Tensor
    style: Tensor
    flow: Tensor
    background: Tensor
    valid: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """By name, as a sample of the training loop."""
        return {
            "frames": self.frames,
            "style": self.style,
            "flow": self.flow,
            "background": self.background,
            "valid": self.valid,
        }


class PairSource(Protocol):
    def size(self) -> int:
        """How many pairs (or frames, where the draw chooses the style) there are; 0 where every pair is drawn."""

    def pair(self, item: int, draw: Draw) -> Pair:
        """One of them; what there is to choose beside the item (the style, say) is the draw's."""


@runtime_checkable
class GeneratedPairs(Protocol):
    """Pairs that networks make, on the device and a micro-batch at a time."""

    def size(self) -> int:
        """0: every pair is drawn."""

    def modules(self) -> Mapping[str, nn.Module]:
        """The frozen networks, by names of their own."""

    def pairs(self, modules: Mapping[str, nn.Module], batch: Batch) -> Sequence[Pair]:
        """One pair for each of the batch's draws, on the batch's device."""


class ClipSource(Protocol):
    def size(self) -> int:
        """How many clips (or starting points in clips) there are."""

    def window(self, item: int, draw: Draw, length: int) -> Window:
        """`length` frames of a clip; where they begin, and the style, is the draw's choice."""
