"""Promise 5: moving a slider shows the new picture without another decode, detect or analyse pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.errors import PlateError
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server import preview as preview_module
from inference_server.plates.color import ColorConfig, ViewerTransform
from inference_server.plates.reader import read_plate
from tests.portrait import COLORSPACE, SIZE, write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job


def _spec(pattern: str, degree: float, **changes: Any) -> PreviewSpec:
    look = {"effect": "look", "params": {"style": "cartoon", "degree": degree}}
    return PreviewSpec(job(pattern, "", look), 1001, **{"max_size": 1024, **changes})


def test_a_slider_neither_decodes_nor_detects_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = write_shot(tmp_path / "in", [1001, 1002], seed=51)
    first = bench.runner.preview(_spec(pattern, 0.2))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("decoded or analysed again")

    monkeypatch.setattr(preview_module, "read_plate", forbidden)
    monkeypatch.setattr(preview_module, "analyse_shot", forbidden)
    second = bench.runner.preview(_spec(pattern, 0.9))
    assert first.pixels.shape == second.pixels.shape
    assert (first.pixels != second.pixels).any()


def test_before_analysis_a_preview_says_it_is_not_final_and_afterwards_it_is(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=52)
    early = bench.runner.preview(_spec(pattern, 0.5))
    assert not early.final
    assert "not analysed" in early.note
    bench.run(JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE)))
    late = bench.runner.preview(_spec(pattern, 0.5))
    assert late.final
    assert late.note == ""


def test_a_final_preview_is_what_the_render_gives(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=53)
    out = str(tmp_path / "out" / "o.%04d.exr")
    bench.run(job(pattern, out, {"effect": "look", "params": {"style": "cartoon", "degree": 0.7}}))
    shown = bench.runner.preview(_spec(pattern, 0.7, crop="frame", exposure=0.5))
    assert shown.final
    assert shown.region == (0, 0, SIZE, SIZE)
    stored = read_plate(out % 1001).parts[0].channels
    made = np.stack([stored[c].astype(np.float32) for c in "RGB"], axis=-1)
    expected = ColorConfig().transform(COLORSPACE).bake(made, ViewerTransform(exposure=0.5))
    assert (shown.pixels == expected).all()


def test_a_large_region_is_shown_reduced_and_says_so(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001], seed=54)
    small = bench.runner.preview(_spec(pattern, 0.7, max_size=96))
    assert max(small.pixels.shape[:2]) <= 96
    assert not small.final
    assert "size" in small.note
    full = bench.runner.preview(_spec(pattern, 0.7))
    rows = np.linspace(0, full.pixels.shape[0] - 1, small.pixels.shape[0]).round().astype(int)
    columns = np.linspace(0, full.pixels.shape[1] - 1, small.pixels.shape[1]).round().astype(int)
    difference = np.abs(full.pixels[rows][:, columns].astype(int) - small.pixels.astype(int))
    assert difference.mean() < 12  # of 255: the same picture


def test_plate_and_matte_can_be_shown(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001], seed=55)
    plate = bench.runner.preview(_spec(pattern, 1.0, show="plate"))
    matte = bench.runner.preview(_spec(pattern, 1.0, show="matte"))
    result = bench.runner.preview(_spec(pattern, 1.0))
    assert plate.pixels.shape == matte.pixels.shape == result.pixels.shape
    assert matte.pixels.max() == 255
    outside = matte.pixels[..., 0] == 0
    assert (plate.pixels[outside] == result.pixels[outside]).all()
    assert (plate.pixels[~outside] != result.pixels[~outside]).any()


def test_a_frame_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001], seed=56)
    with pytest.raises(PlateError) as caught:
        bench.runner.preview(PreviewSpec(job(pattern, "", "look"), 2000))
    assert caught.value.code == "plate.missing_frame"
