"""Before a job starts: what it will take, what is refused, what goes into the numeric plan; and previews."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.effects import check_values
from host_bridge.errors import EffectError, JobError
from host_bridge.jobspec import PreviewSpec
from inference_server.effects.base import Resources, ShotData
from inference_server.effects.vtoonify.effect import VToonifyEffect
from inference_server.effects.vtoonify.memory import Need
from inference_server.effects.vtoonify.variants import Variant
from inference_server.models.cards import official_card
from inference_server.models.store import Folder, ModelStore, Stored, StoredModel
from inference_server.runs import JobContext, Progress, RunEvent, Warned
from tests.inference_server.effects.vtoonify.conftest import Lab, encoded, job, plan_of
from tests.portrait import SIZE, write_shot


def of_size(height: int, width: int, **arrays: Any) -> ShotData:
    return ShotData({"size": np.array([height, width]), **arrays})


def full_size() -> Variant:
    """The published VToonify-D, as it is imported: 98,170,787 values that inference reads."""
    stored = Stored("x", 0, "0" * 64, "vtoonify_s_d.pt", "0" * 64, kept=98_170_787)
    return Variant(StoredModel(official_card("vtoonify-d-cartoon-s-d"), stored, Folder(Path("."))), "dualstylegan")


def test_a_published_network_is_estimated_above_what_was_measured() -> None:
    """Resident memory above torch's own in fp32 on a CPU: 520 MB at 256x256, 620 MB at 400x320. Not absurdly above."""
    need = Need.of(full_size(), "fp32", "cpu")
    for (h, w), measured in (((256, 256), 520e6), ((400, 320), 620e6)):
        assert measured < need.total(h * w) < 3 * measured
    assert need.per_pixel > 2186
    half = Need.of(full_size(), "bf16", "cpu")
    assert half.total(400 * 320) < need.total(400 * 320)


def test_what_does_not_fit_is_refused_before_it_starts_and_told_what_would(models: ModelStore) -> None:
    effect = VToonifyEffect(Resources(models=models, memory=400 << 20))
    values = check_values(effect.descriptor, {"model": "d-any"})
    fits = effect.plan(values, {1: of_size(400, 400)})
    assert fits["size"] == {"1": [400, 400]}
    assert 256 << 20 < fits["bytes"] < 400 << 20
    with pytest.raises(JobError, match=r"2000x1600 px in fp32") as caught:
        effect.plan(values, {1: of_size(64, 64), 2: of_size(1600, 2000)})
    assert caught.value.code == "job.out_of_memory"
    found = re.search(r"padding of at most (\d+) on every side", caught.value.remedy)
    assert found
    side = 2 * int(found[1])
    effect.plan(values, {1: of_size(side, side)})
    with pytest.raises(JobError):
        effect.plan(values, {1: of_size(side + 32, side + 32)})
    between = next(s for s in range(side, 4000, 32) if not _fits(effect, values, s))
    with pytest.raises(JobError, match="GiB") as caught:
        effect.plan(values, {1: of_size(between, between)})
    assert "precision=fp16" in caught.value.remedy


def _fits(effect: VToonifyEffect, values: Any, side: int) -> bool:
    try:
        effect.plan(values, {1: of_size(side, side)})
    except JobError:
        return False
    return True


def test_a_missing_model_is_told_before_the_shot_is_analysed(tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=91)
    lab = Lab(tmp_path, ModelStore((Folder(tmp_path / "none", True),)))
    spec = job(pattern, tmp_path / "out")
    heard: list[RunEvent] = []
    with pytest.raises(EffectError, match="no VToonify network"):
        heard.extend(lab.runner.run(replace(spec, params={}), JobContext("test")))
    assert not [e for e in heard if isinstance(e, Progress)]
    lab.runner.close()


def test_no_frame_is_begun_where_memory_is_short(models: ModelStore, shot: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path, models, memory_gb=0.25)
    with pytest.raises(JobError, match=r"needs 0\.3 GiB"):
        lab.run(job(shot, tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.exr"))
    lab.runner.close()


def test_the_numeric_plan_holds_all_that_decides_the_pixels(
    parsing_lab: Lab, lab: Lab, shot: str, tmp_path: Path
) -> None:
    plan = plan_of(parsing_lab.run(job(shot, tmp_path, frames="1001")))
    assert {k: plan[k] for k in ("precision", "batch", "parser", "smoothing")} == {
        "precision": "fp32",
        "batch": 1,
        "parser": "bisenet-faceparsing",
        "smoothing": "dis, 5 frames",
    }
    assert plan["size"] == {"1": [144, 144]}
    assert set(plan["models"]) == {"d-any", "vtoonify-codes-small", "vtoonify-encoder", "bisenet-faceparsing"}
    chunk = plan_of(parsing_lab.run(job(shot, tmp_path, frames="1003")))
    assert chunk == plan
    other = plan_of(lab.run(job(shot, tmp_path, {"model": "t"}, frames="1001")))
    assert (other["parser"], other["smoothing"]) == ("mattes", None)
    assert set(other["models"]) == {"t", "vtoonify-encoder"}


def test_that_mattes_stand_in_for_the_parser_is_said(models: ModelStore, shot: str, tmp_path: Path) -> None:
    fresh = Lab(tmp_path, models)
    events = fresh.run(job(shot, tmp_path, frames="1001"))
    said = [e for e in events if isinstance(e, Warned) and e.code == "effect.stand_in"]
    assert len(said) == 1
    assert "faceplate models pull bisenet-faceparsing" in said[0].message
    fresh.runner.close()


def test_loading_is_told(models: ModelStore, shot: str, tmp_path: Path) -> None:
    fresh = Lab(tmp_path, models)
    heard: list[tuple[str, float]] = []
    fresh.runner.report = lambda text, done: heard.append((text, done))
    list(fresh.runner.run(job(shot, tmp_path, frames="1001"), JobContext("test")))
    fresh.runner.close()
    assert ("loading Small vtoonify-encoder", 0.0) in heard
    assert ("loading Small d-any", 1.0) in heard


def test_previews_before_and_after_preparation(parsing_models: ModelStore, shot: str, tmp_path: Path) -> None:
    """Of the frame alone, then what the render gives; reduced ones show the same at their size."""
    fresh = Lab(tmp_path, parsing_models)
    spec = PreviewSpec(job(shot, tmp_path / "o"), 1003, max_size=1024, crop="frame")
    early = fresh.runner.preview(spec)
    assert "not analysed" in early.note
    fresh.run(job(shot, tmp_path / "o", frames="1003"))
    final = fresh.runner.preview(spec)
    assert final.final
    assert final.region == (0, 0, SIZE, SIZE)
    rendered = encoded(str(tmp_path / "o" / "o.1003.exr"))
    assert float(np.abs(final.pixels / 255 - rendered).mean()) < 0.01  # sRGB against a power of 2.2
    small = fresh.runner.preview(replace(spec, max_size=112))
    assert "rendered at 0.50" in small.note
    assert small.pixels.shape == (112, 112, 3)
    halved = final.pixels.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    assert float(np.abs(small.pixels - halved).mean()) < 6
    fresh.runner.close()
