"""What of the plate the two-stage network sees, at which size, and that it comes back where it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference_server.effects.two_stage.crop import Framing, network_picture, place_alone, place_shot, plate_picture
from inference_server.plates.types import Window
from tests.inference_server.effects.test_placement import head, smooth_picture

PLATE = Window(0, 0, 640, 360)


@pytest.mark.parametrize("size", [48.0, 64.0, 128.0])
def test_the_eyes_are_as_far_apart_as_in_training(size: float) -> None:
    faces = {f: head(300 + 2 * f, 180 + f, 40, frame=f) for f in range(20)}
    places = place_shot(faces, PLATE, Framing("follow", size))
    assert {(p.width, p.height) for p in places} == {(places[0].width, places[0].height)}
    for frame, place in zip(faces, places, strict=True):
        eyes = place.to_crop(np.array([[280.0 + 2 * frame, 180.0 + frame], [320.0 + 2 * frame, 180.0 + frame]]))
        assert eyes[1, 0] - eyes[0, 0] == pytest.approx(size, rel=0.02)
        assert eyes[:, 0].mean() == pytest.approx(places[0].width / 2, abs=1)  # as much room left as right
    assert place_alone(faces[3], Framing("follow", size)).sx == pytest.approx(places[3].sx, rel=0.02)


def test_a_trembling_track_does_not_shake_the_crop_and_a_cut_does_not_smear_it() -> None:
    rng = np.random.default_rng(1)
    shaken = {f: head(300 + rng.normal(), 180 + rng.normal(), 40 + 0.4 * rng.normal(), frame=f) for f in range(24)}
    places = place_shot(shaken, PLATE, Framing())
    corners = np.array([[p.tx, p.ty] for p in places])
    raw = np.array([[p.tx, p.ty] for p in (place_alone(face, Framing()) for face in shaken.values())])
    assert np.abs(np.diff(corners, 2, axis=0)).mean() < 0.35 * np.abs(np.diff(raw, 2, axis=0)).mean()
    takes = {f: head(200 if f < 12 else 450, 180, 40 if f < 12 else 60, frame=f) for f in range(24)}
    apart = place_shot(takes, PLATE, Framing(), cuts=(12,))
    assert apart[11].sx == pytest.approx(apart[0].sx)
    assert apart[12].sx == pytest.approx(apart[23].sx)
    assert apart[12].sx < 0.7 * apart[11].sx


def test_a_fixed_crop_stays_and_the_full_frame_is_the_plate() -> None:
    faces = {f: head(300 + 4 * f, 180, 40, frame=f) for f in range(6)}
    assert len(set(place_shot(faces, PLATE, Framing("fixed")))) == 1
    whole = place_shot(faces, Window(-10, -4, 640, 360), Framing("full", 0.0))[0]
    assert (whole.width, whole.height) == (650, 364)
    picture = smooth_picture(364, 650)
    region = whole.window.intersect(Window(-10, -4, 640, 360))
    seen = network_picture(picture, region, whole)
    assert torch.allclose(seen[0], picture * 2 - 1, atol=1e-6)
    half = place_shot(faces, PLATE, Framing("full", 320.0))[0]
    assert (half.width, half.height) == (320, 180)
    with pytest.raises(ValueError, match="at most 8192"):
        place_shot(faces, PLATE, Framing("full", 9000.0))


@pytest.mark.parametrize("aspect", [1.0, 2.0])
@pytest.mark.parametrize("size", [64.0, 96.0])
def test_there_and_back_is_where_it_was(aspect: float, size: float) -> None:
    window = Window(0, 0, round(640 / aspect), 360)
    plate = smooth_picture(360, window.width)
    faces = {1: head(320 / aspect, 180, 70, aspect=aspect, frame=1)}
    place = place_shot(faces, window, Framing("follow", size))[0]
    region = place.window.intersect(window)
    cut = plate[:, region.y0 : region.y1, region.x0 : region.x1]
    back = plate_picture(network_picture(cut, region, place), region, place)
    rows, columns = place.distances(region)
    inside = torch.from_numpy(np.outer(rows > 3, columns > 3))
    assert float(inside.float().mean()) > 0.5
    assert float((back - cut)[:, inside].abs().max()) < 0.01
