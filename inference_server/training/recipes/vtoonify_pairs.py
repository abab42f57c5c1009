"""Pairs of a face and its stylized portrait, made by two generators: all the data that VToonify learns from.

Source: arXiv 2209.11224, sections 4.1.2 and 4.2.2, with the numbers of `vtoonify_settings`. Every code, number and
noise map is a function of the sample's own draw; what a pair needs of "the iteration before" (colour jitter) is that
iteration's draw, so a run that was stopped goes on with the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.lpips import LPIPS
from inference_server.networks.psp import PspEncoder
from inference_server.networks.stylegan2 import Generator, truncate
from inference_server.networks.stylegan_layers import downsample2
from inference_server.networks.vtoonify import FIRST_CODE, join_style, network_input
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch
from inference_server.training.recipes.augment import AffineSettings, apply_affine, sample_affine
from inference_server.training.recipes.vtoonify_losses import halved, pooled
from inference_server.training.recipes.vtoonify_settings import DataSettings, StyleSettings


@dataclass(frozen=True)
class Teachers:
    """Networks that a VToonify learns from, built and loaded, on the CPU; L codes of D numbers.

    `base` generates faces (FFHQ; for VToonify-D the StyleGAN2 inside `style`). `style` is the DualStyleGAN, or for
    VToonify-T the fine-tuned StyleGAN2. `colours`, `colour_average`: the Z+ encoder and its average code. `exemplars`:
    Z+ [styles, L, D] with `names` (D). `encoder`: state of an encoder trained before. `licences`: ids or tables of
    everything here, for the card of the result.
    """

    base: Generator
    style: DualStyleGAN | Generator
    parser: BiSeNet
    directions: Tensor
    licences: tuple[str | Mapping[str, Any], ...]
    colours: PspEncoder | None = None
    colour_average: Tensor | None = None
    exemplars: Tensor | None = None
    names: tuple[str, ...] = ()
    perceptual: LPIPS | None = None
    encoder: Mapping[str, Tensor] | None = None


class Codes(nn.Module):
    """Constant codes that go to the device with the networks: directions [n, L, D], exemplars in W+ [styles, L, D]."""

    directions: Tensor
    exemplars: Tensor
    average: Tensor

    def __init__(self, teachers: Teachers) -> None:
        super().__init__()
        none = torch.zeros(0)
        with torch.no_grad():
            exemplars = none if teachers.exemplars is None else teachers.base.mapping(teachers.exemplars)
        self.register_buffer("directions", teachers.directions)
        self.register_buffer("exemplars", exemplars)
        self.register_buffer("average", none if teachers.colour_average is None else teachers.colour_average)


@dataclass(frozen=True)
class Nets:
    """The frozen networks of a run on its device."""

    base: Generator
    style: DualStyleGAN | Generator
    parser: BiSeNet
    codes: Codes
    colours: PspEncoder | None
    perceptual: LPIPS | None

    @classmethod
    def of(cls, modules: Mapping[str, nn.Module]) -> Nets:
        style = cast(DualStyleGAN | Generator, modules["style"])
        return cls(
            style.generator if isinstance(style, DualStyleGAN) else cast(Generator, modules["base"]),
            style,
            cast(BiSeNet, modules["parser"]),
            cast(Codes, modules["codes"]),
            cast(PspEncoder | None, modules.get("colours")),
            cast(LPIPS | None, modules.get("perceptual")),
        )


@dataclass(frozen=True)
class Pairs:
    """`content` [N, L, D]: the faces' edited codes, not truncated. `face`, `target` [N, 3, S, S] in [-1, 1], `target`
    None where it was not asked for. `style` [N, L, D]: what VToonify is given. `numbers` [N]: the exemplars (0 in T).
    """

    content: Tensor
    face: Tensor
    target: Tensor | None
    style: Tensor
    numbers: Tensor


def content_codes(nets: Nets, draws: Sequence[Draw], data: DataSettings) -> Tensor:
    """Random faces' codes in W+ with one attribute direction each, [N, L, D]."""
    base, directions = nets.base, nets.codes.directions
    z = torch.stack([draw.normal("z", (base.style_dim,)) for draw in draws]).to(directions)
    w = base.expand(base.mapping(z)).clone()
    first, last = data.edit_rows
    chosen = [draw.integer("direction", len(directions)) for draw in draws]
    w[:, first:last] += directions[chosen, first:last]
    return w


def jittered(content: Tensor, before: Tensor, weight: float) -> Tensor:
    """Colour rows blended with those of another iteration's codes, by `weight`; structure rows stay."""
    return join_style(content, torch.lerp(content, before, weight))


def noise_maps(base: Generator, batch: Batch, name: str) -> list[Tensor]:
    """Fresh noise for every layer, a generator for each sample: it does not matter what a sample is batched with."""
    own = [base.random_noise(1, torch.Generator(batch.device).manual_seed(d.seed_of(name))) for d in batch.draws]
    return [torch.cat(layer) for layer in zip(*own, strict=True)]


