"""Manual repair of a shot's faces: what an artist may change, as plain data, and what it does.

A repair file is JSON:

    {
      "version": 1,
      "split":  [{"track": 1, "frame": 1020, "new": 5}],
      "merge":  [{"into": 1, "track": 5}],
      "tracks": [{"track": 2, "enabled": false}, {"track": 1, "first": 1003, "last": 1040}],
      "boxes":  [{"track": 1, "keys": {"1011": [612, 240, 802, 455], "1016": [618, 243, 808, 458]}}],
      "points": [{"track": 1, "landmark": 61, "reach": 0.5, "keys": {"1001": [641.5, 402.0]}}]
    }

Every part may be left out. They are applied in this order: boxes while the frames are looked at, then split, merge and
tracks in the order given, then gaps are closed and landmarks smoothed, then points.

split   from `frame` on, the face of `track` is `new`
merge   `track` becomes part of `into`, which wins where both have a face
tracks  `enabled`: whether effects see the track; `first`, `last`: it has no face outside these frames
boxes   the face lies here, plate pixels x0, y0, x1, y1, between keys linearly; landmarks are looked for inside, and
        where none are found the track's last known face is laid into the box. A `track` that does not exist is made.
points  landmark 0..477 lies here, plate pixels. The correction (key minus tracked position) is interpolated linearly
        between keys and held before the first and after the last, as a keyframed knob. Neighbours within `reach` (eye
        distances) follow; a reach of 3 moves the whole face.

All coordinates are those of faces.types: the display window's upper-left corner is (0, 0).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ShotError
from inference_server.faces.geometry import Box, eye_distance
from inference_server.faces.types import LANDMARKS, FaceState
from inference_server.shots.types import Track

VERSION = 1
DEFAULT_REACH = 0.5


@dataclass(frozen=True)
class Split:
    track: int
    frame: int
    new: int


@dataclass(frozen=True)
class Merge:
    into: int
    track: int


@dataclass(frozen=True)
class TrackEdit:
    track: int
    enabled: bool = True
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class BoxKeys:
    track: int
    keys: Mapping[int, Box]

    def at(self, frame: int) -> Box | None:
        """The box in a frame, None before the first and after the last key."""
        frames = sorted(self.keys)
        if not frames[0] <= frame <= frames[-1]:
            return None
        columns = np.array([self.keys[f] for f in frames], dtype=np.float64).T
        x0, y0, x1, y1 = (float(np.interp(frame, frames, column)) for column in columns)
        return x0, y0, x1, y1


@dataclass(frozen=True)
class PointKeys:
    track: int
    landmark: int
    keys: Mapping[int, tuple[float, float]]
    reach: float = DEFAULT_REACH


@dataclass(frozen=True)
class Repairs:
    """All repairs of a shot; see the module's docstring."""

    split: tuple[Split, ...] = ()
    merge: tuple[Merge, ...] = ()
    tracks: tuple[TrackEdit, ...] = ()
    boxes: tuple[BoxKeys, ...] = ()
    points: tuple[PointKeys, ...] = field(default=())

    @property
    def empty(self) -> bool:
        return not (self.split or self.merge or self.tracks or self.boxes or self.points)

    def to_json(self) -> dict[str, Any]:
        """JSON-representable, read back by `repairs_from_json`."""
        out: dict[str, Any] = {"version": VERSION}
        for part in ("split", "merge"):
            if getattr(self, part):
                out[part] = [dataclasses.asdict(entry) for entry in getattr(self, part)]
        if self.tracks:
            out["tracks"] = [{k: v for k, v in dataclasses.asdict(t).items() if v is not None} for t in self.tracks]
        if self.boxes:
            out["boxes"] = [{"track": b.track, "keys": _keys_to_json(b.keys)} for b in self.boxes]
        if self.points:
            out["points"] = [
                {"track": p.track, "landmark": p.landmark, "reach": p.reach, "keys": _keys_to_json(p.keys)}
                for p in self.points
            ]
        return out


