"""The promises of a render, for this effect, on real EXR through the real pipeline with small networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host_bridge.effects import check_values
from host_bridge.errors import EffectError, FaceplateError, JobError
from inference_server.effects.base import Resources
from inference_server.effects.style_portrait.effect import StylePortrait
from inference_server.effects.style_portrait.imported import Imported
from inference_server.effects.style_portrait.networks import Networks
from inference_server.models.store import ModelStore
from inference_server.plates.color import srgb_encode
from inference_server.runs import FrameDone, Planned, Progress, Warned
from tests.inference_server.effects.style_portrait.conftest import Mirror, job
from tests.inference_server.effects.vtoonify.conftest import Lab
from tests.inference_server.effects.vtoonify.test_render import changed, samples, specials
from tests.inference_server.shots.heads import write_heads
from tests.plate_files import PartSpec, same_bits, write_exr
from tests.portrait import write_shot


def of_plan(events: list[Any]) -> dict[str, Any]:
    """The effect's part of the numeric plan."""
    return dict(next(e.plan for e in events if isinstance(e, Planned))["style_portrait"])


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three frames with a catch light of 12 and a negative pixel on the nose."""
    pattern = write_shot(tmp_path_factory.mktemp("bright"), range(1001, 1004), seed=77)
    for frame in (1001, 1002, 1003):
        part = {name: value.copy() for name, value in samples(pattern % frame).items()}
        for name in "RGB":
            part[name][92:94, 100:102] = 12.0
            part[name][100:102, 100:102] = -0.25
        write_exr(pattern % frame, PartSpec(part))
    return pattern


@pytest.fixture(scope="session")
def hard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two frames with more channels and a NaN in the middle of the face."""
    more = {"Z": specials(224), "A": np.ones((224, 224), np.float16)}
    pattern = write_shot(tmp_path_factory.mktemp("hard"), range(1001, 1003), extra=more)
    for frame in (1001, 1002):
        part = {name: value.copy() for name, value in samples(pattern % frame).items()}
        for name in "RGB":
            part[name][100, 100] = np.float16(np.nan)
        write_exr(pattern % frame, PartSpec(part))
    return pattern


@pytest.mark.parametrize("composite", ["delta", "replace"])
def test_outside_the_matte_the_output_is_the_plate(lab: Lab, hard: str, tmp_path: Path, composite: str) -> None:
    edits = [("age", 6.0), ("smile", -3.0)]
    lab.run(job(hard, tmp_path, edits, {"composite": composite}, matte_output=str(tmp_path / "m.%04d.exr")))
    for frame in (1001, 1002):
        before, after = samples(hard % frame), samples(str(tmp_path / f"o.{frame}.exr"))
        matte = next(iter(samples(str(tmp_path / f"m.{frame}.exr")).values()))
        assert same_bits(before["Z"], after["Z"])
        assert same_bits(before["A"], after["A"])
        touched = changed(hard, tmp_path, frame)
        assert not (touched & (matte == 0)).any()
        assert touched[matte > 0.9].mean() > 0.9
        for name in "RGB":
            assert np.isnan(after[name][100, 100])
            assert np.isfinite(np.delete(after[name].reshape(-1), 100 * 224 + 100)).all()


def test_at_strength_0_it_is_a_copy_and_comes_near_it_without_a_step(lab: Lab, shot: str, tmp_path: Path) -> None:
    """A keyed strength; in both modes the difference shrinks with it."""
    for composite in ("delta", "replace"):
        folder, keys = tmp_path / composite, {"keys": [[1001, 0.0], [1002, 0.002], [1003, 0.02], [1004, 0.2]]}
        lab.run(job(shot, folder, [("age", keys), ("smile", 0.0)], {"composite": composite}))
        assert (folder / "o.1001.exr").read_bytes() == Path(shot % 1001).read_bytes()
        far = []
        for frame in (1002, 1003, 1004):
            before, after = samples(shot % frame), samples(str(folder / f"o.{frame}.exr"))
            apart = np.stack([before[c].astype(np.float32) - after[c].astype(np.float32) for c in "RGB"])
            far.append(float(np.abs(apart).mean()))
        assert far[0] < 0.2 * far[1] < 0.06 * far[2], (composite, far)


