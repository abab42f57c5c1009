"""VToonify (arXiv 2209.11224): portrait video style transfer at any frame size.

A convolutional encoder takes the place of StyleGAN's layers up to 32 px; its features are fused into the layers
above, so that a frame need not be aligned or square. Backbone `dualstylegan` (VToonify-D) follows an exemplar
code and a style degree, backbone `toonify` (VToonify-T) one fine-tuned StyleGAN2. Entry names and shapes are
those of the published checkpoints (399 and 229 entries), half of which inference never reads: see
`VToonify.unread_entries`. Noise is off, as in the published network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.dualstylegan import DualStyleGAN, ModRes
from inference_server.networks.stylegan2 import Discriminator, Generator, channels_at, log2_size
from inference_server.networks.stylegan_layers import LEAK, AdaptiveInstanceNorm
from inference_server.networks.tensors import ShapeError, check_shape

Backbone = Literal["dualstylegan", "toonify"]

START = 32  # px: the encoder stands in for everything up to here
FIRST_CONV, FIRST_RGB, FIRST_CODE = 6, 3, 7  # what follows it: convs.6, to_rgbs.3, both driven by code 7 on
DEGREE_DIM = 128  # embedding of the style degree


class EncoderResBlock(nn.Module):
    """(x + f(x)) / sqrt(2), f two 3x3 convolutions with leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv(x), LEAK)
        y = F.leaky_relu(self.conv2(y), LEAK)
        return (x + y) / math.sqrt(2)  # [N, C, h, w]


