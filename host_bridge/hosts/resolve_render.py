"""A clip without usable files becomes an EXR sequence: rendered by Resolve from a temporary timeline, linear, ungraded.

The temporary timeline holds this one clip, fresh from the media pool, so without grade, transform or Fusion
composition, in the media's own size. What it is encoded in is declared: a colour-managed project is asked for a linear
output that Resolve confirms when it is read back; without colour management only the artist knows. Timeline, render
job and a preset that keeps the artist's render settings are ours and are removed, whatever happens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from host_bridge.errors import HostError
from host_bridge.hosts.base import cache_dir
from host_bridge.hosts.resolve_clip import ClipFacts, current_project, find_item, find_timeline
from host_bridge.paths import frame_path

if TYPE_CHECKING:
    from fusionscript import MediaPoolItem, Project, Resolve, Timeline, TimelineItem
    from fusionscript.fusionscript import Graph

FIRST = 1001  # rendered plates are numbered as shots are
POLL_S = 0.25
_NOTE = "colorspace.json"  # beside the frames


@dataclass(frozen=True)
class LinearOutput:
    """An output of a temporary timeline: the settings that ask for it, and what OCIO and Resolve call it."""

    settings: Mapping[str, str]
    ocio: str
    input_space: str


# Tried in this order; the first that Resolve says back is used. Wide gamuts first: nothing is clipped or negative.
_COMMON = {
    "separateColorSpaceAndGamma": "1",
    "colorSpaceOutputGamma": "Linear",
    "colorSpaceOutputToneMapping": "None",
    "colorSpaceOutputGamutMapping": "None",
}
MANAGED = (
    LinearOutput({"colorSpaceOutput": "ACES (AP1)", **_COMMON}, "ACEScg", "ACEScg"),
    LinearOutput({"colorSpaceOutput": "Rec.2020", **_COMMON}, "Linear Rec.2020", "Rec.2020 Linear"),
    LinearOutput({"colorSpaceOutput": "Rec.709", **_COMMON}, "Linear Rec.709 (sRGB)", "Rec.709 Linear"),
)
ACES = (LinearOutput({"colorAcesODT": "No Output Transform"}, "ACES2065-1", "ACES2065-1"),)


def rendered_pattern(clip: ClipFacts) -> str:
    """Where this clip's frames go: a folder of Faceplate's own that changes with the media and its range."""
    path = Path(clip.path)
    changed = str(path.stat().st_mtime_ns) if path.is_file() else ""
    text = "|".join((clip.item, clip.path, changed, str(clip.offset), str(clip.count), clip.managed, clip.input_space))
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "_", Path(clip.name).stem) or "clip"
    return str(cache_dir() / "resolve" / key / f"{name}.%04d.exr")


def rendered(clip: ClipFacts, pattern: str) -> LinearOutput | None:
    """How the clip's frames are encoded if every one of them is there; None if it has to be rendered."""
    if not all(Path(frame_path(pattern, FIRST + n)).is_file() for n in range(clip.count)):
        return None
    try:
        data = json.loads((Path(pattern).parent / _NOTE).read_text(encoding="utf-8"))
        return LinearOutput({}, str(data["ocio"]), str(data["input_space"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # made by something else, or half removed: rendered again


def linear_output(clip: ClipFacts) -> tuple[LinearOutput, ...]:
    """What may be asked for in this project; () where colours are not managed."""
    science = clip.managed.lower()
    if science.startswith("aces"):
        return ACES
    return MANAGED if "managed" in science else ()


def render_clip(
    resolve: Resolve,
    clip: ClipFacts,
    pattern: str,
    *,
    report: Callable[[int], None] = lambda percent: None,
) -> LinearOutput:
    """Render the clip's frames to `pattern`, numbered from FIRST; what they are encoded in.

    Its `ocio` is "" in an unmanaged project: then only the artist knows. Blocks until Resolve is done. Raises
    HostError: `host.unsupported` (no EXR half, nothing linear), `host.stale` (the clip has gone), `host.failed`.
    """
    project = current_project(resolve)
    if project.IsRenderingInProgress():
        raise HostError("host.failed", "Resolve is rendering something else", remedy="Wait for it, then try again.")
    timeline = find_timeline(project, clip.timeline)
    item = find_item(timeline, clip.item) if timeline is not None else None
    if item is None:
        raise HostError(
            "host.stale", f"{clip.name} is not on {clip.timeline_name} any more", remedy="Look at the clip again."
        )
    folder = Path(pattern).parent
    with ExitStack() as undo:
        made = _folder(folder)
        undo.callback(_remove, made)
        _keep_settings(project, undo)
        temporary = _temporary_timeline(resolve, project, item.GetMediaPoolItem(), clip, undo)
        used = _declare(temporary, clip)
        _settings(project, clip, made)
        job = project.AddRenderJob()
        if not job:
            raise _failed("Resolve did not accept the render job")
        undo.callback(project.DeleteRenderJob, job)
        undo.callback(_stop, project)
        if not project.StartRendering([job], False):
            raise _failed("Resolve did not start to render")
        status = _wait(project, job, report)
        frames = sorted(p for p in made.iterdir() if p.suffix.lower() == ".exr")
        if len(frames) != clip.count:
            why = status.get("Error") or status.get("JobStatus") or "no reason given"
            raise _failed(f"Resolve rendered {len(frames)} of {clip.count} frames ({why})")
        for number, frame in enumerate(frames, FIRST):
            frame.replace(frame_path(pattern, number))
        used = used or LinearOutput({}, "", clip.input_space)
        note = json.dumps({"ocio": used.ocio, "input_space": used.input_space})
        (folder / _NOTE).write_text(note, encoding="utf-8")
    return used


def exr_half(project: Project) -> tuple[str, str]:
    """The names of EXR and of a lossless half-float codec, asked of this Resolve; HostError (`host.unsupported`)."""
    formats = project.GetRenderFormats() or {}
    found = [label for label, suffix in formats.items() if suffix.lower().lstrip(".") == "exr"]
    for label in found:
        for name in (formats[label], label):
            codecs = project.GetRenderCodecs(name) or {}
            half = {text: codec for text, codec in codecs.items() if "half" in f"{text} {codec}".lower()}
            lossless = {t: c for t, c in half.items() if not re.search("dwa|b44|pxr", f"{t} {c}", re.IGNORECASE)}
            for wanted in ("zip", "piz", "rle", ""):
                for text, codec in sorted(lossless.items()):
                    if wanted in f"{text} {codec}".lower():
                        return name, codec
    raise HostError(
        "host.unsupported",
        "this Resolve offers no EXR with half-float pixels",
        value=sorted(formats),
        remedy="Use an EXR or DPX sequence as the clip's media, or render the clip to EXR elsewhere.",
    )


def _keep_settings(project: Project, undo: ExitStack) -> None:
    """Put the artist's render settings aside as a preset of ours, and bring them back at the end."""
    preset = f"faceplate-{uuid.uuid4().hex[:8]}"
    current, mode = project.GetCurrentRenderFormatAndCodec(), project.GetCurrentRenderMode()

    def restore(kept: bool) -> None:
        if kept:
            project.LoadRenderPreset(preset)
            project.DeleteRenderPreset(preset)
        elif current.get("format"):
            project.SetCurrentRenderFormatAndCodec(current["format"], current.get("codec", ""))
        project.SetCurrentRenderMode(mode)

    undo.callback(restore, project.SaveAsNewRenderPreset(preset))


def _temporary_timeline(
    resolve: Resolve, project: Project, media: MediaPoolItem, clip: ClipFacts, undo: ExitStack
) -> Timeline:
    """A timeline of this one clip, made current."""
    before, page = project.GetCurrentTimeline(), resolve.GetCurrentPage()
    pool = project.GetMediaPool()
    start = int(float(media.GetClipProperty("Start") or 0)) + clip.offset  # type: ignore[arg-type]
    info: Any = {"mediaPoolItem": media, "startFrame": start, "endFrame": start + clip.count, "mediaType": 1}
    name = f"faceplate {clip.name} {uuid.uuid4().hex[:8]}"
    temporary: Timeline | None = None
    for end in (start + clip.count, start + clip.count - 1):  # whether the end is included differs between versions
        info["endFrame"] = end
        temporary = cast("Timeline | None", pool.CreateTimelineFromClips(name, [info]))
        if temporary is None:
            continue
        items: list[TimelineItem] = temporary.GetItemListInTrack("video", 1) or []
        if len(items) == 1 and _same(items[0], clip):
            break
        project.SetCurrentTimeline(before)  # the one that is open is not deleted
        pool.DeleteTimelines([temporary])
        temporary = None
    if temporary is None:
        raise _failed("Resolve did not make a temporary timeline of exactly this clip")
    mine = temporary

    def remove() -> None:
        project.SetCurrentTimeline(before)
        pool.DeleteTimelines([mine])
        if page:
            resolve.OpenPage(page)

    undo.callback(remove)
    if not project.SetCurrentTimeline(mine):
        raise _failed("Resolve did not open the temporary timeline")
    _ungrade(mine.GetItemListInTrack("video", 1)[0])
    return mine


def _ungrade(item: TimelineItem) -> None:
    """Remove the grade of the temporary clip, in a local version of its own.

    A new clip may use the media's remote version, which it shares with the artist's clips: that is never reset.
    """
    version = "faceplate"
    item.AddVersion(version, 0)
    item.LoadVersionByName(version, 0)
    if cast("dict[str, Any]", item.GetCurrentVersion() or {}) != {"versionName": version, "versionType": 0}:
        raise _failed("Resolve did not give the temporary timeline's clip a local grade of its own")
    graph = item.GetNodeGraph(1)
    if graph is None or not _graded(graph):
        return
    graph.ResetAllGrades()
    if _graded(graph):
        raise _failed("Resolve did not remove the grade of the temporary timeline's clip")


def _graded(graph: Graph) -> bool:
    return any(graph.GetToolsInNode(n) or graph.GetLUT(n) for n in range(1, graph.GetNumNodes() + 1))


def _same(item: TimelineItem, clip: ClipFacts) -> bool:
    return item.GetDuration(False) == clip.count and item.GetLeftOffset(False) == clip.offset


def _declare(timeline: Timeline, clip: ClipFacts) -> LinearOutput | None:
    """Give the timeline settings of its own: the media's size, and a linear output that is said back."""
    own = {"useCustomSettings": "1"}
    if clip.size != (0, 0):
        own |= {"timelineResolutionWidth": str(clip.size[0]), "timelineResolutionHeight": str(clip.size[1])}
        own |= {"timelineOutputResMatchTimelineRes": "1"}
    refused = [name for name, value in own.items() if not _set(timeline, name, value)]
    if "useCustomSettings" in refused:
        raise _failed("Resolve did not give the temporary timeline settings of its own")
    if any(name.startswith("timelineResolution") for name in refused):
        raise _failed(f"Resolve did not take the media's size {clip.size[0]}x{clip.size[1]}")
    offered = linear_output(clip)
    for output in offered:
        if all(_set(timeline, name, value) for name, value in output.settings.items()):
            return output
    if offered:
        raise HostError(
            "host.unsupported",
            f"Resolve did not accept a linear output in this project ({clip.managed})",
            value=[output.ocio for output in offered],
            remedy="Render the clip yourself to EXR half with a linear output, and use that as the clip's media.",
        )
    return None


def _set(timeline: Timeline, name: str, value: str) -> bool:
    """Set and read back: Resolve says True to values it does not know."""
    return bool(timeline.SetSetting(name, value)) and str(timeline.GetSetting(name)) == value


def _settings(project: Project, clip: ClipFacts, folder: Path) -> None:
    name, codec = exr_half(project)
    if not project.SetCurrentRenderFormatAndCodec(name, codec):
        raise _failed(f"Resolve did not take its own format {name} with {codec}")
    project.SetCurrentRenderMode(1)
    settings: dict[str, Any] = {
        "SelectAllFrames": True,
        "TargetDir": str(folder),
        "CustomName": "plate",
        "ExportVideo": True,
        "ExportAudio": False,
    }
    if clip.size != (0, 0):
        settings |= {"FormatWidth": clip.size[0], "FormatHeight": clip.size[1]}
    if not project.SetRenderSettings(cast("Any", settings)):
        raise _failed("Resolve did not take the render settings")


def _wait(project: Project, job: str, report: Callable[[int], None]) -> dict[str, Any]:
    while project.IsRenderingInProgress():
        report(int(_status(project, job).get("CompletionPercentage") or 0))
        time.sleep(POLL_S)
    return _status(project, job)


def _status(project: Project, job: str) -> dict[str, Any]:
    return cast("dict[str, Any]", project.GetRenderJobStatus(job) or {})


def _stop(project: Project) -> None:
    if project.IsRenderingInProgress():
        project.StopRendering()


def _folder(folder: Path) -> Path:
    """A fresh folder beside the frames' own: what is half done never looks finished."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".render-", dir=folder))
    except OSError as error:
        raise HostError(
            "host.failed",
            f"the folder for the rendered clip cannot be written: {error.strerror or error}",
            path=str(folder),
            remedy="Set FACEPLATE_CACHE to a folder that you may write and that has room.",
        ) from error


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()
    with contextlib.suppress(OSError):  # it stays where there are frames in it
        folder.parent.rmdir()


def _failed(what: str) -> HostError:
    return HostError(
        "host.failed",
        what,
        remedy="Nothing of it is left in the project. Look at the Deliver page for a message, or render the clip "
        "to EXR yourself and use that as its media.",
    )
