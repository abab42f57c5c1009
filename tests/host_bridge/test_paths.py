from __future__ import annotations

import pytest

from host_bridge.paths import count_frames, frame_path, has_token, map_path, same_pattern, token_regex

RULES = [("Z:/shots", "/mnt/z/shots"), ("/Volumes/z", "/mnt/z"), ("\\\\nas\\share", "/mnt/nas")]


@pytest.mark.parametrize(
    ("path", "mapped"),
    [
        ("Z:/shots/a/p.%04d.exr", "/mnt/z/shots/a/p.%04d.exr"),
        ("z:\\shots\\a\\p.####.exr", "/mnt/z/shots/a/p.####.exr"),
        ("Z:/shots", "/mnt/z/shots"),
        ("Z:/shots2/a.exr", "Z:/shots2/a.exr"),
        ("Z:/Shots/a.exr", "Z:/Shots/a.exr"),
        ("/Volumes/z/a.exr", "/mnt/z/a.exr"),
        ("\\\\nas\\share\\a.exr", "/mnt/nas/a.exr"),
        ("/mnt/z/back\\slash.exr", "/mnt/z/back\\slash.exr"),
        ("/elsewhere/a.exr", "/elsewhere/a.exr"),
    ],
)
def test_paths_are_mapped_by_whole_folders(path: str, mapped: str) -> None:
    assert map_path(path, RULES) == mapped


def test_the_first_rule_that_matches_wins() -> None:
    assert map_path("/a/b/c", [("/a/b", "/1"), ("/a", "/2")]) == "/1/c"
    assert map_path("/a", [("/a", "/")]) == "/"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1001", 1),
        ("1001-1010", 10),
        ("1001-1010x3", 4),
        ("1001-1010:3", 4),
        ("-5--1", 5),
        ("1,3-4, 9", 4),
        ("10-1", 10),
    ],
)
def test_frames_are_counted(text: str, count: int) -> None:
    assert count_frames(text) == count


@pytest.mark.parametrize("text", ["a", "1-", "1-10x0", "1-10x", "1;2", "1,,2", "1-99999999999"])
def test_what_is_no_range_is_none(text: str) -> None:
    assert count_frames(text) is None


@pytest.mark.parametrize("other", ["p.####.exr", "p.@@@@.exr", "p.$F4.exr", "p.${F4}.exr"])
def test_notations_of_one_width_are_one_pattern(other: str) -> None:
    assert same_pattern("p.%04d.exr", other)
    assert not same_pattern("p.%05d.exr", other)
    assert has_token(other)
    assert token_regex(other).match("p.1001.exr")
    assert not token_regex(other).match("p.1001.exr.tmp")
    assert not token_regex(other).match("pX1001.exr")


def test_views_stand_for_names() -> None:
    assert token_regex("%V").match("left")
    assert not token_regex("%V").match("a/b")
    assert not has_token("plain.exr")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/s/p.%04d.exr", "/s/p.0007.exr"),
        ("/s/p.##.exr", "/s/p.07.exr"),
        ("/s/p.$F4.exr", "/s/p.0007.exr"),
        ("/s/p.%d.exr", "/s/p.7.exr"),
        ("/s/%V/p_%v.%03d.exr", "/s/left/p_l.007.exr"),
        ("/s/still.exr", "/s/still.exr"),
    ],
)
def test_the_file_of_a_frame(pattern: str, path: str) -> None:
    assert frame_path(pattern, 7, "left") == path
