"""From region mattes and a list of names to the matte of a stylised head."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from host_bridge.errors import unknown_name
from inference_server.effects.common import EYE_FRAME, REGIONS
from inference_server.effects.look.filters import gaussian, resize

_WORK_PER_EYE = 48.0  # pixels per eye distance at which edges are grown and feathered


def parse_regions(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Regions to take and regions to take away from `head,-neck`-style text.

    Raises EffectError (`effect.parameter`) for a name that is none of head, face and `REGIONS`.
    """
    take: list[str] = []
    leave: list[str] = []
    for word in (part.strip() for part in text.split(",") if part.strip()):
        name = word.lstrip("-+")
        if name not in (*REGIONS, "face", "head"):
            raise unknown_name("effect.parameter", "region", name, ["head", "face", *REGIONS])
        (leave if word.startswith("-") else take).extend(("face", *REGIONS) if name == "head" else (name,))
    return tuple(take), tuple(leave)


def region_matte(mattes: Mapping[str, Tensor], text: str, size: tuple[int, int], device: torch.device) -> Tensor:
    """The union of the named regions less those with a minus, [h, w] 0..1; without a source one is empty."""
    take, leave = parse_regions(text)
    out = torch.zeros(size, device=device)
    for name in take:
        if name in mattes:
            # Soft edges that meet add up to a whole; where they overlap the union never exceeds it.
            out.add_(mattes[name]).clamp_(max=1)
    for name in leave:
        if name in mattes:
            out = out * (1 - mattes[name])
    return out


def shape_matte(matte: Tensor, grow: float, feather: float, unit: float, aspect: float) -> Tensor:
    """Grow and feather a matte [h, w]; lengths in pixels of the 64-pixel eye frame, `unit` the eye distance in pixels.

    The feather lies half inside and half outside the edge.
    """
    if grow == 0 and feather == 0:
        return matte
    h, w = matte.shape
    scale = min(1.0, _WORK_PER_EYE / unit)
    rows, cols = max(8, round(h * scale)), max(8, round(w * aspect * scale))
    small = resize(matte[None], rows, cols)
    pixel = unit * scale / EYE_FRAME  # working pixels per pixel of the eye frame
    radius = abs(grow) * pixel
    if radius > 0.25:
        small = _dilate(small, radius) if grow > 0 else 1 - _dilate(1 - small, radius)
    small = gaussian(small, 0.5 * feather * pixel)
    return resize(small, h, w)[0].clamp(0, 1)


def _dilate(x: Tensor, radius: float) -> Tensor:
    """Grey dilation of [1, h, w] by an octagon of about `radius`, between whole sizes by blending."""
    whole = math.floor(radius)
    low = _dilate_whole(x, whole)
    part = radius - whole
    return low if part == 0 else low * (1 - part) + _dilate_whole(x, whole + 1) * part


def _dilate_whole(x: Tensor, radius: int) -> Tensor:
    straight = round(radius * 0.6)
    for _ in range(radius - straight):  # a diamond
        x = torch.maximum(
            functional.max_pool2d(x[None], (3, 1), 1, (1, 0))[0], functional.max_pool2d(x[None], (1, 3), 1, (0, 1))[0]
        )
    if straight > 0:  # a square
        size = 2 * straight + 1
        x = functional.max_pool2d(x[None], (size, 1), 1, (straight, 0))[0]
        x = functional.max_pool2d(x[None], (1, size), 1, (0, straight))[0]
    return x
