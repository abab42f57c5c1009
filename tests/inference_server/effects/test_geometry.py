"""The head frame, crops, mattes, and fields that never fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from host_bridge.effects import check_values
from host_bridge.errors import EffectError
from inference_server.effects.crops import edge_fade
from inference_server.effects.displacement import Lattice, compose, follow, sample_at, support, velocity
from inference_server.effects.matte import parse_regions, region_matte, shape_matte
from inference_server.effects.mesh import both, crop_region, mean_face, pose_of
from inference_server.effects.registry import descriptor
from inference_server.plates.types import Window
from tests.inference_server.effects.conftest import Portrait, jacobian

CPU = torch.device("cpu")


def _lattice(size: int = 120, cells: float = 30.0) -> Lattice:
    return Lattice.over(size, size, 1.0, 30.0, cells, CPU)


def test_the_mean_face_is_symmetric_and_in_its_own_frame() -> None:
    mean = mean_face()
    assert (mean.mirror[mean.mirror] == np.arange(478)).all()
    np.testing.assert_allclose(mean.points[mean.mirror] * [-1, 1, 1], mean.points, atol=1e-9)
    eyes = [(mean.points[a] + mean.points[b]) / 2 for a, b in ((33, 133), (263, 362))]
    assert np.linalg.norm(eyes[0] - eyes[1]) == pytest.approx(1, abs=1e-3)
    assert both((33, 10)) == (33, 263, 10)


def test_a_pose_is_recovered(portrait: Portrait) -> None:
    angle, scale, shift = 0.4, 77.0, np.array([210.0, 160.0, 5.0])
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    points = (scale * mean_face().points @ turn.T + shift).astype(np.float32)
    pose = pose_of(replace(portrait.face, landmarks=points, pixel_aspect=1.0))
    assert pose.scale == pytest.approx(scale, rel=1e-4)
    np.testing.assert_allclose(pose.rotation, turn, atol=1e-4)
    np.testing.assert_allclose(pose.shape, mean_face().points, atol=1e-4)
    np.testing.assert_allclose(pose.project(pose.shape), points[:, :2], atol=1e-2)


def test_a_crop_keeps_its_place_under_another_pixel_aspect(portrait: Portrait) -> None:
    values = check_values(descriptor("look"), {"padding_top": 120.0}).at(1)
    plain = crop_region(portrait.face, values)
    squeezed = crop_region(portrait.resized(0.5, 1.0, pixel_aspect=2.0).face, values)
    assert abs(squeezed.x0 * 2 - plain.x0) <= 2
    assert abs(squeezed.x1 * 2 - plain.x1) <= 2
    assert (squeezed.y0, squeezed.y1) == pytest.approx((plain.y0, plain.y1), abs=1)
    unit = pose_of(portrait.face).scale / 64
    assert plain.height == pytest.approx(320 * unit, abs=2)


def test_landmarks_that_coincide_are_refused(portrait: Portrait) -> None:
    with pytest.raises(ValueError, match="coincide"):
        pose_of(replace(portrait.face, landmarks=np.full((478, 3), 7, np.float32)))


def test_points_go_where_they_are_sent_and_far_ones_stay() -> None:
    lattice = _lattice()
    at = np.array([[50.0, 60.0], [70.0, 60.0], [60.0, 80.0]])
    moves = np.array([[-3.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    speed = velocity(lattice, at + 0.5 * moves, moves, 40.0)
    went = sample_at(lattice, follow(lattice, speed), at)
    np.testing.assert_allclose(went, moves, atol=0.6)
    assert (speed[:, :8] == 0).all()


def test_the_most_violent_moves_do_not_fold() -> None:
    lattice = _lattice()
    at = np.array([[50.0, 60.0], [62.0, 60.0], [56.0, 70.0]])
    moves = np.array([[25.0, 0.0], [-25.0, 4.0], [0.0, -30.0]])
    speed = velocity(lattice, at, moves, 40.0) * lattice.border_window(10.0)
    assert (jacobian(speed) <= 0).any(), "as a displacement these moves would fold"
    assert (jacobian(follow(lattice, speed) / lattice.step[0]) > 0).all()


def test_a_flow_is_undone_by_the_flow_of_the_opposite_velocity() -> None:
    lattice = _lattice()
    speed = velocity(lattice, np.array([[50.0, 60.0], [64.0, 60.0]]), np.array([[6.0, 0.0], [0.0, -5.0]]), 40.0)
    there, back = follow(lattice, speed), follow(lattice, -speed)
    assert float(there.abs().max()) > 4
    assert float(compose(lattice, there, back).abs().max()) < 0.1


def test_a_velocity_is_nothing_outside_its_support() -> None:
    lattice = _lattice()
    speed = velocity(lattice, np.array([[60.0, 60.0]]), np.array([[4.0, 0.0]]), 30.0)
    inside = support(lattice, speed)
    flow = follow(lattice, inside * speed)
    assert float(inside.max()) == 1
    assert (flow[:, inside == 0] == 0).all()


def test_regions_are_parsed() -> None:
    take, leave = parse_regions("head, -neck")
    assert "hair" in take
    assert "face" in take
    assert leave == ("neck",)
    with pytest.raises(EffectError, match="neck"):
        parse_regions("face,nek")


def test_a_region_without_a_source_is_empty_and_a_union_never_exceeds_one() -> None:
    mattes = {"skin": torch.full((4, 4), 0.7), "lips": torch.full((4, 4), 0.6)}
    assert float(region_matte(mattes, "hair", (4, 4), CPU).max()) == 0
    assert float(region_matte(mattes, "skin,lips,hair", (4, 4), CPU).max()) == 1
    assert float(region_matte(mattes, "skin,-lips", (4, 4), CPU).max()) == pytest.approx(0.28)


def test_grow_and_feather_follow_the_face_size() -> None:
    for unit in (32.0, 128.0):
        size = int(4 * unit)
        disc = torch.zeros(size, size)
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        disc[(x - size / 2) ** 2 + (y - size / 2) ** 2 < unit**2] = 1
        for grow in (-12.0, 12.0):
            area = float(shape_matte(disc, grow, 3.0, unit, 1.0).sum())
            radius = np.sqrt(area / np.pi) / unit * 64
            assert radius == pytest.approx(64 + grow, abs=2.5)
        soft = shape_matte(disc, 0.0, 20.0, unit, 1.0)
        assert 0.35 < float(soft[size // 2, int(size / 2 + unit)]) < 0.65
    assert shape_matte(disc, 0.0, 0.0, 64.0, 1.0) is disc


def test_a_matte_fades_on_the_crop_s_own_sides_but_not_at_the_plate_s_edge() -> None:
    fade = edge_fade(Window(0, 0, 40, 40), Window(-10, 0, 40, 40), 8.0, 1.0, CPU)
    assert (fade[:, -1] == 0).all()
    assert (fade[0] == 0).all()
    assert float(fade[20, 0]) == 1
