"""Frame ranges: read once, written in each dialect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_bridge.errors import RequestError
from host_bridge.framerange import format_frames, parse_frames


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("1001", (1001,)),
        ("1001-1004", (1001, 1002, 1003, 1004)),
        ("1001-1010x3", (1001, 1004, 1007, 1010)),
        ("1004-1001x2", (1002, 1004)),
        (" 5 , 1-3, 2 ", (1, 2, 3, 5)),
        ("-3--1", (-3, -2, -1)),
    ],
)
def test_ranges_are_read(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["", "a", "1-", "1-10x0", "1-10:2", "1-10y2", "1,,2"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="cannot read the frame range"):
        parse_frames(text)


def test_each_reader_gets_its_own_step() -> None:
    frames = parse_frames("1001-1009x2")
    assert (format_frames(frames), format_frames(frames, step=":")) == ("1001-1009x2", "1001-1009:2")
    assert parse_frames("1001-1009:2", step="x:") == frames
    assert format_frames([1, 2, 3, 7, 9, 20]) == "1-3,7,9,20"


@given(st.sets(st.integers(-50, 2000)))
def test_what_is_written_is_read_back(frames: set[int]) -> None:
    if frames:
        assert parse_frames(format_frames(frames)) == tuple(sorted(frames))
        assert parse_frames(format_frames(frames, step=":"), step=":") == tuple(sorted(frames))
