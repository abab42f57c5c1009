"""Manual repair of an analysed shot: reading repair files, checking them against the shot, and analysing it again.

A shot has one set of repairs, applied to what was found in its frames. A repair file replaces that set; points taken
from a Nuke tracker are added to it. Nothing of the shot changes until the new analysis is finished.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from host_bridge.errors import FaceplateError, PlateError, ShotError, unknown_name
from host_bridge.jobspec import JobSpec, PlateSpec
from host_bridge.repairs import DEFAULT_REACH, LANDMARKS, PointKeys, Repairs, repairs_from_json
from inference_server.faces.analyse import FaceTools
from inference_server.faces.nuke_tracks import read_nuke_tracks
from inference_server.faces.repairs import restructure
from inference_server.faces.types import FaceState
from inference_server.plates.color import ColorConfig
from inference_server.plates.sequence import format_frames
from inference_server.runs import RunEvent
from inference_server.shots.analysing import analyse_shot, check_settings, frame_digests
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ANALYSIS_VERSION, ShotAnalysis, Track
from inference_server.source import PlateSource

_PARTS = ("split", "merge", "tracks", "boxes", "points")


def read_repairs(path: Path) -> Repairs:
    """The repairs in a file (format: host_bridge.repairs). ShotError `shot.edit` says what is wrong and where."""
    try:
        return repairs_from_json(json.loads(_text(path), object_pairs_hook=_without_duplicates))
    except json.JSONDecodeError as error:
        raise _wrong(f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}", str(path)) from error
    except FaceplateError as error:
        raise error.at(path=str(path)) from error


def tracker_points(
    path: Path, display_height: int, track: int, points: Sequence[tuple[str, int]], reach: float = DEFAULT_REACH
) -> tuple[PointKeys, ...]:
    """Keyframed points of a face's `track` from tracks exported by Nuke (see faces.nuke_tracks).

    points  (name of the Nuke track, landmark it follows) each; the name may be "" where the file has one track

    ShotError `shot.edit` where the file has no such track or the landmark does not exist.
    """
    found = read_nuke_tracks(_text(path), display_height)
    out = []
    for name, landmark in points:
        if not 0 <= landmark < LANDMARKS:
            raise _wrong(f"landmark {landmark} does not exist, landmarks are 0 to {LANDMARKS - 1}", landmark)
        if not name and len(found) > 1:
            raise _wrong(f"the file has {len(found)} tracks ({', '.join(found)}); write NAME=LANDMARK", str(path))
        if name and name not in found:
            raise unknown_name("shot.edit", "Nuke track", name, list(found)).at(path=str(path))
        out.append(PointKeys(track, landmark, found[name or next(iter(found))], reach))
    return tuple(out)


def with_points(repairs: Repairs, points: Iterable[PointKeys]) -> Repairs:
    """`repairs` and `points`, which replace those of the same track and landmark."""
    new = {(p.track, p.landmark): p for p in points}
    kept = tuple(p for p in repairs.points if (p.track, p.landmark) not in new)
    return replace(repairs, points=kept + tuple(new.values()))


def export_repairs(repairs: Mapping[str, Any]) -> str:
    """A shot's stored repairs as the text of a repair file, every part named, so that it can be filled in."""
    whole = repairs_from_json(dict(repairs) or {"version": 1}).to_json()
    return json.dumps({"version": whole["version"], **{p: whole.get(p, []) for p in _PARTS}}, indent=2) + "\n"


def check_repairs(repairs: Repairs, found: ShotAnalysis) -> None:
    """Raise ShotError `shot.edit` where the repairs cannot fit a shot; `found` is its analysis before any repair.

    Asked before the shot is analysed again, so that a wrong number is known at once and not at the end.
    """
    frames = np.asarray(found.frames)
    first, last = int(frames[0]), int(frames[-1])
    for kind, ids in (("split", [s.new for s in repairs.split]), ("boxes", [b.track for b in repairs.boxes])):
        if any(i < 1 for i in ids):
            raise _wrong(f"{kind} makes track {min(ids)}; tracks count from 1", min(ids))
    for split in repairs.split:
        if not first < split.frame <= last:
            raise _wrong(f"split of track {split.track} at {split.frame}: the shot is {first}-{last}", split.frame)
    for edit in repairs.tracks:
        if edit.first is not None and edit.last is not None and edit.first > edit.last:
            raise _wrong(f"track {edit.track} cannot begin at {edit.first} and end at {edit.last}", edit.first)
    for box in repairs.boxes:
        if not ((frames >= min(box.keys)) & (frames <= max(box.keys))).any():
            raise _wrong(f"no box of track {box.track} is in the shot, {first}-{last}", sorted(box.keys)[:20])
    known = {t.id: t for t in found.tracks} | {
        b.track: _unseen(b.track, found) for b in repairs.boxes if b.track not in {t.id for t in found.tracks}
    }
    after = sorted(t.id for t in restructure(list(known.values()), found.frames, repairs))
    for point in repairs.points:
        if point.track not in after:
            raise _wrong(f"points names track {point.track}, after the other repairs there are {after}", point.track)
        if not np.isin(frames, list(point.keys)).any():
            raise _wrong(f"no key of landmark {point.landmark} of track {point.track} is in the shot", point.landmark)
    twice = [k for k, n in Counter((p.track, p.landmark) for p in repairs.points).items() if n > 1]
    if twice:
        raise _wrong(f"landmark {twice[0][1]} of track {twice[0][0]} is keyed by two entries of points", twice[0][1])