def repairs_from_json(data: Any) -> Repairs:
    """Repairs of a decoded JSON object. `shot.edit` names the place and what is wrong with it."""
    top = _object(
        "repairs", data, {"version": int}, dict.fromkeys(("split", "merge", "tracks", "boxes", "points"), list)
    )
    if top["version"] != VERSION:
        raise _wrong("version", f"is {top['version']!r}, this Faceplate reads {VERSION}")

    def entries(part: str, needed: dict[str, Any], optional: dict[str, Any]) -> list[dict[str, Any]]:
        return [_object(f"{part}[{i}]", e, needed, optional) for i, e in enumerate(top.get(part, []))]

    tracks = entries("tracks", {"track": int}, {"enabled": bool, "first": int, "last": int})
    boxes = entries("boxes", {"track": int, "keys": dict}, {})
    points = entries("points", {"track": int, "landmark": int, "keys": dict}, {"reach": (int, float)})
    for i, point in enumerate(points):
        if not 0 <= point["landmark"] < LANDMARKS:
            raise _wrong(f"points[{i}].landmark", f"is {point['landmark']}, landmarks are 0 to {LANDMARKS - 1}")
        if not point.get("reach", DEFAULT_REACH) > 0:
            raise _wrong(f"points[{i}].reach", f"is {point['reach']}, it must be above 0")
    box_keys = []
    for i, box in enumerate(boxes):
        keys = {f: (v[0], v[1], v[2], v[3]) for f, v in _keys(f"boxes[{i}]", box["keys"], 4).items()}
        for f, (x0, y0, x1, y1) in keys.items():
            if x1 <= x0 or y1 <= y0:
                raise _wrong(f"boxes[{i}].keys.{f}", f"is {[x0, y0, x1, y1]}: a box is x0, y0, x1, y1, not empty")
        box_keys.append(BoxKeys(box["track"], keys))
    return Repairs(
        split=tuple(Split(**e) for e in entries("split", {"track": int, "frame": int, "new": int}, {})),
        merge=tuple(Merge(**e) for e in entries("merge", {"into": int, "track": int}, {})),
        tracks=tuple(TrackEdit(**e) for e in tracks),
        boxes=tuple(box_keys),
        points=tuple(
            PointKeys(
                p["track"],
                p["landmark"],
                {f: (v[0], v[1]) for f, v in _keys(f"points[{i}]", p["keys"], 2).items()},
                float(p.get("reach", DEFAULT_REACH)),
            )
            for i, p in enumerate(points)
        ),
    )


def restructure(tracks: Sequence[Track], frames: Sequence[int], repairs: Repairs) -> list[Track]:
    """The tracks after split, merge and per-track edits, by id. `shot.edit` when a track or new id does not fit."""
    by_id = {track.id: track for track in tracks}
    numbers = np.asarray(frames)
    for split in repairs.split:
        source = _existing(by_id, split.track, "split")
        if split.new in by_id:
            raise _wrong("split", f"cannot make track {split.new}: there is one")
        later = numbers >= split.frame
        by_id[split.track] = _cleared(source, later)
        by_id[split.new] = dataclasses.replace(_cleared(source, ~later), id=split.new)
    for merge in repairs.merge:
        into, other = _existing(by_id, merge.into, "merge"), _existing(by_id, merge.track, "merge")
        if merge.into == merge.track:
            raise _wrong("merge", f"track {merge.track} cannot be merged into itself")
        if into.classes != other.classes:
            raise _wrong("merge", f"tracks {merge.into} and {merge.track} have different classes")
        take = (into.states == FaceState.ABSENT) & (other.states != FaceState.ABSENT)
        by_id[merge.into] = dataclasses.replace(
            into,
            landmarks=_choose(take, other.landmarks, into.landmarks),
            states=_choose(take, other.states, into.states),
            scores=_choose(take, other.scores, into.scores),
            segmentation=_choose(take, other.segmentation, into.segmentation),
            matrices=_choose(take, other.matrices, into.matrices),
        )
        del by_id[merge.track]
    for edit in repairs.tracks:
        track = _existing(by_id, edit.track, "tracks")
        outside = np.zeros(len(numbers), dtype=bool)
        if edit.first is not None:
            outside |= numbers < edit.first
        if edit.last is not None:
            outside |= numbers > edit.last
        by_id[edit.track] = dataclasses.replace(_cleared(track, outside), enabled=edit.enabled)
    return [by_id[key] for key in sorted(by_id)]


def move_points(tracks: Sequence[Track], frames: Sequence[int], repairs: Repairs, pixel_aspect: float) -> list[Track]:
    """The tracks with keyframed landmarks where the artist put them; frames from first to last key become MANUAL."""
    by_id = {track.id: track for track in tracks}
    for track_id in sorted({p.track for p in repairs.points}):
        track = _existing(by_id, track_id, "points")
        points = [p for p in repairs.points if p.track == track_id]
        landmarks, states = track.landmarks.copy(), track.states.copy()
        present = track.states != FaceState.ABSENT
        shifts = np.stack([_shift_curve(p, track, frames, present) for p in points], axis=1)  # [F, P, 2]
        for i in np.flatnonzero(present & (shifts != 0).any(axis=(1, 2))):
            landmarks[i] = _bend(landmarks[i], points, shifts[i], pixel_aspect)
        for point in points:
            keyed = (np.asarray(frames) >= min(point.keys)) & (np.asarray(frames) <= max(point.keys))
            states[present & keyed] = FaceState.MANUAL
        by_id[track_id] = dataclasses.replace(track, landmarks=landmarks, states=states)
    return [by_id[key] for key in sorted(by_id)]


