"""`faceplate shots`: what it says, what it refuses, and repairs that reach the render."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.cli import main
from host_bridge.cli.progress import JsonReporter
from host_bridge.errors import ExitCode, ShotError
from host_bridge.messages import JobEvent
from inference_server.faces.types import FaceState
from inference_server.plates.reader import read_plate
from inference_server.runs import FrameDone
from inference_server.shots import cli
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ANALYSIS_VERSION, ShotAnalysis
from tests.inference_server.shots.conftest import Studio, planned, retouch
from tests.inference_server.shots.heads import write_heads
from tests.portrait import SIZE, write_shot

FRAMES = range(1001, 1007)
Shots = Callable[..., int]


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shot(tmp_path_factory.mktemp("plate"), FRAMES, seed=201)


@pytest.fixture(scope="module")
def analysed(studio: Studio, pattern: str) -> ShotRecord:
    return studio.analyse(pattern)


@pytest.fixture
def mine(studio: Studio, analysed: ShotRecord, tmp_path: Path) -> ShotStore:
    """A store of the test's own with the shot in it, and nothing done to it."""
    shutil.copytree(studio.root / analysed.id, tmp_path / "store" / analysed.id)
    return ShotStore(tmp_path / "store")


@pytest.fixture
def shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shots:
    """`faceplate shots ...` on the test's own store."""
    monkeypatch.setenv("FACEPLATE_SHOTS", str(tmp_path / "store"))
    monkeypatch.setenv("FACEPLATE_CONFIG", str(tmp_path / "no_config"))

    def run(*arguments: object) -> int:
        return main(["shots", *map(str, arguments)])

    return run


def repair_file(folder: Path, repairs: Any) -> Path:
    path = folder / "repairs.json"
    path.write_text(repairs if isinstance(repairs, str) else json.dumps(repairs))
    return path


def landmark(analysis: ShotAnalysis, number: int, frame: int, track: int = 1) -> list[float]:
    face = analysis.face_at(track, frame)
    assert face is not None
    return [float(v) for v in face.landmarks[number, :2]]


def statuses(studio: Studio, spec: Any) -> list[str]:
    return [e.status for e in studio.run(spec) if isinstance(e, FrameDone)]


# -- list and show ---------------------------------------------------------------------------------------------------


def test_list(mine: ShotStore, shots: Shots, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = mine.records()
    mine.set_locked(record, True)
    with mine.pin(record.id):
        assert shots("list", "--json") == ExitCode.OK
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["frames"], row["count"], row["size"]) == (record.id, "1001-1006", 6, [SIZE, SIZE])
    assert (row["tracks"], row["revision"], row["pattern"]) == (1, 0, pattern)
    assert (row["locked"], row["pinned"], row["version"]) == (True, True, ANALYSIS_VERSION)
    assert row["bytes"] == sum(f.stat().st_size for f in (mine.root / record.id).glob("*.*"))
    assert shots("list") == ExitCode.OK
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "frames", "size", "tracks", "rev", "state", "space", "used", "pattern"]
    assert line.split()[:6] == [record.id, "1001-1006", f"{SIZE}x{SIZE}", "1", "0", "locked"]
    assert line.endswith(pattern)


