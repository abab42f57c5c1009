"""Bilinear sampling that can be differentiated any number of times in the picture.

PyTorch differentiates `grid_sample` once. A gradient penalty through augmentation differentiates twice; since
sampling is linear in the picture, its derivative is its adjoint, and the adjoint's derivative is sampling again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BILINEAR, _REFLECTION = 0, 2  # numbers of the modes in the operator


def bilinear(pictures: Tensor, grid: Tensor) -> Tensor:
    """Values of pictures [N, C, H, W] at grid [N, h, w, 2] (x, y; -1 and 1 are the centres of the outer pixels).

    Outside, pictures are mirrored. Gradients flow to the pictures, none to the grid. Returns [N, C, h, w].
    """
    out: Tensor = _Sampling.apply(pictures, grid)  # type: ignore[no-untyped-call]
    return out


class _Sampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pictures: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = pictures.shape
        return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spreading.apply(slope, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class _Spreading(torch.autograd.Function):
    """The adjoint: every value is spread over the four pixels that it was interpolated from."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        like = values.new_empty(1).expand(shape)  # only its shape counts
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            values.contiguous(), like, grid, _BILINEAR, _REFLECTION, True, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sampling.apply(slope, grid), None, None  # type: ignore[no-untyped-call]
