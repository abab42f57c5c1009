"""Corrections by hand as repairs: what the server reads is what was drawn."""

from __future__ import annotations

from host_bridge.repairs import Merge, Split, TrackEdit, repairs_from_json
from panels.controller.corrections import Corrections, corrections_of


def _all() -> Corrections:
    return (
        Corrections()
        .with_box(1, 1001, (10, 10, 50, 60))
        .with_box(1, 1005, (70, 30, 30, 90))  # drawn from right to left
        .with_point(1, 61, 1002, (20.5, 40.25), 0.5)
        .with_track(TrackEdit(2, enabled=False))
        .with_track(TrackEdit(1, first=1001, last=1040))
        .with_split(Split(1, 1020, 5))
        .with_merge(Merge(1, 5))
    )


def test_they_become_a_repair_the_server_reads_and_come_back_the_same() -> None:
    drawn = _all()
    repairs = drawn.to_repairs()
    read = repairs_from_json(repairs)
    assert read.boxes[0].keys == {1001: (10, 10, 50, 60), 1005: (30, 30, 70, 90)}
    assert read.points[0].keys == {1002: (20.5, 40.25)}
    assert corrections_of(repairs) == drawn
    assert corrections_of({}) == Corrections()


def test_boxes_move_between_their_keys_only() -> None:
    drawn = _all()
    assert drawn.box_at(1, 1003) == (20.0, 20.0, 60.0, 75.0)
    assert drawn.box_at(1, 1006) is None
    assert drawn.box_at(7, 1003) is None


def test_what_is_taken_back_leaves_nothing() -> None:
    drawn = Corrections().with_box(1, 1001, (0, 0, 9, 9)).with_point(1, 4, 1001, (2, 2), 0.5)
    drawn = drawn.with_track(TrackEdit(1, enabled=False)).with_track(TrackEdit(1))
    assert drawn.with_box(1, 1001, None).with_point(1, 4, 1001, None, 0.5) == Corrections()


def test_a_click_is_no_empty_box() -> None:
    assert Corrections().with_box(1, 1001, (5, 5, 5, 5)).box_at(1, 1001) == (5, 5, 6, 6)
