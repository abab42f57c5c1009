"""Each equation of the two-stage translator on tensors made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from inference_server.networks.vgg import VGG19
from inference_server.training.recipes import two_stage_losses as equations
from inference_server.training.recipes.two_stage_losses import FLOOR, Bands


def test_least_squares() -> None:
    scores = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    assert equations.real_or_not(scores, True) == pytest.approx((1 + 0 + 1 + 4) / 4)
    assert equations.real_or_not(scores, False) == pytest.approx((0 + 1 + 4 + 1) / 4)


def test_l1_is_the_mean_over_what_counts() -> None:
    target = torch.zeros(1, 3, 2, 2)
    output = torch.zeros(1, 3, 2, 2)
    output[..., 0, 0], output[..., 1, 1] = 0.5, 100.0
    weight = torch.tensor([[1.0, 0.5], [0.5, 0.0]])[None, None]
    assert equations.weighted_l1(output, target, weight) == pytest.approx(0.5 / 2)
    assert equations.weighted_l1(output, target, torch.zeros_like(weight)) == 0


# ----------------------------------------------------------------------------------------------------- features


def wave(angle: float, amplitude: float = 0.5, phase: float = 0.0, length: float = 4.0, side: int = 64) -> Tensor:
    at = torch.arange(side, dtype=torch.float32)
    y, x = torch.meshgrid(at, at, indexing="ij")
    value = (2 * math.pi / length * (x * math.cos(angle) + y * math.sin(angle)) + phase).cos() * amplitude
    return value.expand(1, 3, side, side)


def test_bands_of_nothing_and_of_a_wave() -> None:
    bands = Bands()
    for name, tap in bands(torch.full((1, 3, 64, 64), 0.3)).items():
        nothing = 0.0 if name.startswith("detail") else FLOOR
        assert torch.allclose(tap, torch.full_like(tap, nothing), atol=1e-5), name
    inner = (..., slice(8, -8), slice(8, -8))
    for number in range(4):
        energy = bands(wave(math.pi * number / 4))["energy0"][inner].mean(dim=(0, 2, 3))
        assert energy[number] == pytest.approx(0.5, rel=0.02)
        assert energy.argmax() == number
    still = bands(wave(0.3))["energy0"][inner]
    moved = bands(wave(0.3, phase=1.0))["energy0"][inner]
    assert torch.allclose(still, moved, atol=0.005)  # texture that moves is the same texture
    octave = bands(wave(0, length=8.0))
    assert octave["energy1"][..., 8:-8, 8:-8].mean() > octave["energy0"][inner].mean()


def test_the_stand_in_knows_blur_and_sees_small_motion_less_than_pixels_do() -> None:
    bands = Bands()
    sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    blurred = nn.functional.avg_pool2d(sharp, 3, 1, 1)
    energies = [torch.stack([t.mean() for t in equations.texture(bands, bands(p))]).sum() for p in (sharp, blurred)]
    assert energies[1] < 0.6 * energies[0]
    assert equations.perceptual(bands, sharp, sharp) == 0
    assert equations.perceptual(bands, sharp, blurred) > 0
    a, b = wave(0.3, length=16.0), wave(0.3, length=16.0, phase=math.pi / 4)
    coarse = equations.feature_l1(equations.deep(bands, bands(a)), equations.deep(bands, bands(b)))
    assert coarse < 0.5 * (a - b).abs().mean()


class Colours(nn.Module):
    """The picture itself as features."""

    last = "relu3_1"

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return {"relu3_1": pictures, "relu1_1": pictures}


def test_with_vgg_the_perceptual_distance_is_the_contextual_loss() -> None:
    torch.manual_seed(2)
    x, y = torch.rand(2, 3, 2, 3), torch.rand(2, 3, 2, 3)
    mean = y.mean(dim=(0, 2, 3))
    total = 0.0
    for n in range(2):
        a, b = ([(p[n, :, i, j] - mean) for i in range(2) for j in range(3)] for p in (x, y))
        d = [[1 - float(u @ v / (u.norm() * v.norm())) for v in b] for u in a]
        relative = [[value / (min(row) + 1e-5) for value in row] for row in d]
        w = [[math.exp((1 - value) / 0.2) for value in row] for row in relative]
        c = [[value / sum(row) for value in row] for row in w]
        likeness = sum(max(c[i][j] for i in range(6)) for j in range(6)) / 6
        total -= math.log(likeness + 1e-5) / 2
    assert equations.perceptual(Colours(), x, y) == pytest.approx(total, rel=1e-4)
    vgg = VGG19("relu3_1", width_divisor=16)
    picture = torch.rand(1, 3, 16, 16, requires_grad=True)
    equations.perceptual(vgg, picture, torch.rand(1, 3, 16, 16)).backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0


def test_feature_distances() -> None:
    x = torch.zeros(1, 3, 2, 2)
    assert equations.feature_l1([x, x], [x + 1, x - 0.5]) == pytest.approx(1.5)
    taps = {"relu3_1": x, "relu1_1": x + 1}
    assert equations.deep(Colours(), taps)[0].sum() == 0
    assert equations.texture(Colours(), taps)[0].mean() == 1


# ------------------------------------------------------------------------------------------------------- motion


def flow_of(x: float, y: float, h: int = 4, w: int = 5) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, h, w)


def test_warping_takes_each_pixel_from_where_it_was() -> None:
    before = torch.rand(1, 2, 4, 5)
    same, everywhere = equations.warped(before, flow_of(0, 0))
    assert torch.allclose(same, before, atol=1e-6)
    assert everywhere.min() == 1
    now, inside = equations.warped(before, flow_of(-2, 1))  # content went two to the right, one up
    assert torch.allclose(now[..., :3, 2:], before[..., 1:, :3], atol=1e-5)
    assert inside[0, 0].tolist() == [[0, 0, 1, 1, 1]] * 3 + [[0, 0, 0, 0, 0]]
    half, _ = equations.warped(before, flow_of(0.5, 0))
    assert torch.allclose(half[..., :4], (before[..., :4] + before[..., 1:]) / 2, atol=1e-5)


def test_the_target_of_the_warp_loss() -> None:
    torch.manual_seed(3)
    x0, x1, g = (torch.rand(1, 3, 4, 5) for _ in range(3))
    m0, m1 = torch.rand(1, 1, 4, 5), torch.rand(1, 1, 4, 5)
    ones = torch.ones(1, 1, 4, 5)
    # A still video: M x + (1 - M) G_XY(x).
    still = equations.warp_target(x1, x1, (m1, m1), g, flow_of(0, 0), ones)
    assert torch.allclose(still, m1 * x1 + (1 - m1) * g, atol=1e-5)
    # In motion frame and matte of t-1 move alike; what comes from outside is the translator's.
    moving = equations.warp_target(x0, x1, (m0, m1), g, flow_of(-1, 0), ones)
    m, x = m0[..., :-1], x0[..., :-1]
    assert torch.allclose(moving[..., 1:], m * x + (1 - m) * g[..., 1:], atol=1e-5)
    assert torch.allclose(moving[..., 0], g[..., 0], atol=1e-5)
    # Where the flow does not hold: the translator's picture, or frame t by its own matte.
    holes = ones.clone()
    holes[..., 2, 2] = 0
    for occluded, wanted in (("translated", g), ("source", m1 * x1 + (1 - m1) * g)):
        target = equations.warp_target(x0, x1, (m0, m1), g, flow_of(0, 0), holes, 1.0, occluded)  # type: ignore[arg-type]
        assert torch.allclose(target[..., 2, 2], wanted[..., 2, 2], atol=1e-5)
        assert torch.allclose(target[..., 0, 0], (m0 * x0 + (1 - m0) * g)[..., 0, 0], atol=1e-5)
    # How much of the background is the source's.
    for share in (0.0, 0.25):
        mixed = equations.warp_target(x0, x1, (m0, m1), g, flow_of(0, 0), ones, share)
        assert torch.allclose(mixed, share * m0 * x0 + (1 - share * m0) * g, atol=1e-5)


def test_distances() -> None:
    a, b = torch.zeros(1, 3, 1, 2), torch.full((1, 3, 1, 2), 0.5)
    weight = torch.tensor([[[[1.0, 0.0]]]])
    assert equations.distance(a, b, "l1") == pytest.approx(0.5)
    assert equations.distance(a, b, "l2") == pytest.approx(0.25)
    assert equations.distance(a, b, "l2", weight) == pytest.approx(0.125)


def test_stability_is_what_changes_along_the_flow_where_the_frame_does_not() -> None:
    torch.manual_seed(4)
    wide, source = torch.rand(1, 3, 4, 6), torch.rand(1, 3, 4, 6)
    flow, ones = flow_of(-1, 0), torch.ones(1, 1, 4, 5)
    frames = (source[..., 1:], source[..., :-1])  # moves to the right by one
    assert equations.stability((wide[..., 1:], wide[..., :-1]), frames, flow, ones, 50.0) < 1e-10
    refined = (wide[..., 1:], wide[..., :-1] + 0.2)
    assert equations.stability(refined, frames, flow, ones, 50.0) == pytest.approx(0.04 * 4 / 5, rel=1e-3)
    assert equations.stability(refined, frames, flow, ones * 0.5, 50.0) == pytest.approx(0.02 * 4 / 5, rel=1e-3)
    # The frame brightens by 0.1 of 0..1 in each channel: confidence exp(-50 * 0.03).
    lit = (frames[0], frames[1] + 0.2)
    expected = 0.04 * 4 / 5 * math.exp(-1.5)
    assert equations.stability(refined, lit, flow, ones, 50.0) == pytest.approx(expected, rel=1e-3)


def test_flow_warp_error() -> None:
    wide = torch.rand(3, 8)
    pictures = torch.stack([wide[:, None, 3 - t : 8 - t].expand(3, 4, 5) for t in range(3)])
    flow = torch.cat([torch.zeros(1, 2, 4, 5), flow_of(-1, 0).expand(2, 2, 4, 5)])
    valid = torch.ones(3, 1, 4, 5)
    assert equations.flow_warp_error(pictures, flow, valid) < 1e-10
    pictures[2] += 0.4  # 0.2 in 0..1, in one of two changes
    assert equations.flow_warp_error(pictures, flow, valid) == pytest.approx(0.04 / 2, rel=1e-3)
    valid[2] = 0
    assert equations.flow_warp_error(pictures, flow, valid) < 1e-10
