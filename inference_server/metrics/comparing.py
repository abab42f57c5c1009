"""Compares two sequences frame by frame, with one frame of each and the one before in memory.

Decides what is measured of whom: distances are of B from A; warp error and jitter are of each, along the motion of the
guide (A where there is none). With a mask, pixels outside it are A's in both, and count nowhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import FaceError, RequestError
from inference_server.faces.analyse import FaceTools, analyse_frames
from inference_server.faces.analyse import Frame as ToAnalyse
from inference_server.faces.detect import MediaPipeDetector
from inference_server.faces.geometry import eye_distance
from inference_server.faces.landmarks import MediaPipeLandmarker
from inference_server.faces.types import LANDMARKS, FaceState
from inference_server.metrics.faces import gaze_drift, head_drift, landmark_drift
from inference_server.metrics.learned import Identity, Perceptual
from inference_server.metrics.motion import FlowOf, Motion, dis
from inference_server.metrics.pictures import Frame, frame_ms_ssim, frame_mse, psnr_of_mse, scales_of
from inference_server.metrics.sequences import Pictures, read_mask, read_same
from inference_server.plates.types import Window
from inference_server.shots.types import ShotAnalysis, Track
from inference_server.source import MaskSource

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """Progress: what is being done, and how many frames of how many are."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Line:
    """The scan line of the temporal profile: a column of the picture, or a row. None: chosen by the face."""

    column: int | None = None
    row: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What to compare besides pixels. `perceptual` and `identity` are None where their networks are not imported."""

    faces: bool = True
    mask: MaskSource | None = None
    guide: Pictures | None = None
    line: Line = Line()
    perceptual: Perceptual | None = None
    identity: Identity | None = None


@dataclass(frozen=True)
class Comparison:
    """What was found. Numbers that could not be had are nan.

    frames      the frames compared, in order
    size        (width, height)
    per_frame   name -> [T] values; `warp_error_a`, `warp_error_b` and `seen` are nan in the first frame
    jitter_a    RMS second difference of the landmarks in pixels per 100 of eye distance; jitter_b likewise
    profiles    the line in A and in B: of a column [H, T, 3], of a row [T, W, 3]
    """

    frames: tuple[int, ...]
    size: tuple[int, int]
    per_frame: dict[str, Numbers]
    jitter_a: float
    jitter_b: float
    line: Line
    profiles: tuple[Frame, Frame]
    faces: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Over the frames that have a value; PSNR is that of the mean squared error."""
        if name == "psnr":
            return float(psnr_of_mse(self.mean("mse")))
        values = self.per_frame.get(name, np.empty(0))
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class _Face:
    """The face of a sequence over its frames, [T, 478, 2] square pixels (nan where absent), and its jitter."""

    meshes: NDArray[np.float32]
    jitter: float


def compare(a: Pictures, b: Pictures, frames: tuple[int, ...], wanted: Wanted) -> Generator[Step, None, Comparison]:
    """Compare; yields `Step`s and returns a `Comparison` (the generator's return value).

    Raises PlateError for frames that cannot be read or differ in size, RequestError for a line outside the picture.
    """
    face_a = face_b = None
    note = "not looked for"
    if wanted.faces:
        try:
            tools = FaceTools(MediaPipeDetector(), MediaPipeLandmarker(), None)
        except FaceError as error:
            note = str(error)
        else:
            face_a = yield from _face(a, frames, tools, None)
            face_b = yield from _face(b, frames, tools, face_a)
            note = ", ".join(f"none in {p.name}" for p, f in ((a, face_a), (b, face_b)) if f is None)
    return (yield from _pictures(a, b, frames, wanted, (face_a, face_b), note))


def _pictures(
    a: Pictures,
    b: Pictures,
    frames: tuple[int, ...],
    wanted: Wanted,
    faces: tuple[_Face | None, _Face | None],
    note: str,
) -> Generator[Step, None, Comparison]:
    sequences = [a, b] + ([wanted.guide] if wanted.guide else [])
    rows: list[dict[str, float]] = []
    columns: tuple[list[Frame], list[Frame]] = ([], [])
    flow = dis()
    before: list[Frame] = []
    line, size = wanted.line, (0, 0)
    for t, frame in enumerate(frames):
        looked = read_same(sequences, frame)
        pictures = [one.picture for one in looked]
        if t == 0:
            size = (pictures[0].shape[1], pictures[0].shape[0])
            _check_size(size)
            line = _line(line, size, faces[0], looked[0].pixel_aspect)
        mask = read_mask(wanted.mask, frame, pictures[0].shape) if wanted.mask else None
        if pictures[0].shape != (size[1], size[0], 3):
            raise RequestError(
                "request.bad_value",
                f"frame {frame} is {pictures[0].shape[1]}x{pictures[0].shape[0]}, the first {size[0]}x{size[1]}",
                value=frame,
                remedy="Compare a range of one size with --frames.",
            )
        row = _distances(pictures[0], pictures[1], mask, wanted)
        row |= _steadiness(before, pictures, mask, flow)
        if wanted.identity and faces[0] and faces[1]:
            meshes = (faces[0].meshes[t], faces[1].meshes[t])
            row["identity"] = _identity(wanted.identity, pictures, meshes, looked[0].pixel_aspect)
        rows.append(row)
        for lines, picture in zip(columns, pictures[:2], strict=True):
            lines.append(picture[line.row] if line.row is not None else picture[:, line.column or 0])
        before = pictures
        yield Step("comparing", t + 1, len(frames))
    per_frame = {name: np.array([row.get(name, np.nan) for row in rows]) for name in rows[0] | rows[-1]}
    if faces[0] and faces[1]:
        meshes_a, meshes_b = faces[0].meshes, faces[1].meshes
        per_frame["landmark_drift"] = landmark_drift(meshes_a, meshes_b)
        per_frame["head_drift"] = head_drift(meshes_a, meshes_b)
        per_frame["gaze_drift"] = gaze_drift(meshes_a, meshes_b)
    axis = 1 if line.row is None else 0
    return Comparison(
        frames=frames,
        size=size,
        per_frame=per_frame,
        jitter_a=faces[0].jitter if faces[0] else float("nan"),
        jitter_b=faces[1].jitter if faces[1] else float("nan"),
        line=line,
        profiles=(np.stack(columns[0], axis=axis), np.stack(columns[1], axis=axis)),
        faces=note,
        extra={"ms_ssim_scales": scales_of(size[1], size[0])},
    )