def teacher_weights(nets: Nets, degree: float, colour_transfer: bool) -> list[float]:
    """DualStyleGAN's weight for each layer: the style degree for structure, all or nothing for colour."""
    colours = 1.0 if colour_transfer else 0.0
    return [degree] * FIRST_CODE + [colours] * (nets.base.n_latent - FIRST_CODE)


def style_codes(
    nets: Nets, face: Tensor, content: Tensor, numbers: Tensor, data: DataSettings, style: StyleSettings
) -> Tensor:
    """What VToonify and its teacher are given as style, W+ [N, L, D]: structure rows, then colour rows.

    Structure is the exemplar's (D) or the truncated code's (T); colours are what the Z+ encoder sees in the face, or
    the exemplar's where a single one is learned with its colours. Without an encoder (T's first stage) the truncated
    code is used alone.
    """
    if isinstance(nets.style, DualStyleGAN):
        structure = nets.codes.exemplars[numbers]
        if style.colour_transfer and not style.any_style:
            return structure
    else:
        structure = truncate(content, data.truncation)
    if nets.colours is None:
        return structure
    small = pooled(face, nets.colours.image_size)
    return join_style(structure, nets.colours.encode(small, nets.codes.average, nets.base.mapping))


def make_pairs(
    nets: Nets,
    batch: Batch,
    data: DataSettings,
    style: StyleSettings,
    degree: float,
    jitter: float = 0.0,
    targets: bool = True,
) -> Pairs:
    """The pairs of a micro-batch; without gradients. `jitter`: weight of the other iteration's colours in the face."""
    content = content_codes(nets, batch.draws, data)
    noise = noise_maps(nets.base, batch, "face noise")
    face = nets.base.synthesis(truncate(content, data.truncation), noise).clamp(-1, 1)
    numbers = torch.zeros(len(batch.draws), dtype=torch.long, device=batch.device)
    if isinstance(nets.style, DualStyleGAN):
        styles = len(nets.codes.exemplars)
        numbers = batch.integers("exemplar", styles) if style.any_style else numbers + style.exemplar
    code = style_codes(nets, face, content, numbers, data, style)
    target = None
    if targets:
        noise = noise_maps(nets.base, batch, "target noise")
        if isinstance(nets.style, DualStyleGAN):
            weights = teacher_weights(nets, degree, style.colour_transfer)
            target = nets.style(truncate(content, data.truncation), code, weights, noise)
        else:
            target = nets.style.synthesis(code, noise)
        target = target.clamp(-1, 1)
    if jitter > 0:
        earlier = [Draw(draw.seed, draw.step - 1, draw.index) for draw in batch.draws]
        recoloured = jittered(content, content_codes(nets, earlier, data), jitter)
        noise = noise_maps(nets.base, batch, "face noise")
        face = nets.base.synthesis(truncate(recoloured, data.truncation), noise).clamp(-1, 1)
    return Pairs(content, face, target, code, numbers)


def moved(pairs: Pairs, batch: Batch, affine: AffineSettings) -> Pairs:
    """Face and target of each pair under one random affine change."""
    assert pairs.target is not None
    changes = [sample_affine(draw, affine, pairs.face.shape[-1]) for draw in batch.draws]
    face, target = apply_affine(torch.cat([pairs.face, pairs.target], dim=1), changes).chunk(2, dim=1)
    return Pairs(pairs.content, face, target, pairs.style, pairs.numbers)


def parsing_map(parser: BiSeNet, face: Tensor, side: int) -> Tensor:
    """Parsing logits of faces [N, 3, S, S] at the network's input size: [N, classes, side, side].

    The parser sees twice the picture at twice that size; its logits are halved through the low-pass, not by dropping
    pixels as when a frame is rendered.
    """
    double = halved(face, (face.shape[-1] // (2 * side)).bit_length() - 1)  # [N, 3, 2 * side, 2 * side]
    return downsample2(parser.parse(2 * double))


def reduced_input(face: Tensor, parsing: Tensor) -> Tensor:
    """VToonify's input [N, 3 + classes, s, s] from faces [N, 3, S, S] and parsing logits [N, classes, s, s]."""
    times = (face.shape[-1] // parsing.shape[-1]).bit_length() - 1
    return network_input(halved(face, times), parsing)


def cropped_input(face: Tensor, parsing: Tensor, side: int, place: tuple[int, int]) -> Tensor:
    """The same for a crop of the full-size faces at `place` (top, left), [N, 3 + classes, side * s / S, ...].

    The parsing map is enlarged by repeating pixels, cropped, and halved like the face; equation 4's f_c.
    """
    (top, left), scale = place, face.shape[-1] // parsing.shape[-1]
    large = F.interpolate(parsing, scale_factor=float(scale), mode="nearest")
    both = torch.cat([face, large], dim=1)[..., top : top + side, left : left + side]
    small = halved(both, scale.bit_length() - 1)
    return network_input(small[:, :3], small[:, 3:])
