"""Long steps of an effect: taken once, gone on with, never another's; required by renders, noted by previews."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.cli import build_parser
from host_bridge.cli.options import render_job
from host_bridge.errors import EffectError, JobError, RequestError, ShotError
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server.config import ServerConfig
from inference_server.effects import registry
from inference_server.effects.look.descriptor import LOOK
from inference_server.plates.reader import read_plate
from inference_server.runs import FrameDone, JobContext, Planned, Progress, Warned
from inference_server.shots.actors import check_actor, earlier_result
from inference_server.shots.steps import TakenStep, steps_of_kind
from inference_server.shots.store import ShotStore
from inference_server.validation import check_job, check_preview
from tests.inference_server import staged_effect
from tests.inference_server.desk import Desk, shot_of
from tests.inference_server.shots.heads import write_heads
from tests.inference_server.staged import DESCRIPTOR
from tests.inference_server.staged_effect import HANG, LOG, PACE, found, said
from tests.portrait import COLORSPACE, write_shot

SMILE = [["smile", {"keys": [[1001, 0.0], [1003, 1.0]]}]]


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "staged.log"))
    for name in (HANG, PACE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registry, "_EFFECTS", dict(registry._EFFECTS))
    staged_effect.register()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"), staged_effect.__name__)
    yield made
    made.runner.close()


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shot of one face; the tests tell their steps apart by the parameter `salt`."""
    return write_shot(tmp_path_factory.mktemp("plate"), range(1001, 1004), seed=83)


def job(pattern: str, kind: str = "adapt", salt: int = 0, **changes: Any) -> JobSpec:
    params = {"salt": salt, **changes.pop("params", {})}
    spec = JobSpec(kind, PlateSpec(pattern, colorspace=COLORSPACE), effect="staged", params=params)
    return replace(spec, **changes)


def render(pattern: str, out: Path, salt: int = 0, **changes: Any) -> JobSpec:
    return job(pattern, "render", salt, output=str(out / "o.%04d.exr"), **changes)


def kept(desk: Desk, spec: JobSpec, step: str = "adapt") -> list[TakenStep]:
    """What is published of a step of the job's salt, the newest first."""
    record = desk.store.get(shot_of(desk.run(replace(spec, kind="analyse", effect="", params={}, edits=[], steps=[]))))
    steps = steps_of_kind(desk.store, record, f"staged.{step}")
    return [taken for taken in steps if taken.depends["learned"]["salt"] == spec.params["salt"]]


def stopped(desk: Desk, spec: JobSpec, step: str = "adapt", after: int = 3) -> None:
    """Run a job and cancel it after so many iterations."""
    events = desk.runner.run(spec, JobContext("test"))
    for event in events:
        if isinstance(event, Progress) and event.stage == step and event.done == after:
            break
    events.close()  # type: ignore[attr-defined]


def refused(desk: Desk, spec: JobSpec) -> ShotError:
    with pytest.raises(ShotError) as caught:
        desk.run(spec)
    assert caught.value.code == "shot.not_adapted"
    return caught.value


def test_a_render_without_the_step_is_refused_before_anything_is_done_and_says_what_to_run(
    desk: Desk, pattern: str, tmp_path: Path
) -> None:
    spec = render(pattern, tmp_path, 1, edits=SMILE, frames="1002")
    for asked in (spec, replace(spec, kind="analyse", output="")):
        error = refused(desk, asked)
        assert error.value == {"step": "adapt", "face": 1, "differs": []}
        assert "step adapt of face 1" in error.message
    assert said() == []  # nothing was learned either
    assert list(tmp_path.glob("*.exr")) == []
    words = shlex.split(error.remedy.removeprefix("Run: "))
    assert words[:2] == ["faceplate", "adapt"]
    args, args.rest = build_parser().parse_known_args(words[1:])
    told = render_job(args, DESCRIPTOR)
    assert replace(told, kind="render", frames="1002", output=spec.output, params=spec.params) == spec
    assert told.params == {"salt": 1.0}
    events = desk.run(replace(told, kind="adapt"))
    assert said() == ["learn 1", "adapt 1 from 0", "adapt 1 done", "expression 1 from 0", "expression 1 done"]
    progress = [e for e in events if isinstance(e, Progress) and e.stage == "adapt"]
    assert [e.done for e in progress] == [*range(1, 9), 8]
    assert progress[2].note == "loss 0.3333"
    assert progress[-1].note == "finished"
    assert read_plate(progress[-1].picture).parts[0].data_window.width == 8
    done = [e for e in desk.run(spec) if isinstance(e, FrameDone)]
    assert [e.status for e in done] == ["rendered"]
    (adapted,), (expressed,) = kept(desk, spec), kept(desk, spec, "expression")
    assert (adapted.done, adapted.wanted, adapted.accepted) == (8, 8, False)
    assert not (adapted.folder / "run").exists()
    picture = Path(spec.output % 1002).read_bytes()
    assert adapted.digest.encode() in picture
    assert expressed.digest.encode() in picture


