"""How work on CUDA is recorded as a graph: one launch instead of some hundred. Its users say when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")


def cuda_capture(work: Callable[[], R]) -> Callable[[], R]:
    """Records `work`, which computes from fixed inputs; returns its replay, which overwrites and returns one result."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their kernels and workspaces now, not while recording
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> R:
        graph.replay()
        return result

    return replay