def test_list_of_an_empty_store(shots: Shots, capsys: pytest.CaptureFixture[str]) -> None:
    assert shots("list", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == []


def test_a_damaged_shot_is_told_and_can_be_removed(
    mine: ShotStore, shots: Shots, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = mine.root / "abcdefabcdef"
    bad.mkdir()
    (bad / "shot.json").write_text("{")
    assert shots("list") == ExitCode.OK
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "shot.corrupt" in said.err
    assert "faceplate shots remove abcdefabcdef" in said.err
    assert shots("remove", "abcdefabcdef") == ExitCode.OK
    assert not bad.exists()


def test_show(mine: ShotStore, shots: Shots, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = mine.records()
    analysis = mine.load(record)
    repaired = replace(analysis.tracks[0], states=np.array([0, 1, 2, 3, 3, 0], np.uint8), enabled=False)
    repairs = {"version": 1, "tracks": [{"track": 1, "enabled": False}]}
    mine.revise(record, replace(analysis, tracks=(repaired,)), repairs)
    assert shots("show", record.id[:5], "--json") == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["revision"] == 1
    assert shown["settings"]["colorspace"] == record.settings.colorspace
    assert shown["work_exposure"] == analysis.work_exposure
    assert shown["jitter"] == [analysis.jitter_before, analysis.jitter_after]
    states = {"absent": 2, "detected": 1, "interpolated": 1, "manual": 2}
    assert shown["tracks"] == [{"id": 1, "enabled": False, "frames": "1002-1005", "states": states}]
    assert shown["repairs"] == repairs
    assert shots("show", record.id) == ExitCode.OK
    text = capsys.readouterr().out
    assert "track 1   1002-1005: 2 absent, 1 detected, 1 interpolated, 2 manual, disabled" in text
    assert 'repairs   tracks: {"enabled": false, "track": 1}' in text
    assert f"{analysis.work_exposure:+.2f} stops" in text
    assert f"{analysis.jitter_before:.2f} found, {analysis.jitter_after:.2f} smoothed" in text


# -- lock and remove -------------------------------------------------------------------------------------------------


def test_lock_refuses_edit_and_remove(
    mine: ShotStore, shots: Shots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = mine.records()
    file = repair_file(tmp_path, {"version": 1, "tracks": [{"track": 1, "enabled": False}]})
    assert shots("lock", record.id) == ExitCode.OK
    assert shots("edit", record.id, "--file", file) == ExitCode.NOT_ALLOWED
    assert shots("remove", record.id) == ExitCode.NOT_ALLOWED
    assert capsys.readouterr().err.count("shot.locked") == 2
    assert mine.records() == [replace(record, locked=True)]
    assert shots("lock", record.id, "--off") == ExitCode.OK
    assert shots("remove", record.id) == ExitCode.OK
    assert mine.records() == []


def test_a_shot_in_use_is_not_removed(mine: ShotStore, shots: Shots, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = mine.records()
    with mine.pin(record.id):
        assert shots("remove", record.id) == ExitCode.NO_RESOURCES
    assert "in use" in capsys.readouterr().err
    assert shots("remove", record.id) == ExitCode.OK


def test_ids_by_prefix(
    mine: ShotStore, shots: Shots, studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = mine.records()
    twin = mine.root / (record.id[:6] + "zzzzzz")
    shutil.copytree(mine.root / record.id, twin)
    (twin / "shot.json").write_text((twin / "shot.json").read_text().replace(record.id, twin.name))
    assert shots("show", record.id[:6]) == ExitCode.MISSING_INPUT
    assert f"2 shots begin with '{record.id[:6]}'" in capsys.readouterr().err
    assert shots("show", record.id[:7]) == ExitCode.OK
    assert shots("show", "nothing") == ExitCode.MISSING_INPUT
    assert shots("show", "") == ExitCode.MISSING_INPUT
    with pytest.raises(SystemExit) as caught:
        shots("paint")
    assert caught.value.code == ExitCode.BAD_ARGUMENTS


def test_help_of_edit_has_the_format_of_repair_files(shots: Shots, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        shots("edit", "--help")
    assert caught.value.code == ExitCode.OK
    text = capsys.readouterr().out
    for part in ('"split"', '"merge"', '"tracks"', '"boxes"', '"points"', "--nuke-tracker", "Exit status"):
        assert part in text


# -- edit ------------------------------------------------------------------------------------------------------------


def test_every_kind_of_repair_reaches_the_render(
    studio: Studio, tmp_path: Path, shots: Shots, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Split, a range, disabling, boxes and points in one file; `--skip-existing` keeps no frame of the old revision."""
    monkeypatch.setenv("FACEPLATE_SHOTS", str(studio.root))
    pattern = write_shot(tmp_path / "in", FRAMES, size=160, seed=202)
    spec = retouch(pattern, tmp_path / "out", face="all", matte_output="", skip_existing=True)
    shot = planned(studio.run(spec))
    assert statuses(studio, spec) == ["kept"] * 6
    found = studio.store.load(studio.store.get(shot))
    x, y = landmark(found, 61, 1001)
    face = found.face_at(1, 1003)
    assert face is not None
    box = [round(v) for v in face.box]
    repairs = {
        "version": 1,
        "split": [{"track": 1, "frame": 1005, "new": 2}],
        "tracks": [{"track": 2, "enabled": False}, {"track": 1, "last": 1003}],
        "boxes": [{"track": 1, "keys": {"1002": box, "1003": box}}],
        "points": [{"track": 1, "landmark": 61, "keys": {"1001": [x - 5, y + 3]}}],
    }
    capsys.readouterr()
    assert shots("edit", shot, "--file", repair_file(tmp_path, repairs), "--progress", "json") == ExitCode.OK
    *progress, result = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [(p["stage"], p["done"], p["total"]) for p in progress] == [("analyse", i, 6) for i in range(1, 7)]
    assert (result["state"], result["shot"]) == ("finished", shot)
    record = studio.store.get(shot)
    assert (record.revision, record.id, record.repairs["split"]) == (1, shot, repairs["split"])
    after = studio.store.load(record)
    assert landmark(after, 61, 1001) == pytest.approx([x - 5, y + 3], abs=0.01)
    one, two = after.tracks
    manual = FaceState.MANUAL
    assert one.states.tolist() == [manual] * 3 + [FaceState.ABSENT] * 3
    assert (two.id, two.enabled) == (2, False)
    before = {f: read_plate(spec.output % f).parts[0].channels["R"] for f in FRAMES}
    assert statuses(studio, spec) == ["rendered"] * 3 + ["identity"] * 3
    for frame in FRAMES:
        now = read_plate(spec.output % frame).parts[0].channels["R"]
        assert (now != before[frame]).any(), frame
        assert np.array_equal(now, read_plate(pattern % frame).parts[0].channels["R"]) == (frame > 1003)
    assert statuses(studio, spec) == ["kept"] * 6
    # Taken away again, the shot is what it was, and so are its frames.
    assert shots("edit", shot, "--file", repair_file(tmp_path, {"version": 1})) == ExitCode.OK
    assert capsys.readouterr().out == f"{shot} revision 2: track 1 1001-1006\n"
    back = studio.store.get(shot)
    assert (back.revision, back.key) == (2, shot)
    np.testing.assert_array_equal(studio.store.load(back).tracks[0].landmarks, found.tracks[0].landmarks)
    assert statuses(studio, replace(spec, frames="1004")) == ["rendered"]
    assert np.array_equal(read_plate(spec.output % 1004).parts[0].channels["R"], before[1004])


def test_two_stays_of_a_face_are_merged(
    studio: Studio, tmp_path: Path, shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face leaves and returns as another track; merged, one id renders both, and `largest` means it."""
    monkeypatch.setenv("FACEPLATE_SHOTS", str(studio.root))
    places = [7, -3, -13, None, None, -13, -3, 8]
    pattern = write_heads(tmp_path / "in", (240, 168), [[] if x is None else [(x, 14, 140)] for x in places])
    record = studio.analyse(pattern)
    assert [t.id for t in studio.store.load(record).tracks] == [1, 2]
    file = repair_file(tmp_path, {"version": 1, "merge": [{"into": 1, "track": 2}]})
    assert shots("edit", record.id, "--file", file) == ExitCode.OK
    (track,) = studio.store.load(studio.store.get(record.id)).tracks
    assert track.states.tolist() == [1, 1, 1, 2, 2, 1, 1, 1]
    spec = retouch(pattern, tmp_path / "out", frames="1001,1008", matte_output="")
    assert statuses(studio, spec) == ["rendered"] * 2


_TRACKER = """Tracker4 {{
 tracks {{ {{ {{curve K x1001 1}} "mouth" {{curve x1001 {x0} x1006 {x1}}} {{curve x1001 {y0} x1006 {y1}}} }}
   {{ {{curve K x1001 1}} "chin" {{curve x1001 {x0} x1006 {x1}}} {{curve x1001 {y0} x1006 {y1}}} }} }}
}}
"""


def test_a_nuke_tracker_adds_points_and_the_plate_may_have_moved(
    mine: ShotStore, shots: Shots, pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = mine.records()
    analysis = mine.load(record)
    (x0, y0), (x1, y1) = (landmark(analysis, 61, f) for f in (1001, 1006))
    text = _TRACKER.format(x0=x0 + 4, y0=SIZE - y0, x1=x1 + 8, y1=SIZE - y1)
    tracker = tmp_path / "track.nk"
    tracker.write_text(text)
    moved = tmp_path / "moved"
    shutil.copytree(Path(pattern).parent, moved)
    there = str(moved / Path(pattern).name)
    (mine.root / record.id / "shot.json").write_text(
        json.dumps(json.loads(record.to_text()) | {"pattern": str(tmp_path / "gone" / "a.%04d.exr")})
    )
    arguments = ("edit", record.id, "--nuke-tracker", tracker, "--track", 1)
    assert shots(*arguments, "--point", "mouth=61") == ExitCode.MISSING_INPUT
    assert "--in PATTERN" in capsys.readouterr().err
    for wrong in ("61", "ear=61", "mouth=478"):
        assert shots(*arguments, "--point", wrong, "--in", there) == ExitCode.BAD_ARGUMENTS
        assert "shot.edit" in capsys.readouterr().err
    assert shots(*arguments, "--point", "mouth=61", "--in", there) == ExitCode.OK
    revised = mine.get(record.id)
    assert (revised.revision, revised.pattern) == (1, there)
    repaired = mine.load(revised)
    assert landmark(repaired, 61, 1001) == pytest.approx([x0 + 4, y0], abs=0.01)
    assert landmark(repaired, 61, 1006) == pytest.approx([x1 + 8, y1], abs=0.01)
    capsys.readouterr()
    assert shots(*arguments, "--point", "mouth=61") == ExitCode.OK
    assert "has these repairs already" in capsys.readouterr().out
    assert mine.get(record.id).revision == 1
    assert shots("edit", record.id, "--export", "-") == ExitCode.OK
    exported = json.loads(capsys.readouterr().out)
    assert [(p["track"], p["landmark"], sorted(p["keys"])) for p in exported["points"]] == [(1, 61, ["1001", "1006"])]


def test_export_is_a_file_to_start_from(
    mine: ShotStore, shots: Shots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = mine.records()
    out = tmp_path / "start.json"
    assert shots("edit", record.id, "--export", out) == ExitCode.OK
    assert json.loads(out.read_text()) == {
        "version": 1,
        "split": [],
        "merge": [],
        "tracks": [],
        "boxes": [],
        "points": [],
    }
    capsys.readouterr()
    assert shots("edit", record.id, "--export", out) == ExitCode.BAD_ARGUMENTS  # nothing is overwritten
    assert shots("edit", record.id, "--file", out) == ExitCode.OK
    assert "has these repairs already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("repairs", "said"),
    [
        ("{", "not JSON"),
        ('{"version": 1, "split": [], "split": []}', "'split' is there twice"),
        ({"version": 1, "paint": []}, "has 'paint'"),
        ({"version": 1, "tracks": [{"track": 7}]}, "names track 7, the shot has [1]"),
        ({"version": 1, "tracks": [{"track": 1, "first": 1004, "last": 1002}]}, "begin at 1004 and end at 1002"),
        ({"version": 1, "split": [{"track": 1, "frame": 1001, "new": 2}]}, "the shot is 1001-1006"),
        ({"version": 1, "split": [{"track": 1, "frame": 1003, "new": 0}]}, "count from 1"),
        ({"version": 1, "merge": [{"into": 1, "track": 2}]}, "names track 2"),
        ({"version": 1, "boxes": [{"track": 3, "keys": {"1007": [1, 2, 30, 40]}}]}, "no box of track 3"),
        ({"version": 1, "points": [{"track": 2, "landmark": 61, "keys": {"1001": [1, 2]}}]}, "points names track 2"),
        ({"version": 1, "points": [{"track": 1, "landmark": 61, "keys": {"90": [1, 2]}}]}, "no key of landmark 61"),
        ({"version": 1, "points": [{"track": 1, "landmark": 61, "keys": {"1001": [1, 2]}}] * 2}, "two entries"),
    ],
)
def test_repairs_that_do_not_fit_are_refused_at_once(
    mine: ShotStore, shots: Shots, tmp_path: Path, capsys: pytest.CaptureFixture[str], repairs: Any, said: str
) -> None:
    (record,) = mine.records()
    assert shots("edit", record.id, "--file", repair_file(tmp_path, repairs)) == ExitCode.BAD_ARGUMENTS
    error = capsys.readouterr().err
    assert said in error
    assert "shot.edit" in error
    assert "analyse" not in error.replace("analyse and", "")  # no frame was looked at
    assert ShotStore(mine.root).records() == [record]


def test_wrong_arguments_of_edit(mine: ShotStore, shots: Shots, tmp_path: Path) -> None:
    (record,) = mine.records()
    file = repair_file(tmp_path, {"version": 1})
    for wrong in (
        (),
        ("--file", tmp_path / "missing.json"),
        ("--file", file, "--track", 1),
        ("--file", file, "--export", "-"),
        ("--nuke-tracker", file),
        ("--nuke-tracker", file, "--track", 1, "--point", "nose"),
        ("--nuke-tracker", file, "--track", 1, "--point", "4", "--reach", "0"),
        ("--nuke-tracker", file, "--track", 1, "--point", "4"),
    ):
        assert shots("edit", record.id, *wrong) == ExitCode.BAD_ARGUMENTS, wrong


def test_a_plate_that_changed_is_refused(
    mine: ShotStore, shots: Shots, pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = mine.records()
    file = repair_file(tmp_path, {"version": 1, "tracks": [{"track": 1, "enabled": False}]})
    other = write_shot(tmp_path / "other", FRAMES, seed=203)
    shutil.copytree(Path(pattern).parent, tmp_path / "less")
    (tmp_path / "less" / "shot.1004.exr").unlink()
    less = str(tmp_path / "less" / "shot.%04d.exr")
    for there, said in ((other, "have changed"), (less, "frames 1004 of shot"), (str(tmp_path / "%04d.exr"), "--in")):
        assert shots("edit", record.id, "--file", file, "--in", there) == ExitCode.MISSING_INPUT
        error = capsys.readouterr().err
        assert "shot.stale" in error
        assert said in error
    config = "ocio://cg-config-v1.0.0_aces-v1.3_ocio-v2.1"
    assert shots("edit", record.id, "--file", file, "--ocio", config) == ExitCode.MISSING_INPUT
    assert "another OCIO config" in capsys.readouterr().err
    data = json.loads(record.to_text()) | {"version": "0"}
    (mine.root / record.id / "shot.json").write_text(json.dumps(data))
    assert shots("edit", record.id, "--file", file) == ExitCode.MISSING_INPUT
    assert "analysed by version 0" in capsys.readouterr().err


def test_ctrl_c_leaves_the_old_revision(
    mine: ShotStore, shots: Shots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Impatient(JsonReporter):
        def show(self, event: JobEvent) -> None:
            super().show(event)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli, "open_reporter", lambda mode: Impatient(sys.stderr))
    (record,) = mine.records()
    files = {p: p.read_bytes() for p in (mine.root / record.id).glob("*.*")}
    file = repair_file(tmp_path, {"version": 1, "tracks": [{"track": 1, "enabled": False}]})
    assert shots("edit", record.id, "--file", file) == ExitCode.CANCELLED
    _, result, said = capsys.readouterr().err.splitlines()
    assert (json.loads(result)["state"], json.loads(result)["done"], said) == ("cancelled", 1, "cancelled")
    assert {p: p.read_bytes() for p in (mine.root / record.id).glob("*.*")} == files
    assert list((mine.root / ".locks").iterdir()) == []
    assert not mine.pinned(record.id)


def test_who_comes_second_with_a_repair_is_told(mine: ShotStore, shots: Shots, tmp_path: Path) -> None:
    """Another edit in progress is an error at once; a lock or an edit that came meanwhile wins over ours."""
    (record,) = mine.records()
    analysis = mine.load(record)
    file = repair_file(tmp_path, {"version": 1, "tracks": [{"track": 1, "enabled": False}]})
    with mine.writer(record.id) as other:
        assert other.acquire()
        assert shots("edit", record.id, "--file", file) == ExitCode.NO_RESOURCES
    locked = mine.set_locked(record, True)
    with pytest.raises(ShotError) as caught:
        mine.revise(record, analysis, {})  # `record` was read before it was locked
    assert caught.value.code == "shot.locked"
    mine.set_locked(locked, False)
    first = mine.revise(record, analysis, {"version": 1})
    with pytest.raises(ShotError) as caught:
        mine.revise(record, analysis, {"version": 1})
    assert caught.value.code == "shot.busy"
    assert mine.set_locked(record, True) == replace(first, locked=True)  # of what is there, not of what was read


def test_revisions_do_not_pile_up(mine: ShotStore) -> None:
    (record,) = mine.records()
    analysis = mine.load(record)
    for number in range(4):
        record = mine.revise(record, replace(analysis, work_exposure=float(number)), {"version": 1})
    names = sorted(p.name for p in (mine.root / record.id).glob("analysis-*"))
    assert names == ["analysis-0.npz", "analysis-3.npz", "analysis-4.npz"]
    assert mine.load_found(record).work_exposure == analysis.work_exposure
    assert mine.load(record).work_exposure == 3.0
