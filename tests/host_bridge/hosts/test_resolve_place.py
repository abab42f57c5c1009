"""The result above its clip: same record frame, read back; whatever fails leaves the project as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge.errors import HostError
from host_bridge.hosts.resolve import ResolveHost
from host_bridge.hosts.resolve_place import Placed
from tests.fakes import resolve as fake
from tests.host_bridge.hosts.resolve_desk import COUNT, FIRST, LAST, LEFT, RECORD, Suite, open_suite


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    for frame in range(FIRST, LAST + 1):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(b"exr")
    return open_suite(str(tmp_path / "sh010.%04d.exr"))


def place(suite: Suite, frames: str = "1004-1008", host: ResolveHost | None = None) -> Placed:
    """What the panel does when a job has finished."""
    host = host or suite.host()
    job = host.shot().job
    first, _, last = frames.partition("-")
    return host.place(
        replace(job, frames=frames, output=suite.result(int(first), int((last or first).partition("x")[0])))
    )


def above(suite: Suite, track: int = 2) -> list[tuple[int, int, int]]:
    return [(i._start, i._duration, i._left) for i in suite.timeline._tracks[track - 1]]


@pytest.mark.parametrize("start", ["0", "1", "1001"])
@pytest.mark.parametrize("end_included", [False, True])
def test_it_stands_above_its_clip_at_the_same_frame(start: str, end_included: bool, suite: Suite) -> None:
    suite.project._pool._sequences_start = start
    suite.project._pool._end_included = end_included
    placed = place(suite)
    assert above(suite) == [(RECORD, COUNT, 0)]
    assert (placed.track, placed.record, placed.timecode, placed.notes) == (2, RECORD, "01:00:00:20", ())
    (folder,) = suite.project._pool._root._folders
    (media,) = folder._clips
    assert media._properties["Input Color Space"] == "ACEScg"
    assert suite.project._pool._folder is suite.project._pool._root  # the bin that was open


def test_handles_lie_outside_the_trim(suite: Suite) -> None:
    place(suite, "1002-1010")
    assert above(suite) == [(RECORD, COUNT, 2)]


def test_a_part_of_the_clip_stands_at_its_own_frame(suite: Suite) -> None:
    place(suite, "1006-1007")
    assert above(suite) == [(RECORD + 2, 2, 0)]


def test_a_clip_that_was_moved_and_trimmed_meanwhile_is_followed(suite: Suite) -> None:
    host = suite.host()
    host.shot()
    suite.item._start, suite.item._left, suite.item._duration = 90000, LEFT + 1, COUNT - 1
    job = replace(ResolveHost(suite.root).shot().job, frames="1004-1008", output=suite.result())
    host.place(job)
    assert above(suite) == [(90000 - 1, COUNT, 0)]


def test_the_track_above_is_used_where_it_is_free_and_else_a_new_one_made_under_it(suite: Suite) -> None:
    title = suite.timeline._add(fake.TimelineItem(None, RECORD + COUNT, 10, 0), 2)
    assert place(suite).track == 2
    assert len(suite.timeline._tracks) == 2
    title._start = RECORD  # over the clip now
    suite.timeline._tracks[1] = [title]
    assert place(suite).track == 2
    assert suite.timeline._tracks[2] == [title]
    suite.timeline._tracks[1] = []
    suite.timeline._locked = {2}
    assert place(suite).track == 2
    assert suite.timeline._locked == {3}
    suite.timeline._tracks[1], suite.timeline._locked = [], {2}
    suite.timeline._adds_tracks_at_the_top = True
    assert place(suite).track == 5


@pytest.mark.parametrize("once", [False, True])
def test_a_second_render_of_the_same_files(once: bool, suite: Suite) -> None:
    suite.project._pool._imports_once = once
    place(suite)
    place(suite)
    assert above(suite) == above(suite, 3) == [(RECORD, COUNT, 0)]
    before = fake.snapshot(suite.project)
    suite.project._pool._appends = False
    with pytest.raises(HostError):
        place(suite)
    assert fake.snapshot(suite.project) == before  # the media of the earlier renders stays


def test_another_timeline_may_be_open_meanwhile(suite: Suite) -> None:
    host = suite.host()
    job = replace(host.shot().job, frames="1004-1008", output=suite.result())
    other = fake.Timeline("Other")
    suite.project._timelines.append(other)
    suite.project._current = other
    host.place(job)
    assert above(suite) == [(RECORD, COUNT, 0)]
    assert suite.project._current is other


def test_a_colourspace_resolve_does_not_take_is_said(suite: Suite) -> None:
    suite.project._pool._spaces = ()
    (note,) = place(suite).notes
    assert "ACEScg" in note


def broken(name: str) -> Callable[[Suite], None]:
    def shifted(suite: Suite) -> None:
        suite.project._pool._shift = 1

    def imports(suite: Suite) -> None:
        suite.project._pool._imports = False

    def appends(suite: Suite) -> None:
        suite.project._pool._appends = False

    def tracks(suite: Suite) -> None:
        suite.timeline._locked = {2}
        suite.project._pool._appends = False

    return {"shifted": shifted, "imports": imports, "appends": appends, "tracks": tracks}[name]


@pytest.mark.parametrize("fault", ["shifted", "imports", "appends", "tracks"])
def test_whatever_fails_leaves_the_project_as_it_was(fault: str, suite: Suite) -> None:
    suite.timeline._add(fake.TimelineItem(None, 86400, 10, 0), 2)
    broken(fault)(suite)
    before = fake.snapshot(suite.project)
    with pytest.raises(HostError) as caught:
        place(suite)
    assert fake.snapshot(suite.project) == before
    assert "on disk" in caught.value.remedy
    if fault == "shifted":
        assert f"first record frame {RECORD + 1} instead of {RECORD}" in caught.value.message


def test_an_interruption_while_placing_leaves_the_project_as_it_was(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fake.snapshot(suite.project)

    def interrupted(self: fake.TimelineItem, subframe_precision: bool) -> int:
        if self is not suite.item:
            raise KeyboardInterrupt
        return self._left

    monkeypatch.setattr(fake.TimelineItem, "GetLeftOffset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place(suite)
    assert fake.snapshot(suite.project) == before


def test_what_cannot_be_placed_says_where_the_frames_are(suite: Suite) -> None:
    with pytest.raises(HostError, match="one piece"):
        place(suite, "1004-1008x2")
    host = suite.host()
    job = replace(host.shot().job, output=str(suite.folder / "nowhere.%04d.exr"))
    with pytest.raises(HostError, match="5 of 5 frames"):
        host.place(job)
    suite.timeline._tracks[0] = []
    with pytest.raises(HostError) as caught:
        host.place(replace(job, output=suite.result()))
    assert caught.value.code == "host.stale"
    with pytest.raises(HostError) as caught:
        host.place(replace(job, plate=replace(job.plate, pattern="/elsewhere.%04d.exr")))
    assert caught.value.code == "host.no_source"
