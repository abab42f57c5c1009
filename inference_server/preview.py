"""One picture while the artist drags a slider: nothing is decoded, detected or analysed twice.

A preview uses the shot's stored analysis where there is one. Otherwise the frame is analysed alone, without smoothing
over time, and the answer says that it is not final. A region larger than what is shown is rendered at reduced size,
which the answer says too.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import PlateError
from host_bridge.jobspec import JobSpec, PreviewSpec
from inference_server.adapting import in_words, taken_steps
from inference_server.effects.base import NO_DATA, ShotData, ShotEffect
from inference_server.faces.analyse import FaceTools
from inference_server.plates.color import ViewerTransform
from inference_server.plates.reader import read_plate
from inference_server.plates.types import ChosenLayer, Part, PlateFrame, Window
from inference_server.preparing import data_key, frame_alone, reduced, stored_shot_data
from inference_server.recurrence import builds_on_others
from inference_server.rendering import RenderSettings, render_frame
from inference_server.runs import PreviewPicture, result_of
from inference_server.shots.analysing import analyse_shot
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ShotAnalysis
from inference_server.source import MaskSource, PlateSource

_KEPT_FRAMES = 4
_KEPT_SHOTS = 2


@dataclass(frozen=True)
class _Known:
    """A frame as previews need it: decoded, reduced, with its analysis."""

    plate: PlateFrame
    layer: ChosenLayer
    analysis: ShotAnalysis
    record: ShotRecord | None
    learned: dict[tuple[str, ...], Mapping[int, ShotData]] = field(default_factory=dict)
    smaller: dict[float, tuple[PlateFrame, ShotAnalysis]] = field(default_factory=dict)

    @property
    def analysed(self) -> bool:
        return self.record is not None


class Previewer:
    """Keeps the last few frames decoded and analysed."""

    def __init__(self, store: ShotStore, tools: Callable[[], FaceTools]) -> None:
        self._store = store
        self._tools = tools
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="faceplate-preview")
        self._frames: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
        self._stored: OrderedDict[tuple[str, int], ShotAnalysis] = OrderedDict()

    def close(self) -> None:
        self._frames.clear()
        self._stored.clear()
        self._pool.shutdown()

    def show(
        self, spec: PreviewSpec, source: PlateSource, settings_for: Callable[[ShotAnalysis], RenderSettings]
    ) -> PreviewPicture:
        """Render `spec`. Raises PlateError `plate.missing_frame` and whatever reading and the effect raise."""
        began = time.monotonic()
        known = self._known(spec.job, spec.frame, source)
        settings, learned = self._with_data(known, source, settings_for(known.analysis))
        without: list[str] = []
        if known.record is not None:
            taken = taken_steps(self._store, known.record, known.analysis, settings)
            settings, without = taken.settings(settings), [in_words(missing) for missing in taken.missing]
        part = known.plate.parts[known.layer.part]
        region = self._region(spec, known, settings, part)
        scale = min(1.0, spec.max_size / max(region.width, region.height))
        notes = [] if known.analysed else ["not analysed yet: faces of this frame alone"]
        if known.analysed and not learned:
            notes.append("not prepared yet: the effect knows this frame alone")
        notes += without
        if builds_on_others(known.analysis, settings, spec.frame):
            notes.append("drawn alone: a render draws it with the frames before it")
        plate, analysis = known.plate, known.analysis
        smaller = scale <= 0.75
        if smaller:
            settings = reduced(settings, scale)
            if scale not in known.smaller:
                known.smaller.clear()
                known.smaller[scale] = _reduced(plate, known.layer, analysis, scale)
            plate, analysis = known.smaller[scale]
            notes.append(f"rendered at {scale:.2f} of the plate's size")
        window = plate.parts[known.layer.part].seen
        factor = scale if smaller else 1.0
        crop = Window(*(round(v * factor) for v in (region.x0, region.y0, region.x1, region.y1))).intersect(window)
        rows, columns = slice(crop.y0 - window.y0, crop.y1 - window.y0), slice(crop.x0 - window.x0, crop.x1 - window.x0)
        pixels = self._picture(spec, source, settings, plate, known.layer, analysis, rows, columns)
        if max(pixels.shape[:2]) > spec.max_size:
            fit = spec.max_size / max(pixels.shape[:2])
            size = (max(1, round(pixels.shape[1] * fit)), max(1, round(pixels.shape[0] * fit)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        return PreviewPicture(
            pixels=np.ascontiguousarray(pixels),
            region=(region.x0, region.y0, region.x1, region.y1),
            final=not notes,
            note="; ".join(notes),
            seconds=time.monotonic() - began,
        )

    def analysis(self, job: JobSpec, frame: int, source: PlateSource) -> tuple[ShotRecord | None, ShotAnalysis]:
        """What is known of a frame's faces: of the shot that holds it, or (None) of the frame alone.

        Of an analysed shot nothing is decoded. Raises as `show`.
        """
        record, _ = self._find(job, frame, source)
        return (record, self._load(record)) if record else (None, self._known(job, frame, source).analysis)

    def _find(self, job: JobSpec, frame: int, source: PlateSource) -> tuple[ShotRecord | None, str]:
        """The stored shot that holds the frame, and the digest of the frame's file."""
        path = source.sequence.files.get(frame)
        if path is None:
            raise PlateError(
                "plate.missing_frame",
                "the frame is not on disk",
                frame=frame,
                path=source.sequence.pattern.path(frame),
                remedy="Choose a frame that is.",
            )
        digest = self._store.digests.of(path)
        record = self._store.get(job.shot) if job.shot else None
        if record is None and not job.shot_range:
            record = self._store.find(source.settings, {frame: digest}, None)
        return record, digest

    def _load(self, record: ShotRecord) -> ShotAnalysis:
        """A shot's analysis, read once for all frames the artist looks at."""
        key = (record.id, record.revision)
        if key not in self._stored:
            self._stored[key] = self._store.load(record)
        self._stored.move_to_end(key)
        while len(self._stored) > _KEPT_SHOTS:
            self._stored.popitem(last=False)
        return self._stored[key]

    def _known(self, job: JobSpec, frame: int, source: PlateSource) -> _Known:
        record, digest = self._find(job, frame, source)
        key = (digest, frame, source.settings, (record.key, record.revision) if record else None)
        known = self._frames.get(key)
        if known is None:
            plate = read_plate(source.sequence.files[frame], frame)
            analysis = self._load(record) if record is not None else self._alone(source, frame)
            known = _Known(plate, source.layer(plate), analysis, record)
            self._frames[key] = known
        self._frames.move_to_end(key)
        while len(self._frames) > _KEPT_FRAMES:
            self._frames.popitem(last=False)
        return known

    def _with_data(self, known: _Known, source: PlateSource, settings: RenderSettings) -> tuple[RenderSettings, bool]:
        """`settings` with what the effect knows of the shot, and whether that is what a render will use."""
        effect = settings.effect
        if not isinstance(effect, ShotEffect):
            return settings, True
        if known.record is not None:
            stored = stored_shot_data(self._store, known.record, settings)
            if stored is not None:
                return stored, True
        key = tuple(data_key(known.plate.path, settings, effect, track) for track in settings.faces)
        if key not in known.learned:
            known.learned.clear()
            known.learned[key] = frame_alone(source, known.plate, known.analysis, settings, self._pool).shots
        return replace(settings, shots=known.learned[key]), False

    def _alone(self, source: PlateSource, frame: int) -> ShotAnalysis:
        return result_of(analyse_shot(source, (frame,), self._pool, 0, self._tools()))

    def _region(self, spec: PreviewSpec, known: _Known, settings: RenderSettings, part: Part) -> Window:
        window = part.seen
        if spec.crop == "face":
            for track in settings.faces:
                face = known.analysis.face_at(track, spec.frame)
                if face is not None:
                    data = settings.shots.get(track, NO_DATA)
                    region = settings.effect.region(face, settings.values.at(spec.frame), data).intersect(window)
                    if not region.empty:
                        return region
        return window

    def _picture(
        self,
        spec: PreviewSpec,
        source: PlateSource,
        settings: RenderSettings,
        plate: PlateFrame,
        layer: ChosenLayer,
        analysis: ShotAnalysis,
        rows: slice,
        columns: slice,
    ) -> NDArray[np.uint8]:
        """[h, w, 3] of those rows and columns of the data window, as the viewer shows them."""
        if spec.show != "plate":
            part = plate.parts[layer.part]
            mask = None
            if spec.job.mask:
                mask = MaskSource.open(spec.job.mask).read(spec.frame, part.data_window, part.display_window)
            rendered = render_frame(plate, layer, analysis, settings, mask=mask)
            if spec.show == "matte":
                matte = np.rint(rendered.mattes["composite"][rows, columns].astype(np.float32) * 255).astype(np.uint8)
                return np.repeat(matte[..., None], 3, axis=2)
            plate = rendered.plate
        viewer = ViewerTransform(spec.display, spec.view, spec.exposure, spec.gamma)
        return source.color.bake(source.straight(plate, rows, columns).scene, viewer)


