"""Between the two passes: what an effect learns of each chosen face over the whole shot, made once and stored.

Only effects that are a `ShotEffect` have this step. It reads the plate again, sees the faces as rendering will, and
is keyed by everything its result depends on, so that a render of any part of the shot finds it or makes it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from host_bridge.effects import EffectValues
from inference_server.effects.base import Arrays, FaceInput, ShotData, ShotEffect
from inference_server.faces.types import FaceFrame
from inference_server.plates.reader import read_plate
from inference_server.plates.types import PlateFrame, Window
from inference_server.prefetch import prefetch
from inference_server.rendering import RenderSettings, face_input
from inference_server.runs import RunEvent, Tick, Warned, result_of
from inference_server.shots.effectdata import DataWriter, MemoryData, data_name, read_data
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ShotAnalysis
from inference_server.source import PlateSource

Loader = Callable[[int], PlateFrame]


class _Sink(Protocol):
    def put(self, name: str, array: NDArray[Any]) -> None: ...

    def put_maps(self, frame: int, arrays: Arrays) -> None: ...


@dataclass(frozen=True)
class FaceOfShot:
    """One face of a shot (see effects.base.ShotView)."""

    track: int
    frames: tuple[int, ...]
    values: EffectValues
    style: Tensor | None
    analysis: ShotAnalysis
    settings: RenderSettings
    source: PlateSource
    load: Loader
    pool: ThreadPoolExecutor
    sink: _Sink
    depth: int = 2

    @property
    def cuts(self) -> tuple[int, ...]:
        return self.analysis.cuts

    @property
    def window(self) -> Window:
        whole = self.analysis.display_window
        return Window(0, 0, whole.width, whole.height)

    def face(self, frame: int) -> FaceFrame:
        found = self.analysis.face_at(self.track, frame)
        if found is None:
            raise KeyError(frame)
        return found

    def inputs(self, frames: Sequence[int], region: Callable[[FaceFrame], Window]) -> Iterator[FaceInput]:
        for frame, loaded in prefetch(self.pool, self.load, tuple(frames), self.depth):
            plate = loaded.result()
            face = self.face(frame)
            yield face_input(plate, self.source.layer(plate), face, region(face), self.settings)

    def put(self, name: str, array: NDArray[Any]) -> None:
        self.sink.put(name, array)

    def put_maps(self, frame: int, arrays: Arrays) -> None:
        self.sink.put_maps(frame, arrays)


def with_shot_data(
    store: ShotStore,
    source: PlateSource,
    record: ShotRecord,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    pool: ThreadPoolExecutor,
) -> Generator[RunEvent, None, RenderSettings]:
    """`settings` with what the effect knows of every chosen face; learned now where it is not stored yet.

    Raises ShotError, and whatever reading the frames and the effect raise.
    """
    effect = settings.effect
    if not isinstance(effect, ShotEffect):
        return settings

    shots: dict[int, ShotData] = {}
    for track in settings.faces:
        name = data_key(record.key, settings, effect, track)
        found = read_data(store, record, name)
        if found is None:
            with store.pin(record.id):
                yield from _learn(store, record, name, face_of_shot(track, source, analysis, settings, pool))
            found = read_data(store, record, name)
        shots[track] = found or ShotData()
    return replace(settings, shots=shots)


def stored_shot_data(store: ShotStore, record: ShotRecord, settings: RenderSettings) -> RenderSettings | None:
    """`settings` with what is stored for every chosen face, or None where something has not been learned yet."""
    effect = settings.effect
    if not isinstance(effect, ShotEffect):
        return settings
    found = {t: read_data(store, record, data_key(record.key, settings, effect, t)) for t in settings.faces}
    shots = {track: data for track, data in found.items() if data is not None}
    return replace(settings, shots=shots) if len(shots) == len(found) else None


def frame_alone(
    source: PlateSource,
    plate: PlateFrame,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    pool: ThreadPoolExecutor,
) -> RenderSettings:
    """`settings` with what the effect learns of this one frame, for a preview before the shot is prepared."""
    effect = settings.effect
    if not isinstance(effect, ShotEffect):
        return settings
    shots = {}
    for track in settings.faces:
        if analysis.face_at(track, plate.frame) is None:
            continue
        memory = MemoryData()
        view = face_of_shot(track, source, analysis, settings, pool, lambda frame: plate)
        result_of(effect.analyse(replace(view, frames=(plate.frame,), sink=memory)))
        shots[track] = memory.data()
    return replace(settings, shots=shots)


def reduced(settings: RenderSettings, scale: float) -> RenderSettings:
    """`settings` for a rendering at that part of the plate's size."""
    return replace(settings, shots={track: replace(data, scale=scale) for track, data in settings.shots.items()})


def data_key(shot: str, settings: RenderSettings, effect: ShotEffect, track: int) -> str:
    """What an effect's data of a face are stored under; `shot` is the record's key."""
    version = effect.descriptor.version
    return data_name(shot, effect.descriptor.identifier, version, track, learned_key(settings, effect))


def learned_key(settings: RenderSettings, effect: ShotEffect) -> dict[str, Any]:
    """Everything besides the shot's analysis that an effect's data depend on, as JSON."""
    return {
        **effect.shot_key(settings.values),
        "exposure": settings.exposure,
        "style": settings.style_digest,
    }


def frames_of(analysis: ShotAnalysis, track: int) -> tuple[int, ...]:
    """The shot's frames in which the face is."""
    return tuple(f for f in analysis.frames if analysis.face_at(track, f) is not None)


def face_of_shot(
    track: int,
    source: PlateSource,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    pool: ThreadPoolExecutor,
    load: Loader | None = None,
) -> FaceOfShot:
    """One face of a shot, its plates read by `load` (default: from disk)."""

    def read(frame: int) -> PlateFrame:
        return read_plate(source.sequence.files[frame], frame)

    frames = frames_of(analysis, track)
    return FaceOfShot(
        track, frames, settings.values, settings.style, analysis, settings, source, load or read, pool, MemoryData()
    )


def _learn(store: ShotStore, record: ShotRecord, name: str, view: FaceOfShot) -> Generator[RunEvent, None, None]:
    effect = view.settings.effect
    assert isinstance(effect, ShotEffect)
    lock = store.writer(f"{record.id}.{name}")
    told = False
    while not lock.acquire():
        yield (
            Tick() if told else Warned("shot.waiting", "another process is preparing this shot; its result is awaited")
        )
        told = True
        lock.wait()
    with lock:
        if read_data(store, record, name) is not None:
            return
        writer = DataWriter(store, record, name)
        try:
            yield from effect.analyse(replace(view, sink=writer))
        except BaseException:
            writer.discard()
            raise
        writer.publish()
        store.evict(keep=record.id)
