"""VToonify's crops over a shot: follow, fixed, the published rule, and how they are kept with the shot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from host_bridge.errors import EffectError
from inference_server.effects.base import ShotData
from inference_server.effects.resample import separable
from inference_server.effects.vtoonify import crop
from inference_server.faces.align import apply_video_crop, plan_video_crop
from inference_server.plates.types import Window
from tests.golden.adapters.crop_rules import synthetic_frame
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.inference_server.effects.test_placement import PLATE, head, smooth_picture

PADDING = (200.0, 200.0, 200.0, 200.0)


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
        place = crop.of_published(planned, width)
        region = place.window.intersect(Window(0, 0, width, height))
        cut = frame[region.y0 : region.y1, region.x0 : region.x1].astype(np.float32)
        ours = separable(torch.from_numpy(cut.transpose(2, 0, 1)), *place.sampling(region))
        wanted = apply_video_crop(frame, planned).astype(np.float32).transpose(2, 0, 1)
        difference = np.abs(ours.numpy() - wanted)
        assert difference.max() <= 2.0, case.id
        assert difference.mean() <= 0.5, case.id
    assert passes == {1, 2}


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
