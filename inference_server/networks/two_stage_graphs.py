"""Translator and refiner on CUDA as captured graphs: one launch a frame instead of some hundred.

Decides when a graph is captured: once per shape of the frame, and once more for a shot's first frame, which has no
memory. How to capture is an argument, so that all but CUDA's part is tested without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from inference_server.networks.cuda_graphs import cuda_capture
from inference_server.networks.two_stage import Memory, step

Work: TypeAlias = Callable[[], tuple[Tensor, ...]]  # computes from fixed inputs into results
Capture: TypeAlias = Callable[[Work], Work]
Key: TypeAlias = tuple[tuple[int, ...], bool, bool]


@dataclass(frozen=True)
class _Recorded:
    inputs: tuple[Tensor, ...]
    replay: Work


class GraphedStep:
    """`two_stage.step` with these networks, which are in evaluation mode, on the device and in the frames' precision.

    Not to be called from two threads at once. Graphs and their memory live as long as this.
    """

    def __init__(self, translator: nn.Module, refiner: nn.Module, capture: Capture = cuda_capture) -> None:
        self._translator, self._refiner, self._capture = translator, refiner, capture
        self._recorded: dict[Key, _Recorded] = {}

    @torch.no_grad()
    def __call__(
        self, frame: Tensor, memory: Memory | None = None, style: Tensor | None = None
    ) -> tuple[Tensor, Memory]:
        """As `step`."""
        given = [frame]
        if memory is not None:
            given += [memory.frames[0], memory.frames[1], memory.refined[0], memory.refined[1]]
        if style is not None:
            given.append(style)
        key = (tuple(frame.shape), memory is None, style is None)
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._recorded[key] = self._record(given, memory is not None, style is not None)
        for own, current in zip(recorded.inputs, given, strict=True):
            own.copy_(current)
        refined, before = (result.clone() for result in recorded.replay())
        frame = frame.clone()
        return refined, Memory((frame, frame if memory is None else memory.frames[0]), (refined, before))

    def _record(self, given: list[Tensor], remembers: bool, styled: bool) -> _Recorded:
        fixed = tuple(tensor.clone() for tensor in given)

        def work() -> tuple[Tensor, ...]:
            memory = Memory((fixed[1], fixed[2]), (fixed[3], fixed[4])) if remembers else None
            refined, after = step(self._translator, self._refiner, fixed[0], memory, fixed[-1] if styled else None)
            return refined, after.refined[1]  # y_t and y_{t-1}, which is the translator's picture at first

        return _Recorded(fixed, self._capture(work))
