"""Maps in channels-last order, worked through in bands of rows.

Decides how a large map is walked: on a CPU in bands that stay in its cache, so that what is computed between two maps
is never written to memory; on other devices whole. Bands are a function of shapes alone, and on a CPU a batch goes
frame by frame: a frame's numbers depend neither on the frames before it nor on those beside it. Maps are
[N, h, w, C] here, contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = 4 << 20  # of the widest map of a band: what two cores' caches hold beside weights and intermediates
EPS = 1e-5  # of instance normalisation


def bands(x: Tensor, row_numbers: int, kernel_numbers: int = 0) -> Iterator[tuple[int, int]]:
    """(first, end) rows that cover x [N, h, w, C].

    row_numbers: how many numbers the widest map has per row of x. kernel_numbers: how many the largest kernel has;
    every band reads it again, so that no band is smaller.
    """
    h = x.shape[1]
    if x.device.type != "cpu":
        yield 0, h
        return
    step = min(h, max(4, max(BAND_BYTES // x.element_size(), kernel_numbers) // row_numbers))
    for first in range(0, h, step):
        yield first, min(first + step, h)


def frame_by_frame(x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """work(x), on a CPU one frame at a time: peak memory of one, and the numbers it has alone."""
    if x.device.type != "cpu" or x.shape[0] == 1:
        return work(x)
    return torch.cat([work(x[i : i + 1]) for i in range(x.shape[0])])


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int | tuple[int, int] = 0,
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """conv2d of [N, h, w, I] with [O, I, k, k] to [N, h', w', O]."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding, dilation)
    return y.permute(0, 2, 3, 1).contiguous()


def rows_with_halo(x: Tensor, first: int, end: int) -> Tensor:
    """Rows first - 1 .. end of x, with zeros outside the map: [N, end - first + 2, w, C]."""
    above, below = int(first == 0), int(end == x.shape[1])
    rows = x[:, first - 1 + above : end + 1 - below]
    return F.pad(rows, (0, 0, 0, 0, above, below)) if above or below else rows


def tap_weights(weight: Tensor) -> Tensor:
    """A 3x3 kernel to few channels, [O, I, 3, 3], as the matrix [9 O, I] whose products `gather_taps` sums."""
    o, i, _, _ = weight.shape
    return weight.flip(2, 3).permute(0, 2, 3, 1).reshape(9 * o, i).contiguous()


def gather_taps(taps: Tensor) -> Tensor:
    """What a padded 3x3 convolution gives, from its products at every pixel: [N, h, w, 9 O] -> [N, h, w, O].

    To one or three channels this is several times faster than a convolution, which is made for many.
    """
    n, h, w, t = taps.shape
    y = F.fold(taps.reshape(n, h * w, t).transpose(1, 2), (h, w), 3, padding=1)
    return y.permute(0, 2, 3, 1)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per sample and channel, [N, h, w, C] -> [N, 1, 1, C] float32 each.

    Two passes of sums, on a CPU several times faster than `var_mean` in this order of axes.
    """
    x = x.float()
    mean = x.mean((1, 2), keepdim=True)
    return mean, (x - mean).square_().mean((1, 2), keepdim=True)


def affine_of(mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Instance normalisation as x * scale + shift; statistics [N, 1, 1, C] float32, gamma and beta [C]."""
    scale = gamma * torch.rsqrt(variance + EPS)
    return scale, beta - mean * scale


def adaptive_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """gamma * instance_norm(x) + beta on [N, h, w, C]; statistics in float32 whatever x is."""
    mean, variance = moments(x)
    scale, shift = affine_of(mean, variance, gamma, beta)
    return torch.addcmul(shift, x.float(), scale).to(x.dtype)


def combined_statistics(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of a whole from (count, mean, variance) of its bands (Chan's formula)."""
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    total = sum(count for count, _, _ in parts)
    mean = torch.stack([m * (count / total) for count, m, _ in parts]).sum(0)
    variance = torch.stack([(v + (m - mean).square()) * (count / total) for count, m, v in parts]).sum(0)
    return mean, variance
