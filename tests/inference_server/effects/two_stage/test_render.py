"""The promises of a render, for these effects, on real EXR through the real pipeline with small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from host_bridge.errors import EffectError, JobError, PlateError
from host_bridge.jobspec import PreviewSpec
from inference_server.effects.two_stage.networks import Pair
from inference_server.models.store import Folder, ModelStore
from inference_server.runs import FrameDone, FrameFailed, Progress, Warned
from tests.inference_server.effects.two_stage.conftest import Lab, job, plan_of
from tests.inference_server.shots.heads import write_heads
from tests.plate_files import PartSpec, independent_read, same_bits, write_exr
from tests.portrait import write_shot

FRAMES = range(1001, 1013)
SIDES = [f"padding_{side}" for side in ("left", "right", "top", "bottom")]


def samples(path: str) -> dict[str, NDArray[Any]]:
    (part,) = independent_read(path)
    return part


def changed(pattern: str, folder: Path, frame: int) -> NDArray[np.bool_]:
    """Where a result differs from its plate."""
    before, after = samples(pattern % frame), samples(str(folder / f"o.{frame}.exr"))
    return np.asarray(np.any([before[c].view(np.uint16) != after[c].view(np.uint16) for c in "RGB"], axis=0))


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("o.*.exr"))}


@pytest.fixture
def segments(short_segments: tuple[int, int], models: ModelStore, tmp_path: Path) -> Lab:
    """A pipeline on whose grid twelve frames are three segments: 1001-1005, 1006-1010, 1011-1012."""
    return Lab(tmp_path, models)


def test_outside_the_matte_and_in_other_channels_every_bit_is_the_plates(lab: Lab, tmp_path: Path) -> None:
    odd = np.zeros((201, 201), np.float16)
    odd.reshape(-1)[::7], odd.reshape(-1)[1::7] = np.nan, np.inf
    pattern = write_shot(tmp_path / "in", range(1001, 1003), size=201, extra={"Z": odd})
    lab.run(job(pattern, tmp_path, matte_output=str(tmp_path / "m.%04d.exr")))
    for frame in (1001, 1002):
        before, after = samples(pattern % frame), samples(str(tmp_path / f"o.{frame}.exr"))
        matte = next(iter(samples(str(tmp_path / f"m.{frame}.exr")).values()))
        assert same_bits(before["Z"], after["Z"])
        touched = changed(pattern, tmp_path, frame)
        assert not (touched & (matte == 0)).any()
        assert touched[matte > 0.9].mean() > 0.95


def test_degree_0_is_a_copy_and_small_degrees_come_near(lab: Lab, shot: str, tmp_path: Path) -> None:
    for mode in ("replace", "delta"):
        params = {"degree": {"keys": [[1001, 0.0], [1003, 0.01]]}, "composite": mode}
        lab.run(job(shot, tmp_path, params, frames="1001,1003"))
        assert (tmp_path / "o.1001.exr").read_bytes() == Path(shot % 1001).read_bytes()
        before, after = samples(shot % 1003), samples(str(tmp_path / "o.1003.exr"))
        moved = max(float(np.abs(before[c].astype(np.float32) - after[c].astype(np.float32)).max()) for c in "RGB")
        assert 0 < moved < 0.03


def test_highlights_and_negatives_survive_and_what_is_no_number_stays(lab: Lab, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003))
    for frame in (1001, 1002):
        part = {name: value.copy() for name, value in samples(pattern % frame).items()}
        for name in part:
            part[name][70:74, 96:100] = 12.0
            part[name][90:92, 96:98] = -0.25
            part[name][100, 100] = np.float16(np.nan)
        write_exr(pattern % frame, PartSpec(part))
    lab.run(job(pattern, tmp_path))
    after = samples(str(tmp_path / "o.1002.exr"))
    for name in "RGB":
        assert after[name][71, 97] > 10
        assert after[name][91, 97] < 0.9
        assert np.isnan(after[name][100, 100])
        assert np.isfinite(np.delete(after[name].reshape(-1), 100 * 224 + 100)).all()


def test_motion_blur_smears_replaced_pixels_only(lab: Lab, shot: str, tmp_path: Path) -> None:
    """Within the matte of a head that moves; what is added to the plate as a difference has the plate's own."""

    def rendered(mode: str, blur: float) -> NDArray[np.float32]:
        folder = tmp_path / f"{mode}-{blur}"
        lab.run(job(shot, folder, {"composite": mode, "motion_blur": blur, "grain": 0.0}, frames="1002"))
        part = samples(str(folder / "o.1002.exr"))
        return np.stack([part[c] for c in "RGB"]).astype(np.float32)

    sharp, smeared = rendered("replace", 0.0), rendered("replace", 1.0)
    different = np.any(sharp != smeared, axis=0)
    assert different.any()
    plate = np.stack([samples(shot % 1002)[c] for c in "RGB"]).astype(np.float32)
    untouched = np.all(sharp == plate, axis=0)
    assert not different[untouched].any()
    along = np.abs(np.diff(smeared, axis=2))[:, different[:, 1:]].mean()
    assert along < np.abs(np.diff(sharp, axis=2))[:, different[:, 1:]].mean()
    assert np.array_equal(rendered("delta", 0.0), rendered("delta", 1.0))


