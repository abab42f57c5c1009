"""StyleGAN2 generator and discriminator (arXiv 1912.04958), config-f and any other size.

Entry names, shapes and the meaning of stored weights are those of the published checkpoints in the
`g_ema` / `d` format that pSp, e4e, DualStyleGAN and VToonify share (171 entries at 1024 px). Noise is never
drawn inside: it is an argument. Every sample is computed from itself alone; only the discriminator's
mini-batch statistic looks across a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.stylegan_layers import (
    BLUR_TAPS,
    Blur,
    EqualConv2d,
    EqualLinear,
    FusedLeakyReLU,
    PixelNorm,
    Upsample,
)
from inference_server.networks.tensors import ShapeError, check_shape


def channels_at(resolution: int, channel_multiplier: int = 2, channel_max: int = 512) -> int:
    """Feature channels at a resolution: 512 up to 32 px, then 16384 * multiplier / resolution."""
    return min(channel_max, 512 if resolution <= 32 else 16384 * channel_multiplier // resolution)


def log2_size(size: int) -> int:
    """log2 of a picture size; ValueError unless it is a power of two from 8 up."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"size {size} is not a power of two from 8 up")
    return size.bit_length() - 1


class ModulatedConv2d(nn.Module):
    """Weight-demodulated convolution (paper, eqs. 1 and 3), optionally with 2x up-sampling.

    The style scales the input channels; demodulation brings every output channel back to unit gain.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style_dim: int,
        demodulate: bool = True,
        upsample: bool = False,
        taps: Sequence[int] = BLUR_TAPS,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_channels, in_channels, kernel, kernel))
        self.modulation = EqualLinear(style_dim, in_channels, bias=1.0)
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.demodulate = demodulate
        self.upsample = upsample
        self.padding = kernel // 2
        if upsample:
            # The transposed convolution leaves 2H + 1 rows; the filter has to bring that to 2H.
            p = (len(taps) - 2) - (kernel - 1)
            self.blur = Blur(taps, pad=((p + 1) // 2 + 1, p // 2 + 1), gain=4.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N or 1, style_dim] -> [N, O, H, W], or [N, O, 2H, 2W] with up-sampling."""
        s = self.modulation(w)  # [N or 1, I]
        weight = self.weight[0] * self.scale  # [O, I, k, k]
        if s.shape[0] == 1:  # one code for the whole batch: everything goes into one plain kernel
            weight = weight * s[:, :, None, None]
            if self.demodulate:
                weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8)
            return self._convolve(x, weight)
        y = self._convolve(x * s[:, :, None, None], weight)
        if self.demodulate:
            energy = s.square() @ weight.square().sum((2, 3)).t()  # [N, O]
            y = y * torch.rsqrt(energy + 1e-8)[:, :, None, None]
        return y

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.upsample:
            return F.conv2d(x, weight, padding=self.padding)
        blurred: Tensor = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return blurred


class NoiseInjection(nn.Module):
    """Adds noise scaled by one learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * noise  # [N, C, h, w] + [N or 1, 1, h, w]


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        upsample: bool = False,
        taps: Sequence[int] = BLUR_TAPS,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_dim, upsample=upsample, taps=taps)
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(out_channels)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [N, I, h, w], w [N or 1, style_dim], noise [N or 1, 1, h', w'] or None -> [N, O, h', w']."""
        y = self.conv(x, w)
        if noise is not None:
            y = self.noise(y, noise)
        out: Tensor = self.activate(y)
        return out


class ToRGB(nn.Module):
    """1x1 modulated convolution to RGB, added to the enlarged picture of the resolution below."""

    def __init__(
        self, in_channels: int, style_dim: int, upsample: bool = True, taps: Sequence[int] = BLUR_TAPS
    ) -> None:
        super().__init__()
        if upsample:
            self.upsample = Upsample(taps)
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, rgb: Tensor | None = None) -> Tensor:
        """x [N, C, h, w], w [N or 1, style_dim], rgb [N, 3, h/2, w/2] or None -> [N, 3, h, w]."""
        y: Tensor = self.conv(x, w) + self.bias
        return y if rgb is None else y + self.upsample(rgb)