@pytest.mark.parametrize("model", ["gan2", "gan3"])
def test_any_chunk_equals_the_whole_and_a_second_render_inverts_nothing(
    lab: Lab, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    edits = [("smile", {"keys": [[1001, 1.0], [1004, 3.0]]}), ("age", 1.0)]
    whole = lab.run(job(shot, tmp_path / "whole", edits, {"model": model}))

    def never(self: Networks, *_: object) -> None:
        raise AssertionError("the encoder was loaded again")

    monkeypatch.setattr(Networks, "encoder", never)
    for chunk in ("1003", "1001", "1002,1004"):
        part = lab.run(job(shot, tmp_path / "chunk", edits, {"model": model}, frames=chunk))
        assert of_plan(part) == of_plan(whole)
        assert not [e for e in part if isinstance(e, Progress) and e.stage != "render"]
    pictures = set()
    for frame in range(1001, 1005):
        data = (tmp_path / "whole" / f"o.{frame}.exr").read_bytes()
        assert data == (tmp_path / "chunk" / f"o.{frame}.exr").read_bytes(), frame
        pictures.add(data)
    assert len(pictures) == 4
    head = (tmp_path / "whole" / "o.1001.exr").read_bytes()[:20000]
    for name in (model, "enc10", "direction-age", "direction-smile"):
        assert lab.models.get(name).sha256.encode() in head
    assert of_plan(whole)["view"] == ("stylegan2" if model == "gan2" else "stylegan3-r")


def test_what_the_generator_draws_is_where_the_face_is(mirror: Mirror, lab: Lab, bright: str, tmp_path: Path) -> None:
    """A generator that draws what it was shown, tinted: the face is tinted, and nothing has moved or grown soft."""
    written = str(tmp_path / "m.%04d.exr")
    lab.run(job(bright, tmp_path, [("tint", 1.0)], {"auto_exposure": False}, frames="1002", matte_output=written))
    matte = next(iter(samples(written % 1002).values()))
    before, after = samples(bright % 1002), samples(str(tmp_path / "o.1002.exr"))
    assert np.abs(before["G"].astype(np.float32) - after["G"].astype(np.float32)).max() < 0.01  # of 12: no tint there
    assert after["R"][92:94, 100:102].min() > 11.5
    assert after["R"][100:102, 100:102].max() < -0.1
    touched = changed(bright, tmp_path, 1002)
    assert touched[60:130, 85:125].all()
    assert not touched[:12].any()
    assert not touched[190:].any()
    old, new = (srgb_encode(torch.from_numpy(p["R"].astype(np.float32)).clamp(0, 1)).numpy() for p in (before, after))
    red = new - old
    ordinary = (old > 0.02) & (old < 0.85)
    assert (matte[60:120, 85:125] > 0.9).mean() > 0.9
    assert np.abs(red - 0.1)[ordinary & (matte == 1)].max() < 0.02
    across = np.abs(np.diff(red, axis=1))[ordinary[:, 1:] & ordinary[:, :-1]]
    assert across.max() < 0.035  # no seam: the matte's edge is some 6 px wide


def test_two_people_each_get_their_own_and_one_can_be_chosen(lab: Lab, tmp_path: Path) -> None:
    heads = [(0, 30, 170), (150, 60, 130)]
    pattern = write_heads(tmp_path / "in", (304, 208), [heads])  # a shot of one frame
    both = lab.run(job(pattern, tmp_path / "both", face="all"))
    assert set(of_plan(both)["steps"]) == {"1", "2"}
    lab.run(job(pattern, tmp_path / "right", face="220,110"))
    lab.run(job(pattern, tmp_path / "large", face="largest"))
    two, right, large = (changed(pattern, tmp_path / name, 1001) for name in ("both", "right", "large"))
    assert large[:, :120].any()
    assert not large[:, 230:].any()
    assert not right[:, :120].any()
    assert right[:, 200:].any()
    assert np.array_equal(two, right | large)


def test_without_a_face_the_frame_is_a_copy(lab: Lab, tmp_path: Path) -> None:
    pattern = write_heads(tmp_path / "in", (96, 64), [[], []])
    events = lab.run(job(pattern, tmp_path))
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["identity"] * 2
    assert any(isinstance(e, Warned) and e.code == "face.none" for e in events)


@pytest.mark.parametrize(
    ("edits", "params", "code", "words"),
    [
        ([("ages", 1.0)], {}, "effect.parameter", "ages"),
        ([("wide", 1.0)], {}, "model.mismatch", r"\[1, 17\]"),
        (None, {"encoder": "enc8"}, "effect.parameter", "for model gan2"),
        (None, {"encoder": "e4e-ffhq"}, "effect.parameter", "encoder"),
        (None, {"model": "stylegan2-ffhq"}, "effect.parameter", "faceplate models import"),
        (None, {"regions": "chin"}, "effect.parameter", "region"),
        (None, {"layers": "3-10"}, "effect.parameter", "rows"),
        (None, {"weight_lip": {"keys": [[1, 1.0], [2, 2.0]]}}, "effect.parameter", "does not animate"),
        (None, {"adapt": True}, "effect.needs_model", "lpips-alex"),
    ],
)
def test_what_cannot_be_is_refused_before_a_frame_is_begun(
    lab: Lab, shot: str, tmp_path: Path, edits: Any, params: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(FaceplateError) as caught:
        lab.run(job(shot, tmp_path, edits, params))
    assert caught.value.code == code
    assert re.search(words, f"{caught.value} {caught.value.remedy}")
    assert not list(tmp_path.glob("*.exr"))


def test_an_encoder_of_another_size_is_named_with_both(lab: Lab) -> None:
    """Where no imported encoder fits, the choice cannot tell: the effect does."""
    imported = Imported.of(lab.models)
    with pytest.raises(EffectError, match=r"8x16, gan2 takes 10x16") as caught:
        imported.encoder("enc8", imported.generators["gan2"])
    assert "encoder=enc10" in caught.value.remedy


def test_memory_is_asked_for_before_a_frame_is_begun(models: ModelStore) -> None:
    effect = StylePortrait(Resources(models=models, memory=256 << 20))
    values = check_values(effect.descriptor, {"model": "gan2"})
    with pytest.raises(JobError, match=r"needs 0\.5 GiB to draw") as caught:
        effect.plan(values, {})
    assert caught.value.code == "job.out_of_memory"
    assert StylePortrait(Resources(models=models)).plan(values, {})["bytes"] < 1 << 30


def test_the_encoder_reads_fewer_at_a_time_where_memory_runs_out(
    lab: Lab, bright: str, tmp_path: Path, mirror: Mirror
) -> None:
    sizes: list[int] = []
    read, most = mirror.read, 1

    def starved(faces: Any) -> Any:
        sizes.append(len(faces))
        if len(faces) > most:
            raise torch.OutOfMemoryError("no")
        return read(faces)

    mirror.read = starved  # type: ignore[method-assign]
    lab.run(job(bright, tmp_path, [("tint", 1.0)], {"precision": "bf16"}, frames="1001"))
    assert sizes == [3, 2, 1, 1, 1]
    assert len(mirror.seen) == 3
    most = 0
    with pytest.raises(JobError, match="ran out while reading one picture"):
        lab.run(job(bright, tmp_path, [("tint", 1.0)], {"code_smoothing": "light"}, frames="1001"))
