"""Parsing maps smoothed over a shot along the motion (VToonify eqs. 6-7), fed frame by frame.

Faceplate's own window holds the frames that there are: it gets shorter at the ends and across gaps, and nothing counts
twice. It works at the size of the crop. The published rule works at twice that size, takes frames by their order, and
repeats some beyond the ends (networks.parse_smoothing.window).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_server.networks.parse_smoothing import smooth_window, window
from inference_server.networks.raft import RAFT

RAFT_ITERATIONS = 20

Flow = Callable[["Entry", "Entry"], Tensor]  # from the first to the second, [2, H, W] (x, y) in pixels


@dataclass(frozen=True)
class Entry:
    """A frame in the window: picture [3, H, W] in [-1, 1], logits [C, H, W], and the picture in grey [H, W]."""

    frame: int
    picture: Tensor
    logits: Tensor
    grey: NDArray[np.uint8]

    @classmethod
    def of(cls, frame: int, picture: Tensor, logits: Tensor) -> Entry:
        eight = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(eight), cv2.COLOR_RGB2GRAY), np.uint8)
        return cls(frame, picture, logits, grey)


def dis_flow() -> Flow:
    """OpenCV's dense inverse search, on the CPU."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(first: Entry, second: Entry) -> Tensor:
        found = np.asarray(dis.calc(first.grey, second.grey, None), np.float32)  # type: ignore[call-overload]
        return torch.from_numpy(np.ascontiguousarray(found.transpose(2, 0, 1))).to(first.picture.device)

    return flow


def raft_flow(network: RAFT) -> Flow:
    """RAFT with the published number of iterations."""

    def flow(first: Entry, second: Entry) -> Tensor:
        here, there = (((e.picture + 1) * 127.5)[None] for e in (first, second))
        return network.flow(here, there, RAFT_ITERATIONS)[0]

    return flow


class LogitSmoother:
    """Answers each frame as soon as its window is complete; holds no more than a window."""

    def __init__(self, flow: Flow, radius: int, published: bool) -> None:
        self._flow, self._radius, self._published = flow, radius, published
        self._held: deque[Entry] = deque(maxlen=2 * radius + 1)
        self._count = 0  # frames so far
        self._answered = 0

    def add(self, entry: Entry) -> Iterator[tuple[int, Tensor]]:
        """Takes the next frame; yields (frame, smoothed logits [C, H, W], halved in the published rule)."""
        self._held.append(entry)
        self._count += 1
        while self._answered + self._radius < self._count:
            yield self._answer()

    def finish(self) -> Iterator[tuple[int, Tensor]]:
        """The rest, when there are no more frames."""
        while self._answered < self._count:
            yield self._answer()

    def _answer(self) -> tuple[int, Tensor]:
        first = self._count - len(self._held)
        centre = self._held[self._answered - first]
        if self._published:
            chosen = [self._held[max(j - first, 0)] for j in window(self._answered, self._count, self._radius)]
            times = list(range(-self._radius, self._radius + 1))
        else:
            chosen = [e for e in self._held if abs(e.frame - centre.frame) <= self._radius]
            times = [e.frame - centre.frame for e in chosen]
        self._answered += 1
        still = torch.zeros_like(centre.picture[:2])
        flows = [still if e is centre else self._flow(centre, e) for e in chosen]
        smoothed = smooth_window([e.picture for e in chosen], [e.logits for e in chosen], flows, times, self._radius)
        return centre.frame, smoothed.halved() if self._published else smoothed.fused