class Fusion(nn.Module):
    """Adaptive fusion of generator and encoder features, with a mask that says where the encoder is needed.

    The mask looks at both features and at the style degree; it is one channel in [0, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.norm = AdaptiveInstanceNorm(2 * channels, DEGREE_DIM)
        self.conv2 = nn.Conv2d(2 * channels, 1, 3, padding=1)
        self.linear = nn.Sequential(
            nn.Linear(1, DEGREE_DIM // 2),
            nn.LeakyReLU(LEAK),
            nn.Linear(DEGREE_DIM // 2, DEGREE_DIM),
            nn.LeakyReLU(LEAK),
        )

    def forward(self, generated: Tensor, encoded: Tensor, degree: Tensor) -> tuple[Tensor, Tensor]:
        """Both [N, C, h, w], degree [N or 1, 1] -> fused [N, C, h, w], mask [N, 1, h, w]."""
        embedding = self.linear(degree)  # [N or 1, 128]
        both = torch.cat([generated, (generated - encoded).abs()], dim=1)  # [N, 2C, h, w]
        mask = torch.tanh(F.relu(self.conv2(self.norm(both, embedding))))
        fused: Tensor = self.conv(torch.cat([generated, encoded * mask], dim=1))
        return fused, mask


def _encoder_stage(in_channels: int, middle: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 3, stride=stride, padding=1),
        nn.LeakyReLU(LEAK),
        nn.Conv2d(middle, out_channels, 3, padding=1),
        nn.LeakyReLU(LEAK),
    )


class VToonify(nn.Module):
    """A frame and its parsing map to a stylized frame of out_size / in_size (4) times the size.

    `in_size` and `out_size` fix the number of encoder stages and decoder blocks, not the frame: height and width are
    multiples of `self.multiple` (8), at least twice that. Instance statistics are taken over the whole frame, so a
    tile does not give what the frame gives. L = n_latent style codes (18) of D = style_dim numbers.

    With `backbone="dualstylegan"`, num_res_layers also says how many residual blocks the encoder shares with
    DualStyleGAN's ModRes blocks; with "toonify" they are plain.
    """

    def __init__(
        self,
        backbone: Backbone = "dualstylegan",
        in_size: int = 256,
        out_size: int = 1024,
        style_dim: int = 512,
        n_mlp: int = 8,
        channel_multiplier: int = 2,
        num_res_layers: int = 6,
        parsing_classes: int = 19,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        if backbone not in ("dualstylegan", "toonify"):
            raise ValueError(f"unknown backbone {backbone!r}; known: 'dualstylegan', 'toonify'")
        self.stages = log2_size(in_size) - log2_size(START) + 1  # 4 encoder stages: in_size down to 32 px
        self.blocks = log2_size(out_size) - log2_size(START)  # 5 decoder blocks: 64 px up to out_size
        if self.stages < 1 or self.blocks < self.stages:
            raise ValueError(f"in_size {in_size} has to be at least {START} px and less than out_size {out_size}")
        self.backbone = backbone
        self.style_dim = style_dim
        self.in_channels = 3 + parsing_classes
        self.upscale = out_size // in_size
        self.multiple = 2 ** (self.stages - 1)
        widths = [channels_at(in_size >> i, channel_multiplier, channel_max) for i in range(self.stages)]

        self.generator: Generator | DualStyleGAN
        if backbone == "dualstylegan":
            self.generator = DualStyleGAN(out_size, style_dim, n_mlp, channel_multiplier, channel_max=channel_max)
            self.res = nn.ModuleList(
                ModRes(widths[-1], style_dim, dilation=1 if i == 0 else max(1, 4 >> ((i - 1) // 2)))
                for i in range(num_res_layers + 1)  # number 0 is in the published files and never used
            )
        else:
            self.generator = Generator(out_size, style_dim, n_mlp, channel_multiplier, channel_max=channel_max)
        self.n_latent = self.generator.n_latent

        self.encoder = nn.ModuleList([_encoder_stage(self.in_channels, 32, widths[0], stride=1)])
        for narrow, wide in pairwise(widths):
            self.encoder.append(_encoder_stage(narrow, wide, wide, stride=2))
        self.encoder.append(nn.ModuleList(EncoderResBlock(widths[-1]) for _ in range(num_res_layers)))
        self.encoder.append(nn.Conv2d(widths[-1], 3, 1))

        fused = widths[::-1]  # coarsest first
        if backbone == "dualstylegan":
            self.fusion_out = nn.ModuleList(Fusion(c) for c in fused)
        else:
            self.fusion_out = nn.ModuleList(nn.Conv2d(2 * c, c, 3, padding=1) for c in fused)
        self.fusion_skip = nn.ModuleList(nn.Conv2d(c + 3, 3, 3, padding=1) for c in fused)

    @property
    def stylegan(self) -> Generator:
        """The StyleGAN2 inside, whose mapping network and layers from 64 px on are used."""
        return self.generator.generator if isinstance(self.generator, DualStyleGAN) else self.generator

    def mapping(self, z: Tensor) -> Tensor:
        """Z+ [N, L, D] -> W+ [N, L, D], row by row; once per clip."""
        return self.stylegan.mapping(z)

    def encode(self, x: Tensor, style: Tensor, degree: float | Tensor = 0.5) -> tuple[list[Tensor], Tensor, Tensor]:
        """The encoder alone; arguments as in `forward`.

        Returns the features to fuse, coarsest first ([N, C, H/8, W/8] to [N, C, H, W]), the last feature
        [N, C, H/8, W/8] (after the residual blocks and, in D, the ModRes blocks) and its picture [N, 3, H/8, W/8].
        """
        return self._encode(x, self._checked(x, style, degree), degree)

    def _encode(self, x: Tensor, style: Tensor, degree: float | Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        *stages, blocks, to_rgb = self.encoder
        features = []
        out = x
        for stage in stages:
            out = stage(out)
            features.append(out)
        weight = degree.view(-1, 1, 1, 1) if isinstance(degree, Tensor) else degree
        for i, block in enumerate(blocks.children(), start=1):
            out = block(out)
            if isinstance(self.generator, DualStyleGAN):
                out = self.res[i](out, self.generator.style(style[:, i]), weight)
        return features[::-1], out, to_rgb(out)

    def forward_with_masks(self, x: Tensor, style: Tensor, degree: float | Tensor = 0.5) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and D's fusion masks, coarsest first ([N, 1, H/8, W/8] to [N, 1, H, W]); none for T."""
        style = self._checked(x, style, degree)
        features, out, rgb = self._encode(x, style, degree)
        level = degree[:, None] if isinstance(degree, Tensor) else x.new_full((1, 1), degree)  # [N or 1, 1]
        g, masks = self.stylegan, []
        for b in range(self.blocks):
            if b < self.stages:
                encoded = features[b]
                fusion = self.fusion_out[b]
                if isinstance(fusion, Fusion):
                    out, mask = fusion(out, encoded, level)
                    encoded = encoded * mask
                    masks.append(mask)
                else:
                    out = fusion(torch.cat([out, encoded], dim=1))
                rgb = self.fusion_skip[b](torch.cat([rgb, encoded], dim=1))
            code = FIRST_CODE + 2 * b
            out = g.convs[FIRST_CONV + 2 * b](out, self._colour(style, code))  # [N, C, 2h, 2w]
            out = g.convs[FIRST_CONV + 2 * b + 1](out, self._colour(style, code + 1))
            rgb = g.to_rgbs[FIRST_RGB + b](out, self._colour(style, code + 2), rgb)
        return rgb, masks

    def forward(self, x: Tensor, style: Tensor, degree: float | Tensor = 0.5) -> Tensor:
        """[N, 22, H, W] and a style -> picture [N, 3, 4H, 4W], display-encoded, nominally [-1, 1], not clamped.

        x: display-encoded RGB in [-1, 1], then 19 parsing logits / 16. style: W+ [N or 1, L, D] or W [N or 1, D]; one
        style for the batch is cheaper. degree: style degree 0..1, a number or [N]; T does not read it. Raises
        ShapeError.
        """
        return self.forward_with_masks(x, style, degree)[0]

    def unread_entries(self) -> list[str]:
        """Names of the state-dict entries that inference never reads, in the published order.

        All layers up to 32 px, noise maps and strengths, and in D the ModRes blocks of the inner DualStyleGAN (copies
        of the encoder's) and the encoder's number 0. Without them D has 98.2 of 163.8 million parameters.
        """
        inner = "generator.generator." if isinstance(self.generator, DualStyleGAN) else "generator."
        dead = [f"{inner}{name}." for name in ("input", "conv1", "to_rgb1", "noises")]
        dead += [f"{inner}convs.{i}." for i in range(FIRST_CONV)]
        dead += [f"{inner}to_rgbs.{b}." for b in range(FIRST_RGB)]
        if isinstance(self.generator, DualStyleGAN):
            dead += ["res.0."]
            dead += [f"generator.res.{i}." for i in range(self.generator.res_index + 1)]
        return [name for name in self.state_dict() if name.startswith(tuple(dead)) or name.endswith(".noise.weight")]

    def drop_unread(self) -> None:
        """Removes `unread_entries` from this module; a file without them then loads with `strict=True`.

        On `torch.device("meta")` followed by `load_state_dict(..., assign=True)` nothing is allocated for them.
        """
        drop_entries(self, self.unread_entries())

    def _checked(self, x: Tensor, style: Tensor, degree: float | Tensor) -> Tensor:
        """Style as W+; ShapeError for a frame, a style or a degree that does not fit."""
        style = self.stylegan.expand(style)
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # sizes are symbols then
            return style
        check_shape("x", x, "N", self.in_channels, "H", "W")
        n, _, h, w = x.shape
        m = self.multiple
        if h % m or w % m or min(h, w) < 2 * m:
            raise ShapeError(f"x: expected height and width multiples of {m}, at least {2 * m}, got {list(x.shape)}")
        if isinstance(degree, Tensor):
            check_shape("degree", degree, n)
        if style.shape[0] not in (1, n):
            raise ShapeError(
                f"style: expected shape [{n} or 1, {self.n_latent}, {self.style_dim}], got {list(style.shape)}"
            )
        return style

    def _colour(self, style: Tensor, i: int) -> Tensor:
        """The code of layer i: transformed by the colour path in D, as it is in T. [N or 1, D]"""
        code = style[:, i]
        if isinstance(self.generator, DualStyleGAN):
            code = self.generator.res[i](code)
        return code


