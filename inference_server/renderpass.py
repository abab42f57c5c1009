"""The second pass: a job's frames, read ahead, rendered one after the other on the device, written behind.

Frames come in the order they were asked for; those of a recurrent effect in rising order, with the frames between them
that it has to pass over (see recurrence).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from host_bridge.errors import FaceplateError, from_wire
from inference_server.effects.base import RecurrentEffect
from inference_server.plates.sequence import FramePlan, PlannedFrame
from inference_server.prefetch import prefetch
from inference_server.recurrence import Recurrence, Visit
from inference_server.rendering import is_identity, render_frame
from inference_server.renderjob import LoadedFrame, RenderJob, is_kept, load_frame, may_copy, write_frame
from inference_server.runs import FrameDone, FrameFailed, FrameStarted, Progress, RunEvent, Tick, Warned


@dataclass(frozen=True)
class _Written:
    frame: int
    path: str
    status: str
    began: float
    future: Future[tuple[tuple[str, str], ...]]


def render_pass(
    job: RenderJob, planned: FramePlan, readers: ThreadPoolExecutor, writers: ThreadPoolExecutor, depth: int
) -> Iterator[RunEvent]:
    """Make the planned frames; at most `depth` are in flight on either side of the device.

    The first frame that fails ends the pass unless the job says to go on.
    """
    written: deque[_Written] = deque()
    told: set[str] = set()
    total, done = len(planned.frames), 0
    todo = []
    for item in planned.frames:
        if is_kept(job, item):
            done += 1
            yield FrameDone(item.frame, job.output.path(item.frame), "kept", 0.0)
        else:
            todo.append(item)
    yield Progress("render", done, total)
    walk = _recurrence(job, todo)
    visits = [Visit(item) for item in todo] if walk is None else walk.visits(todo, job.source.sequence)
    ahead = next((i for i, visit in enumerate(visits) if visit.made), 0)  # passed over before the first that is made
    loads = prefetch(readers, lambda visit: load_frame(job, visit.item, masked=visit.made), visits, depth)
    try:
        for number, (visit, loaded) in enumerate(loads, 1):
            yield FrameStarted(visit.item.frame)
            began = time.monotonic()
            try:
                frame = _seen(job, visit.item, loaded, walk)
                if visit.made:
                    written.append(_one(job, visit.item, frame, began, writers, walk))
            except FaceplateError as error:
                yield from _failed(job, visit.item.frame, error, visit.made)
            if not visit.made:
                yield Progress("prepare", number, ahead) if number <= ahead else Tick()
            while written and (len(written) > depth or written[0].future.done()):
                done, events = _finish(job, written.popleft(), done, total, told)
                yield from events
        while written:
            done, events = _finish(job, written.popleft(), done, total, told)
            yield from events
    finally:
        loads.close()
        for item_written in written:
            item_written.future.cancel()


def _recurrence(job: RenderJob, todo: list[PlannedFrame]) -> Recurrence | None:
    effect = job.settings.effect
    if isinstance(effect, RecurrentEffect) and effect.is_recurrent(job.settings.values):
        return Recurrence(effect, job.analysis, job.settings, todo)
    return None


def _seen(job: RenderJob, item: PlannedFrame, loaded: Future[LoadedFrame], walk: Recurrence | None) -> LoadedFrame:
    """The decoded frame, after a recurrent effect has gone over it."""
    try:
        if item.frame in job.context.banned:
            raise from_wire(job.context.banned[item.frame])
        frame = loaded.result()
    except FaceplateError:
        if walk is not None and not item.held:
            walk.forget(item.frame)
        raise
    if walk is not None and not item.held:
        walk.see(frame.plate, frame.layer)
    return frame


def _one(
    job: RenderJob,
    item: PlannedFrame,
    loaded: LoadedFrame,
    began: float,
    writers: ThreadPoolExecutor,
    walk: Recurrence | None,
) -> _Written:
    """Render a frame and hand it to a writer."""
    if loaded.trouble is not None:
        raise loaded.trouble
    identity = is_identity(job.settings, item.frame)
    rendered = render_frame(
        loaded.plate,
        loaded.layer,
        job.analysis,
        job.settings,
        analysed_as=item.analysed_as,
        mask=loaded.mask,
        identity=identity,
        drawn=None if walk is None else walk.drawn(item.source),
    )
    path = job.output.path(item.frame)
    copies = (identity or not rendered.touched) and may_copy(job, item)
    status = "identity" if identity or not rendered.touched else "rendered"
    status = "held" if item.held else "interpolated" if item.made else status
    notes = list(rendered.warnings)
    if not rendered.touched and not identity and job.settings.faces:
        notes.append(("face.none", "the chosen face is not in this frame; it is a copy of the plate"))
    future = writers.submit(write_frame, job, item, loaded.layer, rendered, path, copies, tuple(notes))
    return _Written(item.frame, path, status, began, future)


def _finish(job: RenderJob, item: _Written, done: int, total: int, told: set[str]) -> tuple[int, list[RunEvent]]:
    """Wait for a frame to be on disk; warnings about the whole job are told once."""
    events: list[RunEvent] = []
    try:
        for code, message in item.future.result():
            if code not in told or code.startswith("face."):
                told.add(code)
                events.append(Warned(code, message, item.frame if code.startswith("face.") else None))
    except FaceplateError as error:
        events.extend(_failed(job, item.frame, error))
        return done, events
    done += 1
    events.append(FrameDone(item.frame, item.path, item.status, time.monotonic() - item.began))
    events.append(Progress("render", done, total))
    return done, events


def _failed(job: RenderJob, frame: int, error: FaceplateError, made: bool = True) -> Iterator[RunEvent]:
    """Report a frame's error; it ends the job unless the job says to go on. A lost lease always does."""
    error = error.at(frame=frame)
    if error.code == "job.lease_lost" or not job.spec.continue_on_error:
        raise error
    if made:
        yield FrameFailed(frame, error.to_wire())
    else:
        yield Warned("frame.forgotten", f"the effect begins anew after frame {frame}: {error.message}", frame)
