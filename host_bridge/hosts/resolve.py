"""Resolve as the panel's and the command line's host: the clip under the playhead, and the result above it.

Works through any way to Resolve (`resolve_api.py`). A clip's own EXR or DPX files are the plate where they can be;
otherwise Resolve renders them when the job is sent (`prepare`). Nothing is kept in Resolve: `keep` does nothing.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from host_bridge.errors import FaceplateError, HostError
from host_bridge.framerange import format_frames, parse_frames
from host_bridge.hosts.base import Finding, HostShot, cache_dir, one_line
from host_bridge.hosts.resolve_api import Connect
from host_bridge.hosts.resolve_clip import ClipFacts, current_project, find_timeline, read_clip, timecode_of
from host_bridge.hosts.resolve_place import Placed, place_result
from host_bridge.hosts.resolve_render import FIRST, LinearOutput, linear_output, render_clip, rendered, rendered_pattern
from host_bridge.jobspec import JobSpec, PlateSpec


@dataclass(frozen=True)
class Source:
    """A clip as a plate: `first` is the plate's number of the clip's first frame."""

    clip: ClipFacts
    pattern: str
    first: int
    colorspace: str | None  # None: only the artist can say it
    renders: bool

    @property
    def frames(self) -> range:
        return range(self.first, self.first + self.clip.count)

    @property
    def note(self) -> str:
        notes = list(self.clip.notes)
        if self.renders:
            notes.insert(0, f"Resolve renders the clip to EXR, without its grade: {self.clip.why}")
        if self.colorspace is None:
            notes.append(f"choose the plate's colourspace: Resolve calls it {self.clip.input_space or 'nothing'}")
        return "; ".join(notes)


class ResolveHost:
    """See `host_bridge.hosts.base.Host`."""

    def __init__(self, connect: Connect, *, marked: bool = True) -> None:
        self._connect = connect
        self._marked = marked
        self._lock = threading.RLock()
        self._name = ""
        self._sources: list[Source] = []  # the newest first
        self._encoded: dict[str, LinearOutput] = {}  # of rendered plates

    @property
    def name(self) -> str:
        """Asked of Resolve once: the panel's own thread reads it while a clip may be rendering."""
        if not self._name:
            with self._lock:
                resolve = self._connect()
                self._name = f"{resolve.GetProductName()} {resolve.GetVersionString()}"
        return self._name

    def source(self) -> Source:
        """The clip under the playhead, or the marked part of it. Raises HostError as `read_clip` does."""
        with self._lock:
            clip = read_clip(self._connect(), marked=self._marked)
            if clip.why:
                pattern, first = rendered_pattern(clip), FIRST
                managed = linear_output(clip)
                found = Source(clip, pattern, first, managed[0].ocio if managed else None, True)
            else:
                found = Source(clip, os.path.abspath(clip.pattern), clip.first, clip.ocio, False)
            self._sources = [found, *(s for s in self._sources if s.clip.item != found.clip.item)]
            return found

    def _find(self, job: JobSpec) -> Source | None:
        """The clip a job was made from: of several with the same plate, the newest that the frames are of."""
        frames = set(parse_frames(job.frames)) if job.frames else set()
        same = [s for s in self._sources if s.pattern == job.plate.pattern]
        return next((s for s in same if not frames or not frames.isdisjoint(s.frames)), None)

    def shot(self) -> HostShot:
        """The clip; one without usable files is rendered now, for there is nothing to preview without them."""
        with self._lock:
            found = self.source()
            if found.renders:
                made = self._made(found, lambda percent: None)
                found = replace(found, colorspace=made.ocio or None)
        clip = found.clip
        text = format_frames(found.frames)
        job = JobSpec(
            kind="render",
            plate=PlateSpec(found.pattern, found.colorspace or ""),
            frames=text,
            shot_range=text,
            output=result_pattern(found),
        )
        at = min(max((clip.playhead or clip.record) - clip.record, 0), clip.count - 1)
        return HostShot(clip.name, job, found.first + at, clip.record - found.first, found.note)

    def go_to(self, frame: int) -> None:
        """Move the playhead to where a frame of the plate stands."""
        with self._lock:
            if not self._sources:
                return
            found = self._sources[0]
            timeline = find_timeline(current_project(self._connect()), found.clip.timeline)
            record = frame - found.first + found.clip.record
            if timeline is not None:
                timeline.SetCurrentTimecode(timecode_of(record, found.clip.fps, found.clip.drop))

    def keep(self, job: JobSpec) -> None:
        """Resolve has no place for values: presets keep them."""

    def prepare(self, job: JobSpec, report: Callable[[int], None] = lambda percent: None) -> JobSpec:
        """Render the clip if its files cannot be used. `report` is told the percentage."""
        with self._lock:
            found = self._find(job)
            if found is None:
                return job  # a plate that the artist chose
            if found.colorspace is None and not job.plate.colorspace:
                raise HostError(
                    "host.unsupported",
                    f"nothing says how {found.clip.name} is encoded ({found.clip.input_space or 'not managed'})",
                    value=found.clip.input_space,
                    remedy="Say it with --colorspace (in the panel: Colourspace), such as 'ARRI LogC3 (EI800)', or "
                    "let the project manage colours (DaVinci YRGB Color Managed, or ACES).",
                )
            if not found.renders:
                return job
            made = self._made(found, report)
            return replace(job, plate=replace(job.plate, colorspace=made.ocio or job.plate.colorspace))

    def _made(self, found: Source, report: Callable[[int], None]) -> LinearOutput:
        """How a clip's frames are encoded, once Resolve has rendered them."""
        made = rendered(found.clip, found.pattern)
        if made is None:
            made = render_clip(self._connect(), found.clip, found.pattern, report=report)
        self._encoded[found.pattern] = made
        return made

    def import_result(self, job: JobSpec) -> str:
        placed = self.place(job)
        return ". ".join([f"{placed.name} on V{placed.track} at {placed.timecode}", *placed.notes])

    def place(self, job: JobSpec) -> Placed:
        """Bring the frames above their clip. Raises HostError as `place_result` does."""
        with self._lock:
            found = self._find(job)
            if found is None:
                raise HostError(
                    "host.no_source",
                    "this result's plate is not a clip that was taken from the timeline",
                    path=job.output,
                    remedy="The frames are on disk: import them by hand.",
                )
            encoded = self._encoded.get(found.pattern)
            space = encoded.input_space if found.renders and encoded else found.clip.input_space
            frames = parse_frames(job.frames) if job.frames else tuple(found.frames)
            return place_result(self._connect(), found.clip, job.output, frames, first=found.first, input_space=space)


