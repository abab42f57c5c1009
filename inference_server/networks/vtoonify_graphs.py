"""A baked VToonify on CUDA as captured graphs: one launch a frame instead of some hundred.

Decides when a graph is captured: once per input shape, and once more for style degree 0, which bypasses blocks. A
keyframed degree reuses it: what a degree changes is copied into the graph's own tensors before every launch. How to
capture is an argument, so that all but CUDA's part is tested without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_server.networks.cuda_graphs import cuda_capture
from inference_server.networks.vtoonify_baked import BakedVToonify

Work = Callable[[], Tensor]  # computes from fixed inputs into a result
Capture = Callable[[Work], Work]
Key = tuple[tuple[int, ...], bool]


@dataclass(frozen=True)
class _Recorded:
    network: BakedVToonify  # has tensors of its own for what a degree changes
    x: Tensor
    replay: Work


class GraphedVToonify:
    """Same call and same results as the baked network it is made from; shapes seen before are replayed.

    Those made by `with_degree` share their graphs, and must not be called from two threads at once. Graphs and their
    memory live as long as any of them.
    """

    def __init__(
        self, network: BakedVToonify, capture: Capture = cuda_capture, recorded: dict[Key, _Recorded] | None = None
    ) -> None:
        self.network, self._capture = network, capture
        self._recorded = {} if recorded is None else recorded

    def with_degree(self, degree: float) -> GraphedVToonify:
        """As the baked network's; no new graph except between 0 and other degrees."""
        return GraphedVToonify(self.network.with_degree(degree), self._capture, self._recorded)

    def with_style(self, style: Tensor) -> GraphedVToonify:
        """As the baked network's. Another style has other kernels, and so graphs of its own."""
        return GraphedVToonify(self.network.with_style(style), self._capture)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """As `BakedVToonify.forward`."""
        key = (tuple(x.shape), self.network.degree == 0)
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._recorded[key] = self._record(x)
        for own, current in zip(recorded.network.degree_tensors(), self.network.degree_tensors(), strict=True):
            own.copy_(current)
        recorded.x.copy_(x)
        return recorded.replay().clone()

    def _record(self, x: Tensor) -> _Recorded:
        network = self.network.with_degree(self.network.degree)
        static = x.clone()
        return _Recorded(network, static, self._capture(lambda: network(static)))