def open_plate(record: ShotRecord, pattern: str, config: ColorConfig) -> PlateSource:
    """The plate of a stored shot, at `pattern` or where it was.

    ShotError `shot.stale` where it is not there, frames of it are missing, or the OCIO config is another.
    """
    s = record.settings
    plate = PlateSpec(pattern or record.pattern, s.colorspace, s.premult, s.layer, s.part, s.view)
    moved = "Say where the plate is now with --in PATTERN."
    if s.config_hash != config.hash:
        raise ShotError(
            "shot.stale",
            f"shot {record.id} was analysed with another OCIO config ({s.config_hash}) than {config.source}",
            value=record.id,
            remedy="Give that config with --ocio FILE or $OCIO.",
        )
    # A frame that could not be read when the shot was analysed cannot be read now either, its contents being the same.
    job = JobSpec(kind="analyse", plate=plate, continue_on_error=True)
    try:
        source = PlateSource.open(job, config)
    except PlateError as error:
        if error.code != "plate.no_frames":
            raise
        raise ShotError(
            "shot.stale",
            f"the plate of shot {record.id} is not there: {error.message}",
            value=record.id,
            path=plate.pattern,
            remedy=moved,
        ) from error
    check_settings(record, source)
    missing = sorted(set(record.frames) - set(source.sequence.files))
    if missing:
        raise ShotError(
            "shot.stale",
            f"frames {format_frames(missing)} of shot {record.id} are not on disk",
            value=record.id,
            frame=missing[0],
            path=plate.pattern,
            remedy=moved,
        )
    return source


def edit_shot(
    store: ShotStore,
    record: ShotRecord,
    repairs: Repairs,
    source: PlateSource,
    pool: ThreadPoolExecutor,
    depth: int,
    tools: Callable[[], FaceTools],
) -> Generator[RunEvent, None, ShotRecord]:
    """Analyse a shot again with `repairs` in place of those it has, and store that as its next revision.

    Raises ShotError `shot.locked`, `shot.busy` (another process repairs it), `shot.stale` (the frames or this version
    of Faceplate are not those of the shot), `shot.edit`; then, and when it is closed early, the shot stays as it was.
    """
    store.refuse_locked(record)
    if record.version != ANALYSIS_VERSION:
        raise ShotError(
            "shot.stale",
            f"shot {record.id} was analysed by version {record.version}, this is version {ANALYSIS_VERSION}",
            value=record.id,
            remedy="Run `faceplate analyze` again and repair the new shot; `shots edit --export` keeps the repairs.",
        )
    store.check_current(record, frame_digests(store, source, sorted(record.frames)))
    check_repairs(repairs, store.load_found(record))
    lock = store.writer(record.id)
    if not lock.acquire():
        raise ShotError(
            "shot.busy",
            f"another process is repairing shot {record.id}",
            value=record.id,
            remedy="Wait until it is done, then look at the shot again.",
        )
    with lock, store.pin(record.id):
        analysis = yield from analyse_shot(source, tuple(sorted(record.frames)), pool, depth, tools(), repairs)
        stored = {} if repairs.empty else repairs.to_json()
        return store.revise(record, analysis, stored, os.path.abspath(source.spec.plate.pattern))


def _unseen(track: int, found: ShotAnalysis) -> Track:
    """A track with no face in it, as a box will make it."""
    count = len(found.frames)
    like = found.tracks[0] if found.tracks else None
    return Track(
        track,
        np.zeros((count, LANDMARKS, 3), np.float32),
        np.full(count, FaceState.ABSENT, np.uint8),
        np.zeros(count, np.float32),
        like.classes if like else (),
        np.zeros_like(like.segmentation) if like else np.zeros((count, 0, 0, 0), np.uint8),
        np.zeros((count, 2, 3), np.float32),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ShotError(
            "shot.edit",
            f"the file cannot be read: {getattr(error, 'strerror', None) or error}",
            path=str(path),
            remedy="Give a text file that can be read.",
        ) from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise _wrong(f"{twice[0]!r} is there twice", twice[0])
    return dict(pairs)


def _wrong(what: str, value: Any) -> ShotError:
    return ShotError(
        "shot.edit",
        f"the repair cannot be applied: {what}",
        value=value,
        remedy="Correct it; `faceplate shots edit ID --export FILE` writes what the shot has now.",
    )