def result_pattern(found: Source) -> str:
    """Where results go unless the artist says otherwise: beside the media's own folder."""
    clip = found.clip
    stem = re.sub(r"[^\w.-]+", "_", re.split(r"[._]?[%\[]", Path(clip.pattern or clip.path).name)[0])
    stem = Path(stem).stem if not clip.pattern else stem
    folder = cache_dir() / "resolve" / "results" if found.renders else Path(clip.pattern).parent.parent
    name = f"{stem or 'clip'}_faceplate_{clip.record}"  # one source may be cut into several clips
    return str(folder / name / f"{name}.%04d.exr")


def describe(connect: Connect, *, marked: bool = True) -> list[Finding]:
    """What Faceplate sees in Resolve now, for `faceplate resolve status`. Raises nothing of its own."""
    host = ResolveHost(connect, marked=marked)
    try:
        out = [Finding("resolve", "ok", host.name)]
    except FaceplateError as error:
        return [Finding("resolve", "missing", error.message, error.remedy)]
    try:
        found = host.source()
    except FaceplateError as error:
        return [*out, Finding("clip", "missing", one_line_without_remedy(error), error.remedy)]
    clip = found.clip
    where = f"{clip.timeline_name}, V{clip.track}, {timecode_of(clip.record, clip.fps, clip.drop)} ({clip.record})"
    out.append(Finding("clip", "ok", f"{clip.name}: {where}, {clip.count} frames"))
    taken = f"rendered by Resolve when the job is sent: {clip.why}" if found.renders else found.pattern
    out.append(Finding("plate", "ok", f"{taken}, frames {format_frames(found.frames)}"))
    spaces = f"Resolve: {clip.input_space or 'not set'}, OCIO: {found.colorspace or 'the scene_linear role'}"
    if found.colorspace is None:
        out.append(Finding("colour", "note", f"Resolve: {clip.input_space or 'not set'}", "Say --colorspace NAME."))
    elif not found.renders:
        out.append(Finding("colour", "ok", spaces))
    out += [Finding("clip", "note", note) for note in clip.notes]
    return out


def one_line_without_remedy(error: FaceplateError) -> str:
    """An error on one line; its remedy is shown beside it."""
    return one_line(error).removesuffix(error.remedy).rstrip()
