"""One frame of a render job: recognised, read, and put on disk. All of it may run on a reader or writer thread."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge import __version__
from host_bridge.errors import FaceplateError
from host_bridge.jobspec import JobSpec, job_hash
from inference_server.plates.provenance import Provenance
from inference_server.plates.reader import read_planned
from inference_server.plates.sequence import Pattern, PlannedFrame
from inference_server.plates.types import ChosenLayer, PlateFrame
from inference_server.plates.writer import can_copy, copy_plate, is_finished, matte_frame, with_mattes, write_plate
from inference_server.rendering import RenderedFrame, RenderSettings, is_identity
from inference_server.retiming import load_between
from inference_server.runs import JobContext
from inference_server.shots.store import ShotRecord
from inference_server.shots.types import ShotAnalysis
from inference_server.source import MaskSource, PlateSource


@dataclass(frozen=True)
class RenderJob:
    """Everything a render needs that does not change from frame to frame.

    `models`: id -> hash and licence of every model that the effect uses.
    """

    spec: JobSpec
    source: PlateSource
    record: ShotRecord
    analysis: ShotAnalysis
    settings: RenderSettings
    output: Pattern
    matte_output: Pattern | None
    mask: MaskSource | None
    plan: Mapping[str, Any]
    models: Mapping[str, str]
    context: JobContext


@dataclass(frozen=True)
class LoadedFrame:
    """A decoded frame, the channels to treat, and the artist's matte over its data window (or None).

    `trouble` is why the matte could not be read: the frame cannot be made then, but others may build on it.
    """

    plate: PlateFrame
    layer: ChosenLayer
    mask: NDArray[np.float32] | None
    trouble: FaceplateError | None = None


def frame_key(job: RenderJob, item: PlannedFrame) -> str:
    """What a finished frame is recognised by: the job, and the contents of every file that went into it."""
    mask = _digest(job.mask.path(_mask_frame(item))) if job.mask else ""
    if job.mask and item.made and item.between is not None:
        mask += _digest(job.mask.path(item.between.source))
    extra = json.dumps(
        [
            job.record.frames[item.source],
            item.frame,
            job.record.key,
            mask,
            job.settings.style_digest,
            job.source.config.hash,
            job.settings.effect.descriptor.version,
            __version__,
            dict(job.plan),
            dict(job.models),
            *([job.record.frames[item.between.source], item.between.share] if item.between is not None else []),
        ],
        sort_keys=True,
    )
    return job_hash(job.spec, extra)


@lru_cache(maxsize=4096)
def _digest_of(path: str, stamp: tuple[int, int]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _digest(path: str) -> str:
    status = os.stat(path)
    return _digest_of(path, (status.st_mtime_ns, status.st_size))


def is_kept(job: RenderJob, item: PlannedFrame) -> bool:
    """Whether this very frame is there already: asked for with `skip_existing`, or done before a restart."""
    resumed = item.frame in job.context.done or job.context.attempt > 1
    if item.error is not None or not (job.spec.skip_existing or resumed):
        return False
    path = job.output.path(item.frame)
    if not os.path.exists(path):
        return False
    if job.matte_output is not None and not is_finished(job.matte_output.path(item.frame), frame_key(job, item)):
        return False
    if is_finished(path, frame_key(job, item)):
        return True
    faceless = not any(job.analysis.face_at(t, item.analysed_as) for t in job.settings.faces)
    copied = (is_identity(job.settings, item.frame) or faceless) and may_copy(job, item)
    return copied and is_finished(path, "", item.path)


def may_copy(job: RenderJob, item: PlannedFrame) -> bool:
    """Whether an untouched frame is written as a copy of the file: nothing to add and no other codec asked for."""
    return (
        item.own
        and not job.spec.matte_channels
        and can_copy(item.path, job.output.path(item.frame), job.spec.compression)
    )


def load_frame(job: RenderJob, item: PlannedFrame, masked: bool = True) -> LoadedFrame:
    """Decode a frame and its mask. Raises PlateError, also the one of a frame that is not on disk."""
    if item.made:
        return LoadedFrame(*load_between(job.source, item, job.settings.exposure, job.mask if masked else None))
    plate = read_planned(item)
    layer = job.source.layer(plate)
    part = plate.parts[layer.part]
    if job.mask is None or not masked:
        return LoadedFrame(plate, layer, None)
    try:
        return LoadedFrame(plate, layer, job.mask.read(_mask_frame(item), part.data_window, part.display_window))
    except FaceplateError as error:
        return LoadedFrame(plate, layer, None, error)


def _mask_frame(item: PlannedFrame) -> int:
    """The artist's mask is numbered as the plate is."""
    return item.frame if item.between is None else item.source


def write_frame(
    job: RenderJob,
    item: PlannedFrame,
    layer: ChosenLayer,
    rendered: RenderedFrame,
    path: str,
    copies: bool,
    notes: tuple[tuple[str, str], ...],
) -> tuple[tuple[str, str], ...]:
    """Put a frame and its mattes on disk; returns warnings as (code, message)."""
    made = Provenance(
        effect=job.spec.effect,
        version=f"{__version__}/{job.settings.effect.descriptor.version}",
        parameters={"params": job.spec.params, "edits": job.spec.edits, "face": job.spec.face},
        models=job.models,
        job=frame_key(job, item),
        shot=job.record.key,
        plan=json.dumps(dict(job.plan), sort_keys=True),
    )
    may_write = job.context.may_write
    if job.matte_output is not None:
        names = job.spec.matte_channels or ["composite"]
        mattes = {name: rendered.mattes[name] for name in names}
        write_plate(
            matte_frame(rendered.plate, layer, mattes),
            job.matte_output.path(item.frame),
            may_write=may_write,
            extra_attributes=made.attributes(),
        )
    if copies:
        result = copy_plate(item.path, path, frame=item.frame, may_write=may_write)
    else:
        plate = rendered.plate
        if job.spec.matte_channels:
            plate = with_mattes(plate, layer, {n: rendered.mattes[n] for n in job.spec.matte_channels})
        result = write_plate(
            plate,
            path,
            compression=job.spec.compression,
            may_write=may_write,
            extra_attributes=made.attributes(plate),
        )
    return notes + tuple((w.code, w.message) for w in result.warnings)
