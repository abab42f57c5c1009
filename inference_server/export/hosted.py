"""The translator as a host's node has it: one tensor in, one out, in the host's values, with live controls.

This module imports torch and the network alone: it is also run by an older torch that suits the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference_server.networks.two_stage import Translator, folded


class HostedTranslator(nn.Module):
    """[N, 3 or more, H, W] -> [N, 3, H, W], both in the host's values, any height and width, half or float.

    The first three channels are R, G and B. Attributes are live controls:

    strength  0 is the input, 1 the stylised picture
    exposure  stops by which scene-linear input is brightened for the network and darkened after it
    style     which row of `mixes` is drawn, counted from 0; between two rows their weights are mixed
    linear    1: scene-linear Rec.709/sRGB primaries, unbounded, as Nuke works; 0: display-encoded sRGB, 0..1

    mixes [M, K] are weights of the translator's K styles. They go beside the picture as planes, as in the network
    itself: as a bias of the first convolution they would be wrong along the picture's edge, where it pads with zero.

    What the network cannot see (above 1, below 0) is carried around it: out = scene(y) + (x - scene(clip(x))).
    """

    # No annotations here: older torch cannot script a class whose annotations are text.
    def __init__(
        self, translator: Translator, linear: bool = True, mixes: Sequence[Sequence[float]] = ((1.0,),)
    ) -> None:
        super().__init__()
        self.net = folded(translator).net
        self.strength = 1.0
        self.exposure = 0.0
        self.style = 0.0
        self.register_buffer("mixes", torch.tensor(mixes))
        self.linear = 1 if linear else 0

    def forward(self, x: Tensor) -> Tensor:
        source = x[:, 0:3].float()
        gain = 2.0**self.exposure if self.linear > 0 else 1.0
        scene = source * gain
        picture = scene.clamp(0.0, 1.0)
        if self.linear > 0:
            picture = encode(picture)
        seen = (picture * 2.0 - 1.0).to(self.net.last.weight.dtype)
        mixes = self.mixes
        assert isinstance(mixes, Tensor)
        if mixes.shape[1] > 1:
            seen = torch.cat([seen, planes(seen, mixes, self.style)], dim=1)
        drawn = (torch.tanh(self.net(seen)).float() * 0.5 + 0.5).clamp(0.0, 1.0)
        if self.linear > 0:
            drawn = decode(drawn)
            picture = decode(picture)
        result = (drawn + (scene - picture)) / gain
        return (source + (result - source) * self.strength).to(x.dtype)


def planes(seen: Tensor, mixes: Tensor, style: float) -> Tensor:
    """The weights of the styles beside the picture `seen` [N, 3, H, W], as [N, K, H, W]."""
    rows = torch.arange(mixes.shape[0], device=seen.device, dtype=seen.dtype)
    at = min(max(style, 0.0), float(mixes.shape[0] - 1))
    share = (1.0 - (rows - at).abs()).clamp(min=0.0)
    weights = (share[:, None] * mixes.to(seen.dtype)).sum(0)
    return weights[None, :, None, None].expand(seen.shape[0], -1, seen.shape[2], seen.shape[3])


def encode(linear: Tensor) -> Tensor:
    """0..1 scene-linear to sRGB (IEC 61966-2-1)."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-6) ** (1.0 / 2.4) - 0.055)


def decode(coded: Tensor) -> Tensor:
    """0..1 sRGB to scene-linear."""
    return torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def hosted(
    state: dict[str, Tensor],
    widths: Sequence[int],
    linear: bool = True,
    mixes: Sequence[Sequence[float]] = ((1.0,),),
) -> HostedTranslator:
    """The wrapper around a translator with these weights, in evaluation mode; each of `mixes` weighs every style."""
    translator = Translator(tuple(widths), len(mixes[0]))
    translator.load_state_dict(state)
    return HostedTranslator(translator.eval(), linear, mixes).eval()