def parser_input(frames: Tensor) -> Tensor:
    """What BiSeNet is given: frames [N, 3, H, W] in [-1, 1], twice as large and twice as strong.

    Returns [N, 3, 2H, 2W] in [-2, 2], bilinear with half-pixel centres. VToonify was trained with the maps that come
    of this, not with those of the parser's own normalisation.
    """
    check_shape("frames", frames, "N", 3, "H", "W")
    return 2 * F.interpolate(frames, scale_factor=2, mode="bilinear", align_corners=False)


def network_input(frames: Tensor, logits: Tensor) -> Tensor:
    """Joins frames [N, 3, H, W] in [-1, 1] and parsing logits into the network's input [N, 3 + C, H, W].

    `logits` are the parser's, [N, C, 2H, 2W], of which every other pixel is kept, or a map that is already at frame
    size (`parse_smoothing`), [N, C, H, W]. Raises ShapeError.
    """
    check_shape("frames", frames, "N", 3, "H", "W")
    n, _, h, w = frames.shape
    if logits.shape[-2:] == (2 * h, 2 * w):
        logits = logits[..., ::2, ::2]
    check_shape("logits", logits, n, "C", h, w)
    return torch.cat([frames, logits / 16], dim=1)


def join_style(exemplar: Tensor, content: Tensor, structure_rows: int = FIRST_CODE) -> Tensor:
    """D's default colour rule: structure (rows 0-6) from the exemplar, colour (rows 7-17) from the frame's own code.

    Both W+ [N, L, D]. With colour transfer the exemplar's code is used alone instead.
    """
    check_shape("content", content, *exemplar.shape)
    return torch.cat([exemplar[:, :structure_rows], content[:, structure_rows:]], dim=1)


