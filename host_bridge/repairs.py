"""Manual repair of a shot's faces: what an artist may change, as plain data.

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

All coordinates are plate pixels; the display window's upper-left corner is (0, 0).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from host_bridge.errors import ShotError

VERSION = 1
LANDMARKS = 478  # of the mesh
DEFAULT_REACH = 0.5

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


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
        before = max(f for f in frames if f <= frame)
        after = min(f for f in frames if f >= frame)
        share = (frame - before) / (after - before) if after > before else 0.0
        x0, y0, x1, y1 = (p + share * (q - p) for p, q in zip(self.keys[before], self.keys[after], strict=True))
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
        raise cannot_apply("version", f"is {top['version']!r}, this Faceplate reads {VERSION}")

    def entries(part: str, needed: dict[str, Any], optional: dict[str, Any]) -> list[dict[str, Any]]:
        return [_object(f"{part}[{i}]", e, needed, optional) for i, e in enumerate(top.get(part, []))]

    tracks = entries("tracks", {"track": int}, {"enabled": bool, "first": int, "last": int})
    boxes = entries("boxes", {"track": int, "keys": dict}, {})
    points = entries("points", {"track": int, "landmark": int, "keys": dict}, {"reach": (int, float)})
    for i, point in enumerate(points):
        if not 0 <= point["landmark"] < LANDMARKS:
            raise cannot_apply(f"points[{i}].landmark", f"is {point['landmark']}, landmarks are 0 to {LANDMARKS - 1}")
        if not point.get("reach", DEFAULT_REACH) > 0:
            raise cannot_apply(f"points[{i}].reach", f"is {point['reach']}, it must be above 0")
    box_keys = []
    for i, box in enumerate(boxes):
        keys = {f: (v[0], v[1], v[2], v[3]) for f, v in _keys(f"boxes[{i}]", box["keys"], 4).items()}
        for f, (x0, y0, x1, y1) in keys.items():
            if x1 <= x0 or y1 <= y0:
                raise cannot_apply(f"boxes[{i}].keys.{f}", f"is {[x0, y0, x1, y1]}: a box is x0, y0, x1, y1, not empty")
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


def _keys_to_json(keys: Mapping[int, Sequence[float]]) -> dict[str, list[float]]:
    return {str(frame): [float(v) for v in keys[frame]] for frame in sorted(keys)}


def _keys(where: str, keys: Mapping[str, Any], count: int) -> dict[int, list[float]]:
    out: dict[int, list[float]] = {}
    for frame, values in keys.items():
        numeric = isinstance(values, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values
        )
        if not numeric or len(values) != count:
            raise cannot_apply(f"{where}.keys.{frame}", f"is {values!r}, it must be {count} numbers")
        try:
            out[int(frame)] = [float(v) for v in values]
        except ValueError:
            raise cannot_apply(f"{where}.keys", f"has the key {frame!r}, keys are frame numbers") from None
    if not out:
        raise cannot_apply(f"{where}.keys", "is empty, it needs at least one frame")
    return out


def _object(where: str, value: Any, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise cannot_apply(where, f"is {type(value).__name__}, it must be an object")
    kinds = {**needed, **optional}
    for name, entry in value.items():
        if name not in kinds:
            raise cannot_apply(where, f"has {name!r}, it may have {sorted(kinds)}")
        wrong_bool = isinstance(entry, bool) and kinds[name] is not bool
        if wrong_bool or not isinstance(entry, kinds[name]):
            raise cannot_apply(f"{where}.{name}", f"is {entry!r}")
    for name in needed:
        if name not in value:
            raise cannot_apply(where, f"lacks {name!r}")
    return value


def cannot_apply(where: str, what: str) -> ShotError:
    """`shot.edit`: `where` in the repairs, and what is wrong with it."""
    return ShotError(
        "shot.edit",
        f"the repair cannot be applied: {where} {what}",
        remedy="Correct the repair file; its format is described in host_bridge/repairs.py.",
        value=where,
    )
