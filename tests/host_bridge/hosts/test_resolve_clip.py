"""What is under the playhead: the right files at the right frames, or why it cannot be worked on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_bridge.cli.resolve import with_handles
from host_bridge.errors import FaceplateError, HostError, RequestError
from host_bridge.hosts.base import Host
from host_bridge.hosts.resolve import ResolveHost, describe
from host_bridge.hosts.resolve_api import external, script_paths
from host_bridge.hosts.resolve_clip import frame_of, timecode_of
from tests.fakes import resolve as fake
from tests.host_bridge.hosts.resolve_desk import COUNT, FIRST, LAST, RECORD, Suite, open_suite


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    for frame in range(FIRST, LAST + 1):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(b"exr")
    return open_suite(str(tmp_path / "sh010.%04d.exr"))


def refused(suite: Suite, code: str) -> FaceplateError:
    with pytest.raises(HostError) as caught:
        suite.host().source()
    assert caught.value.code == code
    assert caught.value.remedy
    return caught.value


def test_a_sequence_is_its_own_plate_at_the_frames_of_the_trim(suite: Suite) -> None:
    host = suite.host()
    assert isinstance(host, Host)
    shot = host.shot()
    assert shot.job.plate.pattern == str(suite.folder / "sh010.%04d.exr")
    assert (shot.job.plate.colorspace, shot.job.frames) == ("ACEScg", "1004-1008")
    assert shot.offset == RECORD - 1004
    assert shot.frame == 1005  # the playhead is one frame into the clip
    assert Path(shot.job.output).parent.parent == suite.folder.parent
    host.go_to(1008)
    assert suite.timeline._timecode == timecode_of(RECORD + 4, 24.0, False)


@pytest.mark.parametrize("start", ["0", "1", "1001"])
def test_however_resolve_numbers_a_sequence_the_files_are_the_same(start: str, suite: Suite) -> None:
    suite.media._properties["Start"] = start
    found = suite.host().source()
    assert (found.frames, found.clip.notes) == (range(1004, 1009), ())


@pytest.mark.parametrize("absolute", [False, True])
def test_the_marked_range_narrows_the_clip(absolute: bool, suite: Suite) -> None:
    base = 0 if not absolute else 86400
    suite.timeline._marks = {"video": {"in": base + 21, "out": base + 23}}
    found = suite.host().source()
    assert (found.frames, found.clip.record, found.clip.notes) == (range(1005, 1008), RECORD + 1, ())
    suite.timeline._marks = {"video": {"in": base + 23, "out": base + 90}}
    found = suite.host().source()
    assert found.frames == range(1007, 1009)
    assert "goes beyond" in found.note
    assert ResolveHost(suite.root, marked=False).source().frames == range(1004, 1009)


def test_the_marked_clip_is_found_without_the_playhead_on_it(suite: Suite) -> None:
    suite.timeline._current = None
    suite.timeline._marks = {"video": {"in": 20, "out": 24}}
    assert suite.host().source().clip.item == suite.item._id
    suite.item._enabled = False
    assert "between the in and out points" in refused(suite, "host.no_source").message


def test_pages_that_do_not_say_the_clip(suite: Suite) -> None:
    suite.timeline._current = None  # the Fusion page
    title = suite.timeline._add(fake.TimelineItem(None, RECORD, COUNT, 0), 2)
    title._enabled = False
    assert suite.host().source().clip.item == suite.item._id


def test_no_project_no_timeline_no_clip(suite: Suite) -> None:
    suite.timeline._current, suite.timeline._timecode = None, "01:00:00:00"
    assert "playhead" in refused(suite, "host.no_source").message
    suite.project._current = None
    assert "no timeline" in refused(suite, "host.no_source").message
    suite.resolve._manager._project = None
    assert "no project" in refused(suite, "host.no_source").message


def test_what_has_no_files_is_refused(suite: Suite) -> None:
    suite.clip(None, 24, 0)._name = "Text+"
    assert "title" in refused(suite, "host.unsupported").message
    for kind in ("Compound", "Multicam"):
        suite.clip(fake.MediaPoolItem("Scene 4", File_Path="", Type=kind, Frames="10", Start="0"))
        assert kind in refused(suite, "host.unsupported").message


def test_a_retime_is_refused_with_its_reason(suite: Suite) -> None:
    suite.item._span = 10  # 200 %
    assert "9 frames of media fill 5 frames" in refused(suite, "host.unsupported").message
    suite.clip(suite.media)._right += 1  # 96 %: the spans agree, the media's length does not
    assert "retimed" in refused(suite, "host.unsupported").message
    suite.clip(suite.media)
    suite.media._properties["FPS"] = "25"
    error = refused(suite, "host.unsupported")
    assert "25 and the timeline at 24" in error.message
    assert "Render in Place" in error.remedy


def test_a_held_picture_is_no_retime(suite: Suite) -> None:
    still = suite.folder / "slate.exr"
    still.write_bytes(b"exr")
    media = fake.MediaPoolItem("slate.exr", File_Path=str(still), Type="Still", Frames="1", Start="0", FPS="24")
    suite.clip(media, 24, 0)
    assert "one picture, held for 24 frames" in refused(suite, "host.unsupported").message


def test_handles_end_where_the_media_does(suite: Suite) -> None:
    found = suite.host().source()
    assert with_handles(found, 0) == range(1004, 1009)
    assert with_handles(found, 2) == range(1002, 1011)
    assert with_handles(found, 50) == range(FIRST, LAST + 1)
    for wrong in (found, replace(found, renders=True)):
        with pytest.raises(RequestError) as caught:
            with_handles(wrong, -1 if wrong is found else 4)
        assert caught.value.remedy


def test_two_clips_of_one_sequence_keep_their_own_results(suite: Suite) -> None:
    host = suite.host()
    first = host.shot().job
    other = suite.timeline._add(fake.TimelineItem(suite.media, 90000, 2, 8))
    suite.timeline._current = other
    second = host.shot().job
    assert (first.plate, first.frames, second.frames) == (second.plate, "1004-1008", "1009-1010")
    assert first.output != second.output
    host.place(replace(first, output=suite.result()))
    host.place(replace(second, output=suite.result(1009, 1010)))
    assert sorted((i._start, i._duration) for i in suite.timeline._tracks[1]) == [(RECORD, COUNT), (90000, 2)]


def test_offline_media_and_drives(suite: Suite) -> None:
    (suite.folder / "sh010.1010.exr").unlink()
    error = refused(suite, "host.missing")
    assert (error.path, "Relink" in error.remedy) == (str(suite.folder / "sh010.1010.exr"), True)
    for path, drive in (
        ("Z:\\shots\\sh010.[1001-1010].exr", "Z:\\"),
        ("/Volumes/SAN/sh010.[1001-1010].exr", "/Volumes/SAN"),
    ):
        suite.media._properties["File Path"] = path
        error = refused(suite, "host.missing")
        assert (error.value, "map the drive" in error.remedy) == (drive, True)


def test_an_unknown_colourspace_is_asked_for_not_guessed(suite: Suite) -> None:
    suite.media._properties["Input Color Space"] = "ARRI LogC3"
    host = suite.host()
    shot = host.shot()
    assert "ARRI LogC3" in shot.note
    with pytest.raises(HostError, match="nothing says how") as caught:
        host.prepare(shot.job)
    assert "--colorspace" in caught.value.remedy


def test_what_is_no_whole_sequence_is_rendered(suite: Suite) -> None:
    suite.media._properties["Frames"] = "10"
    suite.media._properties["File Path"] = suite.media._properties["File Path"].replace("1001-", "1000-")
    (suite.folder / "sh010.1000.exr").write_bytes(b"exr")
    assert "subclip" in suite.host().source().clip.why
    suite.movie()
    found = suite.host().source()
    assert found.renders
    assert len(found.frames) == COUNT
    assert "not an EXR or DPX sequence" in found.note


@pytest.mark.parametrize(
    ("frame", "fps", "drop", "text"),
    [
        (86400, 24.0, False, "01:00:00:00"),
        (86423, 23.976, False, "01:00:00:23"),
        (1799, 29.97, True, "00:00:59;29"),
        (1800, 29.97, True, "00:01:00;02"),
        (17982, 29.97, True, "00:10:00;00"),
        (107892, 29.97, True, "01:00:00;00"),
        (3600, 59.94, True, "00:01:00;04"),
    ],
)
def test_timecode(frame: int, fps: float, drop: bool, text: str) -> None:
    assert timecode_of(frame, fps, drop) == text
    assert frame_of(text, fps) == frame


def test_every_frame_of_a_drop_frame_hour_comes_back() -> None:
    assert all(frame_of(timecode_of(n, 29.97, True), 29.97) == n for n in range(0, 40000, 7))


def test_the_free_edition_an_old_one_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: Suite) -> None:
    monkeypatch.setenv("RESOLVE_SCRIPT_API", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(HostError) as caught:
        external()
    assert (caught.value.code, "RESOLVE_SCRIPT_API" in caught.value.remedy) == ("host.missing", True)
    (tmp_path / "Modules").mkdir()
    (tmp_path / "Modules" / "DaVinciResolveScript.py").write_text("def scriptapp(name):\n    return None\n")
    with pytest.raises(HostError) as caught:
        external()
    assert "free edition" in caught.value.remedy
    found: Any = sys.modules.pop("DaVinciResolveScript")
    found.scriptapp = lambda name: fake.Resolve(suite.project, "18.6.4")
    monkeypatch.setitem(sys.modules, "DaVinciResolveScript", found)
    with pytest.raises(HostError, match=r"18\.6\.4"):
        external()


def test_default_places() -> None:
    assert script_paths({}, "linux")[1] == Path("/opt/resolve/libs/Fusion/fusionscript.so")
    assert str(script_paths({"PROGRAMDATA": "D:/data"}, "win32")[0]).startswith("D:/data")
    assert script_paths({"RESOLVE_SCRIPT_LIB": "/x.so"}, "darwin")[1] == Path("/x.so")


def test_status_describes_and_never_raises(suite: Suite) -> None:
    assert [f.state for f in describe(suite.root)] == ["ok"] * 4
    suite.timeline._current, suite.timeline._timecode = None, ""
    found = describe(suite.root)
    assert (found[-1].state, "playhead" in found[-1].detail) == ("missing", True)
