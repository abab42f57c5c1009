"""Where a crop lies over a shot, and the resampling there and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference_server.effects import placement
from inference_server.effects.mesh import mean_face
from inference_server.effects.resample import separable
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.types import Window

PLATE = Window(0, 0, 640, 360)


def head(x: float, y: float, eyes: float, yaw: float = 0.0, aspect: float = 1.0, frame: int = 1001) -> FaceFrame:
    """The mean face with the middle of its eyes at (x, y), `eyes` pixels apart, turned by degrees."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    points = mean_face().points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T * eyes
    points = ((points + np.array([x * aspect, y, 0])) / [aspect, 1, aspect]).astype(np.float32)
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    box = (float(x0), float(y0), float(x1), float(y1))
    return FaceFrame(1, frame, FaceState.DETECTED, points, box, 1.0, aspect)


def smooth_picture(h: int, w: int) -> torch.Tensor:
    """[3, h, w] 0..1, without detail that a crop could not hold."""
    y, x = np.mgrid[0:h, 0:w] + 0.5
    planes = [0.5 + 0.3 * np.sin(x / a + y / b) for a, b in ((23, 31), (17, -29), (-19, 37))]
    return torch.from_numpy(np.stack(planes).astype(np.float32))


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_there_and_back_is_where_it_was(scale: float, aspect: float) -> None:
    """A crop of any scale, enlarged four times and put back, shows the plate: no shift, no change of colour."""
    window = Window(0, 0, round(400 / aspect), 300)
    plate = smooth_picture(300, window.width)
    place = placement.place(np.array([201.3, 148.8, np.log(scale)]), aspect, (100.0, 90.0, 80.0, 70.0))
    assert (place.width, place.height) == (192, 152)
    region = place.window.intersect(window)
    there = separable(plate[:, region.y0 : region.y1, region.x0 : region.x1], *place.sampling(region))
    large = torch.nn.functional.interpolate(there[None], scale_factor=4, mode="bicubic", align_corners=False)[0]
    rows, columns = place.distances(region)
    inside = np.outer(rows > 3, columns > 3)
    assert inside.mean() > 0.5
    back = separable(large, *place.returning(region)) - plate[:, region.y0 : region.y1, region.x0 : region.x1]
    assert float(back[:, torch.from_numpy(inside)].abs().max()) < (0.004 if scale < 2 else 0.03)


def test_a_crop_beyond_the_plate_sees_it_mirrored() -> None:
    plate = smooth_picture(60, 80)
    place = placement.Placement(1.0, 16.0, 1.0, 8.0, 112, 80)
    seen = separable(plate, *place.sampling(Window(0, 0, 80, 60)))
    assert torch.allclose(seen[:, 8:68, 16:96], plate, atol=1e-5)
    assert torch.allclose(seen[:, 8:68, :16], plate[:, :, :16].flip(2), atol=1e-5)
    assert torch.allclose(seen[:, 68:, 16:96], plate[:, -12:].flip(1), atol=1e-5)


def test_distances_end_where_the_crop_ends_not_where_the_plate_does() -> None:
    place = placement.Placement(1.0, -20.0, 1.0, 0.0, 64, 64)  # 20 px inside on the left, flush with the upper edge
    plate = Window(0, 0, 60, 60)  # the crop reaches over the right and lower edge
    rows, columns = place.distances(place.window.intersect(plate))
    assert np.isinf(rows).all()
    start = place.window.intersect(plate).x0
    assert columns[20 - start] == 0.5
    assert columns[19 - start] == -0.5
    assert columns[-1] == 39.5


def test_a_steady_move_is_followed_without_lag_and_a_tremble_is_not() -> None:
    frames = list(range(1, 41))
    line = np.stack([np.linspace(0, 39, 40), np.linspace(5, 80, 40), np.zeros(40)], axis=1)
    assert np.allclose(placement.steadied(frames, line), line, atol=1e-9)
    shaken = line + np.random.default_rng(0).normal(size=line.shape)
    left = placement.steadied(frames, shaken)[6:-6] - line[6:-6]
    assert float(np.sqrt((left**2).mean())) < 0.6
    gap = placement.steadied([1, 2, 90, 91], np.array([[0.0, 0, 0], [0, 0, 0], [50, 0, 0], [50, 0, 0]]))
    assert np.allclose(gap[:, 0], [0, 0, 50, 50])  # what lies a gap away says nothing
    assert np.array_equal(placement.steadied([7], line[:1]), line[:1])


def test_a_turned_head_does_not_zoom() -> None:
    front, turned = head(320, 180, 60), head(320, 180, 60, yaw=40)
    assert placement.centred(turned)[2] == pytest.approx(placement.centred(front)[2], abs=0.01)


def test_the_first_good_frame_is_whole_frontal_and_found() -> None:
    cut_off = head(30, 180, 60, frame=1)
    turned = head(320, 180, 60, yaw=40, frame=2)
    guessed = replace(head(320, 180, 60, frame=3), state=FaceState.INTERPOLATED)
    good, later = head(320, 180, 60, yaw=15, frame=4), head(320, 180, 60, frame=5)
    assert placement.first_good([cut_off, turned, guessed, good, later], PLATE) == (good, True)
    assert placement.first_good([cut_off, turned, guessed], PLATE) == (turned, False)
    assert placement.first_good([cut_off], PLATE) == (cut_off, False)
