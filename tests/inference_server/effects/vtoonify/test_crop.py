"""Where the crop lies: places over a shot, the published rule, and the resampling there and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from host_bridge.errors import EffectError
from inference_server.effects.base import ShotData
from inference_server.effects.mesh import mean_face
from inference_server.effects.vtoonify import crop
from inference_server.effects.vtoonify.resample import separable
from inference_server.faces.align import apply_video_crop, plan_video_crop
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.types import Window
from tests.golden.adapters.crop_rules import synthetic_frame
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest

PLATE = Window(0, 0, 640, 360)
PADDING = (200.0, 200.0, 200.0, 200.0)


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


def test_the_published_sampling_is_the_published_preprocessing() -> None:
    """Blur passes, bilinear resize and cut as two matrices: within rounding of OpenCV's 8-bit steps, for every case."""
    manifest = read_manifest(DATA / "crop_rules.json")
    cases = [manifest.case(i) for i, raw in enumerate(manifest.raw_cases) if raw.get("kind") == "preprocess"]
    passes = set()
    for case in cases:
        height, width = case.inputs["frame_hw"]
        eyes = (case.inputs["eye_left"], case.inputs["eye_right"])
        planned = plan_video_crop(*eyes, (height, width), case.inputs["padding_left_right_top_bottom"])
        passes.add(planned.blur_passes)
        frame = synthetic_frame(height, width)
        place = crop._of_published(planned, width)
        region = place.window.intersect(Window(0, 0, width, height))
        cut = frame[region.y0 : region.y1, region.x0 : region.x1].astype(np.float32)
        ours = separable(torch.from_numpy(cut.transpose(2, 0, 1)), *place.sampling(region))
        wanted = apply_video_crop(frame, planned).astype(np.float32).transpose(2, 0, 1)
        difference = np.abs(ours.numpy() - wanted)
        assert difference.max() <= 2.0, case.id
        assert difference.mean() <= 0.5, case.id
    assert passes == {1, 2}


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_there_and_back_is_where_it_was(scale: float, aspect: float) -> None:
    """A crop of any scale, enlarged four times and put back, shows the plate: no shift, no change of colour."""
    window = Window(0, 0, round(400 / aspect), 300)
    plate = smooth_picture(300, window.width)
    place = crop.place(np.array([201.3, 148.8, np.log(scale)]), aspect, (100.0, 90.0, 80.0, 70.0))
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
    place = crop.Placement(1.0, 16.0, 1.0, 8.0, 112, 80)
    seen = separable(plate, *place.sampling(Window(0, 0, 80, 60)))
    assert torch.allclose(seen[:, 8:68, 16:96], plate, atol=1e-5)
    assert torch.allclose(seen[:, 8:68, :16], plate[:, :, :16].flip(2), atol=1e-5)
    assert torch.allclose(seen[:, 68:, 16:96], plate[:, -12:].flip(1), atol=1e-5)


def test_distances_end_where_the_crop_ends_not_where_the_plate_does() -> None:
    place = crop.Placement(1.0, -20.0, 1.0, 0.0, 64, 64)  # 20 px inside on the left, flush with the upper edge
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
    assert np.allclose(crop.steadied(frames, line), line, atol=1e-9)
    shaken = line + np.random.default_rng(0).normal(size=line.shape)
    left = crop.steadied(frames, shaken)[6:-6] - line[6:-6]
    assert float(np.sqrt((left**2).mean())) < 0.6
    gap = crop.steadied([1, 2, 90, 91], np.array([[0.0, 0, 0], [0, 0, 0], [50, 0, 0], [50, 0, 0]]))
    assert np.allclose(gap[:, 0], [0, 0, 50, 50])  # what lies a gap away says nothing
    assert np.array_equal(crop.steadied([7], line[:1]), line[:1])


def test_follow_keeps_one_size_and_fixed_one_place() -> None:
    faces = {f: head(300 + 2 * f, 180 + f, 40 + 0.5 * f, frame=f) for f in range(8)}
    follow = crop.plan_shot(faces, faces[0], PLATE, "follow", PADDING)
    assert len({(p.width, p.height) for p in follow}) == 1
    assert follow[3].sx == pytest.approx(64 / 41.5, rel=0.02)
    assert follow[3].to_crop(np.array([[306.0, 183.0]]))[0, 0] == pytest.approx(200, abs=1)
    fixed = crop.plan_shot(faces, faces[0], PLATE, "fixed", PADDING)
    assert len(set(fixed)) == 1
    assert all(p.width % 8 == 0 and p.height % 8 == 0 for p in (*follow, *fixed))


