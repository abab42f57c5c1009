"""What an effect learns of a shot: learned once, found again, never half there, never another's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.errors import ShotError
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server.effects import registry
from inference_server.runs import JobContext, Planned, Progress, RunEvent, Warned
from inference_server.shots.effectdata import DataWriter, read_data
from tests.inference_server import learning_effect
from tests.inference_server.desk import Desk, shot_of
from tests.inference_server.learning_effect import HANG, LOG, said
from tests.portrait import COLORSPACE, SIZE, write_shot
from tests.unprivileged import folder_for_anyone, outcome_without_privileges


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "learning.log"))
    monkeypatch.delenv(HANG, raising=False)
    monkeypatch.setattr(registry, "_EFFECTS", dict(registry._EFFECTS))
    learning_effect.register()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"), learning_effect.__name__)
    yield made
    made.runner.close()


def job(pattern: str, folder: Path, **changes: Any) -> JobSpec:
    spec = JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect="learning",
        output=str(folder / "o.%04d.exr"),
    )
    return replace(spec, **changes)


def prepared(events: list[RunEvent]) -> int:
    return sum(isinstance(e, Progress) and e.stage == "prepare" for e in events)


def test_learned_of_the_whole_shot_once_and_found_by_every_later_render(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1005), seed=71)
    first = desk.run(job(pattern, tmp_path / "a", frames="1003"))
    assert prepared(first) == 4  # of all frames, though one was asked for
    assert said() == ["learn 1 4", "learned"]
    plan = next(e.plan for e in first if isinstance(e, Planned))
    assert plan["learning"] == {"faces": 1}
    for frames in ("1003", "1001-1004"):
        assert prepared(desk.run(job(pattern, tmp_path / "b", frames=frames))) == 0
    assert prepared(desk.run(job(pattern, tmp_path / "c", params={"amount": 0.5}, frames="1001"))) == 0
    assert said() == ["learn 1 4", "learned"]
    assert (tmp_path / "a" / "o.1003.exr").read_bytes() == (tmp_path / "b" / "o.1003.exr").read_bytes()
    (name,) = desk.kept(shot_of(first))
    found = read_data(desk.store, desk.store.get(shot_of(first)), name)
    assert found is not None
    assert found.arrays["window"].tolist() == [SIZE, SIZE]
    assert found.maps(1004)["mean"].shape == (3,)
    assert dict(found.maps(9999)) == {}


def test_another_key_style_or_exposure_is_another_folder(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=72)
    pictures = set()
    for changes in (
        {},
        {"params": {"reach": 1.5}},
        {"style_image": pattern % 1002},
        {"params": {"work_exposure": 1.0}},
    ):
        events = desk.run(job(pattern, tmp_path / "o", frames="1001", **changes))  # type: ignore[arg-type]
        assert prepared(events) == 2, changes
        pictures.add((tmp_path / "o" / "o.1001.exr").read_bytes())
    assert len(desk.kept(shot_of(events))) == 4
    assert len(pictures) == 4
    assert prepared(desk.run(job(pattern, tmp_path / "o", frames="1001"))) == 0  # the first is still there


def test_a_repair_of_the_shot_makes_it_stale(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=73)
    events = desk.run(job(pattern, tmp_path / "o", frames="1001"))
    record = desk.store.get(shot_of(events))
    before = desk.kept(record.id)
    desk.store.revise(record, desk.store.load(record), {"tracks": {}}, "repaired")
    assert prepared(desk.run(job(pattern, tmp_path / "o", frames="1001"))) == 3
    assert set(desk.kept(record.id)) > set(before)


def test_preparing_without_rendering(desk: Desk, tmp_path: Path) -> None:
    """What `faceplate analyze --effect` asks for: a farm's tasks then find it."""
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=74)
    spec = replace(job(pattern, tmp_path), kind="analyse", output="")
    assert prepared(desk.run(spec)) == 2
    assert prepared(desk.run(job(pattern, tmp_path / "o"))) == 0


def test_two_processes_learn_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=75)
    desk.run(JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE)))
    monkeypatch.setenv(HANG, "3")
    tasks = [desk.start(job(pattern, tmp_path / str(i), frames=f"{1001 + i}")) for i in range(2)]
    spoken = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert sorted(said()) == ["hanging", "learn 1 3", "learned"]
    assert "".join(spoken).split().count("shot.waiting") == 1  # the one that waited said so, once
    assert all((tmp_path / str(i) / f"o.{1001 + i}.exr").is_file() for i in range(2))