def _check_size(size: tuple[int, int]) -> None:
    try:
        scales_of(size[1], size[0])
    except ValueError as error:
        raise RequestError(
            "request.bad_value", str(error), value=list(size), remedy="Compare larger pictures."
        ) from error


def _line(line: Line, size: tuple[int, int], face: _Face | None, pixel_aspect: float) -> Line:
    """The line that is asked for; else the column through the middle of A's face, or of the picture."""
    width, height = size
    if line.row is None and line.column is None:
        column = width // 2
        if face is not None:
            column = int(np.clip(np.nanmean(face.meshes[..., 0]) / pixel_aspect, 0, width - 1))
        return Line(column=column)
    for what, value, limit in (("--row", line.row, height), ("--column", line.column, width)):
        if value is not None and not 0 <= value < limit:
            raise RequestError(
                "request.bad_value",
                f"{what} {value} lies outside the picture of {width}x{height}",
                value=value,
                remedy=f"Say 0 to {limit - 1}.",
            )
    return line


def _distances(a: Frame, b: Frame, mask: Frame | None, wanted: Wanted) -> dict[str, float]:
    error = frame_mse(a, b, mask)
    out = {"mse": error, "psnr": float(psnr_of_mse(error)), "ms_ssim": frame_ms_ssim(a, b, mask)}
    if wanted.perceptual is None:
        return out
    if mask is None:
        return {**out, "lpips": wanted.perceptual.frame(a, b)}
    inside = _box(mask)
    if inside is None:
        return {**out, "lpips": float("nan")}
    weights = mask[inside][..., None]
    mixed = a[inside] + weights * (b[inside] - a[inside])
    return {**out, "lpips": wanted.perceptual.frame(a[inside], mixed)}


def _box(mask: Frame) -> tuple[slice, slice] | None:
    """The rectangle of at least 64 pixels a side around what a mask covers; None where it covers nothing."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    spans = []
    for found, limit in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        first, stop = int(found[0]), int(found[-1]) + 1
        short = max(64 - (stop - first), 0)
        first = max(min(first - short // 2, limit - 64), 0)
        spans.append(slice(first, min(max(stop, first + 64), limit)))
    return spans[0], spans[1]


def _steadiness(before: list[Frame], now: list[Frame], mask: Frame | None, flow: FlowOf) -> dict[str, float]:
    if not before:
        return {}
    guide = 2 if len(now) > 2 else 0
    motion = Motion.between(before[guide], now[guide], flow)
    return {
        "warp_error_a": motion.error(before[0], now[0], mask),
        "warp_error_b": motion.error(before[1], now[1], mask),
        "seen": float(motion.seen.mean()),
    }


def _identity(
    network: Identity, pictures: list[Frame], meshes: tuple[NDArray[np.float32], NDArray[np.float32]], aspect: float
) -> float:
    if not all(np.isfinite(mesh).all() for mesh in meshes):
        return float("nan")
    try:
        first, second = (network.embedding(p, m, aspect) for p, m in zip(pictures, meshes, strict=False))
    except ValueError:
        return float("nan")  # the face has left the picture
    return float(first @ second)


# ------------------------------------------------------------------------------------------------------ faces


def _face(
    pictures: Pictures, frames: tuple[int, ...], tools: FaceTools, like: _Face | None
) -> Generator[Step, None, _Face | None]:
    """The sequence's largest face, or that which lies where `like` does; None without one."""
    aspect: list[float] = []

    def given() -> Iterator[ToAnalyse]:
        for frame in frames:
            looked = pictures.read(frame)
            aspect.append(looked.pixel_aspect)
            yield ToAnalyse(frame, looked.picture)

    first = pictures.read(frames[0])
    height, width = first.picture.shape[:2]
    steps = analyse_frames(
        given(),
        tools,
        total=len(frames),
        display_window=Window(0, 0, width, height),
        pixel_aspect=first.pixel_aspect,
    )
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            analysis: ShotAnalysis = done.value
            break
        yield Step(f"faces of {pictures.name}", step.done, step.total)
    found = [_meshes(track, analysis.pixel_aspect) for track in analysis.tracks]
    if not found:
        return None
    if like is None:
        sizes = [sum(eye_distance(m) for m in meshes if np.isfinite(m).all()) for meshes in found]
        return _Face(found[int(np.argmax(sizes))], analysis.jitter_before)
    apart = [float(np.nanmean(landmark_drift(like.meshes, m))) if _meet(like.meshes, m) else np.inf for m in found]
    best = int(np.argmin(apart))
    return _Face(found[best], analysis.jitter_before) if np.isfinite(apart[best]) else None


def _meet(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Whether any frame has both faces."""
    return bool((np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))).any())


def _meshes(track: Track, pixel_aspect: float) -> NDArray[np.float32]:
    out = track.landmarks[..., :2] * np.array([pixel_aspect, 1.0], np.float32)
    assert out.shape[1] == LANDMARKS
    out[track.states == FaceState.ABSENT] = np.nan
    return out
