"""A StyleGAN2 block for one style: up-sampling layer, layer and toRGB as plain convolutions, run in bands.

Decides the order of computation. Modulation and demodulation go into the weights once (float32, then cast), the
gain of sqrt(2) as well (leaky ReLU passes it through), noise is left out. The transposed convolution is split into the
four phases of its output, convolutions of 2x2, 2x1, 1x2 and 1x1 taps with the same number of products, and
[1, 3, 3, 1] is applied to the phases while they are in cache. One fused 6x6 kernel would need four times the products.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.banded import bands, convolve, rows_with_halo
from inference_server.networks.stylegan2 import ModulatedConv2d, StyledConv, ToRGB
from inference_server.networks.stylegan_layers import BLUR_TAPS, LEAK, fir_kernel

CL = torch.channels_last


def plain_weight(conv: ModulatedConv2d, code: Tensor) -> Tensor:
    """A modulated convolution's kernel for one code [1, style_dim]: [O, I, k, k] float32."""
    weight: Tensor = conv.weight[0] * conv.scale * conv.modulation(code)[0][:, None, None]
    if conv.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8)
    return weight


def filter_phases(p0: Tensor, p1: Tensor, dim: int, outs: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """[1, 3, 3, 1] along `dim` of a map given as its even samples p0 [n + 1] (0..n) and odd ones p1 [n + 2] (-1..n).

    Returns even and odd samples of the result, n each; into `outs` where given.
    """
    n = p0.shape[dim] - 1
    even0, even1 = p0.narrow(dim, 0, n), p0.narrow(dim, 1, n)
    odd0, odd1, odd2 = (p1.narrow(dim, k, n) for k in range(3))
    if outs is None:
        return (odd0 + even1).add_(even0 + odd1, alpha=3), (even0 + odd2).add_(odd1 + even1, alpha=3)
    torch.add(odd0 + even1, even0 + odd1, alpha=3, out=outs[0])
    torch.add(even0 + odd2, odd1 + even1, alpha=3, out=outs[1])
    return outs


def enlarge(rgb: Tensor) -> Tensor:
    """2x with [1, 3, 3, 1], zeros outside the picture: [N, h, w, 3] -> [N, 2h, 2w, 3]."""
    for dim in (1, 2):
        n = rgb.shape[dim]
        pair = (rgb * 0.75).unsqueeze(dim + 1).repeat_interleave(2, dim + 1)  # [N, h, 2, w, 3] or [N, 2h, w, 2, 3]
        even, odd = pair.unbind(dim + 1)
        even.narrow(dim, 1, n - 1).add_(rgb.narrow(dim, 0, n - 1), alpha=0.25)
        odd.narrow(dim, 0, n - 1).add_(rgb.narrow(dim, 1, n - 1), alpha=0.25)
        rgb = pair.flatten(dim, dim + 1)
    return rgb


class BakedBlock(nn.Module):
    """One resolution of the decoder. Buffers are plain weights; see `forward`."""

    phase00: Tensor  # [O, I, 2, 2]; the others have one tap where the phase is odd
    phase01: Tensor
    phase10: Tensor
    phase11: Tensor
    phase_bias: Tensor
    weight: Tensor  # [O, O, 3, 3]
    bias: Tensor
    rgb_weight: Tensor  # [3, O]
    rgb_bias: Tensor

    def __init__(self, up: StyledConv, conv: StyledConv, rgb: ToRGB, codes: list[Tensor], dtype: torch.dtype) -> None:
        """`codes`: one [1, style_dim] for each of the three layers. ValueError for another filter than [1, 3, 3, 1]."""
        super().__init__()
        if not torch.equal(up.conv.blur.kernel, fir_kernel(BLUR_TAPS, 4.0).to(up.conv.blur.kernel)):
            raise ValueError(f"only the filter {list(BLUR_TAPS)} is baked, got {up.conv.blur.kernel.tolist()}")
        gain = math.sqrt(2)
        w = plain_weight(up.conv, codes[0]) * (gain / 16)  # 1/16: `filter_phases` has integer taps
        for name, rows, columns in (("00", [2, 0], [2, 0]), ("01", [2, 0], [1]), ("10", [1], [2, 0]), ("11", [1], [1])):
            self.register_buffer(f"phase{name}", w[:, :, rows][:, :, :, columns].to(dtype, memory_format=CL))
        # A phase has a value wherever the filter reads one, so its bias arrives at every sample, 64-fold.
        self.register_buffer("phase_bias", (up.activate.bias * (gain / 64)).to(dtype))
        self.register_buffer("weight", (plain_weight(conv.conv, codes[1]) * gain).to(dtype, memory_format=CL))
        self.register_buffer("bias", (conv.activate.bias * gain).to(dtype))
        self.register_buffer("rgb_weight", plain_weight(rgb.conv, codes[2])[:, :, 0, 0].contiguous().to(dtype))
        self.register_buffer("rgb_bias", rgb.bias.detach().flatten().clone())

    def forward(self, x: Tensor, rgb: Tensor, keep: bool = True) -> tuple[Tensor, Tensor]:
        """x [N, h, w, I], rgb [N, h, w, 3] float32 -> features [N, 2h, 2w, O] and picture [N, 2h, 2w, 3] float32.

        Without `keep` (the last block) the features are never all there, and an empty tensor is returned for them.
        """
        n, h, w, _ = x.shape
        o = self.bias.shape[0]
        picture = enlarge(rgb).add_(self.rgb_bias)
        out = x.new_empty(n, 2 * h, 2 * w, o) if keep else x.new_empty(0)
        carry = x.new_zeros(n, 1, 2 * w, o)  # the row above the frame; later the two rows that end the band before
        for first, end in bands(x, 4 * w * o, self.weight.numel()):
            c, last = carry.shape[1], int(end == h)
            buffer = x.new_empty(n, c + 2 * (end - first) + last, 2 * w, o)
            buffer[:, :c] = carry
            self._enlarged(rows_with_halo(x, first, end), buffer[:, c : c + 2 * (end - first)])
            if last:
                buffer[:, -1] = 0
            carry = buffer[:, -2:].clone()
            y = F.leaky_relu_(convolve(buffer, self.weight, self.bias, (0, 1)), LEAK)
            start = 2 * first - c + 1  # 0, then one row before the band: its lower neighbour is known only now
            rows = slice(start, start + y.shape[1])
            picture[:, rows] += F.linear(y, self.rgb_weight)
            if keep:
                out[:, rows] = y
        return out, picture

    def _enlarged(self, x: Tensor, out: Tensor) -> None:
        """The up-sampling layer on rows with a halo of one: [N, r + 2, w, I] -> out [N, 2r, 2w, O]."""
        columns = []
        for even, odd in ((self.phase00, self.phase10), (self.phase01, self.phase11)):
            p0 = convolve(x, even, self.phase_bias, (0, 1))
            p1 = convolve(x, odd, self.phase_bias, (0, 1))
            columns.append(filter_phases(p0, p1, dim=1))
        for row in range(2):
            outs = (out[:, row::2, 0::2], out[:, row::2, 1::2])
            filter_phases(columns[0][row], columns[1][row], 2, outs)
        F.leaky_relu_(out, LEAK)
