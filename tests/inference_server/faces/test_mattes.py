"""Region mattes of the portrait: where they are, their edges, and that they are one function of their arguments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.faces.mattes import (
    MESH_REGIONS,
    OVAL,
    available_regions,
    region_mattes,
    silhouette,
)
from inference_server.faces.types import FaceFrame, SegmentationMap
from inference_server.plates.types import Window

REGION = Window(130, 10, 330, 230)


def scaled(face: FaceFrame, factor: float) -> FaceFrame:
    return dataclasses.replace(face, landmarks=(face.landmarks * factor).astype(np.float32))


def at(matte: NDArray[np.float32], point: NDArray[np.float32], region: Window = REGION) -> float:
    return float(matte[int(point[1] - region.y0), int(point[0] - region.x0)])


def test_regions_lie_on_their_features(portrait_face: FaceFrame) -> None:
    mattes = region_mattes(portrait_face, REGION, MESH_REGIONS)
    assert set(mattes) == set(MESH_REGIONS)
    p = portrait_face.landmarks[:, :2]
    inside = {
        "face": [4, 151, 50, 280, 199],
        "skin": [50, 280, 151, 4, 199],
        "brows": [105, 334],
        "eyes": [468, 473],
        "irises": [468, 473],
        "nose": [4, 195],
        "lips": [0, 17],
    }
    outside = {"skin": [468, 473, 0, 17, 13], "face": [], "brows": [468, 4], "lips": [4, 199], "irises": [133, 362]}
    for name, indices in inside.items():
        for index in indices:
            assert at(mattes[name], p[index]) > 0.4, (name, index)
    for name, indices in outside.items():
        for index in indices:
            assert at(mattes[name], p[index]) < 0.35, (name, index)
    assert at(mattes["mouth"], (p[13] + p[14]) / 2) > 0.9  # she smiles
    for name, matte in mattes.items():
        assert matte.shape == (220, 200), name
        assert matte.dtype == np.float32, name
        assert matte.min() >= 0.0, name
        assert matte.max() <= 1.0, name


def test_edges_are_soft_at_every_size(portrait_face: FaceFrame) -> None:
    """No matte steps by more than its softness allows: no hard edge, wherever the rectangle cuts."""
    big = scaled(portrait_face, 4.0)
    for name, matte in region_mattes(big, Window(400, 80, 1320, 920), MESH_REGIONS).items():
        step = max(np.abs(np.diff(matte, axis=0)).max(), np.abs(np.diff(matte, axis=1)).max())
        assert step < 0.35, name


def test_no_holes_in_the_face(portrait_face: FaceFrame) -> None:
    """Each row and column of the face rises once and falls once; also with the head turned well away."""
    for yaw in (0.0, 0.6, 1.1):
        points = portrait_face.landmarks.astype(np.float64)
        points = points - points[4]
        x, z = points[:, 0].copy(), points[:, 2].copy()
        points[:, 0], points[:, 2] = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
        turned = dataclasses.replace(portrait_face, landmarks=(points * 2 + [300, 200, 0]).astype(np.float32))
        face = region_mattes(turned, Window(0, 0, 600, 460), ["face"])["face"]
        assert face.max() > 0.99
        for row in face[face.max(axis=1) > 0.9]:
            inside = np.flatnonzero(row > 0.5)
            assert (row[inside[0] : inside[-1] + 1] > 0.45).all() or yaw > 1.0  # a profile's nose stands apart


def test_silhouette_reaches_above_the_mesh(portrait_face: FaceFrame) -> None:
    p = portrait_face.landmarks[:, :2].astype(np.float64)
    outline = silhouette(p)
    height = np.hypot(*(p[10] - p[152]))
    raised = np.hypot(*(outline - p[list(OVAL)]).T)
    assert raised[0] == pytest.approx(0.10 * height, rel=0.02)  # the top
    assert raised[OVAL.index(152)] == 0.0  # the chin stays
    assert raised[OVAL.index(356)] < 0.02 * height  # temples stay


def test_resolution_does_not_matter(portrait_face: FaceFrame) -> None:
    """The matte of a face twice as large is the same matte, twice as large."""
    small = region_mattes(scaled(portrait_face, 2.0), Window(260, 20, 660, 460), MESH_REGIONS)
    large = region_mattes(scaled(portrait_face, 4.0), Window(520, 40, 1320, 920), MESH_REGIONS)
    for name, matte in small.items():
        reduced = large[name].reshape(440, 2, 400, 2).mean(axis=(1, 3))
        assert np.abs(reduced - matte).mean() < 0.004, name


def test_rectangle_only_selects(portrait_face: FaceFrame) -> None:
    """A part of the plate gets the same values whether it is asked for alone or within more; also outside it."""
    part = Window(180, 60, 240, 150)
    whole = region_mattes(portrait_face, REGION, MESH_REGIONS)
    for name, matte in region_mattes(portrait_face, part, MESH_REGIONS).items():
        cut = whole[name][part.y0 - REGION.y0 : part.y1 - REGION.y0, part.x0 - REGION.x0 : part.x1 - REGION.x0]
        assert np.abs(matte - cut).max() < 2e-6, name
    for away in (Window(900, 900, 950, 940), Window(10, 10, 10, 10)):
        for matte in region_mattes(portrait_face, away, MESH_REGIONS).values():
            assert matte.shape == (away.height, away.width)
            assert not matte.any()


def test_pixel_aspect(portrait_face: FaceFrame) -> None:
    """On a squeezed plate the softness is squeezed with the face."""
    squeezed = dataclasses.replace(
        portrait_face,
        landmarks=(portrait_face.landmarks * [2.0, 4.0, 2.0]).astype(np.float32),
        pixel_aspect=2.0,
    )
    plain = region_mattes(scaled(portrait_face, 4.0), Window(520, 40, 1320, 920), ["face", "lips"])
    for name, matte in region_mattes(squeezed, Window(260, 40, 660, 920), ["face", "lips"]).items():
        assert np.abs(plain[name].reshape(880, 400, 2).mean(axis=2) - matte).mean() < 0.003, name


def test_segmented_regions_come_from_the_map_or_not_at_all(portrait_face: FaceFrame) -> None:
    assert set(region_mattes(portrait_face, REGION, ["hair", "hat", "neck", "ears", "lips"])) == {"lips"}
    values = np.zeros((1, 50, 40), np.float32)
    values[0, 20:, 10:30] = 1.0
    matrix = np.array([[0.25, 0.0, -32.5], [0.0, 0.25, -2.5]], np.float32)  # plate (130, 10) is the map's corner
    face = dataclasses.replace(portrait_face, segmentation=SegmentationMap(("hair",), values, matrix))
    assert available_regions(face)[-1] == "hair"
    mattes = region_mattes(face, Window(100, 10, 330, 260), ["hair", "skin"])
    hair = mattes["hair"]
    assert hair[85:190, 75:145].min() > 0.95
    assert hair[:75].max() < 0.05
    assert hair[:, :30].max() == 0.0  # left of the map
    assert hair[0:, 30:65].max() < 0.05
    assert mattes["skin"][120:, 75:145].max() < 0.05  # hair covers skin
