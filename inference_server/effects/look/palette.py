"""Colour degree: palettes as colour by lightness, from a style's stops or an exemplar picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inference_server.effects.look.filters import resize, to_oklab

_ENTRIES = 64


def palette_of_stops(stops: Sequence[tuple[float, float, float]], device: torch.device) -> Tensor:
    """sRGB stops from dark to light as a table [3, 64] of OKLab colours by lightness 0..1, evenly spaced."""
    lab = to_oklab(torch.tensor(stops, dtype=torch.float32).T.reshape(3, 1, -1))  # [3, 1, K]
    even = functional.interpolate(lab, size=_ENTRIES, mode="linear", align_corners=True)[:, 0]
    return even.to(device)


def palette_of_exemplar(exemplar: Tensor) -> Tensor:
    """The colours of a picture [3, H, W] (display-encoded sRGB) by lightness, [3, 64] OKLab.

    Each entry is the mean colour of the exemplar's pixels of about that rank of lightness; empty ranks take their
    neighbours'. Only what the exemplar holds is used: nothing of the plate.
    """
    _, h, w = exemplar.shape
    scale = min(1.0, 160.0 / max(h, w))
    small = resize(exemplar.float(), max(1, round(h * scale)), max(1, round(w * scale)))
    lab = to_oklab(small).reshape(3, -1)
    lab = lab[:, torch.sort(lab[0], stable=True).indices]
    light = torch.linspace(0, 1, _ENTRIES, device=lab.device)
    distance = (light[:, None] - lab[0][None]).abs()  # [64, N]
    weight = torch.exp(-0.5 * (distance / 0.06) ** 2) + torch.exp(-distance / 0.02) * 1e-3 + 1e-9
    colours = (weight @ lab.T) / weight.sum(dim=1, keepdim=True)  # [64, 3]
    return torch.stack([light, colours[:, 1], colours[:, 2]])


def look_up(table: Tensor, light: Tensor) -> Tensor:
    """Colours [3, h, w] of a palette [3, 64] at lightness [h, w], linear between entries."""
    at = light.clamp(0, 1) * (_ENTRIES - 1)
    low = at.floor().clamp(max=_ENTRIES - 2).long()
    part = at - low
    flat = low.reshape(-1)
    first = table.index_select(1, flat).reshape(3, *light.shape)
    second = table.index_select(1, flat + 1).reshape(3, *light.shape)
    return torch.lerp(first, second, part[None].expand_as(first))
