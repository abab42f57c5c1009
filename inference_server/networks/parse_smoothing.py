"""Smooths parsing maps over time along optical flow (VToonify, equations 6 and 7).

Every frame's map becomes a weighted mean of the maps in a window of 2k + 1 frames, each warped back along the flow
from the centre. Weights fall with time, with colour difference after warping, and are 0 where the flow leaves the
frame. Against the paper's text, as the published results were made: the maps are logits, not probabilities; the
mask m only marks samples from outside the frame, not occlusions; the colour term is a mean over the three channels of
pictures in [-1, 1]; sigma_t is k + 0.5; and the centre's own weight is exactly 1, its map unwarped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.networks.stylegan_layers import downsample2
from inference_server.networks.tensors import ShapeError, check_shape

COLOUR_SIGMA = 0.2  # of pictures in [-1, 1]
COVERAGE = 0.9999  # a warped sample counts when at least this much of it came from inside the frame


@dataclass(frozen=True)
class SmoothedMap:
    """A fused parsing map and the weights that made it."""

    fused: Tensor  # [C, H, W] logits at the size of the frames that went in
    weights: Tensor  # [window, H, W], summing to 1 over the window

    def halved(self) -> Tensor:
        """[C, H/2, W/2], low-passed: maps are made from frames enlarged twice, and used at frame size."""
        return downsample2(self.fused[None])[0]


def window(i: int, count: int, k: int) -> list[int]:
    """Frame numbers of the 2k + 1 entries around frame `i` of `count`; entry k is the frame itself.

    Past the ends stand copies, in order and not mirrored: frames 0..k-1 before the first, the last k frames after the
    last. In a sequence shorter than k the frame numbers are held at its ends.
    """
    if not 0 <= i < count or k < 0:
        raise ValueError(f"frame {i} of {count} with radius {k}: need 0 <= frame < count and radius >= 0")
    entries = []
    for e in range(i, i + 2 * k + 1):  # positions in the sequence extended by k entries on both sides
        if e < k:
            entries.append(min(e, count - 1))
        elif e < k + count:
            entries.append(e - k)
        else:
            entries.append(max(e - 2 * k, 0))
    return entries


def warp(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Samples x [N, C, H, W] at each position plus flow [N, 2, H, W] (x, y in pixels), bilinearly.

    Returns the warped tensor, 0 where it is not valid, and validity [N, 1, H, W] (1 or 0): whether the sample came from
    inside the frame.
    """
    n, _, h, w = x.shape
    check_shape("flow", flow, n, 2, h, w)
    xs = torch.arange(w, device=x.device, dtype=x.dtype)
    ys = torch.arange(h, device=x.device, dtype=x.dtype)
    grid = torch.stack(
        [
            2 * (xs + flow[:, 0]) / max(w - 1, 1) - 1,
            2 * (ys[:, None] + flow[:, 1]) / max(h - 1, 1) - 1,
        ],
        dim=-1,
    )  # [N, H, W, 2]
    ones = x.new_ones(n, 1, h, w)
    sampled = F.grid_sample(torch.cat([x, ones], dim=1), grid, align_corners=True)
    valid = (sampled[:, -1:] >= COVERAGE).to(x.dtype)
    return sampled[:, :-1] * valid, valid


def smooth_window(
    frames: Sequence[Tensor],
    parsing: Sequence[Tensor],
    flows: Sequence[Tensor],
    times: Sequence[int] | None = None,
    k: int | None = None,
) -> SmoothedMap:
    """Fuses one window of frames into the map of its centre.

    frames: [3, H, W] each, display-encoded RGB in [-1, 1]. parsing: [C, H, W] logits each. flows: [2, H, W] each,
    from the centre frame to that entry, in pixels (x, y); the centre's own is not read. times: how many frames each
    entry lies after the centre, whose time is 0; without them the window is the published one, -k to k. k: the radius
    that sigma_t follows. Raises ShapeError.
    """
    size = len(frames)
    if times is None:
        if size % 2 == 0:
            raise ShapeError(
                f"window: expected 2k + 1 frames, maps and flows, got {size}, {len(parsing)} and {len(flows)}"
            )
        times, k = range(-(size // 2), size // 2 + 1), size // 2
    if not len(parsing) == len(flows) == len(times) == size or k is None or list(times).count(0) != 1:
        raise ShapeError(
            f"window: expected as many frames, maps, flows and times, one of them 0, and a radius, "
            f"got {size}, {len(parsing)}, {len(flows)}, times {list(times)} and {k}"
        )
    here = list(times).index(0)
    centre = frames[here]
    check_shape("frame", centre, 3, "H", "W")
    h, w = centre.shape[-2:]
    sigma_t = k + 0.5
    total, weights = parsing[here].clone(), []
    for j, time in enumerate(times):
        check_shape(f"frame {j} of the window", frames[j], 3, h, w)
        check_shape(f"parsing map {j} of the window", parsing[j], parsing[here].shape[0], h, w)
        if j == here:
            weights.append(centre.new_ones(h, w))
            continue
        check_shape(f"flow {j} of the window", flows[j], 2, h, w)
        warped, valid = warp(torch.cat([frames[j], parsing[j]])[None], flows[j][None])
        colour = (warped[0, :3] - centre).square().mean(dim=0)  # [H, W]
        near = math.exp(-(time**2) / (2 * sigma_t**2))
        weight = torch.exp(-colour / (2 * COLOUR_SIGMA**2)) * valid[0, 0] * near
        total += weight * warped[0, 3:]
        weights.append(weight)
    stacked = torch.stack(weights)  # [window, H, W]
    norm = stacked.sum(dim=0)  # at least 1: the centre counts fully
    return SmoothedMap(fused=total / norm, weights=stacked / norm)


def smooth_sequence(
    frames: Sequence[Tensor],
    parsing: Sequence[Tensor],
    flows: Callable[[int, list[int]], Sequence[Tensor]],
    k: int = 5,
) -> Iterator[Tensor]:
    """Yields the smoothed map [C, H/2, W/2] of every frame, in order.

    frames [3, H, W] and parsing [C, H, W] are indexed by frame number and may be read from disk as they are asked for;
    H and W are even, twice the size of the frames that the network gets. `flows(i, entries)` returns the flows from
    frame i to each frame of its window (`entries` are frame numbers, see `window`).
    """
    for i in range(len(frames)):
        entries = window(i, len(frames), k)
        smoothed = smooth_window([frames[j] for j in entries], [parsing[j] for j in entries], flows(i, entries))
        yield smoothed.halved()
