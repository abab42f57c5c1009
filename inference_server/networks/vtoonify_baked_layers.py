"""The parts of a baked VToonify: norms with constants, packed convolutions, encoder, fusion.

Decides how a frame is worked through between the decoder's blocks. Maps are [N, h, w, C]; convolutions run in the
precision of the bake, instance statistics (of the whole frame, in two passes), masks and pictures in float32.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.banded import (
    adaptive_norm,
    affine_of,
    bands,
    combined_statistics,
    convolve,
    gather_taps,
    moments,
    rows_with_halo,
    tap_weights,
)
from inference_server.networks.dualstylegan import ModRes
from inference_server.networks.stylegan_layers import LEAK, AdaptiveInstanceNorm, FusedLeakyReLU
from inference_server.networks.vtoonify import EncoderResBlock, Fusion, VToonify


class BakedNorm(nn.Module):
    """AdaIN's gamma and beta for one code [1, D]: float32 [C] each."""

    gamma: Tensor
    beta: Tensor

    def __init__(self, norm: AdaptiveInstanceNorm, code: Tensor) -> None:
        super().__init__()
        for name, value in zip(("gamma", "beta"), norm.style(code)[0].chunk(2), strict=True):
            self.register_buffer(name, value.clone())

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_norm(x, self.gamma, self.beta)