def test_stopped_and_resumed_gives_what_an_uninterrupted_run_gives(desk: Desk, pattern: str) -> None:
    desk.run(job(pattern, salt=2))
    stopped(desk, job(pattern, salt=3))
    assert kept(desk, job(pattern, salt=3)) == []
    desk.run(job(pattern, salt=3))
    assert "adapt 1 from 3" in said()
    whole, resumed = kept(desk, job(pattern, salt=2)), kept(desk, job(pattern, salt=3))
    assert whole[0].digest == resumed[0].digest
    assert whole[0].folder != resumed[0].folder
    before = len(said())
    desk.run(job(pattern, salt=3))  # it is there
    assert len(said()) == before


def test_killed_it_goes_on_from_what_is_on_disk(desk: Desk, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run(job(pattern, salt=4))
    with monkeypatch.context() as patch:
        patch.setenv(HANG, "adapt 5")
        task = desk.start(job(pattern, salt=5))
        try:
            until = time.monotonic() + 90
            while "hanging" not in said() and time.monotonic() < until:
                time.sleep(0.05)
            os.kill(task.pid, signal.SIGKILL)
        finally:
            task.kill()
            task.communicate()
    assert kept(desk, job(pattern, salt=5)) == []
    desk.run(job(pattern, salt=5))
    assert said()[-2:] == ["adapt 1 from 4", "adapt 1 done"]  # the last checkpoint
    assert kept(desk, job(pattern, salt=5))[0].digest == kept(desk, job(pattern, salt=4))[0].digest


def test_the_best_so_far_can_be_accepted_is_told_and_makes_room_for_the_finished_one(
    desk: Desk, pattern: str, tmp_path: Path
) -> None:
    spec, wanted = render(pattern, tmp_path, 6, edits=SMILE, skip_existing=True), job(pattern, salt=6, edits=SMILE)
    stopped(desk, wanted)
    error = refused(desk, spec)
    assert "stopped after 3 of 8 iterations" in error.message
    assert "--accept" in error.remedy
    desk.run(replace(wanted, accept=True))
    assert said()[-2:] == ["expression 1 from 0", "expression 1 done"]  # and on with the next step
    (accepted,) = kept(desk, spec)
    assert (accepted.done, accepted.wanted, accepted.accepted) == (3, 8, True)
    events = desk.run(spec)
    assert "stopped and accepted after 3 of 8" in next(e for e in events if isinstance(e, Warned)).message
    assert b"3 of 8 iterations, accepted" in Path(spec.output % 1001).read_bytes()
    lines = said()
    desk.run(replace(wanted, accept=True))
    assert said() == lines
    desk.run(wanted)  # it is finished after all, and the expression belongs to what was accepted
    assert said()[len(lines) :] == ["adapt 1 from 3", "adapt 1 done", "expression 1 from 0", "expression 1 done"]
    events = desk.run(spec)
    assert not [e for e in events if isinstance(e, Warned)]
    assert {e.status for e in events if isinstance(e, FrameDone)} == {"rendered"}  # the old frames are not this job's


def test_what_was_made_for_other_values_is_not_taken(desk: Desk, pattern: str, tmp_path: Path) -> None:
    desk.run(job(pattern, salt=7, edits=SMILE))
    assert {e.status for e in desk.run(render(pattern, tmp_path, 7, edits=SMILE)) if isinstance(e, FrameDone)}
    other = render(pattern, tmp_path, 7, edits=[["smile", 0.5]])
    error = refused(desk, other)
    assert error.value == {"step": "expression", "face": 1, "differs": ["strengths"]}
    assert "made with other strengths" in error.message
    same = [["smile", {"keys": [[900, 0.0], [1001, 0.0], [1002, 0.5], [1003, 1.0]]}]]
    desk.run(render(pattern, tmp_path, 7, edits=same))  # other keys, the same strengths in every frame
    error = refused(desk, render(pattern, tmp_path, 7, params={"iterations": 5}))
    assert error.value["differs"] == ["iterations"]
    record = desk.store.get(kept(desk, other)[0].folder.parts[-3])
    desk.store.revise(record, desk.store.load(record), {"tracks": {}}, "repaired")
    error = refused(desk, render(pattern, tmp_path, 7, edits=SMILE))
    assert "shot was repaired" in error.message
    desk.store.revise(desk.store.get(record.id), desk.store.load(record), {}, "as it was")


def test_runs_that_nobody_went_on_with_are_dropped_and_accepting_nothing_is_told(desk: Desk, pattern: str) -> None:
    old, young = (job(pattern, salt=19, params={"iterations": n}) for n in (20, 21))
    for spec in (old, young):
        stopped(desk, spec)
    folders = sorted((desk.store.root).glob("*/effects/.work-staged.adapt-1-*"))
    stale = next(f for f in folders if '"wanted": 20' in (f / "result.json").read_text())
    os.utime(stale, (time.time() - 8 * 24 * 3600.0,) * 2)
    events = desk.run(job(pattern, salt=19, accept=True))
    assert [e.code for e in events if isinstance(e, Warned)] == ["shot.nothing_to_accept"]
    assert [f for f in folders if not f.is_dir()] == [stale]


def test_a_step_alone_needs_those_before_it(desk: Desk, pattern: str) -> None:
    only = job(pattern, salt=8, edits=SMILE, steps=["expression"])
    error = refused(desk, only)
    assert error.value["step"] == "adapt"
    assert "--step" not in error.remedy
    desk.run(replace(only, steps=["adapt"]))
    assert kept(desk, only, "expression") == []
    desk.run(only)
    assert len(kept(desk, only, "expression")) == 1
    events = desk.run(job(pattern, salt=8, steps=["expression"]))  # without an edit there is none
    assert [e.code for e in events if isinstance(e, Warned)] == ["effect.step_not_needed"]


def test_every_chosen_face_is_adapted_to(desk: Desk, tmp_path: Path) -> None:
    plate = write_heads(tmp_path / "in", (420, 240), [[(20 + n, 20, 200), (230, 20, 200)] for n in range(2)])
    spec = job(plate, salt=9, face="all")
    events = desk.run(spec)
    assert said() == ["learn 1", "learn 2", "adapt 1 from 0", "adapt 1 done", "adapt 2 from 0", "adapt 2 done"]
    assert {e.note.partition(",")[0] for e in events if isinstance(e, Progress) and "loss" in e.note} == {
        "face 1",
        "face 2",
    }
    first, second = sorted(found(step.folder) for step in kept(desk, spec))
    assert first != second
    desk.run(render(plate, tmp_path / "o", 9, face="all"))
    with pytest.raises(EffectError, match="2 faces are chosen"):
        desk.run(replace(spec, params={"salt": 9, "actor": "Anna"}))
    shot = kept(desk, spec)[0].folder.parts[-3]
    assert found(earlier_result(desk.store, f"{shot}/2", "staged.adapt")) in (first, second)
    with pytest.raises(ShotError, match=f"{shot}/1, {shot}/2"):
        earlier_result(desk.store, shot, "staged.adapt")


def test_of_two_jobs_one_works_and_the_other_waits(desk: Desk, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run(job(pattern, "analyse", effect="", params={}))
    monkeypatch.setenv(PACE, "0.3")
    tasks = [desk.start(job(pattern, salt=10)) for _ in range(2)]
    spoken = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert sorted(line for line in said() if line.startswith("adapt")) == ["adapt 1 done", "adapt 1 from 0"]
    assert "".join(spoken).split().count("shot.waiting") >= 1


def test_nothing_is_evicted_under_a_running_adaptation(desk: Desk, tmp_path: Path) -> None:
    plate = write_shot(tmp_path / "in", range(1001, 1003), seed=84)
    full = ShotStore(desk.store.root, quota_bytes=1)
    events = desk.runner.run(job(plate, salt=11), JobContext("test"))
    shot = next(e.shot for e in events if isinstance(e, Planned))
    next(e for e in events if isinstance(e, Progress) and e.stage == "adapt" and e.done == 4)
    assert shot not in full.evict()
    assert [e for e in events if isinstance(e, Progress)][-1].note == "finished"
    assert len(kept(desk, job(plate, salt=11))) == 1


def test_a_run_that_lost_its_lease_publishes_nothing(desk: Desk, pattern: str) -> None:
    with pytest.raises(JobError) as caught:
        list(desk.runner.run(job(pattern, salt=12), JobContext("test", may_write=lambda: False)))
    assert caught.value.code == "job.lease_lost"
    assert kept(desk, job(pattern, salt=12)) == []


def test_a_preview_shows_what_there_is_and_says_what_is_missing(desk: Desk, pattern: str, tmp_path: Path) -> None:
    spec = PreviewSpec(render(pattern, tmp_path, 13, edits=SMILE), 1002, max_size=1024)
    desk.run(job(pattern, "analyse", effect="", params={}))
    notes, pictures = [], []
    for steps in ([], ["adapt"], ["expression"]):
        if steps:
            desk.run(job(pattern, salt=13, edits=SMILE, steps=steps))
        shown = desk.runner.preview(spec)
        assert shown.final == (shown.note == "")
        notes.append(shown.note)
        pictures.append(shown.pixels)
    assert "without the step adapt" in notes[0]
    assert notes[1] == "face 1 without the step expression: run `faceplate adapt`"
    assert notes[2] == ""
    assert not any(np.array_equal(a, b) for a, b in pairwise(pictures))
    moved = desk.runner.preview(replace(spec, job=replace(spec.job, edits=[["smile", 0.25]])))
    assert not moved.final
    assert "made with other strengths" in moved.note


def test_an_actor_is_found_again_in_the_next_shot(desk: Desk, pattern: str, tmp_path: Path) -> None:
    first = job(pattern, salt=14, params={"actor": "Anna B."})
    desk.run(first)
    came_to = found(kept(desk, first)[0].folder)
    plate = write_shot(tmp_path / "in", range(1001, 1003), seed=85)
    by_name = job(plate, salt=15, params={"start": "Anna B.", "actor": "Anna B.", "iterations": 1})
    by_shot = job(plate, salt=16, params={"start": kept(desk, first)[0].folder.parts[-3], "iterations": 1})
    with contextlib.suppress(ShotError):  # the shot holds other tests' results, too; the newest is taken
        desk.run(by_shot)
    desk.run(by_name)
    went_on = (came_to * 6364136223846793005 + 1442695040888963407) % (1 << 31)
    assert found(kept(desk, by_name)[0].folder) == went_on
    assert found(kept(desk, by_shot)[0].folder) == went_on
    assert found(earlier_result(desk.store, "Anna B.", "staged.adapt")) == went_on  # the latest
    desk.run(by_name)  # its own result is the actor's now, and is still this job's
    assert len(kept(desk, by_name)) == 1
    desk.run(first)  # the older one is not the actor's newest for being asked for again
    assert found(earlier_result(desk.store, "Anna B.", "staged.adapt")) == went_on
    error = refused(desk, job(plate, salt=17, params={"start": "nobody"}))
    assert "'nobody'" in error.message
    assert "Anna B." in error.remedy
    with pytest.raises(EffectError):
        check_actor("../x")


def test_requests_that_make_no_sense_are_refused(pattern: str) -> None:
    def check(spec: JobSpec) -> JobSpec:
        return check_job(spec, ServerConfig(), lambda: (DESCRIPTOR, LOOK))

    assert check(job(pattern, steps=["adapt"], accept=True)).steps == ["adapt"]
    with pytest.raises(EffectError, match="no step"):
        check(replace(job(pattern, effect="look"), params={}))
    with pytest.raises(RequestError, match="unknown step 'adopt'"):
        check(job(pattern, steps=["adopt"]))
    with pytest.raises(RequestError, match="steps"):
        check(render(pattern, Path("/out"), steps=["adapt"]))
    with pytest.raises(EffectError):
        check(job(pattern, effect=""))
    looked_at = check_preview(PreviewSpec(job(pattern, accept=True), 1001), ServerConfig(), lambda: (DESCRIPTOR,))
    assert not looked_at.job.accept


def test_a_damaged_result_says_which_folder_to_remove(desk: Desk, pattern: str, tmp_path: Path) -> None:
    desk.run(job(pattern, salt=18))
    (step,) = kept(desk, job(pattern, salt=18))
    whole = (step.folder / "step.json").read_text()
    (step.folder / "step.json").write_text(whole[:20])
    with pytest.raises(ShotError) as caught:
        desk.run(render(pattern, tmp_path, 18))
    (step.folder / "step.json").write_text(whole)
    assert caught.value.code == "shot.corrupt"
    assert str(step.folder) in caught.value.remedy