def _shift_curve(
    point: PointKeys, track: Track, frames: Sequence[int], present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The correction of one landmark in every frame [F, 2], from its keys in frames where the face is."""
    position = {frame: i for i, frame in enumerate(frames)}
    keys = [(f, position[f]) for f in sorted(point.keys) if f in position and present[position[f]]]
    if not keys:
        raise _wrong("points", f"track {point.track} has no face in any of the frames {sorted(point.keys)[:8]}")
    shift = np.array([np.array(point.keys[f]) - track.landmarks[i, point.landmark, :2] for f, i in keys])
    return np.stack([np.interp(frames, [f for f, _ in keys], shift[:, axis]) for axis in (0, 1)], axis=1)


def _bend(
    mesh: NDArray[np.float32], points: Sequence[PointKeys], shifts: NDArray[np.float64], pixel_aspect: float
) -> NDArray[np.float32]:
    """A mesh bent so that each point is moved by its shift exactly and its neighbours along (Gaussian basis)."""
    square = mesh[:, :2].astype(np.float64) * [pixel_aspect, 1.0]
    size = eye_distance(square)
    at = square[[p.landmark for p in points]]
    reach = np.array([p.reach for p in points]) * size

    def basis(where: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = np.hypot(*(where[:, None] - at[None]).transpose(2, 0, 1))
        return np.asarray(np.exp(-((apart / reach) ** 2)))

    weights = np.linalg.lstsq(basis(at), shifts * [pixel_aspect, 1.0], rcond=1e-9)[0]
    out = mesh.copy()
    out[:, :2] += (basis(square) @ weights / [pixel_aspect, 1.0]).astype(np.float32)
    return out


def _choose(take: NDArray[np.bool_], other: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
    """Per frame, `other` where `take` is set and `own` elsewhere."""
    out = own.copy()
    out[take] = other[take]
    return out


def _cleared(track: Track, where: NDArray[np.bool_]) -> Track:
    states, scores = track.states.copy(), track.scores.copy()
    states[where], scores[where] = FaceState.ABSENT, 0.0
    return dataclasses.replace(track, states=states, scores=scores)


def _existing(by_id: Mapping[int, Track], track: int, part: str) -> Track:
    if track not in by_id:
        raise _wrong(part, f"names track {track}, the shot has {sorted(by_id) or 'none'}")
    return by_id[track]


def _keys_to_json(keys: Mapping[int, Sequence[float]]) -> dict[str, list[float]]:
    return {str(frame): [float(v) for v in keys[frame]] for frame in sorted(keys)}


def _keys(where: str, keys: Mapping[str, Any], count: int) -> dict[int, list[float]]:
    out: dict[int, list[float]] = {}
    for frame, values in keys.items():
        numeric = isinstance(values, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v) for v in values
        )
        if not numeric or len(values) != count:
            raise _wrong(f"{where}.keys.{frame}", f"is {values!r}, it must be {count} numbers")
        try:
            out[int(frame)] = [float(v) for v in values]
        except ValueError:
            raise _wrong(f"{where}.keys", f"has the key {frame!r}, keys are frame numbers") from None
    if not out:
        raise _wrong(f"{where}.keys", "is empty, it needs at least one frame")
    return out


def _object(where: str, value: Any, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, f"is {type(value).__name__}, it must be an object")
    kinds = {**needed, **optional}
    for name, entry in value.items():
        if name not in kinds:
            raise _wrong(where, f"has {name!r}, it may have {sorted(kinds)}")
        wrong_bool = isinstance(entry, bool) and kinds[name] is not bool
        if wrong_bool or not isinstance(entry, kinds[name]):
            raise _wrong(f"{where}.{name}", f"is {entry!r}")
    for name in needed:
        if name not in value:
            raise _wrong(where, f"lacks {name!r}")
    return value


def _wrong(where: str, what: str) -> ShotError:
    return ShotError(
        "shot.edit",
        f"the repair cannot be applied: {where} {what}",
        remedy="Correct the repair file; its format is described in inference_server/faces/repairs.py.",
        value=where,
    )
