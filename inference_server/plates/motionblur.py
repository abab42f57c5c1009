"""The blur of a moving head, for pixels that a network drew sharper than the camera would have seen them.

A shutter that is open for a part of the frame's time smears each point along its path. The head's path is known from
the tracked landmarks, as one affine motion; light adds up scene-linear, so that a highlight makes a streak and not a
smudge.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference_server.plates.types import Window

_STILL = 0.5  # pixels: a path shorter than this changes nothing that can be seen
_MOST_SAMPLES = 65


def path_over(region: Window, motion: NDArray[np.float64], shutter: float) -> Tensor | None:
    """[2, h, w] (dx, dy): how far each plate pixel of `region` moves while the shutter is open; None where it is still.

    motion   [2, 3] affine: plate pixels (x, y, 1) to their displacement in one frame's time
    shutter  part of the frame's time it is open: 0.5 is a shutter of 180 degrees
    """
    x = np.arange(region.x0, region.x1) + 0.5
    y = np.arange(region.y0, region.y1) + 0.5
    along = motion[:, 0, None, None] * x[None, None] + motion[:, 1, None, None] * y[None, :, None]
    path = torch.from_numpy((shutter * (along + motion[:, 2, None, None])).astype(np.float32))
    return path if float(path.norm(dim=0).max()) >= _STILL else None


def blur_along(scene: Tensor, path: Tensor) -> Tensor:
    """The mean of a picture over a path that has the frame's moment in its middle, as the camera would have seen it.

    scene  [3, h, w] scene-linear, finite
    path   [2, h, w] (dx, dy) in pixels, as `path_over` gives it
    """
    _, height, width = scene.shape
    longest = float(path.norm(dim=0).max())
    count = min(_MOST_SAMPLES, 2 * math.ceil(longest / 2) + 1)  # a pixel apart; odd, so that the middle is one
    path = path.to(scene.device)
    x = torch.arange(width, device=scene.device) + 0.5
    y = torch.arange(height, device=scene.device)[:, None] + 0.5
    total = torch.zeros_like(scene)
    for i in range(count):
        along = (i + 0.5) / count - 0.5
        at = torch.stack([(x + along * path[0]) * (2 / width) - 1, (y + along * path[1]) * (2 / height) - 1], dim=-1)
        # Bilinear: what is averaged anyway need not be sharp, and no light is lost or made.
        total += functional.grid_sample(scene[None], at[None], padding_mode="border", align_corners=False)[0]
    return total / count
