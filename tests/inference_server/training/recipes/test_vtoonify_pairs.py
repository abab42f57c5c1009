"""Pairs for VToonify: which code goes where, what is drawn anew, what the network is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.networks.stylegan_layers import downsample2
from inference_server.training.draws import Draw
from inference_server.training.recipe import Batch
from inference_server.training.recipes import vtoonify_pairs as pairs
from inference_server.training.recipes.augment import AffineSettings, apply_affine, sample_affine
from inference_server.training.recipes.vtoonify_settings import DataSettings, StyleSettings
from inference_server.training.recipes.vtoonify_start import toonified
from tests.inference_server.training.recipes import tiny_vtoonify as tiny

DATA = DataSettings()
DRAWS = (Draw(5, 3, 0), Draw(5, 3, 1))
BATCH = Batch({}, DRAWS, 3, torch.device("cpu"))


def nets(backbone: str = "dualstylegan", **more: Any) -> pairs.Nets:
    t = tiny.teachers(backbone, **more)
    return pairs.Nets(t.base, t.style, t.parser, pairs.Codes(t), t.colours, t.perceptual)


def z(draw: Draw) -> Tensor:
    return draw.normal("z", (tiny.DIM,))


@torch.no_grad()
def test_content_is_a_mapped_gaussian_with_one_direction_in_rows_3_to_6() -> None:
    n = nets()
    codes = pairs.content_codes(n, DRAWS, DATA)
    for draw, code in zip(DRAWS, codes, strict=True):
        plain = n.base.mapping(z(draw)[None])[0].expand(tiny.LATENTS, -1)
        direction = n.codes.directions[draw.integer("direction", 5)]
        torch.testing.assert_close(code[:3], plain[:3])
        torch.testing.assert_close(code[3:7], plain[3:7] + direction[3:7])
        torch.testing.assert_close(code[7:], plain[7:])


@torch.no_grad()
def test_the_face_is_the_truncated_code_with_noise_of_its_own() -> None:
    n = nets()
    made = pairs.make_pairs(n, BATCH, DATA, StyleSettings(), 0.5)
    noise = pairs.noise_maps(n.base, BATCH, "face noise")
    expected = n.base.synthesis(0.5 * made.content, noise).clamp(-1, 1)
    torch.testing.assert_close(made.face, expected)
    assert float((n.base.synthesis(0.5 * made.content, None).clamp(-1, 1) - expected).abs().max()) > 0.01
    alone = pairs.make_pairs(n, replace(BATCH, draws=DRAWS[1:]), DATA, StyleSettings(), 0.5)
    torch.testing.assert_close(alone.face[0], made.face[1], rtol=0, atol=1e-5)  # company does not matter


def exemplars(n: pairs.Nets, numbers: list[int]) -> Tensor:
    stored = tiny.teachers().exemplars
    assert stored is not None
    return torch.stack([n.base.mapping(stored[i][None])[0] for i in numbers])


@torch.no_grad()
@pytest.mark.parametrize("any_style", [True, False])
@pytest.mark.parametrize("colours", [True, False])
def test_d_style_and_target(any_style: bool, colours: bool) -> None:
    n = nets()
    style = StyleSettings(any_style=any_style, exemplar=2, colour_transfer=colours)
    made = pairs.make_pairs(n, BATCH, DATA, style, 0.4)
    numbers = [d.integer("exemplar", tiny.STYLES) for d in DRAWS] if any_style else [2, 2]
    assert made.numbers.tolist() == numbers
    assert n.colours is not None
    seen = n.colours.encode(F.adaptive_avg_pool2d(made.face, 32), n.codes.average, n.base.mapping)
    expected = exemplars(n, numbers)
    if any_style or not colours:  # one style with its colours is the exemplar itself
        expected = torch.cat([expected[:, :7], seen[:, 7:]], dim=1)
    torch.testing.assert_close(made.style, expected)
    weights = [0.4] * 7 + [1.0 if colours else 0.0] * (tiny.LATENTS - 7)
    noise = pairs.noise_maps(n.base, BATCH, "target noise")
    target = n.style(0.5 * made.content, expected, weights, noise).clamp(-1, 1)
    torch.testing.assert_close(made.target, target)


@torch.no_grad()
def test_t_style_and_target() -> None:
    n = nets("toonify")
    made = pairs.make_pairs(n, BATCH, DATA, StyleSettings(), 0.5)
    assert n.colours is not None
    seen = n.colours.encode(F.adaptive_avg_pool2d(made.face, 32), n.codes.average, n.base.mapping)
    expected = torch.cat([0.5 * made.content[:, :7], seen[:, 7:]], dim=1)
    torch.testing.assert_close(made.style, expected)
    target = n.style.synthesis(expected, pairs.noise_maps(n.base, BATCH, "target noise")).clamp(-1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(made.target, target)
    first_stage = pairs.make_pairs(nets("toonify", colours=None), BATCH, DATA, StyleSettings(), 0.5, targets=False)
    torch.testing.assert_close(first_stage.style, 0.5 * made.content)
    assert first_stage.target is None


@torch.no_grad()
def test_jitter_takes_the_colours_of_the_step_before_and_leaves_style_and_target() -> None:
    n = nets()
    style = StyleSettings(any_style=True, any_degree=True, colour_transfer=True)
    plain = pairs.make_pairs(n, BATCH, DATA, style, 0.5)
    half = pairs.make_pairs(n, BATCH, DATA, style, 0.5, jitter=0.5)
    assert torch.equal(half.style, plain.style)
    assert plain.target is not None
    assert half.target is not None
    assert torch.equal(half.target, plain.target)
    before = pairs.content_codes(n, [Draw(5, 2, 0), Draw(5, 2, 1)], DATA)
    colours = 0.5 * plain.content[:, 7:] + 0.5 * before[:, 7:]
    code = torch.cat([plain.content[:, :7], colours], dim=1)
    noise = pairs.noise_maps(n.base, BATCH, "face noise")
    torch.testing.assert_close(half.face, n.base.synthesis(0.5 * code, noise).clamp(-1, 1))
    assert float((half.face - plain.face).abs().max()) > 0.01


@torch.no_grad()
def test_face_and_target_move_together() -> None:
    n = nets()
    settings = AffineSettings(probability=1.0)
    made = pairs.make_pairs(n, BATCH, DATA, StyleSettings(), 0.5)
    moved = pairs.moved(made, BATCH, settings)
    changes = [sample_affine(draw, settings, tiny.OUT) for draw in DRAWS]
    assert made.target is not None
    assert moved.target is not None
    torch.testing.assert_close(moved.face, apply_affine(made.face, changes))
    torch.testing.assert_close(moved.target, apply_affine(made.target, changes))
    assert moved.style is made.style


@torch.no_grad()
def test_the_input_is_halved_and_parsed_at_twice_its_size() -> None:
    """As at full scale, where 1024 px become 256: the parser sees 512 px, its logits are halved by the low-pass."""
    n = nets()
    face = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parsing = pairs.parsing_map(n.parser, face, 32)
    logits = n.parser.parse(2 * downsample2(face))  # 64 px
    torch.testing.assert_close(parsing, downsample2(logits))
    x = pairs.reduced_input(face, parsing)
    assert x.shape == (1, 22, 32, 32)
    torch.testing.assert_close(x[:, :3], downsample2(downsample2(face)))
    torch.testing.assert_close(x[:, 3:], downsample2(logits) / 16)


def test_the_crop_is_taken_at_full_size() -> None:
    face = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    parsing = torch.rand(1, 19, 32, 32, generator=torch.Generator().manual_seed(1))
    x = pairs.cropped_input(face, parsing, 112, (5, 9))
    assert x.shape == (1, 22, 28, 28)
    torch.testing.assert_close(x[:, :3], downsample2(downsample2(face[..., 5:117, 9:121])))
    large = parsing.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., 5:117, 9:121]
    torch.testing.assert_close(x[:, 3:], downsample2(downsample2(large)) / 16)
    aligned = pairs.cropped_input(face, parsing, 112, (8, 8))  # whole input pixels: the same but for the border
    whole = pairs.reduced_input(face, parsing)
    torch.testing.assert_close(aligned[:, :3, 2:-2, 2:-2], whole[:, :3, 4:28, 4:28])


def test_toonify_blends_layer_by_layer() -> None:
    base, tuned = tiny.generator(1), tiny.generator(2)
    blend = [i / 9 for i in range(tiny.LATENTS)]
    state, a, b = toonified(base, tuned, blend), base.state_dict(), tuned.state_dict()
    for name, layer in (
        ("conv1.conv.weight", 0),
        ("to_rgb1.bias", 1),
        ("convs.0.conv.weight", 1),
        ("convs.5.activate.bias", 6),
        ("convs.5.noise.weight", 6),
        ("to_rgbs.0.conv.modulation.weight", 3),
        ("to_rgbs.3.conv.weight", 9),
    ):
        torch.testing.assert_close(state[name], blend[layer] * b[name] + (1 - blend[layer]) * a[name])
    for name in ("style.1.weight", "input.input", "noises.noise_3", "convs.0.conv.blur.kernel"):
        assert torch.equal(state[name], a[name])
    with pytest.raises(ValueError, match="3 numbers"):
        toonified(base, tuned, [1.0] * 3)
