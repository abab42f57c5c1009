"""A shot at another speed and missing frames: numbering, the plate between frames, performance, metadata."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.errors import EffectError, JobError, PlateError, RequestError
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec, job_hash
from inference_server.config import ServerConfig
from inference_server.effects import registry
from inference_server.effects.look.descriptor import LOOK
from inference_server.plates.attributes import decode
from inference_server.plates.between import between, motion_between
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence
from inference_server.plates.types import Window
from inference_server.retiming import held_at_cuts, plan_retimed
from inference_server.runs import FrameDone, RunEvent
from inference_server.shots.types import ShotAnalysis
from inference_server.validation import check_job
from tests.inference_server import learning_effect
from tests.inference_server.desk import Desk
from tests.inference_server.learning_effect import LOG
from tests.plate_files import independent_read
from tests.portrait import COLORSPACE, moved, write_shot


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"), learning_effect.__name__)
    yield made
    made.runner.close()


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five frames; an identifier channel beside the colour."""
    identifiers = np.arange(224 * 224, dtype=np.uint32).reshape(224, 224)
    return write_shot(tmp_path_factory.mktemp("plate"), range(1001, 1006), seed=96, extra={"id": identifiers})


def job(shot: str, out: Path, **changes: Any) -> JobSpec:
    plate = PlateSpec(shot, colorspace=COLORSPACE, missing=changes.pop("missing", "error"))
    spec = JobSpec("render", plate, effect="look", params={"style": "cartoon"}, output=str(out / "o.%04d.exr"))
    return replace(spec, **changes)


def done(events: list[RunEvent]) -> dict[int, str]:
    return {e.frame: e.status for e in events if isinstance(e, FrameDone)}


def rgb(path: Path) -> Any:
    channels = independent_read(str(path))[0]
    return np.stack([channels[n].astype(np.float32) for n in "RGB"], axis=-1)


def marked(path: Path) -> str:
    found = read_plate(str(path)).parts[0].header.get("faceplate:between")
    return "" if found is None else str(decode(found))


def test_the_flow_finds_what_was_there_in_between(tmp_path: Path) -> None:
    """The camera drifts evenly, so the frame between two is known."""
    first, middle, last = (moved(frame, seed=1) for frame in (1001, 1003, 1005))
    display = [np.clip(p, 0, 1) ** (1 / 2.2) for p in (first, last)]
    made = between(first, last, 0.5, motion_between(display[0], display[1]))
    inner = (slice(16, -16), slice(16, -16))
    wrong, plain = (np.abs(p - middle)[inner].mean() for p in (made, (first + last) / 2))
    assert wrong < 0.5 * plain
    still = motion_between(display[0], display[0])
    assert np.allclose(between(first, first, 0.3, still), first, atol=1e-3)


def test_numbers_and_times_of_output_frames(shot: str) -> None:
    sequence = find_sequence(shot)

    def times(frames: str, factor: float) -> list[tuple[int, float]]:
        planned = plan_retimed(sequence, frames, factor, "error").frames
        assert all(p.error is None for p in planned)
        return [(p.frame, round(p.source + (p.between.share if p.between else 0), 4)) for p in planned]

    whole = times("", 2)
    assert whole == [(1001 + i, 1001 + i / 2) for i in range(9)]  # nothing comes after the last frame
    assert times("1001-1002", 2) + times("1003-1005", 2) == whole  # chunks are parts of the whole
    assert times("", 1.5) == [(1001 + i, round(1001 + i / 1.5, 4)) for i in range(7)]
    assert times("", 0.5) == [(1001, 1001), (1002, 1003), (1003, 1005)]


