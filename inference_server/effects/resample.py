"""Resampling between plate and crop: two small matrices, one for rows, one for columns.

A crop is upright, so rows and columns are independent, and any chain of linear steps (unsqueezing, the published blur,
the published resize) is one matrix for each. Beyond the picture's edge it is mirrored. Positions have centres at half.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float32]  # [outputs, inputs]
Taps = tuple[NDArray[np.int64], NDArray[np.float64]]  # [outputs, K] indices and weights


def separable(picture: Tensor, rows: Matrix, columns: Matrix) -> Tensor:
    """[C, H, W] by rows [h, H] and columns [w, W] to [C, h, w]."""
    r, c = (torch.from_numpy(m).to(picture.device, picture.dtype) for m in (rows, columns))
    if rows.shape[0] * picture.shape[2] < columns.shape[0] * picture.shape[1]:
        return (r @ picture) @ c.T
    return r @ (picture @ c.T)


def cubic(at: NDArray[np.float64], step: float) -> Taps:
    """Catmull-Rom at positions [M]; `step` inputs lie between two of them, and above 1 the kernel widens to that."""
    widening = max(step, 1.0)
    reach = int(np.ceil(2 * widening))
    first = np.floor(at - 0.5).astype(np.int64) - reach + 1
    index = first[:, None] + np.arange(2 * reach)
    t = np.abs((index + 0.5 - at[:, None]) / widening)
    near, far = 1 + t * t * (1.5 * t - 2.5), 2 + t * (-4 + t * (2.5 - 0.5 * t))
    weights = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return index, weights / weights.sum(axis=1, keepdims=True)


def linear(at: NDArray[np.float64], size: int) -> Taps:
    """Bilinear at positions [M] of `size` inputs, whose ends are repeated."""
    low = np.floor(at - 0.5)
    part = at - 0.5 - low
    index = np.clip(np.stack([low, low + 1], axis=1).astype(np.int64), 0, size - 1)
    return index, np.stack([1 - part, part], axis=1)


def mirrored(index: NDArray[np.int64], size: int, skip: int = 0) -> NDArray[np.int64]:
    """Indices folded into 0..size-1; `skip` 1 does not repeat the outermost (OpenCV's reflect-101)."""
    period = max(2 * size - 2 * skip, 1)
    folded = np.mod(index, period)
    return np.where(folded < size, folded, period - 1 + skip - folded)


def matrix(taps: Taps, size: int, offset: int = 0) -> Matrix:
    """[M, size] of taps whose index `offset` is the first input; what lies beyond is mirrored."""
    index, weights = taps
    out = np.zeros((len(index), size))
    np.add.at(out, (np.arange(len(index))[:, None], mirrored(index - offset, size)), weights)
    return out.astype(np.float32)