def _reduced(
    plate: PlateFrame, layer: ChosenLayer, analysis: ShotAnalysis, scale: float
) -> tuple[PlateFrame, ShotAnalysis]:
    """The treated part and the analysis at a smaller size; other parts and channels are left out."""
    part = plate.parts[layer.part]
    window = part.seen
    x0, y0 = round(window.x0 * scale), round(window.y0 * scale)
    width, height = max(1, round(window.width * scale)), max(1, round(window.height * scale))
    names = [n for n in (layer.red, layer.green, layer.blue, layer.alpha) if n]
    channels = {
        n: cv2.resize(part.channels[n].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) for n in names
    }
    display = Window(0, 0, round(part.display_window.width * scale), round(part.display_window.height * scale))
    small = replace(
        part, channels=channels, data_window=Window(x0, y0, x0 + width, y0 + height), display_window=display
    )
    tracks = []
    for track in analysis.tracks:
        matrices = track.matrices.copy()
        matrices[:, :, :2] /= np.float32(scale)
        tracks.append(replace(track, landmarks=track.landmarks * np.float32(scale), matrices=matrices))
    smaller = replace(analysis, display_window=display, tracks=tuple(tracks))
    parts = list(plate.parts)
    parts[layer.part] = small
    return replace(plate, parts=tuple(parts)), smaller