def test_killed_in_the_middle_it_leaves_nothing_that_counts(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=76)
    shot = shot_of(desk.run(JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))))
    monkeypatch.setenv(HANG, "100")
    task = desk.start(job(pattern, tmp_path / "o"))
    try:
        until = time.monotonic() + 60
        while "hanging" not in said() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(task.pid, signal.SIGKILL)
    finally:
        task.kill()
        task.communicate()
    (left,) = desk.kept(shot)
    assert left.startswith(".draft-")
    monkeypatch.delenv(HANG)
    events = desk.run(job(pattern, tmp_path / "o", frames="1002"))
    assert prepared(events) == 3
    (kept,) = desk.kept(shot)
    assert not kept.startswith(".")


def test_cancelled_in_the_middle_it_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1005), seed=77)
    shot = shot_of(desk.run(JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))))
    events = desk.runner.run(job(pattern, tmp_path / "o"), JobContext("test"))
    for event in events:
        if isinstance(event, Progress) and event.stage == "prepare" and event.done == 2:
            break
    assert any(name.startswith(".draft-") for name in desk.kept(shot))
    events.close()  # type: ignore[attr-defined]
    assert desk.kept(shot) == []
    assert prepared(desk.run(job(pattern, tmp_path / "o", frames="1001"))) == 4


def test_a_store_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with folder_for_anyone() as folder:
        writer = Desk(folder, learning_effect.__name__)
        pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=78)
        spec = JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))
        record = writer.store.get(shot_of(writer.run(spec)))
        writer.runner.close()
        (writer.store.root / record.id).chmod(0o555)

        def attempt() -> str:
            try:
                DataWriter(writer.store, record, "learning-1-abc")
            except ShotError as error:
                return f"{error.code}: {error.message} {error.path} {error.remedy}"
            return "written"

        told = outcome_without_privileges(attempt)
        (writer.store.root / record.id).chmod(0o755)
    assert told.startswith("shot.store: the shot store cannot be written")
    assert record.id in told
    assert "FACEPLATE_SHOTS" in told


def test_damaged_data_say_which_folder_to_remove(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=79)
    shot = shot_of(desk.run(job(pattern, tmp_path / "o")))
    (name,) = desk.kept(shot)
    path = desk.store.root / shot / "effects" / name / "shot.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ShotError) as caught:
        desk.run(job(pattern, tmp_path / "o"))
    assert caught.value.code == "shot.corrupt"
    assert str(path.parent) in caught.value.remedy


def test_a_preview_says_whether_the_shot_is_prepared(desk: Desk, tmp_path: Path) -> None:
    """Before analysis, after it, and after preparation: only then it is what the render gives."""
    pattern = write_shot(tmp_path / "in", range(1001, 1004), seed=80)
    spec = PreviewSpec(job(pattern, tmp_path / "o"), 1003, max_size=1024)
    notes, pictures = [], []
    analyse = JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))
    for prepare in (None, analyse, job(pattern, tmp_path / "o", frames="1001")):
        if prepare is not None:
            desk.run(prepare)
        shown = desk.runner.preview(spec)
        assert shown.final == (shown.note == "")
        notes.append(shown.note)
        pictures.append(shown.pixels)
    assert "not analysed" in notes[0]
    assert "not prepared" in notes[1]
    assert "analysed" not in notes[1]
    assert notes[2] == ""
    assert not np.array_equal(pictures[1], pictures[2])  # of that frame alone, and of the shot
    learned = said().count("learned")
    desk.runner.preview(replace(spec, job=replace(spec.job, params={"amount": 0.2})))
    assert said().count("learned") == learned


def test_a_reduced_preview_tells_its_scale(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=81)
    desk.run(job(pattern, tmp_path / "o", frames="1001"))
    small = desk.runner.preview(PreviewSpec(job(pattern, tmp_path / "o"), 1001, max_size=48))
    assert max(small.pixels.shape) <= 48
    assert "of the plate's size" in small.note


def test_nothing_is_learned_of_an_effect_that_does_not(desk: Desk, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=82)
    events = desk.run(job(pattern, tmp_path / "o", effect="look"))
    assert desk.kept(shot_of(events)) == []
    assert not [e for e in events if isinstance(e, Warned)]
