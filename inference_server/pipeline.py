"""What a worker runs: a job's two passes, and previews, on one device.

Pass one finds or makes the shot's analysis; pass two renders any of its frames. Reader threads decode ahead, the
device renders, writer threads encode behind, through bounded queues. The numeric plan (device, precision, threads,
batch) is settled once per worker and goes into every frame's provenance; nothing replans in mid-job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import torch

from host_bridge.effects import check_values
from host_bridge.errors import JobError
from host_bridge.jobspec import JobSpec, PreviewSpec
from host_bridge.messages import Faces
from host_bridge.repairs import repairs_from_json
from inference_server.adapting import require_steps, take_steps
from inference_server.config import ServerConfig
from inference_server.effects.base import NO_DATA, Effect, Resources, ShotData, ShotEffect
from inference_server.effects.registry import load_effect
from inference_server.facelist import list_faces
from inference_server.faces.analyse import FaceTools
from inference_server.faces.types import FaceFrame
from inference_server.models.store import store_of
from inference_server.plates.color import ColorConfig
from inference_server.plates.exr import use_codec_threads
from inference_server.plates.output import check_format, prepare_folder
from inference_server.plates.reader import read_outline
from inference_server.plates.sequence import (
    Pattern,
    parse_pattern,
    plan_frames,
    refuse_overwriting,
)
from inference_server.plates.types import Window
from inference_server.preparing import FaceOfShot, face_of_shot, stored_shot_data, with_shot_data
from inference_server.preview import Previewer
from inference_server.rendering import RenderSettings, choose_faces, work_exposure
from inference_server.renderjob import RenderJob
from inference_server.renderpass import render_pass
from inference_server.retiming import INTERPOLATE, held_at_cuts, plan_retimed, refuse_unretimable, retimed
from inference_server.runs import (
    JobContext,
    Planned,
    PreviewPicture,
    RunEvent,
    Warned,
)
from inference_server.shots.analysing import locate_shot
from inference_server.shots.editing import edit_shot, open_plate
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ShotAnalysis
from inference_server.source import MaskSource, PlateSource, load_style

_IO_THREADS = 2
_LOOK_AHEAD = 3


def open_runner(device: str, settings: ServerConfig) -> PipelineRunner:
    """The pipeline of one worker process. Sets the process's thread counts; they are part of the numeric plan."""
    return PipelineRunner(device, settings)


