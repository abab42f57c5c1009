"""Corrections of faces by hand, before they are applied: keyed boxes and points, tracks on and off, split and merged.

The result is the `repairs` of a job of kind `repair`, the format `faceplate shots edit --export` writes: boxes and
points in plate pixels from the display window's upper left corner, keys by frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from host_bridge.repairs import (
    DEFAULT_REACH,
    Box,
    BoxKeys,
    Merge,
    PointKeys,
    Repairs,
    Split,
    TrackEdit,
    repairs_from_json,
)

Point = tuple[float, float]
REACH = DEFAULT_REACH  # eye distances over which a moved point takes its neighbours along


@dataclass(frozen=True)
class Corrections:
    """All corrections of a shot, by what they correct. Frozen: every method returns the next one."""

    boxes: Mapping[int, BoxKeys] = field(default_factory=dict)  # by track
    points: Mapping[tuple[int, int], PointKeys] = field(default_factory=dict)  # by track and landmark
    tracks: Mapping[int, TrackEdit] = field(default_factory=dict)
    splits: tuple[Split, ...] = ()
    merges: tuple[Merge, ...] = ()

    def with_box(self, track: int, frame: int, box: Box | None) -> Corrections:
        """With a box key, or (None) without it."""
        old = self.boxes.get(track)
        keys = {f: b for f, b in (old.keys if old else {}).items() if f != frame}
        if box is not None:
            (x0, x1), (y0, y1) = sorted(box[0::2]), sorted(box[1::2])
            keys[frame] = (x0, y0, max(x1, x0 + 1.0), max(y1, y0 + 1.0))  # an empty one is no box
        rest = {t: k for t, k in self.boxes.items() if t != track}
        return replace(self, boxes={**rest, track: BoxKeys(track, keys)} if keys else rest)

    def with_point(self, track: int, landmark: int, frame: int, point: Point | None, reach: float) -> Corrections:
        """With a point key, or (None) without it."""
        name = (track, landmark)
        old = self.points.get(name)
        keys = {f: p for f, p in (old.keys if old else {}).items() if f != frame}
        if point is not None:
            keys[frame] = point
        rest = {n: k for n, k in self.points.items() if n != name}
        return replace(self, points={**rest, name: PointKeys(track, landmark, keys, reach)} if keys else rest)

    def with_track(self, edit: TrackEdit) -> Corrections:
        rest = {t: e for t, e in self.tracks.items() if t != edit.track}
        return replace(self, tracks=rest if edit == TrackEdit(edit.track) else {**rest, edit.track: edit})

    def with_split(self, split: Split) -> Corrections:
        return replace(self, splits=(*self.splits, split))

    def with_merge(self, merge: Merge) -> Corrections:
        return replace(self, merges=(*self.merges, merge))

    def box_at(self, track: int, frame: int) -> Box | None:
        """The corrected box, linear between keys; None before the first and after the last."""
        return self.boxes[track].at(frame) if track in self.boxes else None

    def box_keys(self, track: int) -> frozenset[int]:
        """Frames with a box key of the track."""
        return frozenset(self.boxes[track].keys) if track in self.boxes else frozenset()

    def to_repairs(self) -> dict[str, Any]:
        """The content of a repair file."""
        return Repairs(
            self.splits,
            self.merges,
            tuple(self.tracks[t] for t in sorted(self.tracks)),
            tuple(self.boxes[t] for t in sorted(self.boxes)),
            tuple(self.points[n] for n in sorted(self.points)),
        ).to_json()


def corrections_of(repairs: Mapping[str, Any]) -> Corrections:
    """The corrections a shot already has (`repairs` of `faces`), to go on from. ShotError (`shot.edit`)."""
    if not repairs:
        return Corrections()
    found = repairs_from_json(dict(repairs))
    return Corrections(
        {b.track: b for b in found.boxes},
        {(p.track, p.landmark): p for p in found.points},
        {t.track: t for t in found.tracks},
        found.split,
        found.merge,
    )
