"""How an analysis lies in its .npz file: a JSON header and arrays, of which an outline reads only the small ones."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inference_server.plates.types import Window
from inference_server.shots.types import ShotAnalysis, Track

_TRACK_ARRAYS = ("landmarks", "states", "scores", "segmentation", "matrices")


@dataclass(frozen=True)
class TrackOutline:
    """A track without its meshes and maps; `states` as in Track."""

    id: int
    enabled: bool
    classes: tuple[str, ...]
    states: NDArray[np.uint8]


@dataclass(frozen=True)
class ShotOutline:
    """What a list or an artist's summary needs of an analysis; fields as in ShotAnalysis."""

    frames: tuple[int, ...]
    display_window: Window
    pixel_aspect: float
    work_exposure: float
    jitter_before: float
    jitter_after: float
    tracks: tuple[TrackOutline, ...]


def pack(analysis: ShotAnalysis) -> dict[str, Any]:
    """The arrays of an analysis by name."""
    w = analysis.display_window
    meta = {
        "display_window": [w.x0, w.y0, w.x1, w.y1],
        "pixel_aspect": analysis.pixel_aspect,
        "work_exposure": analysis.work_exposure,
        "jitter": [analysis.jitter_before, analysis.jitter_after],
        "tracks": [{"id": t.id, "classes": list(t.classes), "enabled": t.enabled} for t in analysis.tracks],
    }
    arrays: dict[str, Any] = {
        "meta": np.array(json.dumps(meta)),
        "frames": np.array(analysis.frames, np.int64),
        "missing": np.array(analysis.missing, np.int64),
        "cuts": np.array(analysis.cuts, np.int64),
    }
    for track in analysis.tracks:
        for name in _TRACK_ARRAYS:
            arrays[f"track{track.id}.{name}"] = getattr(track, name)
    return arrays


def unpack(arrays: Mapping[str, Any]) -> ShotAnalysis:
    """The analysis that `pack` took apart. KeyError or ValueError where something is missing or wrong."""
    meta = json.loads(str(arrays["meta"]))
    return ShotAnalysis(
        frames=_numbers(arrays["frames"]),
        display_window=Window(*meta["display_window"]),
        pixel_aspect=meta["pixel_aspect"],
        work_exposure=meta["work_exposure"],
        tracks=tuple(
            Track(
                id=t["id"],
                classes=tuple(t["classes"]),
                enabled=t["enabled"],
                **{name: arrays[f"track{t['id']}.{name}"] for name in _TRACK_ARRAYS},
            )
            for t in meta["tracks"]
        ),
        missing=_numbers(arrays["missing"]),
        jitter_before=meta["jitter"][0],
        jitter_after=meta["jitter"][1],
        cuts=_numbers(arrays["cuts"]) if "cuts" in arrays else (),  # analyses of before they were kept
    )


def outline(arrays: Mapping[str, Any]) -> ShotOutline:
    """The same without meshes and maps, which a lazily read file then never decodes."""
    meta = json.loads(str(arrays["meta"]))
    return ShotOutline(
        frames=_numbers(arrays["frames"]),
        display_window=Window(*meta["display_window"]),
        pixel_aspect=meta["pixel_aspect"],
        work_exposure=meta["work_exposure"],
        jitter_before=meta["jitter"][0],
        jitter_after=meta["jitter"][1],
        tracks=tuple(
            TrackOutline(t["id"], t["enabled"], tuple(t["classes"]), arrays[f"track{t['id']}.states"])
            for t in meta["tracks"]
        ),
    )


def _numbers(array: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(n) for n in array)


def write_text(path: Path, text: str) -> None:
    """Put a text file in place, whole or not at all."""
    _publish(path, lambda file: file.write(text.encode()))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Put an .npz file in place, whole or not at all."""
    _publish(path, lambda file: np.savez_compressed(file, **arrays))


def _publish(path: Path, write: Callable[[BinaryIO], object]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
