"""Pass one: find a shot's analysis in the store, or make it, once, over the whole shot.

A shot is every frame of the pattern that is on disk, or `--shot-range`; a subset is never analysed as if it were one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from host_bridge.errors import FaceplateError, PlateError, ShotError
from inference_server.faces.analyse import FaceTools, Frame, analyse_frames
from inference_server.faces.repairs import Repairs
from inference_server.plates.color import auto_exposure
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import format_frames, parse_frames
from inference_server.plates.types import Window
from inference_server.prefetch import prefetch
from inference_server.runs import Progress, RunEvent, Tick, Warned
from inference_server.shots.store import ShotRecord, ShotStore, shot_identity
from inference_server.shots.types import ShotAnalysis
from inference_server.source import PlateSource

Located = tuple[ShotRecord, ShotAnalysis]
_EXPOSURE_SAMPLES = 5


def locate_shot(
    store: ShotStore,
    source: PlateSource,
    wanted: tuple[int, ...],
    pool: ThreadPoolExecutor,
    depth: int,
    tools: Callable[[], FaceTools],
) -> Generator[RunEvent, None, Located]:
    """The stored analysis that holds the `wanted` frames, made first where there is none.

    wanted  frames of the plate that are on disk; their contents are compared with the stored shot's

    Raises ShotError (`shot.unknown`, `shot.stale`, ...) and whatever reading the frames raises.
    """
    spec = source.spec
    files = source.sequence.files
    digests = {frame: store.digests.of(files[frame]) for frame in wanted}
    if spec.shot:
        record = store.get(spec.shot)
        store.check_current(record, digests)
        _check_settings(record, source)
        return record, store.load(record)
    shot_frames = _shot_frames(source, wanted)
    narrowed = tuple(sorted(shot_frames)) if spec.shot_range else None
    record_found = store.find(source.settings, digests, narrowed)
    if record_found is not None:
        later = [f for f in files if f not in record_found.frames] if narrowed is None else []
        if later:
            yield Warned(
                "shot.extended",
                f"frames {format_frames(later)} came after shot {record_found.id} was analysed and are not part of it",
            )
        return record_found, store.load(record_found)
    digests = {frame: store.digests.of(files[frame]) for frame in shot_frames}
    if narrowed is None and _older_version(store, source, digests):
        yield Warned("shot.extended", "frames have been added to this shot; it is analysed again as a new version")
    identity = shot_identity(digests, source.settings)
    lock = store.writer(identity)
    while not lock.acquire():
        yield Tick()
        found = store.find(source.settings, digests, narrowed)
        if found is not None:
            return found, store.load(found)
        lock.wait()
    with lock:
        found = store.find(source.settings, digests, narrowed)
        if found is not None:
            return found, store.load(found)
        analysis = yield from analyse_shot(source, shot_frames, pool, depth, tools())
        record = store.publish(
            analysis, digests, source.settings, narrowed=narrowed is not None, pattern=spec.plate.pattern
        )
    return record, analysis


def analyse_shot(
    source: PlateSource,
    frames: tuple[int, ...],
    pool: ThreadPoolExecutor,
    depth: int,
    tools: FaceTools,
    repairs: Repairs | None = None,
) -> Generator[RunEvent, None, ShotAnalysis]:
    """Analyse `frames` in order. Memory does not grow with the shot beyond the analysis itself."""
    files = source.sequence.files
    exposure = _shot_exposure(source, frames)
    window, aspect = _geometry(source, frames[0])

    def load(frame: int) -> Frame:
        plate = read_plate(files[frame], frame)
        part = plate.parts[source.layer(plate).part]
        if (part.display_window.width, part.display_window.height) != (window.width, window.height):
            found = f"{part.display_window.width}x{part.display_window.height}"
            raise PlateError(
                "plate.size_changed",
                f"the frame is {found}, the first of the shot {window.width}x{window.height}",
                value=found,
                frame=frame,
                path=plate.path,
                remedy="Treat ranges of different size as separate shots (--shot-range).",
            )
        return Frame(frame, source.picture(plate, exposure), source.origin(plate))

    def pictures() -> Iterator[Frame]:
        for _, loaded in prefetch(pool, load, frames, depth):
            yield loaded.result()

    steps = analyse_frames(
        pictures(), tools, total=len(frames), display_window=window, pixel_aspect=aspect, repairs=repairs
    )
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            analysis: ShotAnalysis = end.value
            break
        yield Progress("analyse", step.done, step.total)
    return replace(analysis, work_exposure=_face_exposure(source, analysis, exposure))


def analysed(steps: Generator[Any, None, ShotAnalysis]) -> ShotAnalysis:
    """Run an analysis to its end, its progress unseen."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            analysis: ShotAnalysis = end.value
            return analysis


