"""Promise 3: a shot is analysed once, as a whole, and every later render of any part of it uses that."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from host_bridge.errors import ShotError
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.faces.types import FaceState
from inference_server.plates.reader import read_plate
from inference_server.runs import Planned, Progress, Warned
from tests.plate_files import PartSpec, write_exr
from tests.portrait import COLORSPACE, SIZE, channels, moved, write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job


def _analysed(events: list[object]) -> int:
    return sum(isinstance(e, Progress) and e.stage == "analyse" for e in events)


def _shot(events: list[object]) -> str:
    return next(e.shot for e in events if isinstance(e, Planned))


def test_the_second_render_of_a_shot_detects_nothing(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=31)
    first = bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr"), frames="1002"))
    assert _analysed(first) >= 3  # the whole shot, though one frame was asked for
    second = bench.run(job(pattern, str(tmp_path / "b" / "b.%04d.exr"), "look", frames="1003"))
    assert _analysed(second) == 0
    assert _shot(first) == _shot(second)


def test_another_mount_of_the_same_plate_is_the_same_shot(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "here", range(1001, 1003), seed=32)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    first = bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr")))
    second = bench.run(job(str(tmp_path / "there" / "shot.%04d.exr"), str(tmp_path / "b" / "b.%04d.exr")))
    assert _shot(first) == _shot(second)
    assert _analysed(second) == 0


def test_frames_that_appear_later_make_a_new_version_and_earlier_ones_stay(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=33)
    first = bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr")))
    write_shot(tmp_path / "in", [1003], seed=33)
    again = bench.run(job(pattern, str(tmp_path / "b" / "b.%04d.exr"), frames="1001"))
    assert _shot(again) == _shot(first)
    assert "shot.extended" in [e.code for e in again if isinstance(e, Warned)]
    later = bench.run(job(pattern, str(tmp_path / "c" / "c.%04d.exr"), frames="1003"))
    assert _shot(later) != _shot(first)
    assert "shot.extended" in [e.code for e in later if isinstance(e, Warned)]


def test_a_shot_range_is_its_own_shot(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=34)
    narrow = bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr"), frames="1001", shot_range="1001-1002"))
    whole = bench.run(job(pattern, str(tmp_path / "b" / "b.%04d.exr"), frames="1001"))
    assert _shot(narrow) != _shot(whole)
    with pytest.raises(ShotError, match="outside the shot range"):
        bench.run(job(pattern, str(tmp_path / "c" / "c.%04d.exr"), frames="1003", shot_range="1001-1002"))


def test_a_changed_frame_is_refused_by_id_and_found_out_without(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=35)
    spec = JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))
    shot = _shot(bench.run(spec))
    assert _shot(bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr"), shot=shot))) == shot
    write_exr(pattern % 1002, PartSpec({c: np.full((SIZE, SIZE), 0.3, np.float16) for c in "RGB"}))
    with pytest.raises(ShotError) as caught:
        bench.run(job(pattern, str(tmp_path / "b" / "b.%04d.exr"), shot=shot))
    assert (caught.value.code, caught.value.frame) == ("shot.stale", 1002)
    assert _shot(bench.run(job(pattern, str(tmp_path / "c" / "c.%04d.exr")))) != shot


def test_a_dropout_is_interpolated_and_marked(bench: Bench, tmp_path: Path) -> None:
    """In one frame the face is hidden; the shot's track bridges it."""
    pattern = write_shot(tmp_path / "in", range(1001, 1006), seed=36)
    hidden = moved(1003, seed=36)
    hidden[10 : SIZE * 2 // 3, SIZE // 4 : SIZE * 3 // 4] = 0.18
    write_exr(pattern % 1003, PartSpec(channels(hidden)))
    bench.run(job(pattern, str(tmp_path / "a" / "a.%04d.exr")))
    analysis = bench.analysis()
    states = [FaceState(int(s)) for s in analysis.tracks[0].states]
    assert states == [
        FaceState.DETECTED,
        FaceState.DETECTED,
        FaceState.INTERPOLATED,
        FaceState.DETECTED,
        FaceState.DETECTED,
    ]
    x = analysis.tracks[0].landmarks[:, 1, 0]
    assert abs(x[2] - (x[1] + x[3]) / 2) < 1.5
    assert read_plate(str(tmp_path / "a" / "a.1003.exr")).parts[0].channels["R"].shape == (SIZE, SIZE)
