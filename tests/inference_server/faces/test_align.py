"""The published crops (their numbers are checked by the golden cases) and the way back from them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.faces import align
from tests.golden.harness import DATA, Session


def test_recorded_crop_rules() -> None:
    rows = list(Session(DATA).run("crop_rules"))
    assert len(rows) > 100
    assert [row for row in rows if not row.passed] == []


def spot(height: int, width: int, x: float, y: float, sigma: float = 6.0) -> NDArray[np.float32]:
    """A bright spot at (x, y), pixel centres at half, [H, W, 3]."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    value = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(value[..., None], 3, axis=2).astype(np.float32)


def middle(picture: NDArray[np.float32]) -> tuple[float, float]:
    """The centre of brightness, pixel centres at half."""
    value = picture[..., 0].astype(np.float64)
    rows, columns = np.mgrid[0 : value.shape[0], 0 : value.shape[1]] + 0.5
    return float((columns * value).sum() / value.sum()), float((rows * value).sum() / value.sum())


@pytest.mark.parametrize("distance", [50, 100, 200], ids=["no blur", "one pass", "two passes"])
def test_video_crop_matrix_follows_the_picture(distance: float) -> None:
    eye_left = np.array([[200.0, 180.0]] * 6)
    crop = align.plan_video_crop(eye_left, eye_left + np.array([distance, 10.0]), (360, 520))
    assert crop.blur_passes == {50: 0, 100: 1, 200: 2}[int(distance)]
    found = middle(align.apply_video_crop(spot(360, 520, 251.0, 190.0), crop))
    expected = crop.matrix @ [251.0, 190.0, 1.0]
    assert found == pytest.approx(expected, abs=0.02)
    assert crop.inverse @ [*expected, 1.0] == pytest.approx([251.0, 190.0])


def face68(x: float, y: float, size: float, tilt: float) -> NDArray[np.float64]:
    """68 points of which those that the FFHQ rule reads make a plausible face."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = [-0.5, 0.0], [0.5, 0.0]
    points[48], points[54] = [-0.4, 1.1], [0.4, 1.1]
    c, s = np.cos(tilt), np.sin(tilt)
    return points * size @ np.array([[c, s], [-s, c]]) + [x, y]


@pytest.mark.parametrize("size", [40.0, 90.0, 300.0], ids=["enlarged", "about equal", "shrunk"])
def test_ffhq_matrix_follows_the_picture(size: float) -> None:
    plan = align.plan_ffhq(face68(750, 700, size, 0.3), (1500, 1500))
    assert (plan.shrink > 1) == (size > 200)
    aligned = align.apply_ffhq(spot(1500, 1500, 762.0, 721.0, sigma=0.12 * size), plan)
    assert aligned.shape == (256, 256, 3)
    assert middle(aligned) == pytest.approx(plan.matrix @ [762.0, 721.0, 1.0], abs=0.05)


def test_ffhq_upright_face_is_centred_and_upright() -> None:
    points = face68(450, 300, 90, 0.4)
    plan = align.plan_ffhq(points, (700, 900))
    eyes = (points[[36, 42]] @ plan.matrix[:, :2].T) + plan.matrix[:, 2]
    assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=0.5)
    assert eyes[:, 0].mean() == pytest.approx(128, abs=1.0)


def test_ffhq_padding_has_no_hard_edge() -> None:
    """Outside the frame the picture is continued and blurred, not black."""
    picture = np.full((200, 200, 3), 0.5, dtype=np.float32)
    plan = align.plan_ffhq(face68(30, 40, 60, 0.0), (200, 200))
    assert plan.padded
    assert align.apply_ffhq(picture, plan) == pytest.approx(np.full((256, 256, 3), 0.5), abs=1e-5)


def test_unusable_points_are_refused() -> None:
    eyes = np.array([[100.0, 100.0]] * 6)
    with pytest.raises(ValueError, match="left to right"):
        align.plan_video_crop(eyes, eyes - [10, 0], (200, 200))
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        align.ffhq_quad(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="outside"):
        align.plan_ffhq(face68(5000, 5000, 60, 0.0), (200, 200))
    with pytest.raises(ValueError, match="planned for"):
        align.apply_ffhq(np.zeros((10, 10, 3), np.float32), align.plan_ffhq(face68(90, 90, 60, 0.0), (200, 200)))


def test_lanczos_keeps_detail_below_the_new_limit_and_removes_it_above() -> None:
    x = np.arange(800)
    fine = np.repeat((np.sin(x * 2 * np.pi / 3.0) * 0.5 + 0.5)[None, :, None], 800, axis=0).astype(np.float32)
    coarse = np.repeat((np.sin(x * 2 * np.pi / 40.0) * 0.5 + 0.5)[None, :, None], 800, axis=0).astype(np.float32)
    plan = align.plan_ffhq(face68(400, 300, 330, 0.0), (800, 800))
    assert plan.shrink == 2
    inner = np.s_[60:200, 60:200]
    assert np.ptp(align.apply_ffhq(fine.repeat(3, 2), plan)[inner]) < 0.1
    assert np.ptp(align.apply_ffhq(coarse.repeat(3, 2), plan)[inner]) > 0.8


def test_68_points_mirror() -> None:
    """The table is symmetrical: dlib's mirrored order of points names mirrored vertices of the mesh."""
    mirror = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    mirror += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    mirror += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    table = np.array(align.DLIB68_FROM_MESH)
    assert len(set(table.tolist())) == 68
    pairs = dict(zip(table.tolist(), table[mirror].tolist(), strict=True))
    assert pairs[33] == 263
    assert pairs[61] == 291
    assert pairs[152] == 152
    mesh = np.random.default_rng(0).normal(size=(478, 3))
    assert np.array_equal(align.landmarks68(mesh), mesh[table, :2])
