"""Pass one: find a shot's analysis in the store, or make it, once, over the whole shot.

A shot is every frame of the pattern that is on disk, or `--shot-range`; a subset is never analysed as if it were one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from host_bridge.errors import FaceplateError, PlateError, ShotError
from host_bridge.repairs import Repairs
from inference_server.faces.analyse import FaceTools, Frame, analyse_frames
from inference_server.plates.color import auto_exposure
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import format_frames, parse_frames
from inference_server.plates.types import PlateFrame, Window
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

    wanted  frames of the plate that are on disk, none for all of the shot; their contents are compared with the stored
            shot's

    Raises ShotError (`shot.unknown`, `shot.stale`, ...) and whatever reading the frames raises.
    """
    spec = source.spec
    files = source.sequence.files
    if spec.shot:
        record = store.get(spec.shot)
        digests = frame_digests(store, source, [frame for frame in wanted or record.frames if frame in files])
        store.check_current(record, digests)
        check_settings(record, source)
        return record, store.load(record)
    shot_frames = _shot_frames(source, wanted)
    narrowed = tuple(sorted(shot_frames)) if spec.shot_range else None
    digests = frame_digests(store, source, wanted or shot_frames)
    record_found = store.find(source.settings, digests, narrowed)
    if record_found is not None:
        later = [f for f in files if f not in record_found.frames] if narrowed is None else []
        if later:
            yield Warned(
                "shot.extended",
                f"frames {format_frames(later)} came after shot {record_found.id} was analysed and are not part of it",
            )
        return record_found, store.load(record_found)
    digests = frame_digests(store, source, shot_frames)
    if narrowed is None:
        yield from _older_versions(store, source, digests)
    identity = shot_identity(digests, source.settings)
    lock = store.writer(identity)
    told = False
    while not lock.acquire():
        yield (
            Tick() if told else Warned("shot.waiting", "another process is analysing this shot; its result is awaited")
        )
        told = True
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
    """Analyse `frames` in order. Memory does not grow with the shot beyond the analysis itself.

    Where the job goes on after errors, a frame that cannot be read is one without a face: tracks bridge it.
    """
    files = source.sequence.files
    exposure = _shot_exposure(source, frames)
    window, aspect = _geometry(source, frames)
    unread: list[FaceplateError] = []

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
        for frame, loaded in prefetch(pool, load, frames, depth):
            try:
                looked_at = loaded.result()
            except FaceplateError as error:
                if not source.spec.continue_on_error:
                    raise error.at(frame=frame) from error
                unread.append(error.at(frame=frame))
                looked_at = Frame(frame, None)
            yield looked_at

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
    for error in unread:
        text = f"the frame cannot be read and was left out of the analysis: {error.message}"
        yield Warned("shot.unreadable", text, error.frame)
    return replace(analysis, work_exposure=_face_exposure(source, analysis, exposure))


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


def check_settings(record: ShotRecord, source: PlateSource) -> None:
    """Raise ShotError `shot.stale` unless the plate is looked at as it was when the shot was analysed."""
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


def _older_versions(store: ShotStore, source: PlateSource, digests: Mapping[int, str]) -> Generator[Warned, None, None]:
    """Say so where a stored shot is the beginning of this one, all its frames here and unchanged, or all of it as
    another version of Faceplate saw it, and what is then left behind.
    """
    older = [
        record
        for record in store.records()
        if record.settings == source.settings
        and not record.narrowed
        and all(digests.get(frame) == digest for frame, digest in record.frames.items())
    ]
    if any(len(record.frames) < len(digests) for record in older):
        yield Warned("shot.extended", "frames have been added to this shot; it is analysed again as a new version")
    elif older:
        yield Warned("shot.upgraded", "another version of Faceplate analysed this shot; it is analysed again")
    for record in older:
        if record.repairs:
            yield Warned(
                "shot.repairs",
                f"the manual repairs of shot {record.id} are not part of the new version; take them over with "
                f"`faceplate shots edit {record.id} --export FILE` and `faceplate shots edit NEW --file FILE`",
            )


def frame_digests(store: ShotStore, source: PlateSource, frames: Iterable[int]) -> dict[int, str]:
    """What is in each frame's file. Raises PlateError `plate.permission`, unless the job goes on after errors."""
    out = {}
    for frame in frames:
        path = source.sequence.files[frame]
        try:
            out[frame] = store.digests.of(path)
        except OSError as error:
            if source.spec.continue_on_error:
                out[frame] = "unreadable"
                continue
            raise PlateError(
                "plate.permission",
                f"the file cannot be read: {error.strerror or error}",
                value=error.errno,
                frame=frame,
                path=path,
                remedy="Give the server's user the right to read it.",
            ) from error
    return out


def _read(source: PlateSource, frame: int) -> PlateFrame | None:
    """A frame of the shot, or None where it cannot be read and the job goes on after errors."""
    try:
        return read_plate(source.sequence.files[frame], frame)
    except FaceplateError as error:
        if source.spec.continue_on_error:
            return None  # analyse_shot says so, once
        raise error.at(frame=frame) from error


def _geometry(source: PlateSource, frames: tuple[int, ...]) -> tuple[Window, float]:
    """Display window and pixel aspect of the first frame that can be read."""
    plate = next((p for p in (_read(source, frame) for frame in frames) if p is not None), None)
    if plate is None:
        plate = read_plate(source.sequence.files[frames[0]], frames[0])
    part = plate.parts[source.layer(plate).part]
    return part.display_window, part.pixel_aspect


def _samples(frames: tuple[int, ...]) -> list[int]:
    picks = {round(i * (len(frames) - 1) / (_EXPOSURE_SAMPLES - 1)) for i in range(_EXPOSURE_SAMPLES)}
    return [frames[i] for i in sorted(picks)]


def _shot_exposure(source: PlateSource, frames: tuple[int, ...]) -> float:
    """The exposure under which faces are looked for: from the whole picture of a few frames."""
    means = []
    for frame in _samples(frames):
        plate = _read(source, frame)
        if plate is None:
            continue
        light = source.luminance(plate)
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
            plate = _read(source, frame)
            if plate is None:
                continue
            light = source.luminance(plate)
            x0, y0 = source.origin(plate)
            points = np.floor(face.landmarks[:, :2] - np.array([x0, y0], np.float32)).astype(int)
            inside = (points >= 0).all(axis=1) & (points[:, 0] < light.shape[1]) & (points[:, 1] < light.shape[0])
            if inside.any():
                medians.append(float(np.median(light[points[inside, 1], points[inside, 0]])))
    return auto_exposure(medians) if medians else fallback