def test_padding_that_no_frame_can_fill_is_dropped() -> None:
    """A face of 300 px between the eyes in a 640-px plate: 200 px of padding would be a crop of mostly nothing."""
    faces = {f: head(320 + f, 180, 300, frame=f) for f in range(3)}
    placed = crop.plan_shot(faces, faces[0], PLATE, "follow", PADDING)
    assert placed[0].width == 144  # 640 / 300 * 64 and what the other frames need, in eights
    assert placed[0].height == 80
    assert placed[0].window.x0 <= 0
    assert placed[2].window.x1 >= 640


def test_a_turned_head_does_not_zoom() -> None:
    front, turned = head(320, 180, 60), head(320, 180, 60, yaw=40)
    assert crop.centred(turned)[2] == pytest.approx(crop.centred(front)[2], abs=0.01)


def test_the_first_good_frame_is_whole_frontal_and_found() -> None:
    cut_off = head(30, 180, 60, frame=1)
    turned = head(320, 180, 60, yaw=40, frame=2)
    guessed = replace(head(320, 180, 60, frame=3), state=FaceState.INTERPOLATED)
    good, later = head(320, 180, 60, yaw=15, frame=4), head(320, 180, 60, frame=5)
    assert crop.first_good([cut_off, turned, guessed, good, later], PLATE) == (good, True)
    assert crop.first_good([cut_off, turned, guessed], PLATE) == (turned, False)
    assert crop.first_good([cut_off], PLATE) == (cut_off, False)


@pytest.mark.parametrize("mode", ["follow", "fixed", "published"])
@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_placements_survive_the_store_and_a_reduced_preview(mode: str, aspect: float) -> None:
    faces = {f: head(300 + f, 180, 50, aspect=aspect, frame=f) for f in (5, 6, 9)}
    placed = crop.plan_shot(faces, faces[5], PLATE, mode, PADDING)
    arrays = crop.stored(list(faces), placed)
    for frame, wanted in zip(faces, placed, strict=True):
        known = crop.placement_at(ShotData(arrays), frame)
        assert known is not None
        assert vars(known) == pytest.approx(vars(wanted)) if mode != "published" else known == wanted
        half = crop.placement_at(ShotData(arrays, scale=0.5), frame)
        assert half is not None
        point = np.array([[310.0, 170.0]])
        assert np.allclose(half.to_crop(point / 2), wanted.to_crop(point))
    assert crop.placement_at(ShotData(arrays), 7) is None
    assert crop.placement_at(ShotData(), 5) is None


def test_the_published_rule_unsqueezes_first() -> None:
    """A squeezed plate gives the crop of the picture it was squeezed from."""
    wide = smooth_picture(240, 480)
    squeezed = torch.nn.functional.interpolate(wide[None], size=(240, 240), mode="bilinear", antialias=True)[0]
    results = []
    for plate, aspect in ((wide, 1.0), (squeezed, 2.0)):
        window = Window(0, 0, plate.shape[2], 240)
        place = crop.place_published(head(250 / aspect, 120, 60, aspect=aspect), window, (100, 100, 90, 90))
        region = place.window.intersect(window)
        results.append(separable(plate[:, :, region.x0 : region.x1][:, region.y0 : region.y1], *place.sampling(region)))
    assert results[0].shape == results[1].shape
    assert float((results[0] - results[1])[:, 8:-8, 8:-8].abs().max()) < 0.02


def test_a_published_crop_that_cannot_be_says_what_to_do() -> None:
    backward = head(320, 180, 60)
    points: NDArray[np.float32] = backward.landmarks * np.array([-1, 1, 1], np.float32) + np.array(
        [640, 0, 0], np.float32
    )
    with pytest.raises(EffectError, match="left to right") as caught:
        crop.place_published(replace(backward, landmarks=points), PLATE, PADDING)
    assert "crop=follow" in caught.value.remedy
    with pytest.raises(EffectError, match="leaves a crop"):
        crop.place_published(head(-30, 180, 60), PLATE, (40, 40, 40, 40))
