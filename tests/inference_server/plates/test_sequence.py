"""Patterns, ranges and holes, on real folders."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_bridge.errors import FaceplateError, JobError, PlateError, RequestError
from inference_server.plates.attributes import Timecode
from inference_server.plates.reader import read_planned
from inference_server.plates.sequence import (
    find_sequence,
    format_frames,
    parse_frames,
    parse_pattern,
    plan_frames,
    refuse_overwriting,
)
from tests.plate_files import write_plate_file, write_sequence
from tests.unprivileged import outcome_without_privileges


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("pattern", "frame", "name"),
    [
        ("a.%04d.exr", 7, "a.0007.exr"),
        ("a.%04d.exr", 10000, "a.10000.exr"),
        ("a.%04d.exr", -5, "a.-005.exr"),
        ("a.%d.exr", 7, "a.7.exr"),
        ("a.####.exr", 7, "a.0007.exr"),
        ("a.#.exr", 12, "a.12.exr"),
        ("a.@@@@.exr", 7, "a.0007.exr"),
        ("a.$F4.exr", 7, "a.0007.exr"),
        ("a.$F.exr", 7, "a.7.exr"),
        ("cam#2@set.%03d.exr", 7, "cam#2@set.007.exr"),
        ("sh[010].v02.(x).####.exr", 7, "sh[010].v02.(x).0007.exr"),
        ("100%%.%02d.exr", 7, "100%.07.exr"),
        ("a_%05d", 7, "a_00007"),
        ("still.exr", 7, "still.exr"),
    ],
)
def test_patterns_name_files_and_find_them_again(pattern: str, frame: int, name: str) -> None:
    parsed = parse_pattern(f"shots/{pattern}")
    assert parsed.path(frame) == os.path.join("shots", name)
    assert parsed.frame_of(name) == (frame if parsed.is_sequence else 1)


@given(st.integers(-200000, 200000), st.integers(0, 6))
def test_every_frame_is_found_under_the_name_it_is_given(frame: int, width: int) -> None:
    parsed = parse_pattern(f"/x/a-b.{'%' if not width else f'%0{width}'}d.e.exr")
    assert parsed.frame_of(os.path.basename(parsed.path(frame))) == frame


@pytest.mark.parametrize(
    "name", ["a.00010.exr", "a.010.exr", "a.1001.exr.tmp", ".a.1001.exr", "a.1001", "a..exr", "a.١٠٠١.exr"]
)
def test_other_paddings_and_other_files_are_not_of_the_pattern(name: str) -> None:
    assert parse_pattern("a.%04d.exr").frame_of(name) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "empty"),
        ("shots/", "names a folder"),
        ("s/%04d/a.%04d.exr", "folder's name"),
        ("a.%04d.%04d.exr", "more than one"),
        ("a.##.##.exr", "more than one"),
    ],
)
def test_patterns_that_cannot_be_read(pattern: str, reason: str) -> None:
    with pytest.raises(PlateError, match=reason) as caught:
        parse_pattern(pattern)
    assert caught.value.code == "plate.pattern"
    assert caught.value.remedy


def test_the_files_of_a_pattern_are_listed_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"sh[1].v2.{n}.exr" for n in ("0998", "10001", "9999", "-005", "-0006", "00001", "junk", "1.0")))
    _touch(tmp_path, "sh1.v2.0001.exr", "other.0001.exr")
    found = find_sequence(str(tmp_path / "sh[1].v2.####.exr"))
    assert found.frames == (-6, -5, 998, 9999, 10001)
    assert all(os.path.isfile(path) for path in found.files.values())


def test_a_still_is_one_frame_numbered_by_its_name(tmp_path: Path) -> None:
    _touch(tmp_path, "a.1001.exr", "a.1002.exr", "portrait.exr", "v-2_-3.exr")
    assert find_sequence(str(tmp_path / "a.1001.exr")).frames == (1001,)
    assert find_sequence(str(tmp_path / "portrait.exr")).frames == (1,)
    assert find_sequence(str(tmp_path / "v-2_-3.exr")).frames == (-3,)


def test_views_stand_in_names_and_folders(tmp_path: Path) -> None:
    _touch(tmp_path, "left/a_left.0001.exr", "right/a_right.0001.exr", "a_l.0001.exr", "a_r.0002.exr", "other/x")
    pattern = str(tmp_path / "%V" / "a_%V.%04d.exr")
    assert find_sequence(pattern, "right").files[1].endswith(os.path.join("right", "a_right.0001.exr"))
    assert find_sequence(pattern).pattern.view == "left"
    assert find_sequence(str(tmp_path / "a_%v.%04d.exr"), "right").frames == (2,)
    _touch(tmp_path, "b.left.1001.exr", "b.right.1001.exr")
    assert find_sequence(str(tmp_path / "b.%V.####.exr")).pattern.view == "left"
    with pytest.raises(PlateError, match="--view") as caught:
        find_sequence(str(tmp_path / "none_%V.%04d.exr"))
    assert caught.value.code == "plate.layer"


def test_a_pattern_with_no_frames_says_what_is_there(tmp_path: Path) -> None:
    _touch(tmp_path, "sh010.0001.exr", "sh010.0002.exr")
    with pytest.raises(PlateError, match=r"2 \.exr files, the first is sh010\.0001\.exr") as caught:
        find_sequence(str(tmp_path / "sh020.%04d.exr"))
    assert caught.value.code == "plate.no_frames"
    for missing in (tmp_path / "nowhere" / "a.%04d.exr", tmp_path / "sh010.0001.exr" / "a.%04d.exr"):
        with pytest.raises(PlateError) as caught:
            find_sequence(str(missing))
        assert caught.value.code == "plate.no_frames"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_folder_that_may_not_be_read_is_a_permission_error(shared_folder: Path) -> None:
    _touch(shared_folder, "closed/a.0001.exr")
    (shared_folder / "closed").chmod(0o000)

    def attempt() -> str:
        try:
            find_sequence(str(shared_folder / "closed" / "a.%04d.exr"))
        except FaceplateError as error:
            return f"{error.code} {error.path}"
        return "read"

    assert outcome_without_privileges(attempt) == f"plate.permission {shared_folder / 'closed'}"
    (shared_folder / "closed").chmod(0o755)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("1001-1004", (1001, 1002, 1003, 1004)),
        ("1001-1006x2", (1001, 1003, 1005)),
        ("1001,1005-1007", (1001, 1005, 1006, 1007)),
        ("-3--1", (-3, -2, -1)),
        ("-1-1", (-1, 0, 1)),
        ("3-1", (1, 2, 3)),
        (" 1 , 2, 2,1 ", (1, 2)),
        ("7", (7,)),
    ],
)
def test_ranges(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize(
    "text", ["", "  ", "1-", "a", "1-5:2", "1-5y2", "1-5x0", "1-5x-1", "1.5", "1..5", "1-99999999", "1;2", "1-2-3"]
)
def test_ranges_that_cannot_be_read(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_frames(text)
    assert caught.value.code == "request.frame_range"
    assert "1001-1100x2" in caught.value.remedy


@given(st.sets(st.integers(-3000, 3000), max_size=60))
def test_a_written_range_reads_back(frames: set[int]) -> None:
    text = format_frames(frames)
    assert (parse_frames(text) if frames else ()) == tuple(sorted(frames))


@given(st.integers(-500, 500), st.integers(0, 300), st.integers(1, 9))
def test_a_step_is_written_as_x(first: int, length: int, step: int) -> None:
    frames = range(first, first + length + 1, step)
    text = format_frames(frames)
    assert parse_frames(text) == tuple(frames)
    if len(frames) > 2:
        assert text == f"{first}-{frames[-1]}" + (f"x{step}" if step > 1 else "")


def test_missing_frames_by_policy(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1002, 1003, 1006])
    sequence = find_sequence(pattern)
    plan = plan_frames(sequence, "1001-1006")
    assert plan.missing == (1001, 1004, 1005)
    assert [p.frame for p in plan.frames if p.error] == [1001, 1004, 1005]
    with pytest.raises(PlateError, match=r"3 missing: 1001,1004-1005") as caught:
        plan.raise_missing()
    assert (caught.value.code, caught.value.frame) == ("plate.missing_frame", 1001)
    assert caught.value.path == str(tmp_path / "sh010.1001.exr")
    held = plan_frames(sequence, "1001-1007", "hold")
    assert [p.source for p in held.frames] == [1002, 1002, 1003, 1003, 1003, 1006, 1006]
    assert [p.held for p in held.frames] == [True, False, False, True, True, False, True]
    held.raise_missing()
    assert [p.frame for p in plan_frames(sequence, "1001-1006x2", "skip").frames] == [1003]
    assert [p.frame for p in plan_frames(sequence).frames] == [1002, 1003, 1006]
    with pytest.raises(PlateError, match=r"On disk: 1002-1003,1006") as caught:
        plan_frames(sequence, "1-9", "skip")
    assert caught.value.code == "plate.no_frames"
    with pytest.raises(RequestError, match="Did you mean 'hold'"):
        plan_frames(sequence, "1-9", "holt")


def test_a_held_frame_has_its_own_timecode(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1002, 1006])
    plan = plan_frames(find_sequence(pattern), "1001-1006", "hold")
    codes = []
    for planned in plan.frames:
        frame = read_planned(planned)
        assert frame.frame == planned.frame
        codes.append(Timecode.unpack(frame.parts[0].header["timeCode"]))
    start = Timecode(0, 0, 0, 0).advanced(1001, Fraction(24))
    assert codes == [start.advanced(n, Fraction(24)) for n in range(6)]
    missing = plan_frames(find_sequence(pattern), "1003").frames[0]
    with pytest.raises(PlateError) as caught:
        read_planned(missing)
    assert caught.value.code == "plate.missing_frame"


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path / "in", [1001, 1002])
    plan = plan_frames(find_sequence(pattern))
    mask = write_plate_file(tmp_path / "mask.exr")
    (tmp_path / "sym").symlink_to(tmp_path / "in")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.1002.exr").symlink_to(tmp_path / "in" / "sh010.1001.exr")
    (tmp_path / "hard").mkdir()
    os.link(tmp_path / "in" / "sh010.1002.exr", tmp_path / "hard" / "y.1001.exr")
    same = [
        pattern,
        str(tmp_path / "in" / ".." / "in" / "sh010.####.exr"),
        os.path.relpath(pattern),
        str(tmp_path / "sym" / "sh010.%04d.exr"),
        str(tmp_path / "links" / "x.%04d.exr"),
        str(tmp_path / "hard" / "y.%04d.exr"),
    ]
    for output in same:
        with pytest.raises(JobError) as caught:
            refuse_overwriting(plan, parse_pattern(output), [1001, 1002])
        assert caught.value.code == "job.output_is_input"
    with pytest.raises(JobError):
        refuse_overwriting(plan, parse_pattern(str(tmp_path / "mask.exr")), [1001], [mask])
    with pytest.raises(PlateError, match="2 frames would be written to one file"):
        refuse_overwriting(plan, parse_pattern(str(tmp_path / "one.exr")), [1001, 1002])
    refuse_overwriting(plan, parse_pattern(str(tmp_path / "out" / "sh010.%04d.exr")), [1001, 1002], [mask])