def test_any_chunk_equals_the_whole_across_the_borders_of_segments(segments: Lab, tmp_path: Path) -> None:
    """Keyed style mix and degree, chunks that lie across borders, steps, singles in any order: the same bytes."""
    pattern = write_shot(tmp_path / "in", FRAMES)
    keys = {"degree": {"keys": [[1001, 0.4], [1012, 1.0]]}, "style_mix": {"keys": [[1001, 0.0], [1012, 1.0]]}}
    params = {**keys, "second_style": "blue"}
    events = segments.run(job(pattern, tmp_path / "whole", params))
    assert [e.frame for e in events if isinstance(e, FrameDone)] == list(FRAMES)
    whole = results(tmp_path / "whole")
    assert len(set(whole.values())) == 12
    for chunk in ("1006", "1004-1007", "1001-1012x3", "1012,1005,1011"):
        events = segments.run(job(pattern, tmp_path / chunk, params, frames=chunk))
        found = results(tmp_path / chunk)
        assert found
        ahead = [(e.done, e.total) for e in events if isinstance(e, Progress) and e.stage == "prepare"]
        if chunk == "1004-1007":
            assert ahead == [(1, 3), (2, 3), (3, 3)]  # what it builds on is told as it is passed over
        assert found == {name: whole[name] for name in found}, chunk
    # What is asserted above is that a frame builds on those before it: alone it is another picture.
    segments.run(job(pattern, tmp_path / "off", {**params, "refine": False}, frames="1004"))
    assert results(tmp_path / "off")["o.1004.exr"] != whole["o.1004.exr"]


