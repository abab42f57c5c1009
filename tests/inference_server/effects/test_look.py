"""What `look` promises: identity at 0, nothing outside its matte, the same look at any size, and steadiness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from host_bridge.errors import EffectError
from inference_server.effects.base import Effect, EffectOutput, FaceInput
from inference_server.effects.look import filters
from inference_server.effects.look.palette import look_up, palette_of_exemplar, palette_of_stops
from inference_server.effects.look.styles import STYLES
from inference_server.effects.look.texture import dots
from inference_server.plates.warp import warp_picture
from tests.inference_server.effects.conftest import Cut, Portrait, jacobian


def _shown(face: FaceInput, output: EffectOutput) -> Tensor:
    """The result over the plate, in display space: what a viewer sees, [3, h, w]."""
    picture = output.picture
    if picture is None:
        picture = face.picture if output.warp is None else warp_picture(face.picture, output.warp)
    return face.picture + output.matte * (picture - face.picture)


def _change(face: FaceInput, output: EffectOutput) -> float:
    return float((_shown(face, output) - face.picture).abs().mean())


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_the_head_and_nothing_else(look: Effect, small: Portrait, cut: Cut, style: str) -> None:
    face = cut(look, small)
    face = replace(face, values={**face.values, "style": style})
    output = look.render(face)
    assert output.picture is not None
    assert output.warp is not None
    for tensor in (output.picture, output.matte, output.warp):
        assert torch.isfinite(tensor).all()
    assert 0 <= float(output.picture.min()) <= float(output.picture.max()) <= 1
    assert 0 <= float(output.matte.min()) <= float(output.matte.max()) <= 1
    outside = output.matte == 0
    assert outside.float().mean() > 0.1
    assert (output.warp[:, outside] == 0).all()
    assert torch.equal(output.picture[:, outside], face.picture[:, outside])
    head = output.matte > 0.99
    assert (output.picture - face.picture)[:, head].abs().mean() > 0.02
    assert (jacobian(output.warp) > 0).all()
    for side in (output.matte[:, 0], output.matte[:, -1], output.matte[-1]):
        assert (side == 0).all()


def test_styles_differ_from_each_other(look: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(look, small, structure=0.0)
    pictures = [look.render(replace(face, values={**face.values, "style": s})).picture for s in STYLES]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert a is not None
            assert b is not None
            assert float((a - b).abs().mean()) > 0.004


def test_all_degrees_at_zero_is_identity(look: Effect, small: Portrait, cut: Cut) -> None:
    values = cut(look, small, degree=0.0, structure=0.0, color=0.0).values
    assert look.is_identity(values, ())
    assert look.is_identity({**values, "degree": 1.0, "mix": 0.0}, ())
    for name in ("degree", "structure", "color"):
        assert not look.is_identity({**values, name: 0.01}, ())


@pytest.mark.parametrize("name", ["degree", "structure", "color"])
def test_the_plate_is_approached_in_proportion_to_the_degree(
    look: Effect, small: Portrait, cut: Cut, name: str
) -> None:
    zero = {"degree": 0.0, "structure": 0.0, "color": 0.0}
    changes = []
    for amount in (0.004, 0.008, 0.016):
        face = cut(look, small, **{**zero, name: amount})
        changes.append(_change(face, look.render(face)))
    assert 0 < changes[0] < changes[1] < changes[2] < 0.01
    assert changes[1] / changes[0] == pytest.approx(2, rel=0.3)
    assert changes[2] / changes[1] == pytest.approx(2, rel=0.3)


def test_structure_alone_moves_the_plate_and_draws_nothing(look: Effect, small: Portrait, cut: Cut) -> None:
    output = look.render(cut(look, small, degree=0.0, color=0.0, structure=1.0))
    assert output.picture is None
    assert output.gain is None
    assert output.warp is not None
    assert float(output.warp.abs().max()) > 1


@pytest.mark.parametrize("style", STYLES)
def test_the_strongest_exaggeration_does_not_fold(look: Effect, small: Portrait, cut: Cut, style: str) -> None:
    parts = {f"structure_{part}": 3.0 for part in ("eyes", "head", "jaw", "mouth", "nose")}
    face = cut(look, small, degree=0.0, color=0.0, structure=2.0, **parts)
    output = look.render(replace(face, values={**face.values, "style": style}))
    assert output.warp is not None
    assert (jacobian(output.warp) > 0).all()


def test_parts_of_the_structure_can_be_turned_off(look: Effect, small: Portrait, cut: Cut) -> None:
    settings: dict[str, Any] = {"degree": 0.0, "color": 0.0, "structure": 1.0}
    eyes = small.face.landmarks[[159, 386], :2]
    region = cut(look, small).region

    def size(**more: Any) -> float:
        """How much the plate is magnified at the eyes: less than 1 means that it is spread."""
        warp = look.render(cut(look, small, **settings, **more)).warp
        assert warp is not None
        rows = (eyes[:, 1] - region.y0).astype(int)
        cols = (eyes[:, 0] - region.x0).astype(int)
        return float(jacobian(warp)[rows, cols].mean())

    assert size() < 0.9
    assert size(structure_eyes=0.0) > size() + 0.05
    assert size(structure_eyes=2.0) < size() - 0.05


def test_an_exemplar_gives_its_colours(look: Effect, small: Portrait, cut: Cut) -> None:
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    blue = torch.stack([0.2 * ramp, 0.45 * ramp, ramp])
    plain = cut(look, small, structure=0.0, color=1.0)
    given = cut(look, small, structure=0.0, color=1.0, style=blue)
    skin = plain.mattes["skin"] > 0.9
    warm, cold = look.render(plain).picture, look.render(given).picture
    assert warm is not None
    assert cold is not None
    assert float((cold[2] - cold[0])[skin].mean()) > 0.1
    assert float((warm[2] - warm[0])[skin].mean()) < -0.05
    off = look.render(cut(look, small, structure=0.0, color=0.0, style=blue)).picture
    assert off is not None
    assert float((off[2] - off[0])[skin].mean()) < 0


def test_controls_do_what_they_say(look: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(look, small, structure=0.0)
    head = face.mattes["face"] > 0.9

    def drawn(**values: Any) -> Tensor:
        picture = look.render(replace(face, values={**face.values, **values})).picture
        assert picture is not None
        return filters.to_oklab(picture)[:, head]

    plain = drawn()
    assert drawn(line_weight=0.0)[0].mean() > plain[0].mean() > drawn(line_weight=2.5)[0].mean()
    assert drawn(line_detail=3.0)[0].mean() < plain[0].mean()
    assert drawn(brightness=0.4)[0].mean() > plain[0].mean()
    assert drawn(contrast=0.8)[0].std() > plain[0].std() > drawn(contrast=-0.8)[0].std()
    assert drawn(saturation=2.0)[1:].norm(dim=0).mean() > 1.2 * plain[1:].norm(dim=0).mean()
    source = filters.to_oklab(face.picture)[0, head]
    assert (drawn(detail=1.0)[0] - source).std() < (plain[0] - source).std()
    hard = drawn(levels=3, softness=0.0, line_weight=0.0)[0]
    counts = torch.histc(hard, 40, 0, 1)
    soft_counts = torch.histc(drawn(levels=1, line_weight=0.0)[0], 40, 0, 1)
    assert counts.sort(descending=True).values[:6].sum() > 1.15 * soft_counts.sort(descending=True).values[:6].sum()


def test_regions_bound_the_matte(look: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(look, small, structure=0.0, regions="eyes", matte_grow=0.0)
    output = look.render(face)
    assert output.matte[face.mattes["eyes"] > 0.9].min() > 0.5
    assert float(output.matte.sum()) < 2.5 * float(face.mattes["eyes"].sum())
    nothing = look.render(cut(look, small, structure=0.0, regions="hat"))
    assert float(nothing.matte.max()) == 0
    with pytest.raises(EffectError, match="eyes"):
        look.render(cut(look, small, regions="eye"))


def test_the_same_input_gives_the_same_bits(look: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(look, small)
    first = look.render(face)
    look.render(cut(look, small, edits=None, degree=0.3, structure=2.0))  # what came between leaves no trace
    again = look.render(face)
    for a, b in ((first.picture, again.picture), (first.matte, again.matte), (first.warp, again.warp)):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


def test_a_wrong_shape_is_named(look: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(look, small)
    with pytest.raises(EffectError, match=r"picture is \[3, 5, 6\].*\[3, "):
        look.render(replace(face, picture=torch.zeros(3, 5, 6)))
    with pytest.raises(EffectError, match="matte hair"):
        look.render(replace(face, mattes={"hair": torch.zeros(3, 3)}))


@pytest.mark.parametrize("style", ["cartoon", "illustration", "watercolour", "comic_ink"])
def test_a_face_gets_the_same_look_at_any_size(look: Effect, portrait: Portrait, cut: Cut, style: str) -> None:
    changes = []
    for scale in (1.0, 2.0):
        face = cut(look, portrait.resized(scale, scale), structure=0.5)
        changes.append(_shown(face, look.render(replace(face, values={**face.values, "style": style}))) - face.picture)
    small, large = changes
    small, reduced = (filters.gaussian(change, 1.5) for change in (small, filters.resize(large, *small.shape[-2:])))
    assert (small - reduced).abs().mean() < 0.25 * small.abs().mean()


def test_an_anamorphic_face_gets_the_same_look(look: Effect, portrait: Portrait, cut: Cut) -> None:
    plain = cut(look, portrait)
    squeezed = cut(look, portrait.resized(0.5, 1.0, pixel_aspect=2.0))
    a, b = (_shown(face, look.render(face)) - face.picture for face in (plain, squeezed))
    same, b = (filters.gaussian(change, 1.5) for change in (filters.resize(a, *b.shape[-2:]), b))
    assert (same - b).abs().mean() < 0.25 * same.abs().mean()


@pytest.mark.parametrize("style", STYLES)
def test_the_drawing_moves_with_the_face(look: Effect, portrait: Portrait, cut: Cut, style: str) -> None:
    """Steadiness: a picture moved by parts of a pixel gives the drawing, moved by as much."""
    face = cut(look, portrait, structure=0.5)
    face = replace(face, values={**face.values, "style": style})
    still = _shown(face, look.render(face)).permute(1, 2, 0).numpy()
    for dx, dy in ((0.37, 0.0), (-0.21, 0.5)):
        moved = cut(look, portrait.shifted(dx, dy), region=face.region)
        there = _shown(moved, look.render(replace(moved, values=face.values))).permute(1, 2, 0).numpy()
        back = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        undone = cv2.warpAffine(there, back, there.shape[1::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        inner = (slice(4, -4), slice(4, -4))
        source = moved.picture.permute(1, 2, 0).numpy()
        source = cv2.warpAffine(source, back, source.shape[1::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        resampling = np.abs(source - face.picture.permute(1, 2, 0).numpy())[inner].mean()
        drift = np.abs(undone - still)[inner].mean()
        effect = np.abs(still - face.picture.permute(1, 2, 0).numpy())[inner].mean()
        assert drift < resampling + 0.18 * effect


def test_texture_is_anchored_to_the_face(look: Effect, portrait: Portrait, cut: Cut) -> None:
    """Moved by whole pixels, the dots of the print are the same dots."""
    face = cut(look, portrait, structure=0.0)
    face = replace(face, values={**face.values, "style": "pop_print"})
    still = look.render(face).picture
    moved = cut(look, portrait.shifted(3.0, 2.0), structure=0.0)
    assert moved.region.x0 == face.region.x0 + 3
    there = look.render(replace(moved, values=face.values)).picture
    assert still is not None
    assert there is not None
    h, w = min(still.shape[1], there.shape[1]) - 8, min(still.shape[2], there.shape[2]) - 8
    dy = moved.region.y0 - face.region.y0
    a = still[:, 4 + 2 - dy : h, 4:w]
    b = there[:, 4 + 2 - dy : h, 4:w] if dy == 2 else there[:, 4 + 4 - 2 * dy : h + 2 - dy, 4:w]
    assert (a[:, : b.shape[1]] - b[:, : a.shape[1]]).abs().mean() < 0.01


def test_oklab_round_trip_and_known_values() -> None:
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(filters.from_oklab(filters.to_oklab(picture)), picture, atol=2e-4, rtol=0)
    white, red = filters.to_oklab(torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])[:, None]).unbind(dim=2)
    torch.testing.assert_close(white[:, 0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(red[:, 0], torch.tensor([0.628, 0.225, 0.126]), atol=1e-3, rtol=0)


def test_blur_keeps_level_mean_and_width() -> None:
    assert torch.allclose(filters.gaussian(torch.full((1, 33, 41), 0.3), 5.0), torch.tensor(0.3), atol=1e-5)
    for sigma in (0.8, 1.9, 2.6, 7.0):
        dot = torch.zeros(1, 95, 97)
        dot[0, 47, 48] = 1
        blurred = filters.gaussian(dot, sigma)[0]
        rows = torch.arange(95.0)[:, None]
        assert float(blurred.sum()) == pytest.approx(1, abs=1e-3)
        middle = float((blurred * rows).sum())
        assert middle == pytest.approx(47, abs=0.51)
        assert float((blurred * (rows - middle) ** 2).sum()) ** 0.5 == pytest.approx(sigma, rel=0.1)


def test_smoothing_keeps_a_step_and_flattens_noise() -> None:
    noise = 0.03 * torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(3))
    step = torch.zeros(3, 48, 48)
    step[0] = 0.3
    step[0, :, 24:] = 0.8
    out = filters.kuwahara(step + noise, 4.0)
    assert out[0, 8:40, 4:20].std() < 0.35 * (step + noise)[0, 8:40, 4:20].std()
    assert float(out[0, 24, 26] - out[0, 24, 21]) > 0.45


def test_palettes() -> None:
    stops = palette_of_stops(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), torch.device("cpu"))
    grey = look_up(stops, torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(grey[0, 0], torch.tensor([0.0, 0.5, 1.0]), atol=2e-3, rtol=0)
    exemplar = torch.zeros(3, 20, 20)
    exemplar[2, :10] = 0.3  # dark blue
    exemplar[0, 10:], exemplar[1, 10:] = 1.0, 0.9  # light yellow
    table = palette_of_exemplar(exemplar)
    assert float(table[2, 5]) < -0.05
    assert float(table[2, 58]) > 0.05


def test_a_dot_screen_covers_what_the_tone_asks_for() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 4, 400), torch.linspace(0, 4, 400), indexing="ij")
    screen = dots(torch.stack([x, y]), 8.0)
    for tone in (0.15, 0.5, 0.85):
        assert float((screen < tone).float().mean()) == pytest.approx(tone, abs=0.06)
