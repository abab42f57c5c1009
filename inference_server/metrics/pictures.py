"""Distances between pictures, pixel by pixel and by structure. Pictures [T, H, W, 3] display-encoded sRGB in 0..1.

Every function takes an optional mask [H, W] or [T, H, W] in 0..1: what counts, and how much. A frame whose mask is
empty has no value (nan).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]  # [T, H, W, 3]
Frame = NDArray[np.float32]  # [H, W, 3]
Mask = NDArray[Any]
PerFrame = NDArray[np.float64]  # [T]

# Wang, Simoncelli, Bovik 2003: window, constants for a range of 1, and the weights of the five scales.
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def mse(a: Frames, b: Frames, mask: Mask | None = None) -> PerFrame:
    """Mean squared difference over pixels and channels, of each frame [T]. ValueError where shapes differ."""
    _check(a, b, mask)
    return np.array([frame_mse(x, y, m) for x, y, m in _frames(a, b, mask)])


def psnr(a: Frames, b: Frames, mask: Mask | None = None) -> PerFrame:
    """Peak signal-to-noise ratio for a peak of 1, in dB, of each frame [T]; inf where two frames are equal."""
    return psnr_of_mse(mse(a, b, mask))


def psnr_of_mse(error: NDArray[np.floating[Any]] | float) -> PerFrame:
    """10 log10(1 / error). Of a sequence: of the mean of its frames' errors, which one equal frame cannot make inf."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(np.asarray(error, np.float64)))


def ms_ssim(a: Frames, b: Frames, mask: Mask | None = None) -> PerFrame:
    """Multi-scale structural similarity of each frame [T]: 1 for equal ones; the mean of the three channels.

    Wang, Simoncelli, Bovik 2003, with five scales where the shorter side has 176 pixels or more. Smaller pictures have
    as many scales as the window fits into (`scales_of`), their weights brought to a sum of 1. Only windows that lie in
    the picture count, as published; with a mask windows at the border do, too, or a face near the border would be gone
    at the coarse scales. ValueError below 11 pixels, or where shapes differ.
    """
    _check(a, b, mask)
    return np.array([frame_ms_ssim(x, y, m) for x, y, m in _frames(a, b, mask)])


def scales_of(height: int, width: int) -> int:
    """How many of the five scales a picture of that size has; ValueError where there is none."""
    side, count = min(height, width), 0
    while count < len(SCALES) and side >= WINDOW:
        side, count = side // 2, count + 1
    if count == 0:
        raise ValueError(f"structural similarity needs {WINDOW} pixels in height and width, got {height} x {width}")
    return count


def frame_mse(a: Frame, b: Frame, mask: Mask | None = None) -> float:
    """`mse` of one frame [H, W, 3]."""
    squares = (a.astype(np.float64) - b) ** 2
    if mask is None:
        return float(squares.mean())
    weights = np.asarray(mask, np.float64)
    total = float(weights.sum())
    return float((squares.mean(axis=-1) * weights).sum() / total) if total > 0 else float("nan")


def frame_ms_ssim(a: Frame, b: Frame, mask: Mask | None = None) -> float:
    """`ms_ssim` of one frame [H, W, 3]."""
    count = scales_of(*a.shape[:2])
    powers = np.array(SCALES[:count]) / (1 if count == len(SCALES) else sum(SCALES[:count]))
    x, y = (np.ascontiguousarray(v, np.float32) for v in (a, b))
    weights = None if mask is None else np.ascontiguousarray(mask, np.float32)
    out = np.ones(3)
    for scale in range(count):
        similarity, contrast = _ssim(x, y, 0 if weights is not None else WINDOW // 2)
        term = similarity if scale == count - 1 else contrast
        # A negative mean would have no real power; nothing is less alike than 0 here, as is usual.
        out *= np.maximum(_mean(term, weights), 0) ** powers[scale]
        if scale < count - 1:
            x, y = _halved(x), _halved(y)
            weights = None if weights is None else _halved(weights)
    return float(out.mean())


def _ssim(x: Frame, y: Frame, edge: int) -> tuple[Frame, Frame]:
    """Maps of the structural similarity, and of its contrast and structure alone, without `edge` pixels all around.

    In float32, at less than half the time: variances are exact to some 1e-7, the constants beside them are 1e-4 up.
    """
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    inside = (slice(edge, x.shape[0] - edge), slice(edge, x.shape[1] - edge))

    def blurred(values: Frame) -> Frame:
        return np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, kernel, kernel), np.float32)[inside]

    c1, c2 = np.float32(C1), np.float32(C2)
    mean_x, mean_y = blurred(x), blurred(y)
    xx, yy, xy = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2, blurred(x * y) - mean_x * mean_y
    contrast: Frame = (2 * xy + c2) / (xx + yy + c2)
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * contrast, contrast


def _mean(values: Frame, weights: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Mean of each channel [3]; nan where all weights are 0."""
    if weights is None:
        return np.asarray(values.mean(axis=(0, 1), dtype=np.float64))
    total = float(weights.sum(dtype=np.float64))
    summed = (values * weights[..., None]).sum(axis=(0, 1), dtype=np.float64)
    return np.asarray(summed / total) if total > 0 else np.full(3, np.nan)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (size // 2 * 2 for size in values.shape[:2])
    v = values[:height, :width]
    return np.ascontiguousarray((v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]) / 4)


def _check(a: Frames, b: Frames, mask: Mask | None) -> None:
    if a.ndim != 4 or a.shape[-1] != 3 or a.shape != b.shape:
        raise ValueError(f"expected two sequences [T, H, W, 3] of one shape, got {list(a.shape)} and {list(b.shape)}")
    if mask is not None and mask.shape not in (a.shape[:3], a.shape[1:3]):
        raise ValueError(f"expected a mask {list(a.shape[1:3])} or {list(a.shape[:3])}, got {list(mask.shape)}")


def _frames(a: Frames, b: Frames, mask: Mask | None) -> list[tuple[Frame, Frame, Mask | None]]:
    masks = [None] * len(a) if mask is None else list(mask) if mask.ndim == 3 else [mask] * len(a)
    return list(zip(a, b, masks, strict=True))
