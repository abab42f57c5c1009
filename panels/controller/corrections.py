"""Corrections of faces by hand, before they are applied: keyed boxes and points, tracks on and off, split and merged.

The result is the `repairs` of a job of kind `repair`, the format `faceplate shots edit --export` writes: boxes and
points in plate pixels from the display window's upper left corner, keys by frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Point = tuple[float, float]

VERSION = 1
REACH = 0.5  # eye distances over which a moved point takes its neighbours along


@dataclass(frozen=True)
class PointKeys:
    """A landmark's corrected positions by frame, and its reach in eye distances."""

    keys: Mapping[int, Point]
    reach: float = REACH


@dataclass(frozen=True)
class TrackEdit:
    """Whether effects see the track; it has no face before `first` and after `last`."""

    enabled: bool = True
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Corrections:
    """All corrections of a shot. Frozen: every method returns the next one."""

    boxes: Mapping[int, Mapping[int, Box]] = field(default_factory=dict)
    points: Mapping[tuple[int, int], PointKeys] = field(default_factory=dict)
    tracks: Mapping[int, TrackEdit] = field(default_factory=dict)
    splits: tuple[tuple[int, int, int], ...] = ()  # track, frame, new
    merges: tuple[tuple[int, int], ...] = ()  # into, track

    def with_box(self, track: int, frame: int, box: Box | None) -> Corrections:
        """With a box key, or (None) without it."""
        keys = {f: b for f, b in self.boxes.get(track, {}).items() if f != frame}
        if box is not None:
            x0, y0, x1, y1 = box
            keys[frame] = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        rest = {t: k for t, k in self.boxes.items() if t != track}
        return replace(self, boxes={**rest, track: keys} if keys else rest)

    def with_point(self, track: int, landmark: int, frame: int, point: Point | None, reach: float) -> Corrections:
        """With a point key, or (None) without it."""
        name = (track, landmark)
        old = self.points.get(name)
        keys = {f: p for f, p in (old.keys if old else {}).items() if f != frame}
        if point is not None:
            keys[frame] = point
        rest = {n: k for n, k in self.points.items() if n != name}
        return replace(self, points={**rest, name: PointKeys(keys, reach)} if keys else rest)

    def with_track(self, track: int, edit: TrackEdit) -> Corrections:
        rest = {t: e for t, e in self.tracks.items() if t != track}
        return replace(self, tracks=rest if edit == TrackEdit() else {**rest, track: edit})

    def with_split(self, track: int, frame: int, new: int) -> Corrections:
        return replace(self, splits=(*self.splits, (track, frame, new)))

    def with_merge(self, into: int, track: int) -> Corrections:
        return replace(self, merges=(*self.merges, (into, track)))

    def box_at(self, track: int, frame: int) -> Box | None:
        """The corrected box, linear between keys; None before the first and after the last."""
        keys = self.boxes.get(track, {})
        frames = sorted(keys)
        if not frames or not frames[0] <= frame <= frames[-1]:
            return None
        before = max(f for f in frames if f <= frame)
        after = min(f for f in frames if f >= frame)
        t = (frame - before) / (after - before) if after > before else 0.0
        x0, y0, x1, y1 = (a + (b - a) * t for a, b in zip(keys[before], keys[after], strict=True))
        return x0, y0, x1, y1

    def to_repairs(self) -> dict[str, Any]:
        """The content of a repair file."""
        out: dict[str, Any] = {"version": VERSION}
        if self.splits:
            out["split"] = [{"track": t, "frame": f, "new": n} for t, f, n in self.splits]
        if self.merges:
            out["merge"] = [{"into": i, "track": t} for i, t in self.merges]
        if self.tracks:
            out["tracks"] = [
                {
                    "track": track,
                    "enabled": edit.enabled,
                    **({"first": edit.first} if edit.first is not None else {}),
                    **({"last": edit.last} if edit.last is not None else {}),
                }
                for track, edit in sorted(self.tracks.items())
            ]
        if self.boxes:
            out["boxes"] = [{"track": t, "keys": _keys(k)} for t, k in sorted(self.boxes.items())]
        if self.points:
            out["points"] = [
                {"track": t, "landmark": landmark, "reach": p.reach, "keys": _keys(p.keys)}
                for (t, landmark), p in sorted(self.points.items())
            ]
        return out


def corrections_of(repairs: Mapping[str, Any]) -> Corrections:
    """The corrections a shot already has (`repairs` of `faces`), to go on from."""
    return Corrections(
        boxes={b["track"]: {int(f): tuple(v) for f, v in b["keys"].items()} for b in repairs.get("boxes", [])},
        points={
            (p["track"], p["landmark"]): PointKeys(
                {int(f): tuple(v) for f, v in p["keys"].items()}, float(p.get("reach", REACH))
            )
            for p in repairs.get("points", [])
        },
        tracks={
            t["track"]: TrackEdit(t.get("enabled", True), t.get("first"), t.get("last"))
            for t in repairs.get("tracks", [])
        },
        splits=tuple((s["track"], s["frame"], s["new"]) for s in repairs.get("split", [])),
        merges=tuple((e["into"], e["track"]) for e in repairs.get("merge", [])),
    )


def _keys(keys: Mapping[int, tuple[float, ...]]) -> dict[str, list[float]]:
    return {str(frame): [float(v) for v in keys[frame]] for frame in sorted(keys)}