def test_twice_as_long(desk: Desk, shot: str, tmp_path: Path) -> None:
    curve = {"keys": [[1001, 0.0], [1005, 1.0]]}
    params = {"style": "cartoon", "degree": curve}
    plain, slow = job(shot, tmp_path / "a", params=params), job(shot, tmp_path / "b", params=params, retime=2.0)
    desk.run(plain)
    states = done(desk.run(slow))
    assert states == {f: ("rendered" if f % 2 else "interpolated") for f in range(1002, 1010)} | {1001: states[1001]}
    for frame in range(1001, 1006):  # a frame of the plate is what it is without retiming
        before, after = (
            independent_read(str(tmp_path / f))[0] for f in (f"a/o.{frame}.exr", f"b/o.{2 * frame - 1001}.exr")
        )
        assert all(np.array_equal(before[name], after[name]) for name in before), frame
        assert marked(tmp_path / "b" / f"o.{2 * frame - 1001}.exr") == ""
    assert marked(tmp_path / "b" / "o.1006.exr") == "1003 1004 0.5"
    left, made, right = (rgb(tmp_path / "b" / f"o.{f}.exr") for f in (1005, 1006, 1007))
    assert 0 < np.abs(made - left).mean() < np.abs(right - left).mean() * 1.5
    assert np.array_equal(
        independent_read(str(tmp_path / "b" / "o.1006.exr"))[0]["id"], independent_read(shot % 1003)[0]["id"]
    )
    chunk = replace(slow, frames="1003", output=str(tmp_path / "c" / "o.%04d.exr"))
    assert set(done(desk.run(chunk))) == {1005, 1006}
    for frame in (1005, 1006):
        assert (tmp_path / "c" / f"o.{frame}.exr").read_bytes() == (tmp_path / "b" / f"o.{frame}.exr").read_bytes()
    assert set(done(desk.run(replace(chunk, skip_existing=True))).values()) == {"kept"}


def test_a_missing_frame_is_made_of_its_neighbours(desk: Desk, shot: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for frame in (1001, 1002, 1004, 1005):
        shutil.copy(shot % frame, folder / f"p.{frame}.exr")
    pattern = str(folder / "p.%04d.exr")
    mask = MaskSpec(pattern, channel="R", mode="intersect")
    spec = job(pattern, tmp_path / "o", missing="interpolate", frames="1001-1005", mask=mask)
    assert done(desk.run(spec)) == {f: ("interpolated" if f == 1003 else "rendered") for f in range(1001, 1006)}
    assert marked(tmp_path / "o" / "o.1003.exr") == "1002 1004 0.5"
    with pytest.raises(PlateError) as caught:
        desk.run(replace(spec, frames="1004-1007"))
    assert caught.value.code == "plate.missing_frame"
    with pytest.raises(PlateError):
        desk.run(job(pattern, tmp_path / "x", retime=2.0))  # the gap has to be allowed


def test_over_a_cut_the_frame_before_it_is_held(shot: str) -> None:
    planned = plan_retimed(find_sequence(shot), "", 2, "error")
    analysis = ShotAnalysis((1001,), Window(0, 0, 1, 1), 1.0, 0.0, (), cuts=(1003,))
    shares = {p.frame: p.made for p in held_at_cuts(planned, analysis).frames}
    assert [frame for frame, made in shares.items() if made] == [1002, 1006, 1008]


def test_what_cannot_be_retimed_is_refused(
    desk: Desk, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    monkeypatch.setattr(registry, "_EFFECTS", dict(registry._EFFECTS))
    learning_effect.register()
    with pytest.raises(EffectError, match="cannot draw what lies between"):
        desk.run(job(shot, tmp_path, effect="learning", params={}, retime=2.0))
    with pytest.raises(JobError) as caught:  # every frame of the plate is an input, asked for or not
        desk.run(job(shot, tmp_path, frames="1001", retime=2.0, output=shot))
    assert caught.value.code == "job.output_is_input"
    for wrong in (job(shot, tmp_path, retime=0.01), job(shot, tmp_path, retime=2.0, kind="analyse")):
        with pytest.raises(RequestError, match="retime"):
            check_job(wrong, ServerConfig(), lambda: (LOOK,))
    assert job_hash(job(shot, tmp_path)) != job_hash(job(shot, tmp_path, retime=2.0))