class ConstantInput(nn.Module):
    """The learnt 4x4 start of the synthesis network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return self.input.expand(batch, -1, -1, -1)  # [N, C, 4, 4]


def mapping_network(style_dim: int, depth: int, lr: float = 0.01) -> nn.Sequential:
    """z to w: pixel norm, then `depth` fully connected layers, on the last axis of [..., style_dim]."""
    layers = [EqualLinear(style_dim, style_dim, lr=lr, activate=True) for _ in range(depth)]
    return nn.Sequential(PixelNorm(), *layers)


class Generator(nn.Module):
    """The StyleGAN2 generator. Codes are Z [N, D] or Z+ [N, L, D] and W or W+ alike, D = style_dim,
    L = n_latent = 2 log2(size) - 2 (18 at 1024 px); pictures are [N, 3, size, size], nominally [-1, 1], not
    clamped.

    Tiny configurations lower `style_dim`, `channel_max` and `size`; the defaults are the published config-f.
    """

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        n_mlp: int = 8,
        channel_multiplier: int = 2,
        blur_kernel: Sequence[int] = BLUR_TAPS,
        lr_mlp: float = 0.01,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        self.size, self.style_dim = size, style_dim
        self.log_size = log2_size(size)
        self.n_latent = 2 * self.log_size - 2
        self.num_layers = 2 * (self.log_size - 2) + 1

        self.style = mapping_network(style_dim, n_mlp, lr_mlp)
        c = channels_at(4, channel_multiplier, channel_max)
        self.input = ConstantInput(c)
        self.conv1 = StyledConv(c, c, style_dim, taps=blur_kernel)
        self.to_rgb1 = ToRGB(c, style_dim, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for i in range(3, self.log_size + 1):
            o = channels_at(2**i, channel_multiplier, channel_max)
            self.convs.append(StyledConv(c, o, style_dim, upsample=True, taps=blur_kernel))
            self.convs.append(StyledConv(o, o, style_dim, taps=blur_kernel))
            self.to_rgbs.append(ToRGB(o, style_dim, taps=blur_kernel))
            c = o
        self.noises = nn.Module()
        for k, side in enumerate(self.noise_sizes()):
            self.noises.register_buffer(f"noise_{k}", torch.randn(1, 1, side, side))

    def noise_sizes(self) -> list[int]:
        """Side of each layer's noise map: 4, 8, 8, 16, 16, ..."""
        return [2 ** ((k + 5) // 2) for k in range(self.num_layers)]

    def stored_noise(self) -> list[Tensor]:
        """The checkpoint's own noise maps, each [1, 1, h, h]: the same picture for the same code."""
        return [self.noises.get_buffer(f"noise_{k}") for k in range(self.num_layers)]

    def random_noise(self, batch: int, rng: torch.Generator) -> list[Tensor]:
        """Fresh noise maps, each [batch, 1, h, h], from the given source of chance (on its own device)."""
        like = self.input.input
        return [
            torch.randn(batch, 1, side, side, generator=rng, device=rng.device).to(like) for side in self.noise_sizes()
        ]

    def mapping(self, z: Tensor) -> Tensor:
        """Z [N, D] -> W [N, D]; Z+ [N, L, D] -> W+ [N, L, D], row by row."""
        if z.ndim not in (2, 3) or z.shape[-1] != self.style_dim:
            raise ShapeError(
                f"z: expected shape [N, {self.style_dim}] or [N, L, {self.style_dim}], got {list(z.shape)}"
            )
        w: Tensor = self.style(z)
        return w

    def expand(self, w: Tensor) -> Tensor:
        """W [N, D] -> W+ [N, n_latent, D]; W+ is returned as it is."""
        if w.ndim == 2:
            check_shape("w", w, "N", self.style_dim)
            return w[:, None].expand(-1, self.n_latent, -1)
        check_shape("w", w, "N", self.n_latent, self.style_dim)
        return w

    def check_noise(self, noise: Sequence[Tensor] | None, batch: int) -> Sequence[Tensor | None]:
        """One noise map (or None) per layer; ShapeError names the layer that does not fit."""
        if noise is None:
            return [None] * self.num_layers
        if len(noise) != self.num_layers:
            raise ShapeError(f"noise: expected {self.num_layers} maps, got {len(noise)}")
        for k, (m, side) in enumerate(zip(noise, self.noise_sizes(), strict=True)):
            if tuple(m.shape) not in ((1, 1, side, side), (batch, 1, side, side)):
                raise ShapeError(f"noise[{k}]: expected shape [1 or {batch}, 1, {side}, {side}], got {list(m.shape)}")
        return noise

    def features(self, w: Tensor, noise: Sequence[Tensor] | None, resolution: int) -> tuple[Tensor, Tensor]:
        """Stops after the block at `resolution`: its feature [N, C, r, r] and picture [N, 3, r, r].

        w is W [N, D] or W+ [N, L, D]; `noise` None leaves it out.
        """
        w = self.expand(w)
        n = w.shape[0]
        maps = self.check_noise(noise, n)
        out: Tensor = self.conv1(self.input(n), w[:, 0], maps[0])  # [N, C, 4, 4]
        rgb: Tensor = self.to_rgb1(out, w[:, 1])
        for b in range(log2_size(resolution) - 2):
            out = self.convs[2 * b](out, w[:, 2 * b + 1], maps[2 * b + 1])  # [N, C, 2h, 2w]
            out = self.convs[2 * b + 1](out, w[:, 2 * b + 2], maps[2 * b + 2])
            rgb = self.to_rgbs[b](out, w[:, 2 * b + 3], rgb)  # shares its code with the next block's first layer
        return out, rgb

    def synthesis(self, w: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """W [N, D] or W+ [N, L, D] -> picture [N, 3, size, size]. `noise` None leaves it out."""
        return self.features(w, noise, self.size)[1]

    def forward(self, z: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """Z [N, D] or Z+ [N, L, D] -> picture [N, 3, size, size]: mapping, then synthesis."""
        return self.synthesis(self.mapping(z), noise)


def truncate(w: Tensor, psi: float, centre: Tensor | None = None) -> Tensor:
    """The truncation trick: centre + psi * (w - centre), shapes broadcast; no centre means zero."""
    return w * psi if centre is None else centre + psi * (w - centre)


def mix(first: Tensor, second: Tensor, crossover: int) -> Tensor:
    """Style mixing of two W+ codes [N, L, D]: rows before `crossover` from the first, the rest from the second."""
    check_shape("second", second, *first.shape)
    return torch.cat([first[:, :crossover], second[:, crossover:]], dim=1)


def conv_layer(in_channels: int, out_channels: int, kernel: int, downsample: bool = False) -> list[nn.Module]:
    """[blur,] equalised convolution: the discriminator halves with a low-pass and a stride."""
    if not downsample:
        return [EqualConv2d(in_channels, out_channels, kernel, padding=kernel // 2)]
    p = (len(BLUR_TAPS) - 2) + (kernel - 1)
    blur = Blur(BLUR_TAPS, pad=((p + 1) // 2, p // 2))
    return [blur, EqualConv2d(in_channels, out_channels, kernel, stride=2)]


class ResBlock(nn.Module):
    """Two convolutions beside a 1x1 skip, both halving height and width; the sum divided by sqrt(2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_layer(in_channels, in_channels, 3), FusedLeakyReLU(in_channels))
        self.conv2 = nn.Sequential(
            *conv_layer(in_channels, out_channels, 3, downsample=True), FusedLeakyReLU(out_channels)
        )
        self.skip = nn.Sequential(*conv_layer(in_channels, out_channels, 1, downsample=True))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)
        return y  # [N, I, h, w] -> [N, O, h/2, w/2]


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Appends one channel: the mean standard deviation over groups of samples. [N, C, h, w] -> [N, C + 1, h, w].

    A group is min(N, `group`) samples that lie N / group apart; N has to be a multiple of it.
    """
    n, c, h, w = x.shape
    g = min(n, group)
    if n % g:
        raise ShapeError(f"batch: expected shape [N, {c}, {h}, {w}] with N a multiple of {g}, got {list(x.shape)}")
    y = x.view(g, n // g, c, h, w)
    std = torch.sqrt(y.var(dim=0, unbiased=False) + 1e-8).mean((1, 2, 3))  # [n/g]
    return torch.cat([x, std.repeat(g)[:, None, None, None].expand(-1, 1, h, w)], dim=1)


class Discriminator(nn.Module):
    """The StyleGAN2 residual discriminator: [N, 3, size, size] -> [N, out_dim] scores (out_dim 1 as published).

    Needs a batch that the mini-batch statistic can group (see `minibatch_stddev`).
    """

    def __init__(self, size: int, channel_multiplier: int = 2, channel_max: int = 512, out_dim: int = 1) -> None:
        super().__init__()
        self.size = size
        c = channels_at(size, channel_multiplier, channel_max)
        blocks: list[nn.Module] = [nn.Sequential(*conv_layer(3, c, 1), FusedLeakyReLU(c))]
        for i in range(log2_size(size), 2, -1):
            o = channels_at(2 ** (i - 1), channel_multiplier, channel_max)
            blocks.append(ResBlock(c, o))
            c = o
        self.convs = nn.Sequential(*blocks)
        self.final_conv = nn.Sequential(*conv_layer(c + 1, c, 3), FusedLeakyReLU(c))
        self.final_linear = nn.Sequential(
            EqualLinear(c * 16, c, activate=True),
            EqualLinear(c, out_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_shape("picture", x, "N", 3, self.size, self.size)
        y = self.final_conv(minibatch_stddev(self.convs(x)))  # [N, C, 4, 4]
        score: Tensor = self.final_linear(y.flatten(1))
        return score
