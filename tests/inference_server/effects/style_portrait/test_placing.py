"""Squares over a shot: FFHQ's, steady, there and back, and the transform by which StyleGAN3 draws in place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from host_bridge.errors import EffectError
from inference_server.effects.base import ShotData
from inference_server.effects.style_portrait import placing
from inference_server.effects.style_portrait.imported import STYLEGAN3_R, STYLEGAN3_T
from inference_server.faces.align import apply_ffhq, landmarks68, plan_ffhq
from inference_server.faces.types import FaceFrame
from inference_server.networks.stylegan3 import StyleGAN3, StyleGAN3Config
from inference_server.plates.types import Window
from tests.inference_server.effects.conftest import Portrait


def turned(face: FaceFrame, frame: int, degrees: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> FaceFrame:
    """The face in another frame, turned about its middle."""
    a = math.radians(degrees)
    turn = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    points = face.landmarks.copy()
    middle = points[:, :2].mean(axis=0)
    points[:, :2] = (points[:, :2] - middle) @ turn.T + middle + shift
    return replace(face, frame=frame, landmarks=points)


def middle_and_roll(square: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = square @ [0.5, 0.5, 1.0]
    return np.array([*middle, math.degrees(math.atan2(square[1, 0], square[0, 0]))])


def test_the_square_is_ffhqs(portrait: Portrait) -> None:
    """The same picture as the published rule cuts, which samples half a pixel down and right."""
    (found,) = placing.lay({1: portrait.face})
    h, w = portrait.picture.shape[:2]
    published = plan_ffhq(landmarks68(portrait.face.landmarks), (h, w), 128)
    expected = torch.from_numpy(apply_ffhq(portrait.picture, published)).permute(2, 0, 1)
    moved = found.aligned + np.array([[0, 0, 0.5], [0, 0, 0.5]])
    whole = torch.from_numpy(portrait.picture).permute(2, 0, 1)
    assert float((placing.cut(whole, Window(0, 0, w, h), moved, 128) - expected).abs().mean()) < 0.012
    assert np.allclose(found.aligned @ [0, 0, 1], published.quad[0], atol=1e-4)


@pytest.mark.parametrize("aspect", [1.0, 2.0])
@pytest.mark.parametrize("size", [64, 300])
def test_there_and_back_nothing_moves(portrait: Portrait, aspect: float, size: int) -> None:
    """A smooth picture through a turned square, smaller and larger than the plate's pixels, squeezed pixels too."""
    seen = portrait.resized(1 / aspect, 1.0, aspect)
    (found,) = placing.lay({1: turned(seen.face, 1, 8.0 if aspect == 1 else 0.0)})
    h, w = seen.picture.shape[:2]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    smooth = torch.stack([x / w, y / h, 0.5 + 0.3 * torch.sin(x * aspect / 25) * torch.cos(y / 25)])
    whole = Window(0, 0, w, h)
    region = placing.window_of(found.view).intersect(whole)
    crop = placing.cut(smooth, whole, found.view, size)
    back = placing.put_back(crop, found.view, region)
    inside = placing.fade(found.view, region, torch.device("cpu")) == 1
    want = smooth[:, region.y0 : region.y1, region.x0 : region.x1]
    assert inside.sum() > 5000
    assert float((back - want)[:, inside].abs().max()) < (0.03 if size == 64 else 0.005)
    corner = found.aligned @ [0.25, 0.75, 1.0]
    assert abs(float(crop[0, size * 3 // 4, size // 4]) - corner[0] / w) < 2 / size


def test_a_shaking_face_has_a_steady_square_and_a_moving_one_is_followed(portrait: Portrait) -> None:
    rng = np.random.default_rng(2)
    shaking = {f: turned(portrait.face, f, float(rng.normal(0, 2))) for f in range(1, 25)}
    moving = {f: turned(portrait.face, f, 0.0, 1.0, 3.0 * f) for f in range(1, 25)}
    rolls = np.array([middle_and_roll(p.aligned)[2] for p in placing.lay(shaking)])
    alone = np.array([middle_and_roll(placing.lay({f: face})[0].aligned)[2] for f, face in shaking.items()])
    assert np.abs(np.diff(rolls)).mean() < 0.2 * np.abs(np.diff(alone)).mean()
    centres = np.array([middle_and_roll(p.aligned)[:2] for p in placing.lay(moving)])
    assert np.allclose(np.diff(centres, axis=0), 3.0, atol=0.01)
    # A gap is no neighbour: what lies beyond it does not pull.
    two = {f: turned(portrait.face, f, 0.0, 1.0, 0.0 if f < 50 else 60.0) for f in (1, 2, 3, 50, 51)}
    apart = [middle_and_roll(p.aligned)[0] for p in placing.lay(two)]
    assert apart[3] - apart[2] == pytest.approx(60, abs=0.01)


def test_stored_squares_are_found_again_at_any_scale(portrait: Portrait) -> None:
    faces = {f: turned(portrait.face, f, 2.0 * (f - 7)) for f in (7, 8)}
    squares = placing.lay(faces, STYLEGAN3_R)
    data = ShotData(placing.stored(list(faces), squares), scale=0.5)
    found = placing.placing_at(data, 8)
    assert found is not None
    assert np.array_equal(found.view, squares[1].view * 0.5)
    assert np.array_equal(found.user, squares[1].user)  # type: ignore[arg-type]
    assert placing.placing_at(data, 9) is None


def test_stylegan3_draws_the_face_where_it_is(portrait: Portrait) -> None:
    """What R draws with the transform, in the view, is what it draws aligned, brought through the plate."""
    torch.manual_seed(4)
    config = StyleGAN3Config(64, channel_base=1024, channel_max=16, z_dim=16, w_dim=16, num_layers=8)
    network = StyleGAN3(config).eval()
    faces = {f: turned(portrait.face, f, d, s) for f, (d, s) in enumerate(((0.0, 1.0), (14.0, 1.15), (-9.0, 1.05)))}
    placings = placing.lay(faces, STYLEGAN3_R)
    assert placings[1].view[0, 1] == 0  # upright,
    assert len({p.view[0, 0] for p in placings}) == 1  # of one size,
    assert np.ptp([p.view @ [0.5, 0.5, 1.0] % 1 for p in placings]) < 1e-9  # in whole pixels
    with torch.no_grad():
        code = network.mapping(torch.randn(1, 16))
        network.synthesis(code, magnitude_beta=0.0)
        aligned = network.synthesis(code)[0]
        for found in placings:
            assert found.user is not None
            drawn = network.synthesis(code, torch.from_numpy(found.user).float())[0]
            grid = functional.affine_grid(
                torch.from_numpy(found.user[:2]).float()[None], [1, 3, 64, 64], align_corners=False
            )
            expected = functional.grid_sample(aligned[None], grid, mode="bicubic", align_corners=False)[0]
            inner = (slice(None), slice(18, 46), slice(18, 46))
            reach = float(aligned.max() - aligned.min())
            assert float((drawn - expected)[inner].abs().mean()) < 0.02 * reach
            p = np.array([0.3, 0.6, 1.0])
            at = found.user @ [p[0] - 0.5, p[1] - 0.5, 1.0] + [0.5, 0.5, 0.0]
            assert np.allclose(found.aligned @ at, found.view @ p)


def test_what_stylegan3_cannot_follow_is_refused_with_the_frame(portrait: Portrait) -> None:
    leaning = {f: turned(portrait.face, f, 2.2 * f) for f in range(12)}
    assert placing.lay(leaning, STYLEGAN3_R)
    with pytest.raises(EffectError, match=r"leans \d+\.\d degrees") as caught:
        placing.lay(leaning, STYLEGAN3_T)
    assert caught.value.code == "effect.parameter"
    assert "place=warped" in caught.value.remedy
    assert placing.lay(leaning, STYLEGAN3_T, drawn=False)[0].user is None
    tilted = {f: turned(portrait.face, f, 20.0) for f in range(3)}
    assert placing.lay(tilted, STYLEGAN3_T)[0].view[1, 0] != 0  # its view leans as the head does
    nearing = {f: turned(portrait.face, f, 0.0, 1 + 0.08 * f) for f in range(12)}
    with pytest.raises(EffectError, match="times as large"):
        placing.lay(nearing, STYLEGAN3_R)
