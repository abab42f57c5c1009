"""DualStyleGAN (arXiv 2203.13248): StyleGAN2 with a second, extrinsic style path.

An exemplar's code changes structure through modulative residual blocks (ModRes) after the coarse layers, and
colour by mixing codes at the fine ones. The intrinsic path alone (all weights 0) is the inner StyleGAN2. Entry
names and shapes are those of the published checkpoints (253 entries at 1024 px).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference_server.networks.stylegan2 import Generator, channels_at, log2_size, mapping_network
from inference_server.networks.stylegan_layers import (
    AdaptiveInstanceNorm,
    EqualConv2d,
    EqualLinear,
    FusedLeakyReLU,
)


class ModRes(nn.Module):
    """Modulative residual block: x + weight * f(x, structure code) (paper, figure 4).

    Starts near the identity. In VToonify's encoder the convolutions are dilated, so that a block made for a 4 px
    feature sees as far, relatively, in a larger one.
    """

    def __init__(self, channels: int, style_dim: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = self._layer(channels, dilation)
        self.conv2 = self._layer(channels, dilation)
        self.norm = AdaptiveInstanceNorm(channels, style_dim)
        self.norm2 = AdaptiveInstanceNorm(channels, style_dim)

    @staticmethod
    def _layer(channels: int, dilation: int) -> nn.Sequential:
        conv = EqualConv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        with torch.no_grad():
            conv.weight.mul_(0.01)
        return nn.Sequential(conv, FusedLeakyReLU(channels))

    def forward(self, x: Tensor, code: Tensor, weight: float | Tensor = 1.0) -> Tensor:
        """x [N, C, h, w], code [N or 1, style_dim], weight a number or [N, 1, 1, 1] -> [N, C, h, w].

        The number 0 skips the block, as the published network does.
        """
        if isinstance(weight, (int, float)) and weight == 0:
            return x
        y: Tensor = self.conv(self.norm(x, code))
        y = self.conv2(self.norm2(y, code))
        return x + weight * y


class DualStyleGAN(nn.Module):
    """StyleGAN2 with an extrinsic style path. L = n_latent codes of D = style_dim numbers.

    Layers 0..res_index (4 to 32 px) get a ModRes block each, layers above it a colour transform. Depth of the
    structure transform is n_mlp - 6 (2 in the published networks). `size` is at least 32.
    """

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        n_mlp: int = 8,
        channel_multiplier: int = 2,
        res_index: int = 6,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        self.generator = Generator(size, style_dim, n_mlp, channel_multiplier, channel_max=channel_max)
        self.n_latent = self.generator.n_latent
        if not 0 <= res_index < self.n_latent - 1:
            raise ValueError(f"res_index {res_index} does not fit a {size} px network of {self.n_latent} codes")
        if n_mlp <= 6:
            raise ValueError(f"n_mlp is {n_mlp}; the structure transform has n_mlp - 6 layers, so at least 7")
        self.res_index = res_index
        self.style = mapping_network(style_dim, n_mlp - 6)
        self.res = nn.ModuleList()
        for i in range(self.n_latent):
            if i <= res_index:
                channels = channels_at(2 ** ((i + 5) // 2), channel_multiplier, channel_max)
                self.res.append(ModRes(channels, style_dim))
            else:
                self.res.append(self._colour_transform(style_dim))

    @staticmethod
    def _colour_transform(style_dim: int) -> EqualLinear:
        """A linear layer that starts as the identity, after its run-time scaling."""
        layer = EqualLinear(style_dim, style_dim)
        with torch.no_grad():
            layer.weight.mul_(0.01).add_(math.sqrt(style_dim) * torch.eye(style_dim))
        return layer

    def mapping(self, z: Tensor) -> Tensor:
        """Z or Z+ to W or W+ with the inner network's mapping; the extrinsic codes go through it too."""
        return self.generator.mapping(z)

    def structure_codes(self, extrinsic: Tensor) -> Tensor:
        """W+ [N, L, D] -> the codes of the ModRes blocks [N, L, D]; rows above res_index are not used."""
        codes: Tensor = self.style(extrinsic)
        return codes

    def colour_codes(self, extrinsic: Tensor) -> Tensor:
        """W+ [N, L, D] -> transformed rows res_index + 1 .. L - 1, [N, L - res_index - 1, D]."""
        first = self.res_index + 1
        return torch.stack([self.res[i](extrinsic[:, i]) for i in range(first, self.n_latent)], dim=1)

    def features(
        self,
        intrinsic: Tensor,
        extrinsic: Tensor,
        weights: Sequence[float] | None,
        noise: Sequence[Tensor] | None,
        resolution: int,
    ) -> tuple[Tensor, Tensor]:
        """Stops after the block at `resolution`: its feature [N, C, r, r] and picture [N, 3, r, r].

        Arguments as in `forward`. At 32 px this is what VToonify's encoder is trained to imitate.
        """
        g = self.generator
        w, e = g.expand(intrinsic), g.expand(extrinsic)
        a = [1.0] * self.n_latent if weights is None else [float(v) for v in weights]
        if len(a) != self.n_latent:
            raise ValueError(f"weights has {len(a)} numbers, expected {self.n_latent}")
        structure = self.structure_codes(e)
        first = self.res_index + 1
        mixing = w.new_tensor(a[first:])[:, None]  # [L - first, 1]
        code = torch.cat([w[:, :first], mixing * self.colour_codes(e) + (1 - mixing) * w[:, first:]], dim=1)
        maps = g.check_noise(noise, w.shape[0])

        def restyle(x: Tensor, i: int) -> Tensor:
            """The ModRes block of layer i, where there is one."""
            if i > self.res_index:
                return x
            y: Tensor = self.res[i](x, structure[:, i], a[i])
            return y

        out = restyle(g.conv1(g.input(w.shape[0]), code[:, 0], maps[0]), 0)  # [N, C, 4, 4]
        rgb: Tensor = g.to_rgb1(out, code[:, 1])
        for b in range(log2_size(resolution) - 2):
            for i in (2 * b + 1, 2 * b + 2):
                out = restyle(g.convs[i - 1](out, code[:, i], maps[i]), i)
            rgb = g.to_rgbs[b](out, code[:, 2 * b + 3], rgb)
        return out, rgb

    def forward(
        self,
        intrinsic: Tensor,
        extrinsic: Tensor,
        weights: Sequence[float] | None = None,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """W [N, D] or W+ [N, L, D] of content and of style -> picture [N, 3, size, size], not clamped.

        `weights` holds one number per layer (default all 1): the first res_index + 1 scale ModRes blocks (0 skips one),
        the others mix the transformed extrinsic code with the intrinsic one. Truncation is the caller's, of the
        intrinsic code only (`stylegan2.truncate`). `noise` as in StyleGAN2; None leaves it out.
        """
        return self.features(intrinsic, extrinsic, weights, noise, self.generator.size)[1]
