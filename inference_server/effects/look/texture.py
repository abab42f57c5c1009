"""Paper, dots and hatching that belong to the head: they move, turn and scale with it, not with the screen.

Nothing is drawn at random per frame: the paper is one fixed tile, and all else is a function of where a pixel lies
on the head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference_server.effects.mesh import Points, Pose

_TILE = 256
_TILE_EYES = 3.2  # eye distances that the paper's tile covers


def paper_tile(device: torch.device) -> Tensor:
    """A tile [1, 256, 256] of paper grain that repeats without seam, mean 0, deviation 1."""
    noise = np.random.RandomState(478).randn(_TILE, _TILE)  # the legacy stream never changes
    f = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.fftfreq(_TILE)[None]) * _TILE
    band = np.exp(-((f / 60.0) ** 2)) * np.sqrt(f / (f + 12.0))
    band[0, 0] = 0.0
    grain = np.real(np.fft.ifft2(np.fft.fft2(noise) * band))
    return torch.as_tensor((grain / grain.std())[None], dtype=torch.float32, device=device)


def head_coordinates(pose: Pose, origin: Points, height: int, width: int, aspect: float, like: Tensor) -> Tensor:
    """Where each pixel of the crop lies on the head: [2, h, w] in eye distances, turned with the head in the picture.

    `origin` [2] is the crop's corner in square plate pixels.
    """
    # The nearest similarity to the projected head: turning left and right moves the texture, but does not squeeze it.
    a = pose.rotation[0, 0] + pose.rotation[1, 1]
    b = pose.rotation[1, 0] - pose.rotation[0, 1]
    length = max(math.hypot(a, b), 1e-9)
    cos, sin = float(a / length), float(b / length)
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * aspect + float(origin[0])
    y = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5 + float(origin[1])
    x = (x - float(pose.translation[0])) / pose.scale
    y = (y - float(pose.translation[1])) / pose.scale
    return torch.stack([x[None] * cos + y[:, None] * sin, y[:, None] * cos - x[None] * sin])


def paper(tile: Tensor, where: Tensor) -> Tensor:
    """Paper grain [h, w] at head coordinates [2, h, w]; mean 0, deviation 1."""
    wrapped = (where / _TILE_EYES) % 1.0  # 0..1 of the tile
    padded = functional.pad(tile[None], (1, 1, 1, 1), mode="circular")
    grid = ((wrapped * _TILE + 1) * (2.0 / (_TILE + 2)) - 1).permute(1, 2, 0)[None]
    return functional.grid_sample(padded, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]


def dots(where: Tensor, per_eye: float) -> Tensor:
    """Thresholds [h, w] 0..1, evenly spread, of a dot screen at 45 degrees with `per_eye` dots per eye distance."""
    u = (where[0] + where[1]) * (math.pi * per_eye / math.sqrt(2.0))
    v = (where[0] - where[1]) * (math.pi * per_eye / math.sqrt(2.0))
    return _spread(0.25 * (torch.cos(2 * u) + torch.cos(2 * v)) + 0.5)


def strokes(where: Tensor, per_eye: float, angle: float, wobble: Tensor) -> Tensor:
    """Thresholds [h, w] 0..1 of parallel strokes at `angle`, made uneven by `wobble` [h, w] (deviation 1)."""
    across = where[0] * math.sin(angle) + where[1] * math.cos(angle)
    return 0.5 + 0.5 * torch.cos(2 * math.pi * per_eye * across + 0.45 * wobble)


def _spread(x: Tensor) -> Tensor:
    """Makes the sum of two cosines nearly uniform in 0..1, so that a tone of t covers t of the area."""
    centred = (x - 0.5) * 2
    return 0.5 + 0.5 * centred * (1.35 - 0.35 * centred.abs())
