"""Promise 6: every failure names the frame, the path and the remedy, and leaves nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host_bridge.errors import FaceplateError
from inference_server.plates.output import prepare_folder
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import parse_pattern
from inference_server.runs import FrameDone, FrameFailed, FrameStarted, JobContext, Planned
from tests.plate_files import PartSpec, write_deep, write_exr
from tests.portrait import write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job
from tests.unprivileged import folder_for_anyone, outcome_without_privileges


def _truncate(path: str) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def _empty(path: str) -> None:
    Path(path).write_bytes(b"")


def _another_size(path: str) -> None:
    write_exr(path, PartSpec({c: np.full((64, 64), 0.2, np.float16) for c in "RGB"}))


DAMAGE: dict[str, tuple[Callable[[str], object], str]] = {
    "truncated": (_truncate, "plate.truncated"),
    "zero bytes": (_empty, "plate.empty_file"),
    "deep": (write_deep, "plate.deep"),
    "missing": (os.unlink, "plate.missing_frame"),
}


def _leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.startswith(".")]


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_bad_frame_fails_with_its_name_and_the_rest_is_done(bench: Bench, tmp_path: Path, damage: str) -> None:
    breaks, code = DAMAGE[damage]
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=60 + list(DAMAGE).index(damage))
    breaks(pattern % 1002)
    spec = job(pattern, str(tmp_path / "out" / "o.%04d.exr"), frames="1001-1003", shot_range="1001,1003")
    if damage != "missing":
        spec = replace(spec, shot_range="")
    with pytest.raises(FaceplateError) as caught:
        bench.run(spec)
    assert caught.value.code == code
    assert caught.value.frame == 1002
    assert caught.value.path == pattern % 1002
    assert caught.value.remedy
    assert _leftovers(tmp_path) == []
    if damage == "missing":  # the shot can be analysed without it, so the other frames can be had
        events = bench.run(replace(spec, continue_on_error=True))
        failed = [e for e in events if isinstance(e, FrameFailed)]
        assert [(e.frame, e.error["code"]) for e in failed] == [(1002, code)]
        assert sorted(e.frame for e in events if isinstance(e, FrameDone)) == [1001, 1003]


def test_a_frame_that_cannot_be_read_fails_alone_where_the_job_goes_on(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1005), seed=70)
    _truncate(pattern % 1003)
    events = bench.run(job(pattern, str(tmp_path / "out" / "o.%04d.exr"), continue_on_error=True))
    failed = [(e.frame, e.error["code"], e.error["path"]) for e in events if isinstance(e, FrameFailed)]
    assert failed == [(1003, "plate.truncated", pattern % 1003)]
    assert sorted(e.frame for e in events if isinstance(e, FrameDone)) == [1001, 1002, 1004]
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("policy", ["hold", "skip"])
def test_missing_frames_by_policy(bench: Bench, tmp_path: Path, policy: str) -> None:
    pattern = write_shot(tmp_path / "in", [1001, 1003], seed=71)
    out = str(tmp_path / "out" / "o.%04d.exr")
    events = bench.run(job(pattern, out, frames="1001-1003", plate={"missing": policy}))
    status = {e.frame: e.status for e in events if isinstance(e, FrameDone)}
    assert status == ({1001: "rendered", 1003: "rendered"} | ({1002: "held"} if policy == "hold" else {}))
    if policy == "hold":
        held, source = read_plate(out % 1002).parts[0].channels, read_plate(out % 1001).parts[0].channels
        assert all((held[c] == source[c]).all() for c in "RGB")


def test_output_over_input_is_refused(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    before = Path(pattern % 1001).read_bytes()
    os.symlink(tmp_path / "in", tmp_path / "link")
    for output in (pattern, str(tmp_path / "link" / "shot.%04d.exr")):
        with pytest.raises(FaceplateError) as caught:
            bench.run(job(pattern, output))
        assert caught.value.code == "job.output_is_input"
    assert Path(pattern % 1001).read_bytes() == before


def test_an_output_that_cannot_be_written_is_a_clear_error(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FaceplateError) as caught:
        bench.run(job(pattern, str(tmp_path / "file" / "o.%04d.exr")))
    assert caught.value.code in ("plate.write_failed", "plate.permission")
    assert caught.value.remedy
    assert str(tmp_path / "file") in (caught.value.path or "")


def test_a_read_only_folder_is_told_before_anything_is_rendered() -> None:
    with folder_for_anyone() as folder:
        (folder / "out").mkdir(mode=0o555)

        def attempt() -> str:
            try:
                prepare_folder(parse_pattern(str(folder / "out" / "o.%04d.exr")))
            except FaceplateError as error:
                return f"{error.code} {error.remedy}"
            return "written"

        assert outcome_without_privileges(attempt).startswith("plate.permission Give the server's user the right")


def test_closing_a_run_leaves_no_partial_file(bench: Bench, tmp_path: Path) -> None:
    """What cancel does: the generator is closed between two frames."""
    pattern = write_shot(tmp_path / "in", range(1001, 1006), seed=72)
    run = bench.runner.run(job(pattern, str(tmp_path / "out" / "o.%04d.exr")), JobContext("cancelled"))
    for event in run:
        if isinstance(event, FrameStarted) and event.frame == 1003:
            break
    run.close()
    assert _leftovers(tmp_path) == []
    for path in (tmp_path / "out").glob("*"):
        read_plate(str(path))
    assert not (tmp_path / "out" / "o.1005.exr").exists()


def test_a_resumed_job_keeps_its_finished_frames_and_makes_again_what_is_damaged(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=73)
    out = str(tmp_path / "out" / "o.%04d.exr")
    spec = job(pattern, out)
    bench.run(spec)
    whole = {f: Path(out % f).read_bytes() for f in range(1001, 1004)}
    _truncate(out % 1002)
    Path(out % 1003).unlink()
    events = bench.run(spec, done=frozenset({1001, 1002}))
    status = {e.frame: e.status for e in events if isinstance(e, FrameDone)}
    assert status == {1001: "kept", 1002: "rendered", 1003: "rendered"}
    assert {f: Path(out % f).read_bytes() for f in range(1001, 1004)} == whole


def test_a_lost_lease_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    with pytest.raises(FaceplateError) as caught:
        bench.run(job(pattern, str(tmp_path / "out" / "o.%04d.exr")), may_write=lambda: False)
    assert caught.value.code == "job.lease_lost"
    assert list((tmp_path / "out").glob("*")) == []
    assert _leftovers(tmp_path / "out") == []


def test_a_frame_that_killed_its_worker_twice_is_reported_not_tried(bench: Bench, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=74)
    error = FaceplateError("job.worker_died", "the worker died", remedy="Report this.").to_wire()
    spec = job(pattern, str(tmp_path / "out" / "o.%04d.exr"), continue_on_error=True)
    events = bench.run(spec, banned={1001: error})
    assert [(e.frame, e.error["code"]) for e in events if isinstance(e, FrameFailed)] == [(1001, "job.worker_died")]
    assert [e.frame for e in events if isinstance(e, FrameDone)] == [1002]
    assert any(isinstance(e, Planned) for e in events)
