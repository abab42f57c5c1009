"""VToonify for one shot: everything that the style code and the style degree decide, decided once.

Decides what is computed when. Per network: kernels in the layout and precision they run in. Per style: the structure
blocks' AdaIN constants and the decoder's plain weights. Per degree: the fusions' AdaIN constants and the weight of the
structure blocks, so that a keyframed degree costs a few small products a frame and shares all the rest. Per frame:
convolutions, instance statistics, and little else, on a CPU in bands that stay in its cache (`banded`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from inference_server.networks.banded import frame_by_frame
from inference_server.networks.dualstylegan import DualStyleGAN, ModRes
from inference_server.networks.stylegan2 import StyledConv, ToRGB
from inference_server.networks.stylegan_baked import BakedBlock
from inference_server.networks.stylegan_layers import AdaptiveInstanceNorm
from inference_server.networks.tensors import ShapeError, check_shape
from inference_server.networks.vtoonify import FIRST_CODE, FIRST_CONV, FIRST_RGB, Fusion, VToonify
from inference_server.networks.vtoonify_baked_layers import BakedEncoder, BakedFusion, BakedNorm


@dataclass(frozen=True)
class Sources:
    """The network's own layers that another style or degree is baked from, a fifth of D's parameters.

    structure: the transform of structure codes (D). norms: of the structure blocks, two each. colours and layers: of
    the decoder's three layers per block, the colour transform (D) and the layer. degrees: of every fusion (D), the
    embedding of the degree and the norm that it drives.
    """

    structure: nn.Module | None
    norms: tuple[tuple[AdaptiveInstanceNorm, AdaptiveInstanceNorm], ...]
    colours: tuple[tuple[nn.Module | None, ...], ...]
    layers: tuple[tuple[StyledConv, StyledConv, ToRGB], ...]
    degrees: tuple[tuple[nn.Module, AdaptiveInstanceNorm], ...]

    @classmethod
    def of(cls, network: VToonify) -> Sources:
        dual = network.generator if isinstance(network.generator, DualStyleGAN) else None
        res = [cast(ModRes, block) for block in list(network.res)[1:]] if dual is not None else []
        g, blocks = network.stylegan, range(network.blocks)
        convs = list(g.convs)[FIRST_CONV:]
        layers = tuple((convs[2 * b], convs[2 * b + 1], g.to_rgbs[FIRST_RGB + b]) for b in blocks)
        return cls(
            None if dual is None else dual.style,
            tuple((block.norm, block.norm2) for block in res),
            tuple(tuple(None if dual is None else dual.res[FIRST_CODE + 2 * b + i] for i in range(3)) for b in blocks),
            cast(tuple[tuple[StyledConv, StyledConv, ToRGB], ...], layers),
            tuple((f.linear, f.norm) for f in network.fusion_out if isinstance(f, Fusion)),
        )

    def structure_norms(self, style: Tensor) -> nn.ModuleList:
        """For W+ [1, L, D], two for every structure block."""
        out = nn.ModuleList()
        for i, pair in enumerate(self.norms, start=1):
            assert self.structure is not None
            code = self.structure(style[:, i])
            out.extend(BakedNorm(norm, code) for norm in pair)
        return out

    def decoder(self, style: Tensor, dtype: torch.dtype) -> nn.ModuleList:
        """For W+ [1, L, D], one block for every resolution."""
        out = nn.ModuleList()
        for b, (layers, colours) in enumerate(zip(self.layers, self.colours, strict=True)):
            codes = [style[:, FIRST_CODE + 2 * b + i] for i in range(3)]
            codes = [code if t is None else t(code) for t, code in zip(colours, codes, strict=True)]
            out.append(BakedBlock(*layers, codes, dtype))
        return out

    def fusion_norms(self, degree: float) -> nn.ModuleList:
        """For one style degree, one for every fusion of D."""
        out = nn.ModuleList()
        for embedding, norm in self.degrees:
            level = norm.style.weight.new_full((1, 1), degree)
            out.append(BakedNorm(norm, embedding(level)))
        return out


@dataclass(frozen=True)
class InputShape:
    """What fits the network: channels, the number that height and width are multiples of, codes and their length."""

    channels: int
    multiple: int
    codes: int
    code_dim: int

    def check(self, x: Tensor) -> None:
        """ShapeError for a frame that does not fit."""
        check_shape("x", x, "N", self.channels, "H", "W")
        m = self.multiple
        if x.shape[2] % m or x.shape[3] % m or min(x.shape[2:]) < 2 * m:
            raise ShapeError(f"x: expected height and width multiples of {m}, at least {2 * m}, got {list(x.shape)}")

    def style(self, style: Tensor) -> Tensor:
        """One code as W+ [1, L, D] float32; ShapeError for anything else."""
        if style.ndim == 2:
            check_shape("style", style, 1, self.code_dim)
            style = style[:, None].expand(-1, self.codes, -1)
        check_shape("style", style, 1, self.codes, self.code_dim)
        return style.float()


class BakedVToonify(nn.Module):
    """A VToonify for one style and one style degree; made by `bake`, for inference only.

    `with_degree` and `with_style` give another that shares what does not depend on the one or the other, and equals a
    fresh bake bit for bit. They read layers of the network that stay where the network is: bake where it is to run.
    """

    degree_weight: Tensor  # [1] float32

    def __init__(
        self, encoder: BakedEncoder, fusions: nn.ModuleList, norms: nn.ModuleList, decoder: nn.ModuleList,
        sources: Sources, shape: InputShape, degree: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.fusions, self.structure_norms, self.decoder = encoder, fusions, norms, decoder
        self.sources, self.shape, self.degree = sources, shape, degree
        with torch.no_grad():
            self.fusion_norms = sources.fusion_norms(degree)
        device = encoder.to_rgb.weight.device
        self.register_buffer("degree_weight", torch.full((1,), degree, dtype=torch.float32, device=device))

    @property
    def dtype(self) -> torch.dtype:
        """What convolutions run in."""
        return self.encoder.to_rgb.weight.dtype

    def with_degree(self, degree: float) -> BakedVToonify:
        """The same style at another style degree: a few small products, all else is shared. T does not read it."""
        shared = (self.encoder, self.fusions, self.structure_norms, self.decoder)
        return BakedVToonify(*shared, self.sources, self.shape, float(degree)).eval()

    @torch.no_grad()
    def with_style(self, style: Tensor) -> BakedVToonify:
        """Another style code at the same degree, W+ [1, L, D] or W [1, D]: new decoder, shared encoder and fusions."""
        style = self.shape.style(style)
        norms, decoder = self.sources.structure_norms(style), self.sources.decoder(style, self.dtype)
        return BakedVToonify(self.encoder, self.fusions, norms, decoder, self.sources, self.shape, self.degree).eval()

    def degree_tensors(self) -> list[Tensor]:
        """All that differs between two of `with_degree`, in one order; a captured graph reads them anew every time."""
        return [self.degree_weight, *self.fusion_norms.buffers()]

    def forward(self, x: Tensor) -> Tensor:
        """[N, 22, H, W] -> picture [N, 3, 4H, 4W] float32, as `VToonify.forward` with this style and degree.

        x: display-encoded RGB in [-1, 1], then 19 parsing logits / 16 (the division is not baked in); any float type.
        Raises ShapeError.
        """
        self.shape.check(x)
        with torch.no_grad():
            return frame_by_frame(x, self._render)

    def _render(self, x: Tensor) -> Tensor:
        degree = None if self.degree == 0 else self.degree_weight
        nhwc = x.to(self.dtype).permute(0, 2, 3, 1).contiguous()
        features, out, rgb = self.encoder(nhwc, self.structure_norms, degree)
        del nhwc
        last = len(self.decoder) - 1
        for b, block in enumerate(self.decoder):
            if b < len(self.fusions):
                norm = self.fusion_norms[b] if self.fusion_norms else None
                # Taken out of the list, so that each feature is freed as soon as it has been used.
                out, rgb = self.fusions[b](out, features.pop(0), rgb, norm)
            out, rgb = block(out, rgb, keep=b < last)
        picture: Tensor = rgb.permute(0, 3, 1, 2)
        return picture


@torch.no_grad()
def bake(network: VToonify, style: Tensor, degree: float = 0.5, dtype: torch.dtype = torch.float32) -> BakedVToonify:
    """A network for one style and degree, on the network's device; the arithmetic of baking is float32.

    style: W+ [1, L, D] or W [1, D]. degree: style degree 0..1, T does not read it. dtype: of convolutions (float32,
    float16 or bfloat16); statistics and the picture stay float32. The result has its own kernels: without the network,
    only the layers in `Sources` stay alive. Raises ShapeError for a style that does not fit.
    """
    shape = InputShape(network.in_channels, network.multiple, network.n_latent, network.style_dim)
    style, sources = shape.style(style), Sources.of(network)
    fusions = nn.ModuleList(
        BakedFusion(fusion, skip, dtype) for fusion, skip in zip(network.fusion_out, network.fusion_skip, strict=True)
    )
    baked = BakedVToonify(
        BakedEncoder(network, dtype), fusions, sources.structure_norms(style), sources.decoder(style, dtype),
        sources, shape, float(degree),
    )  # fmt: skip
    return baked.eval().requires_grad_(False)