class BakedConv(nn.Module):
    """A convolution of channels-last maps, with leaky ReLU unless `linear`; `gain` scales its result, bias included."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: int = 1, dilation: int = 1,
        gain: float = 1.0, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        packed = (weight * gain).to(dtype).clone(memory_format=torch.channels_last)
        self.register_buffer("weight", packed)
        self.register_buffer("bias", (bias * gain).to(dtype))
        self.stride, self.dilation, self.linear = stride, dilation, linear
        self.padding = dilation * (weight.shape[-1] // 2)

    @classmethod
    def of(cls, conv: nn.Module, dtype: torch.dtype, gain: float = 1.0, linear: bool = False) -> BakedConv:
        """From torch's own convolution."""
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"expected a Conv2d, got {type(conv).__name__}")
        return cls(conv.weight, conv.bias, dtype, conv.stride[0], conv.dilation[0], gain, linear)

    @classmethod
    def of_styled(cls, layer: nn.Sequential, dtype: torch.dtype) -> BakedConv:
        """From a ModRes layer: equalised convolution, bias, leaky ReLU and its gain of sqrt(2)."""
        conv, activation = layer
        weight = cast(Tensor, conv.weight) * cast(float, conv.scale)
        bias = cast(FusedLeakyReLU, activation).bias
        return cls(weight, bias, dtype, dilation=cast(int, conv.dilation), gain=math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        y = convolve(x, self.weight, self.bias, self.padding, self.stride, self.dilation)
        return y if self.linear else F.leaky_relu_(y, LEAK)


class BakedEncoder(nn.Module):
    """The encoder's kernels; neither style nor degree is in here."""

    def __init__(self, network: VToonify, dtype: torch.dtype) -> None:
        super().__init__()
        *stages, blocks, to_rgb = network.encoder
        self.stages = nn.ModuleList(
            nn.ModuleList(BakedConv.of(layer, dtype) for layer in stage.children() if isinstance(layer, nn.Conv2d))
            for stage in stages
        )
        self.widths = [cast(Tensor, cast(nn.ModuleList, stage)[-1].bias).shape[0] for stage in self.stages]
        self.plain = nn.ModuleList()  # two convolutions of every residual block
        self.structure = nn.ModuleList()  # and of the ModRes block after it (D)
        for i, block in enumerate(blocks.children(), start=1):
            block = cast(EncoderResBlock, block)
            second = BakedConv.of(block.conv2, dtype, gain=1 / math.sqrt(2))
            self.plain.append(nn.ModuleList([BakedConv.of(block.conv, dtype), second]))
            if network.backbone == "dualstylegan":
                res = cast(ModRes, network.res[i])
                self.structure.append(nn.ModuleList(BakedConv.of_styled(c, dtype) for c in (res.conv, res.conv2)))
        self.to_rgb = BakedConv.of(to_rgb, dtype, linear=True)

    def forward(self, x: Tensor, norms: nn.ModuleList, degree: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """x [N, H, W, 22] -> features to fuse, coarsest first, the last feature and its picture (float32).

        norms: two for every structure block. degree: [1] float32, None bypasses those blocks.
        """
        features: list[Tensor] = []
        # One block for what outlives this function: between the short-lived maps of a heap it would leave holes.
        n, h, w, _ = x.shape
        sizes = [n * (h >> i) * (w >> i) * width for i, width in enumerate(self.widths)]
        places = torch.split(x.new_empty(sum(sizes)), sizes)
        for i, (stage, place) in enumerate(zip(self.stages, places, strict=True)):
            for conv in cast(nn.ModuleList, stage):
                x = conv(x)
            features.append(place.view(n, h >> i, w >> i, self.widths[i]).copy_(x))
        for i, plain in enumerate(self.plain):
            first, second = cast(nn.ModuleList, plain)
            x = second(first(x)).add_(x, alpha=1 / math.sqrt(2))
            if self.structure and degree is not None:
                first, second = cast(nn.ModuleList, self.structure[i])
                y = second(norms[2 * i + 1](first(norms[2 * i](x))))
                x = torch.addcmul(x.float(), y.float(), degree).to(x.dtype)
        return features[::-1], x, self.to_rgb(x).float()


class BakedFusion(nn.Module):
    """Fusion of generator and encoder features and of the picture so far; its norm comes as an argument."""

    mask_weight: Tensor  # [9, 2C]
    mask_bias: Tensor
    skip_weight: Tensor  # [27, C] for the feature
    skip_rgb_weight: Tensor  # [27, 3] for the picture, float32
    skip_bias: Tensor

    def __init__(self, fusion: nn.Module, skip: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = BakedConv.of(fusion.conv if isinstance(fusion, Fusion) else fusion, dtype, linear=True)
        self.conv.padding = 0  # rows come with their halo
        weight, bias = cast(nn.Conv2d, skip).weight, cast(nn.Conv2d, skip).bias
        assert bias is not None
        self.register_buffer("skip_rgb_weight", tap_weights(weight[:, :3]).float())
        self.register_buffer("skip_weight", tap_weights(weight[:, 3:]).to(dtype))
        self.register_buffer("skip_bias", bias.detach().clone())
        if isinstance(fusion, Fusion):
            assert fusion.conv2.bias is not None
            self.register_buffer("mask_weight", tap_weights(fusion.conv2.weight).to(dtype))
            self.register_buffer("mask_bias", fusion.conv2.bias.detach().clone())

    def forward(self, g: Tensor, e: Tensor, rgb: Tensor, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Generated g and encoded e [N, h, w, C], picture [N, h, w, 3] -> fused feature and picture.

        Both g, which is returned, and e are overwritten.
        """
        if norm is not None:
            self._apply_mask(g, e, cast(BakedNorm, norm))
        n, _, w, c = g.shape
        taps = F.linear(rgb, self.skip_rgb_weight)  # [N, h, w, 27]
        above = g.new_zeros(n, 1, w, c)  # the row before the band, as it was before the result took its place
        for first, end in bands(g, 2 * w * c, self.conv.weight.numel()):
            both = torch.cat([rows_with_halo(g, first, end), rows_with_halo(e, first, end)], dim=-1)
            both[:, :1, :, :c] = above
            above = g[:, end - 1 : end].clone()
            g[:, first:end] = convolve(both, self.conv.weight, self.conv.bias, (0, 1))
            taps[:, first:end] += F.linear(e[:, first:end], self.skip_weight)
        return g, gather_taps(taps) + self.skip_bias

    def _apply_mask(self, g: Tensor, e: Tensor, norm: BakedNorm) -> None:
        """e *= mask. The norm looks at the whole frame, so the features are walked through twice."""
        n, h, w, c = g.shape
        parts = []
        for first, end in bands(g, 2 * w * c):
            pair = [moments(v) for v in self._pair(g, e, first, end)]
            mean, variance = (torch.cat(v, dim=-1) for v in zip(*pair, strict=True))
            parts.append((end - first, mean, variance))
        scale, shift = affine_of(*combined_statistics(parts), norm.gamma, norm.beta)
        scales, shifts = scale.chunk(2, dim=-1), shift.chunk(2, dim=-1)
        weights = self.mask_weight.chunk(2, dim=1)
        taps = torch.zeros(n, h, w, 9, dtype=torch.float32, device=g.device)
        for first, end in bands(g, 2 * w * c):
            for v, a, b, weight in zip(self._pair(g, e, first, end), scales, shifts, weights, strict=True):
                taps[:, first:end] += F.linear(torch.addcmul(b, v.float(), a).to(g.dtype), weight)
        mask = torch.tanh(F.relu(gather_taps(taps) + self.mask_bias)).to(e.dtype)  # [N, h, w, 1]
        e.mul_(mask)

    @staticmethod
    def _pair(g: Tensor, e: Tensor, first: int, end: int) -> tuple[Tensor, Tensor]:
        """What the mask looks at: the generated feature and its distance from the encoded one."""
        generated = g[:, first:end]
        return generated, (generated - e[:, first:end]).abs_()