def _shot_frames(source: PlateSource, wanted: tuple[int, ...]) -> tuple[int, ...]:
    on_disk = source.sequence.frames
    if not source.spec.shot_range:
        return on_disk
    chosen = tuple(f for f in parse_frames(source.spec.shot_range) if f in source.sequence.files)
    outside = sorted(set(wanted) - set(chosen))
    if outside or not chosen:
        raise ShotError(
            "shot.stale",
            f"frames {format_frames(outside) or 'asked for'} are outside the shot range {source.spec.shot_range}",
            value=source.spec.shot_range,
            frame=outside[0] if outside else None,
            remedy=f"Widen --shot-range; on disk are {format_frames(on_disk)}.",
        )
    return chosen


def _check_settings(record: ShotRecord, source: PlateSource) -> None:
    if record.settings == source.settings:
        return
    differing = [
        f"{name} {getattr(record.settings, name)!r} there, {getattr(source.settings, name)!r} here"
        for name in record.settings.__dataclass_fields__
        if getattr(record.settings, name) != getattr(source.settings, name)
    ]
    raise ShotError(
        "shot.stale",
        f"shot {record.id} was analysed with other settings: {'; '.join(differing)}",
        value=record.id,
        remedy="Use the same --colorspace, --ocio, --layer, --part, --view and --premult as `faceplate analyze` did.",
    )


def _older_version(store: ShotStore, source: PlateSource, digests: Mapping[int, str]) -> bool:
    """Whether a stored shot is the beginning of this one: all its frames are here, unchanged."""
    return any(
        record.settings == source.settings
        and not record.narrowed
        and all(digests.get(frame) == digest for frame, digest in record.frames.items())
        for record in store.records()
    )


def _geometry(source: PlateSource, frame: int) -> tuple[Window, float]:
    plate = read_plate(source.sequence.files[frame], frame)
    part = plate.parts[source.layer(plate).part]
    return part.display_window, part.pixel_aspect


def _samples(frames: tuple[int, ...]) -> list[int]:
    picks = {round(i * (len(frames) - 1) / (_EXPOSURE_SAMPLES - 1)) for i in range(_EXPOSURE_SAMPLES)}
    return [frames[i] for i in sorted(picks)]


def _shot_exposure(source: PlateSource, frames: tuple[int, ...]) -> float:
    """The exposure under which faces are looked for: from the whole picture of a few frames."""
    means = []
    for frame in _samples(frames):
        light = source.luminance(read_plate(source.sequence.files[frame], frame))
        light = light[light > 1e-6]
        if light.size:
            means.append(math.exp(float(np.log(light).mean())))
    return auto_exposure(means)


def _face_exposure(source: PlateSource, analysis: ShotAnalysis, fallback: float) -> float:
    """The work exposure: from the faces' skin in a few frames, or `fallback` where there are none."""
    medians = []
    for track in analysis.tracks:
        present = tuple(f for f in analysis.frames if analysis.face_at(track.id, f) is not None)
        for frame in _samples(present) if present else ():
            face = analysis.face_at(track.id, frame)
            if face is None:
                continue
            try:
                plate = read_plate(source.sequence.files[frame], frame)
            except FaceplateError as error:
                raise error.at(frame=frame) from error
            light = source.luminance(plate)
            x0, y0 = source.origin(plate)
            points = np.floor(face.landmarks[:, :2] - np.array([x0, y0], np.float32)).astype(int)
            inside = (points >= 0).all(axis=1) & (points[:, 0] < light.shape[1]) & (points[:, 1] < light.shape[0])
            if inside.any():
                medians.append(float(np.median(light[points[inside, 1], points[inside, 0]])))
    return auto_exposure(medians) if medians else fallback
