"""The layers that StyleGAN2 and everything built on it share: equalised weights, FIR resampling, AdaIN.

Sources: StyleGAN2 (arXiv 1912.04958), AdaIN (arXiv 1703.06868). Weights are stored near unit variance and
scaled at run time ("equalised learning rate"); entry names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLUR_TAPS = (1, 3, 3, 1)
LEAK = 0.2  # negative slope of every leaky ReLU of this family


class PixelNorm(nn.Module):
    """x / rms(x) over the last axis: one code vector at a time, whatever stands before it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)  # [..., D]


class FusedLeakyReLU(nn.Module):
    """leaky_relu(x + bias) * sqrt(2); the bias belongs to axis 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias.view(1, -1, *[1] * (x.ndim - 2))
        return F.leaky_relu(x + bias, LEAK) * math.sqrt(2)  # [N, C, ...]


class EqualLinear(nn.Module):
    """x W^T * lr / sqrt(in) + b * lr, optionally followed by leaky_relu * sqrt(2). Acts on the last axis."""

    def __init__(self, in_dim: int, out_dim: int, lr: float = 1.0, bias: float = 0.0, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr)
        self.bias = nn.Parameter(torch.full((out_dim,), bias / lr))
        self.scale = lr / math.sqrt(in_dim)
        self.lr = lr
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr)  # [..., in] -> [..., out]
        return F.leaky_relu(y, LEAK) * math.sqrt(2) if self.activate else y


class EqualConv2d(nn.Module):
    """A convolution without bias whose weight is scaled by 1 / sqrt(fan in)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, None, self.stride, self.padding, self.dilation)


def fir_kernel(taps: Sequence[int], gain: float = 1.0) -> Tensor:
    """The separable low-pass as a 2-D kernel that sums to `gain`."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line)
    return kernel * (gain / kernel.sum())


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Zero insertion, zero padding (before, after), filtering and decimation, the same on both axes.

    [N, C, H, W] -> [N, C, (H*up + pad0 + pad1 - K) // down + 1, likewise W].
    """
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.view(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).view(n, c, h * up, w * up)
    x = F.pad(x, (*pad, *pad))
    weight = kernel.flip(0, 1).to(x.dtype).expand(c, 1, -1, -1)
    return F.conv2d(x, weight, stride=down, groups=c)


def downsample2(x: Tensor, taps: Sequence[int] = BLUR_TAPS) -> Tensor:
    """Halves height and width with the [1, 3, 3, 1] low-pass, zeros outside. [N, C, H, W], H and W even."""
    return upfirdn2d(x, fir_kernel(taps).to(x), down=2, pad=(1, 1))


class Blur(nn.Module):
    """FIR low-pass at full rate, with the padding that its neighbour convolution needs."""

    kernel: Tensor

    def __init__(self, taps: Sequence[int], pad: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(taps, gain))
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.kernel, pad=self.pad)


class Upsample(nn.Module):
    """Doubles height and width; the gain of 4 makes up for the inserted zeros. Outside the picture is zero."""

    kernel: Tensor

    def __init__(self, taps: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(taps, gain=4.0))

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.kernel, up=2, pad=(2, 1))  # [N, C, H, W] -> [N, C, 2H, 2W]


class AdaptiveInstanceNorm(nn.Module):
    """gamma * instance_norm(x) + beta with [gamma | beta] = Linear(style); statistics per sample and channel."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.style = nn.Linear(style_dim, 2 * channels)
        with torch.no_grad():
            self.style.bias[:channels] = 1.0
            self.style.bias[channels:] = 0.0

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x [N, C, h, w], style [N or 1, style_dim] -> [N, C, h, w]."""
        gamma, beta = self.style(style)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = gamma * F.instance_norm(x, eps=1e-5) + beta
        return out