def drop_entries(module: nn.Module, names: Iterable[str]) -> None:
    """Deletes parameters and buffers by state-dict name; AttributeError for a name it does not have."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(parent), leaf)


class ConditionalDiscriminator(Discriminator):
    """VToonify-D's discriminator: a projection discriminator on style degree and style number (256 px).

    score = <h(x), condition> / sqrt(128), the condition being an embedding of the degree and one of the style.
    VToonify-T uses the plain `Discriminator`.
    """

    def __init__(
        self, size: int, styles: int, channel_multiplier: int = 2, channel_max: int = 512, embedding: int = 64
    ) -> None:
        super().__init__(size, channel_multiplier, channel_max, out_dim=2 * embedding)
        self.label_mapper = nn.Sequential(
            nn.Linear(1, embedding),
            nn.LeakyReLU(LEAK),
            nn.Linear(embedding, embedding),
            nn.LeakyReLU(LEAK),
            nn.Linear(embedding, embedding),
        )
        self.style_mapper = nn.Embedding(styles, embedding)

    def score(self, x: Tensor, degree: Tensor, style: Tensor) -> Tensor:
        """x [N, 3, size, size], degree [N] in 0..1, style [N] integer numbers -> scores [N, 1]."""
        check_shape("degree", degree, x.shape[0])
        check_shape("style", style, x.shape[0])
        h: Tensor = self(x)  # [N, 128]
        condition = torch.cat([self.label_mapper(degree[:, None]), self.style_mapper(style)], dim=1)
        return (h * condition).sum(dim=1, keepdim=True) / math.sqrt(h.shape[1])