def test_a_sequential_render_draws_every_frame_once_and_borders_twice(
    segments: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []
    real = Pair.draw

    def draw(self: Pair, *given: Any) -> Any:
        drawn.append(given[2] is None)
        return real(self, *given)

    monkeypatch.setattr(Pair, "draw", draw)
    pattern = write_shot(tmp_path / "in", FRAMES)
    segments.run(job(pattern, tmp_path))
    assert (len(drawn), sum(drawn)) == (12 + 2 * 4, 3)
    drawn.clear()
    segments.run(job(pattern, tmp_path / "again", {"degree": {"keys": [[1009, 0.0], [1010, 1.0]]}}))
    assert len(drawn) < 12 + 4  # identity frames are drawn only where later ones build on them


def test_a_frame_without_a_face_and_one_that_cannot_be_read_begin_anew(segments: Lab, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", FRAMES)
    blank = {name: np.full((224, 224), 0.2, np.float16) for name in "RGB"}
    for frame in range(1003, 1013):
        if frame in (1004, 1005):
            write_exr(pattern % frame, PartSpec(blank))
    Path(pattern % 1008).write_bytes(Path(pattern % 1008).read_bytes()[:2000])
    spec = job(pattern, tmp_path / "whole", continue_on_error=True)
    events = segments.run(spec)
    assert [e.frame for e in events if isinstance(e, FrameFailed)] == [1008]
    whole = results(tmp_path / "whole")
    assert len(whole) == 11
    for chunk in ("1006-1007", "1010", "1009,1012"):
        heard = segments.run(replace(spec, output=str(tmp_path / chunk / "o.%04d.exr"), frames=chunk))
        found = results(tmp_path / chunk)
        assert found == {name: whole[name] for name in found}, chunk
        if chunk == "1010":
            assert [e.frame for e in heard if isinstance(e, Warned) and e.code == "frame.forgotten"] == [1008]
    with pytest.raises(PlateError) as raised:
        segments.run(replace(spec, frames="1010", continue_on_error=False))
    assert raised.value.frame == 1008


def test_a_held_frame_has_its_sources_drawing_and_a_lost_one_is_told(segments: Lab, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [f for f in FRAMES if f not in (1005, 1006)])
    spec = job(pattern, tmp_path / "whole", frames="1001-1012")
    held = replace(spec, plate=replace(spec.plate, missing="hold"))
    events = segments.run(held)
    assert {e.frame for e in events if isinstance(e, FrameDone) and e.status == "held"} == {1005, 1006}
    whole = results(tmp_path / "whole")
    four, five = (samples(str(tmp_path / "whole" / f"o.{f}.exr")) for f in (1004, 1005))
    assert all(same_bits(four[c], five[c]) for c in "RGB")
    segments.run(replace(held, frames="1006-1007", output=str(tmp_path / "part" / "o.%04d.exr")))
    found = results(tmp_path / "part")
    assert found == {name: whole[name] for name in found}
    shot = next(e.shot for e in events if hasattr(e, "shot"))
    Path(pattern % 1003).unlink()
    with pytest.raises(PlateError) as raised:
        segments.run(replace(spec, frames="1004", shot=shot))
    assert raised.value.code == "plate.missing_frame"
    assert raised.value.frame == 1003
    assert "refine off" in raised.value.remedy


def test_two_people_and_one_frame(lab: Lab, tmp_path: Path) -> None:
    pattern = write_heads(tmp_path / "in", (420, 230), [[(10, 15, 200), (220, 25, 190)]])
    lab.run(job(pattern, tmp_path, face="all"))
    touched = changed(pattern, tmp_path, 1001)
    assert touched[:, :200].sum() > 2000
    assert touched[:, 220:].sum() > 2000
    assert not touched[:, 205:212].any()


@pytest.mark.parametrize("model", ["painted", "wide"])
def test_a_network_from_painted_frames_draws_what_it_saw_in_training(
    lab: Lab, shot: str, tmp_path: Path, model: str
) -> None:
    params = {"model": model}
    events = lab.run(job(shot, tmp_path, params, effect="keyframe"))
    plan = plan_of(events, "keyframe")
    assert plan["size"] == {"1": [224, 224] if model == "wide" else [120, 120]}
    assert plan["refined"]
    assert list(plan["models"]) == [model]
    touched = changed(shot, tmp_path, 1002)
    assert touched[0, 0] == (model == "wide")  # the full plate is drawn to its edges
    assert touched.mean() > (0.99 if model == "wide" else 0.1)
    if model == "wide":
        lab.run(job(shot, tmp_path / "kept", {**params, "background": 1.0}, effect="keyframe", frames="1002"))
        plate, drawn, kept = (
            samples(path)["R"][5:35, 5:35].astype(np.float32)
            for path in (shot % 1002, str(tmp_path / "o.1002.exr"), str(tmp_path / "kept" / "o.1002.exr"))
        )
        assert np.abs(drawn - plate).mean() > 0.05
        assert np.abs(kept - plate).mean() < 1e-3


def test_styles_precision_and_size_are_what_the_plan_says(lab: Lab, shot: str, tmp_path: Path) -> None:
    seen = {}
    chosen: dict[str, dict[str, Any]] = {
        "plain": {},
        "red": {"style": "red"},
        "mixed": {"second_style": "red", "style_mix": 1.0},
        "bf16": {"precision": "bf16"},
        "large": {
            "crop": "fixed",
            "face_size": 60.0,
            **dict.fromkeys(SIDES, 70.0),
        },
    }
    for name, params in chosen.items():
        events = lab.run(job(shot, tmp_path / name, params, frames="1001"))
        seen[name] = results(tmp_path / name)["o.1001.exr"], plan_of(events)
    pixels = {name: samples(str(tmp_path / name / "o.1001.exr")) for name in seen}
    assert len({found for found, _ in seen.values()}) == 5
    assert all(same_bits(pixels["red"][c], pixels["mixed"][c]) for c in "RGB")
    assert not same_bits(pixels["plain"]["R"], pixels["red"]["R"])
    assert seen["bf16"][1]["precision"] == "bf16"
    assert seen["large"][1]["size"]["1"][0] > seen["plain"][1]["size"]["1"][0]
    alone = lab.run(job(shot, tmp_path / "alone", {"model": "alone"}, frames="1003"))
    assert not plan_of(alone)["refined"]  # a model without a refiner


def test_a_preview_says_what_it_does_not_know_and_a_slider_draws_nothing_anew(
    lab: Lab, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(job(shot, tmp_path))

    def preview(frame: int, **params: Any) -> tuple[bool, str]:
        picture = lab.runner.preview(PreviewSpec(job=job(shot, tmp_path, params), frame=frame, max_size=1024))
        return picture.final, picture.note

    assert preview(1001)[0]  # nothing comes before it
    final, note = preview(1003)
    assert not final
    assert "frames before" in note
    assert preview(1003, refine=False)[0]

    def draw(*_: Any) -> Any:
        raise AssertionError("drawn anew")

    monkeypatch.setattr(Pair, "draw", draw)
    assert preview(1003, refine=False, degree=0.3, regions="face", mix=0.8)[0]


def test_what_is_not_there_is_told_before_anything_is_read(shot: str, models: ModelStore, tmp_path: Path) -> None:
    bare = Lab(tmp_path, ModelStore((Folder(tmp_path / "none", True),)))
    for effect, how in (("two_stage", "faceplate train two_stage"), ("keyframe", "faceplate train keyframe")):
        offered = bare.runner._effect(effect).descriptor
        if offered.param("model").choices != ("none",):
            continue  # a built-in model is there
        with pytest.raises(EffectError) as raised:
            bare.run(replace(job(shot, tmp_path), effect=effect, params={}))
        assert raised.value.code == "effect.needs_model"
        assert how in raised.value.remedy
    small = Lab(tmp_path, models, memory_gb=0.3)
    with pytest.raises(JobError) as full:
        small.run(job(shot, tmp_path, {"crop": "full", "long_side": 4000}))
    assert full.value.code == "job.out_of_memory"
    assert "of this one's sides" in full.value.remedy
