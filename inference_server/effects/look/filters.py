"""Picture filters of `look`: colour space, edge-preserving smoothing, flow, lines, guided upsampling.

All on [C, h, w] float32 tensors; lengths in pixels of the tensor given. No filter looks at statistics of the whole
frame, so that none can flicker with what happens elsewhere in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from inference_server.plates.color import srgb_decode, srgb_encode

# OKLab (Ottosson 2020): linear sRGB -> cone-like response -> cube root -> opponent axes
_TO_LMS = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
           (0.0883024619, 0.2817188376, 0.6299787005))  # fmt: skip
_TO_LAB = ((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
           (0.0259040371, 0.7827717662, -0.8086757660))  # fmt: skip

_SECTORS = 8
_HALVE = 2.0  # sigma above which a blur is done at half size


def to_oklab(picture: Tensor) -> Tensor:
    """Display-encoded sRGB [3, ...] 0..1 to OKLab (L 0..1, a, b)."""
    lms = _mix(_TO_LMS, srgb_decode(picture))
    return _mix(_TO_LAB, lms.clamp_min(1e-9) ** (1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """OKLab to display-encoded sRGB 0..1; colours outside sRGB are clipped."""
    lms = _mix(_inverse(_TO_LAB), lab)
    return srgb_encode(_mix(_inverse(_TO_LMS), lms * lms * lms).clamp(0, 1))


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    inverse = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))
    return tuple(tuple(float(v) for v in row) for row in inverse)


def _mix(matrix: tuple[tuple[float, ...], ...], x: Tensor) -> Tensor:
    return torch.stack([row[0] * x[0] + row[1] * x[1] + row[2] * x[2] for row in matrix])


def resize(x: Tensor, rows: int, cols: int) -> Tensor:
    """Bilinear, antialiased where it shrinks; [C, h, w] -> [C, rows, cols]."""
    if x.shape[-2:] == (rows, cols):
        return x
    smaller = rows < x.shape[-2] or cols < x.shape[-1]
    return functional.interpolate(x[None], size=(rows, cols), mode="bilinear", align_corners=False, antialias=smaller)[
        0
    ]


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian of [C, h, w], borders replicated; wide ones work on a halved picture."""
    if sigma < 0.15:
        return x
    _, h, w = x.shape
    if sigma > _HALVE and min(h, w) > 8:
        # Weights 1 3 3 1: halving then neither aliases nor moves anything, wherever the grid lies on the picture.
        padded = functional.pad(x[None], (1, 1 + w % 2, 1, 1 + h % 2), mode="replicate")[0]
        padded = 0.25 * (padded[:, :-2] + padded[:, 2:]) + 0.5 * padded[:, 1:-1]
        padded = 0.25 * (padded[:, :, :-2] + padded[:, :, 2:]) + 0.5 * padded[:, :, 1:-1]
        inner = gaussian(functional.avg_pool2d(padded[None], 2)[0], math.sqrt((sigma * sigma - 1.4) / 4))
        size = (h + h % 2, w + w % 2)
        return functional.interpolate(inner[None], size=size, mode="bilinear", align_corners=False)[0, :, :h, :w]
    radius = max(1, math.ceil(2.5 * sigma))
    kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = kernel[0] + 2 * sum(kernel[1:])
    kernel = [value / total for value in kernel]
    # Sums of shifted views: several times faster on the CPU than a convolution of one channel.
    padded = functional.pad(x[None], (0, 0, radius, radius), mode="replicate")[0]
    y = padded[:, radius : radius + h] * kernel[0]
    for k in range(1, radius + 1):
        y.add_(padded[:, radius - k : radius - k + h], alpha=kernel[k])
        y.add_(padded[:, radius + k : radius + k + h], alpha=kernel[k])
    padded = functional.pad(y[None], (radius, radius, 0, 0), mode="replicate")[0]
    z = padded[:, :, radius : radius + w] * kernel[0]
    for k in range(1, radius + 1):
        z.add_(padded[:, :, radius - k : radius - k + w], alpha=kernel[k])
        z.add_(padded[:, :, radius + k : radius + k + w], alpha=kernel[k])
    return z