class PipelineRunner:
    """Runs jobs one at a time; keeps effects, face tools and colour configs warm between them."""

    def __init__(self, device: str, settings: ServerConfig) -> None:
        self._device = torch.device(device)
        self._settings = settings
        threads = settings.threads or os.cpu_count() or 1
        torch.set_num_threads(threads)
        use_codec_threads(threads)
        self._store = ShotStore(settings.shots_path, int(settings.shots_quota_gb * 2**30))
        self._models = store_of(settings.models)
        self.report: Callable[[str, float], None] = lambda text, done: None
        self._effects: dict[str, Effect] = {}
        self._configs = lru_cache(maxsize=4)(ColorConfig)
        self._tools = cache(FaceTools.mediapipe)
        self._previewer = Previewer(self._store, self._tools)
        self.plan: Mapping[str, Any] = {
            "device": _device_name(self._device),
            "torch": torch.__version__,
            "precision": "float32",
            "threads": threads,
            "batch": 1,
            "tile": 0,
        }

    def close(self) -> None:
        self._effects.clear()
        self._previewer.close()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def run(self, spec: JobSpec, context: JobContext) -> Iterator[RunEvent]:
        """Do a job (see runs.Runner). The first failing frame ends it unless `continue_on_error`."""
        try:
            yield from self._run(spec, context)
        except torch.cuda.OutOfMemoryError as error:
            raise JobError(
                "job.out_of_memory",
                f"the device ran out of memory: {str(error).splitlines()[0]}",
                value=dict(self.plan),
                remedy="Close other programs on this device, lower the crop padding, or use --device cpu.",
            ) from error

    def _run(self, spec: JobSpec, context: JobContext) -> Iterator[RunEvent]:
        if spec.kind == "repair":
            yield from self._repair(spec)
            return
        source = self.open_source(spec)
        with ExitStack() as stack:
            readers = stack.enter_context(_pool("faceplate-read"))
            self._refuse_early(spec)
            if spec.kind == "adapt":
                yield from self._adapt(spec, source, context, readers)
                return
            if spec.kind == "analyse":
                frames = source.sequence.frames if not spec.shot_range else ()
                record, analysis = yield from self.locate(source, frames, readers)
                plan = self.plan
                if spec.effect:
                    settings, plan, _ = yield from self._prepare(spec, source, record, analysis, readers)
                yield Planned(record.id, tuple(sorted(record.frames)), plan)
                return
            retimes = spec.retime != 1 or spec.plate.missing == INTERPOLATE
            if retimes:
                planned = plan_retimed(source.sequence, spec.frames, spec.retime, spec.plate.missing)
            else:
                planned = plan_frames(source.sequence, spec.frames, spec.plate.missing)
            output = parse_pattern(spec.output, source.sequence.pattern.view)
            matte_output = parse_pattern(spec.matte_output, output.view) if spec.matte_output else None
            mask = MaskSource.open(spec.mask) if spec.mask else None
            also = [spec.style_image] if spec.style_image else []
            also += list(mask.files.values()) + ([mask.still] if mask.still else []) if mask else []
            also += list(source.sequence.files.values()) if retimes else []
            for pattern in (output, matte_output):
                if pattern is not None:
                    refuse_overwriting(planned, pattern, (p.frame for p in planned.frames), also)
            _refuse_same(output, matte_output)
            check_format(output, next(iter(source.sequence.files.values())), spec.compression)
            there = [p for p in planned.frames if p.error is None]
            wanted = tuple(sorted({p.source for p in there} | {p.between.source for p in there if p.between}))
            if not wanted or not spec.continue_on_error:
                planned.raise_missing()
            for pattern in (output, matte_output):
                if pattern is not None:
                    prepare_folder(pattern)
            record, analysis = yield from self.locate(source, wanted, readers)
            stack.enter_context(self._store.pin(record.id))
            settings, plan, models = yield from self._prepare(spec, source, record, analysis, readers)
            if retimes:
                planned = held_at_cuts(planned, analysis)
                refuse_unretimable(settings)
                first = source.sequence.frames[0]
                settings, analysis = retimed(settings, analysis, planned, first, spec.retime)
            job = RenderJob(spec, source, record, analysis, settings, output, matte_output, mask, plan, models, context)
            yield Planned(record.id, tuple(p.frame for p in planned.frames), plan)
            if not settings.faces:
                yield Warned("face.none", "no face was found in the shot; every frame is a copy of the plate")
            writers = stack.enter_context(_pool("faceplate-write"))
            yield from render_pass(job, planned, readers, writers, self._depth(job))

    def _repair(self, spec: JobSpec) -> Iterator[RunEvent]:
        """Analyse a shot again with the job's repairs; done already where it has just these, as after a restart."""
        record = self._store.get(spec.shot)
        self._store.refuse_locked(record)
        config = self._config(spec.ocio)
        config.check_hash(spec.ocio_hash)
        repairs = repairs_from_json(spec.repairs)
        source = open_plate(record, spec.plate.pattern, config)
        yield Planned(record.id, tuple(sorted(record.frames)), self.plan)
        if repairs != repairs_from_json(dict(record.repairs) or {"version": 1}):
            with _pool("faceplate-read") as readers:
                yield from edit_shot(self._store, record, repairs, source, readers, _LOOK_AHEAD, self._tools)

    def locate(
        self, source: PlateSource, wanted: tuple[int, ...], readers: ThreadPoolExecutor
    ) -> Generator[RunEvent, None, tuple[ShotRecord, ShotAnalysis]]:
        """The analysis that holds the `wanted` frames, made first where there is none (shots.analysing)."""
        return (yield from locate_shot(self._store, source, wanted, readers, _LOOK_AHEAD, self._tools))

    def _refuse_early(self, spec: JobSpec) -> None:
        """Before minutes go into an analysis: values that are not allowed, models that are not there."""
        effect = self._effect(spec.effect) if spec.effect else None
        if effect is not None:
            values = check_values(effect.descriptor, spec.params, [(e[0], e[1]) for e in spec.edits])
            if isinstance(effect, ShotEffect):
                effect.shot_key(values)

    def _prepare(
        self,
        spec: JobSpec,
        source: PlateSource,
        record: ShotRecord,
        analysis: ShotAnalysis,
        readers: ThreadPoolExecutor,
    ) -> Generator[RunEvent, None, tuple[RenderSettings, Mapping[str, Any], Mapping[str, str]]]:
        """What is constant over the job, with what the effect has to know of the shot; the numeric plan; the models.

        Raises ShotError `shot.not_adapted` where a long step is missing, before anything is learned.
        """
        settings = self.render_settings(spec, source, analysis)
        taken = require_steps(self._store, record, analysis, settings, spec)
        settings = yield from with_shot_data(self._store, source, record, analysis, settings, readers)
        settings = taken.settings(settings)
        effect = settings.effect
        if not isinstance(effect, ShotEffect):
            return settings, self.plan, {}
        yield from taken.warnings()
        plan = {**self.plan, spec.effect: effect.plan(settings.values, settings.shots)}
        return settings, plan, {**effect.models(settings.values), **taken.models}

    def _adapt(
        self, spec: JobSpec, source: PlateSource, context: JobContext, readers: ThreadPoolExecutor
    ) -> Iterator[RunEvent]:
        """The whole shot's long steps (see adapting)."""
        frames = source.sequence.frames if not spec.shot_range else ()
        record, analysis = yield from self.locate(source, frames, readers)
        with self._store.pin(record.id):
            settings = self.render_settings(spec, source, analysis)
            settings = yield from with_shot_data(self._store, source, record, analysis, settings, readers)
            yield Planned(record.id, tuple(sorted(record.frames)), self.plan)
            if not settings.faces:
                yield Warned("face.none", "no face was found in the shot; there is nothing to adapt")

            def view(now: RenderSettings, track: int) -> FaceOfShot:
                return face_of_shot(track, source, analysis, now, readers)

            yield from take_steps(self._store, record, analysis, settings, view, spec, context)

    def _depth(self, job: RenderJob) -> int:
        """Frames in flight on either side, within the memory limit: each is held decoded, encoded and as float."""
        window = job.analysis.display_window
        per_frame = max(1, window.width * window.height) * 4 * 4 * 6
        return int(max(1, min(_LOOK_AHEAD, self._settings.memory_gb * 2**30 / per_frame / 4)))

    # -- what a job needs ------------------------------------------------------------------------------------------

    def _config(self, ocio: str) -> ColorConfig:
        return self._configs(ocio or self._settings.ocio)

    def open_source(self, spec: JobSpec) -> PlateSource:
        """The job's plate. Raises ColorError where the client's OCIO config is another, PlateError."""
        config = self._config(spec.ocio)
        config.check_hash(spec.ocio_hash)
        return PlateSource.open(spec, config)

    def _effect(self, name: str) -> Effect:
        if name not in self._effects:
            resources = Resources(str(self._device), self._models, self._memory(), self.report)
            self._effects[name] = load_effect(name, resources)
        return self._effects[name]

    def _memory(self) -> int:
        """Bytes one frame's work may take: of a GPU what it has, less a reserve; of the CPU the configured limit."""
        if self._device.type == "cuda":
            return int(torch.cuda.get_device_properties(self._device).total_memory * 0.85)
        return int(self._settings.memory_gb * 2**30)

    def render_settings(self, spec: JobSpec, source: PlateSource, analysis: ShotAnalysis) -> RenderSettings:
        """What is constant over a job. Raises EffectError, FaceError, PlateError."""
        effect = self._effect(spec.effect)
        values = check_values(effect.descriptor, spec.params, [(e[0], e[1]) for e in spec.edits])
        mattes = tuple(n for n in spec.matte_channels if n != "composite")
        style = load_style(spec.style_image, source.config, source.color.space) if spec.style_image else None
        return RenderSettings(
            effect=effect,
            values=values,
            color=source.color,
            premult=spec.plate.premult,
            exposure=work_exposure(values.params, analysis),
            faces=choose_faces(analysis, spec.face),
            device=self._device,
            mask_mode=spec.mask.mode if spec.mask else "",
            style=style.to(self._device) if style is not None else None,
            style_digest=self._store.digests.of(spec.style_image) if spec.style_image else "",
            matte_names=mattes,
        )

    def preview(self, spec: PreviewSpec) -> PreviewPicture:
        """One picture (see preview.Previewer)."""
        job = replace(spec.job, frames=str(spec.frame))
        source = self.open_source(job)

        def settings(analysis: ShotAnalysis) -> RenderSettings:
            return self.render_settings(job, source, analysis)

        return self._previewer.show(spec, source, settings)

    def faces(self, job: JobSpec, frame: int) -> Faces:
        """The faces of a frame (see facelist). Raises as `preview`."""
        source = self.open_source(job)
        record, analysis = self._previewer.analysis(job, frame, source)
        if not job.effect:
            return list_faces(record, analysis, frame, job.face, None)
        settings = self.render_settings(replace(job, face="all"), source, analysis)
        learned: dict[int, ShotData] = {}
        for track in settings.faces:
            stored = record and stored_shot_data(self._store, record, replace(settings, faces=(track,)))
            learned.update(stored.shots if stored else {})
        plate = read_outline(source.sequence.files[frame], frame)
        window = plate.parts[source.layer(plate).part].seen
        values = settings.values.at(frame)

        def region(face: FaceFrame) -> Window:
            return settings.effect.region(face, values, learned.get(face.track, NO_DATA)).intersect(window)

        return list_faces(record, analysis, frame, job.face, region)


def _refuse_same(output: Pattern, matte_output: Pattern | None) -> None:
    if matte_output is not None and output.path(1) == matte_output.path(1):
        raise JobError(
            "job.output_is_input",
            "the mattes would overwrite the frames",
            value=matte_output.text,
            path=matte_output.text,
            remedy="Give --matte-out another name than --out.",
        )


def _pool(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_IO_THREADS, thread_name_prefix=name)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
