"""pSp and e4e: encoders from an aligned face to one style code per layer of StyleGAN.

Decides how the features of the IR-SE-50 trunk become codes (arXiv 2008.00951 for pSp, 2102.02766 for e4e), in which
latent space those codes live, and therefore what has to happen before a generator may see them.

Official files (`psp_ffhq_encode.pt`, DualStyleGAN's and VToonify's `encoder.pt`, `e4e_ffhq_encode.pt`) hold a dict
with `state_dict` and `latent_avg`; the 621 entries of an encoder carry CHECKPOINT_PREFIX there, 267,136,704
parameters. pSp and e4e have the same names and shapes, so a file does not tell which of them it is. Code MIT; the
weights derive from NVIDIA's FFHQ generator: non-commercial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .arcface import DEPTHS, WIDTHS, TrunkIRSE, halved
from .stylegan_layers import EqualLinear
from .tensors import check_shape

CHECKPOINT_PREFIX = "encoder."  # in front of every name in the official files, beside "decoder."
COARSE = 3  # heads 0..2 read the coarsest map,
MIDDLE = 7  # heads 3..6 the middle one, all others the finest

LatentSpace = Literal["w+", "z+"]


class StyleHead(nn.Module):
    """Halve a square map until one cell is left, then map it to one code. Leaky slope 0.01, unlike the generator."""

    def __init__(self, channels: int, code: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range((side - 1).bit_length()):  # log2 of the side, rounded up
            layers += [nn.Conv2d(channels if index == 0 else code, code, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(code, code)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, side, side] -> [B, code]
        code: Tensor = self.linear(self.convs(x).flatten(1))
        return code


class StyleEncoder(TrunkIRSE):
    """What pSp and e4e have in common: trunk, feature pyramid and style heads.

    image_size: side of the square input, at least 17; 256 in the official files. codes: number of heads,
    2 * log2(generator's resolution) - 2. channels_in: 3, or 1 and 19 for pSp from sketches and label maps.
    widths, depths: the trunk's four stages; the last width is also the length of a code.
    """

    def __init__(
        self,
        codes: int = 18,
        image_size: int = 256,
        channels_in: int = 3,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        super().__init__(channels_in, widths, depths)
        if len(widths) != 4 or codes < 1 or image_size < 17:
            raise ValueError(
                "encoder: expected 4 stages, at least 1 code and an image size of at least 17, "
                f"got {len(widths)} stages, {codes} codes, image size {image_size}"
            )
        self.codes, self.image_size, self.channels_in = codes, image_size, channels_in
        self.code_length = widths[3]
        sides = [halved(image_size, 4)] * COARSE + [halved(image_size, 3)] * (MIDDLE - COARSE)
        sides += [halved(image_size, 2)] * (codes - MIDDLE)
        self.styles = nn.ModuleList(StyleHead(widths[3], widths[3], side) for side in sides[:codes])
        self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
        self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)

    def heads(self, faces: Tensor, count: int) -> list[Tensor]:
        """The outputs of the first `count` heads, each [B, C]. faces: [B, 3, S, S] RGB in -1..1.

        Raises ShapeError where S is not `image_size`.
        """
        check_shape("faces", faces, "B", self.channels_in, self.image_size, self.image_size)
        _, c1, c2, c3 = self.stages(faces)  # [B, widths[i], S/2^(i+1), S/2^(i+1)], i = 1, 2, 3
        p2 = _resized(c3, c2) + self.latlayer1(c2)  # [B, C, S/8, S/8]
        p1 = _resized(p2, c1) + self.latlayer2(c1)  # [B, C, S/4, S/4]
        maps = [c3] * COARSE + [p2] * (MIDDLE - COARSE) + [p1] * max(self.codes - MIDDLE, 0)
        return [self.styles[index](maps[index]) for index in range(count)]


class PspEncoder(StyleEncoder):
    """pSp: code i is what head i says.

    space: what the codes mean. "w+" (psp_ffhq_encode.pt): inputs of a generator's layers. "z+" (the encoder.pt that
    DualStyleGAN and VToonify use): each code is a z vector and must pass the mapping network. The weights do not tell.
    """

    space: LatentSpace

    def __init__(
        self,
        space: LatentSpace,
        codes: int = 18,
        image_size: int = 256,
        channels_in: int = 3,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        if space not in ("w+", "z+"):
            raise ValueError(f"space: expected 'w+' or 'z+', got {space!r}")
        super().__init__(codes, image_size, channels_in, widths, depths)
        self.space = space

    def forward(self, faces: Tensor) -> Tensor:
        """faces: [B, channels_in, S, S], FFHQ-aligned, RGB in -1..1. Returns [B, codes, C] relative to the average.

        Raises ShapeError.
        """
        return torch.stack(self.heads(faces, self.codes), dim=1)

    def encode(self, faces: Tensor, latent_avg: Tensor, mapping: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The W+ code that a generator takes.

        latent_avg: [codes, C] or [C], from the encoder's own file. mapping: the generator's mapping network,
        [M, C] z vectors to [M, C] w vectors; needed in Z+, refused in W+. Returns [B, codes, C] in W+.
        Raises ShapeError, and ValueError for a mapping that the space does not want or a missing one.
        """
        if (mapping is None) != (self.space == "w+"):
            wanted = "no mapping network" if self.space == "w+" else "the generator's mapping network"
            raise ValueError(
                f"mapping: an encoder into {self.space} expects {wanted}, got {'none' if mapping is None else 'one'}"
            )
        codes = with_average(self(faces), latent_avg)
        if mapping is None:
            return codes
        mapped = mapping(codes.flatten(0, 1))  # [B * codes, C]
        check_shape("mapping's result", mapped, codes.shape[0] * self.codes, "C")
        return mapped.view(codes.shape[0], self.codes, -1)


class E4eEncoder(StyleEncoder):
    """e4e: head 0 gives a base code, every other head a deviation from it; always in W+."""

    def forward(self, faces: Tensor, stage: int | None = None) -> Tensor:
        """faces: [B, channels_in, S, S], FFHQ-aligned, RGB in -1..1. Returns [B, codes, C] relative to the average.

        stage: how many deviations are active, 0..codes-1 (progressive training); None is all of them. Rows without
        one repeat the base. Raises ShapeError, and ValueError for a stage out of range.
        """
        active = self.codes - 1 if stage is None else stage
        if not 0 <= active < self.codes:
            raise ValueError(f"stage: expected 0..{self.codes - 1}, got {stage}")
        base, *deviations = self.heads(faces, active + 1)  # [B, C] each
        rows = [base] + [base + deviation for deviation in deviations] + [base] * (self.codes - 1 - active)
        return torch.stack(rows, dim=1)

    def encode(self, faces: Tensor, latent_avg: Tensor) -> Tensor:
        """The W+ code that a generator takes, [B, codes, C]. latent_avg: [codes, C] or [C], from the encoder's file.

        Raises ShapeError.
        """
        return with_average(self(faces), latent_avg)


def with_average(codes: Tensor, latent_avg: Tensor) -> Tensor:
    """Add the average code that official encoders are trained to deviate from.

    codes: [B, N, C]; latent_avg: [N, C], or [C] or [1, C] for one average of all rows. Returns [B, N, C].
    Raises ShapeError.
    """
    check_shape("codes", codes, "B", "N", "C")
    rows, length = codes.shape[1:]
    if latent_avg.ndim == 1:
        latent_avg = latent_avg[None]  # [1, C]
    check_shape("latent_avg", latent_avg, 1 if latent_avg.shape[0] == 1 else rows, length)
    return codes + latent_avg


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners aligned, to the height and width of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