def kuwahara(lab: Tensor, radius: float) -> Tensor:
    """Each pixel takes the mean of those of eight overlapping Gaussian sectors that vary least.

    Generalised Kuwahara filter (Papari et al. 2007) with the sectors' means read from one blurred picture.
    lab [3, h, w]; `radius` in pixels, under half a pixel nothing happens.
    """
    if radius < 0.5:
        return lab
    mean = gaussian(torch.cat([lab, lab.square().sum(dim=0, keepdim=True)]), 0.5 * radius)
    variance = (mean[3] - mean[:3].square().sum(dim=0)).clamp_min(0)
    weight = (variance + 2e-4).reciprocal_().mul_(2e-4)  # 0..1, steep: squared twice
    weight = weight.square_().square_()[None]
    source = torch.cat([mean[:3] * weight, weight])  # [4, h, w]
    offset = 0.75 * radius
    pad = math.ceil(offset) + 1
    padded = functional.pad(source[None], (pad,) * 4, mode="replicate")[0]
    total = torch.zeros_like(source)
    for k in range(_SECTORS):
        angle = 2 * math.pi * (k + 0.5) / _SECTORS
        total += _shifted(padded, pad, offset * math.cos(angle), offset * math.sin(angle), lab.shape[-2:])
    return total[:3] / total[3:].clamp_min(1e-20)


def _shifted(padded: Tensor, pad: int, dx: float, dy: float, size: Iterable[int]) -> Tensor:
    """A view of `padded` moved by whole pixels."""
    h, w = size
    y0, x0 = pad + round(dy), pad + round(dx)
    return padded[:, y0 : y0 + h, x0 : x0 + w]


def flow_direction(tone: Tensor, sigma: float) -> Tensor:
    """Unit vectors [2, h, w] along the edges of `tone` [1, h, w] (eigenvector of the smoothed structure tensor)."""
    padded = functional.pad(tone[None], (1, 1, 1, 1), mode="replicate")[0]
    gx = 0.5 * (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    gy = 0.5 * (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    xx, yy, xy = gaussian(torch.cat([gx * gx, gy * gy, gx * gy]), sigma)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)  # of the gradient
    return torch.stack([-torch.sin(angle), torch.cos(angle)])


def along_flow(x: Tensor, direction: Tensor, sigma: float) -> Tensor:
    """`x` [C, h, w] averaged along `direction` [2, h, w] with a Gaussian of `sigma` pixels."""
    if sigma < 0.3:
        return x
    stride_length = max(1.0, 0.85 * sigma)  # bilinear reads in between smooth what is skipped
    steps = max(1, round(2 * sigma / stride_length))
    _, h, w = x.shape
    cols = torch.arange(w, device=x.device, dtype=x.dtype)
    rows = torch.arange(h, device=x.device, dtype=x.dtype)
    base = torch.stack([(2 * cols + 1)[None, :].expand(h, w) / w - 1, (2 * rows + 1)[:, None].expand(h, w) / h - 1], -1)
    stride = direction.permute(1, 2, 0) * x.new_tensor([2.0 * stride_length / w, 2.0 * stride_length / h])
    total, weights = x.clone(), 1.0
    for k in range(1, steps + 1):
        weight = math.exp(-0.5 * (k * stride_length / sigma) ** 2)
        for sign in (-k, k):
            total += (
                weight
                * functional.grid_sample(
                    x[None], (base + sign * stride)[None], mode="bilinear", padding_mode="border", align_corners=False
                )[0]
            )
        weights += 2 * weight
    return total / weights


def line_response(tone: Tensor, direction: Tensor, sigma: float) -> Tensor:
    """Signed line and edge response [1, h, w], positive on the dark side, relative to the local tone.

    Difference of Gaussians smoothed along the flow (flow-based XDoG, Winnemoeller et al. 2012, before its threshold).
    """
    near, far = gaussian(tone, sigma), gaussian(tone, 1.6 * sigma)
    response = (far - near) / (far + 0.15)
    return along_flow(response, direction, 2.5 * sigma)


def guide_fit(small: Tensor, guide: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Slope and offset [C, r, c] with `small` = slope * guide + offset exactly, smooth slope.

    Brought to a larger size and applied to a larger guide, they give `small` with edges where the guide's are (fast
    guided filter, He and Sun 2015, with Gaussian windows). small [C, r, c], guide [1, r, c].
    """
    moments = gaussian(torch.cat([guide, guide.square(), small, small * guide]), sigma)
    mean, square = moments[:1], moments[1:2]
    count = small.shape[0]
    own, cross = moments[2 : 2 + count], moments[2 + count :]
    slope = (cross - mean * own) / ((square - mean * mean).clamp_min(0) + 1e-4)
    slope = gaussian(slope, sigma)
    return slope, small - slope * guide
