"""What manual repairs do to a shot's tracks; host_bridge.repairs says which there are and in which order they apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.repairs import PointKeys, Repairs, cannot_apply
from inference_server.faces.geometry import eye_distance
from inference_server.faces.types import FaceState
from inference_server.shots.types import Track


def restructure(tracks: Sequence[Track], frames: Sequence[int], repairs: Repairs) -> list[Track]:
    """The tracks after split, merge and per-track edits, by id. `shot.edit` when a track or new id does not fit."""
    by_id = {track.id: track for track in tracks}
    numbers = np.asarray(frames)
    for split in repairs.split:
        source = _existing(by_id, split.track, "split")
        if split.new in by_id:
            raise cannot_apply("split", f"cannot make track {split.new}: there is one")
        later = numbers >= split.frame
        by_id[split.track] = _cleared(source, later)
        by_id[split.new] = dataclasses.replace(_cleared(source, ~later), id=split.new)
    for merge in repairs.merge:
        into, other = _existing(by_id, merge.into, "merge"), _existing(by_id, merge.track, "merge")
        if merge.into == merge.track:
            raise cannot_apply("merge", f"track {merge.track} cannot be merged into itself")
        if into.classes != other.classes:
            raise cannot_apply("merge", f"tracks {merge.into} and {merge.track} have different classes")
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
        raise cannot_apply("points", f"track {point.track} has no face in any of the frames {sorted(point.keys)[:8]}")
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
        raise cannot_apply(part, f"names track {track}, the shot has {sorted(by_id) or 'none'}")
    return by_id[track]
