"""A finished result comes onto the timeline: imported, on a track above its source, at the same record frame.

Decides the track (the one above if it is free there, else a new one just above the source), and when the result is in
place: what Resolve placed is read back, and anything that is off by a frame is taken away again and reported. Whatever
fails, what was added goes away; nothing else is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from host_bridge.errors import HostError
from host_bridge.hosts.resolve_clip import (
    INPUT_SPACE,
    ClipFacts,
    clip_property,
    current_project,
    find_item,
    find_timeline,
    sequence_of,
    timecode_of,
)
from host_bridge.paths import frame_path, printf_pattern, same_pattern

if TYPE_CHECKING:
    from fusionscript import Folder, MediaPool, MediaPoolItem, Resolve, Timeline, TimelineItem

BIN = "Faceplate"
_log = logging.getLogger("faceplate.hosts")


@dataclass(frozen=True)
class Placed:
    """What stands on the timeline now. `notes` is what the artist has to do by hand."""

    name: str
    track: int
    record: int
    timecode: str
    count: int
    notes: tuple[str, ...] = ()


def place_result(
    resolve: Resolve, clip: ClipFacts, pattern: str, frames: tuple[int, ...], *, first: int, input_space: str
) -> Placed:
    """Import `frames` of `pattern` and place those of the clip.

    `first` is the number of the frame at `clip.record`; frames before and after the clip's are handles, kept in the
    media outside the trim. `input_space` is what Resolve is to read the result as, "" = as the project says.
    Raises HostError: `host.stale` (clip or timeline have gone), `host.unsupported`, `host.failed`.
    """
    project = current_project(resolve)
    timeline = find_timeline(project, clip.timeline)
    source = find_item(timeline, clip.item) if timeline is not None else None
    if timeline is None or source is None:
        raise HostError(
            "host.stale",
            f"{clip.name} is not on {clip.timeline_name} any more",
            path=pattern,
            remedy="The frames are on disk: import them and place them by hand.",
        )
    begin, end = max(frames[0], first), min(frames[-1], first + clip.count - 1)
    if frames != tuple(range(frames[0], frames[-1] + 1)) or begin > end:
        raise HostError(
            "host.unsupported",
            "these frames are not one piece of the clip",
            value=f"{frames[0]}-{frames[-1]}",
            path=pattern,
            remedy="Render a range without steps or gaps; the frames are on disk and can be imported by hand.",
        )
    lost = [f for f in frames if not Path(frame_path(pattern, f)).is_file()]
    if lost:
        raise HostError(
            "host.failed",
            f"{len(lost)} of {len(frames)} frames of the result are not on disk",
            path=frame_path(pattern, lost[0]),
            remedy="Render them (finished frames are kept with --skip-existing), or check that the server's folders "
            "are the same as this machine's.",
        )
    moved = int(source.GetStart(False)) + clip.offset - int(source.GetLeftOffset(False)) - clip.record
    record = clip.record + begin - first + moved
    pool, before = project.GetMediaPool(), project.GetCurrentTimeline()
    with ExitStack() as undo:
        imported = _import(pool, pattern, frames, undo)
        notes = _color(imported, input_space)
        track = _track_above(timeline, source, record, record + end - begin, undo)
        if not project.SetCurrentTimeline(timeline):  # clips are appended to the one that is open
            raise _failed(f"Resolve did not open {clip.timeline_name}", pattern)
        with ExitStack() as back:
            back.callback(project.SetCurrentTimeline, before)
            item = _append(pool, timeline, imported, track, record, begin - frames[0], end - begin + 1, pattern, undo)
        undo.pop_all()
    timecode = timecode_of(record, clip.fps, clip.drop)
    return Placed(item.GetName(), track, record, timecode, end - begin + 1, notes)


def _import(pool: MediaPool, pattern: str, frames: tuple[int, ...], undo: ExitStack) -> MediaPoolItem:
    """The result in the bin Faceplate; the bin that was open is open again afterwards."""
    root, before = pool.GetRootFolder(), pool.GetCurrentFolder()
    folder = next((f for f in root.GetSubFolderList() or [] if f.GetName() == BIN), None)
    if folder is None:
        folder = cast("Folder | None", pool.AddSubFolder(root, BIN))
        if folder is None:
            raise _failed(f"Resolve did not make the bin {BIN}", pattern)
        new: Folder = folder
        undo.callback(_undone, "the bin", lambda: bool(new.GetClipList()) or pool.DeleteFolders([new]))
    there = {c.GetUniqueId(): c for c in folder.GetClipList() or []}
    with ExitStack() as back:
        back.callback(pool.SetCurrentFolder, before)
        pool.SetCurrentFolder(folder)
        found = pool.ImportMedia(
            [{"FilePath": printf_pattern(pattern), "StartIndex": frames[0], "EndIndex": frames[-1]}]
        )
    imported = list(found or [c for c in there.values() if _shows(c, pattern, frames)][:1])  # not imported twice
    if not imported:
        raise _failed("Resolve did not import the result", pattern)
    new_media = [c for c in imported if c.GetUniqueId() not in there]
    undo.callback(_undone, "the imported media", lambda: not new_media or pool.DeleteClips(new_media))
    count = clip_property(imported[0], "Frames")
    if len(imported) != 1 or (count.isdigit() and int(count) != len(frames)):
        raise _failed(f"Resolve imported {len(imported)} clips, {count} frames instead of {len(frames)}", pattern)
    return imported[0]


def _shows(media: MediaPoolItem, pattern: str, frames: tuple[int, ...]) -> bool:
    """Whether a clip of an earlier render is these very files."""
    own, ends = sequence_of(clip_property(media, "File Path"))
    return same_pattern(own, pattern) and ends == (frames[0], frames[-1])


def _color(imported: MediaPoolItem, space: str) -> tuple[str, ...]:
    """Give the result its input colourspace, and read it back; a note where Resolve does not take it."""
    if not space or clip_property(imported, INPUT_SPACE) == space:
        return ()
    imported.SetClipProperty(INPUT_SPACE, space)
    if clip_property(imported, INPUT_SPACE) == space:
        return ()
    return (f"set the result's Input Color Space to {space} by hand (right-click in the media pool)",)


def _track_above(timeline: Timeline, source: TimelineItem, first: int, last: int, undo: ExitStack) -> int:
    """The track above the source if it is unlocked and free over these frames, else a new one in its place."""
    track = source.GetTrackTypeAndIndex()[1] + 1
    count = timeline.GetTrackCount("video")
    if track <= count and not timeline.GetIsTrackLocked("video", track):
        items = timeline.GetItemListInTrack("video", track) or []
        if all(i.GetEnd(False) <= first or i.GetStart(False) > last for i in items):
            return track
    options: Any = {"index": track} if track <= count else {}
    timeline.AddTrack("video", options)
    if timeline.GetTrackCount("video") != count + 1:
        raise _failed("Resolve did not add a video track", "")
    if timeline.GetItemListInTrack("video", track) or timeline.GetIsTrackLocked("video", track):
        track = count + 1  # it was appended at the top instead

    def remove() -> bool:
        return bool(timeline.GetItemListInTrack("video", track)) or timeline.DeleteTrack("video", track)

    undo.callback(_undone, "the new track", remove)
    return track


def _append(
    pool: MediaPool,
    timeline: Timeline,
    media: MediaPoolItem,
    track: int,
    record: int,
    handle: int,
    count: int,
    pattern: str,
    undo: ExitStack,
) -> TimelineItem:
    """Place the frames and read back where they are.

    Frames are counted from the media's "Start" (0 or 1, or 1001, by version and kind); whether the end is included
    differs, too: the second way is tried when the first comes out a frame off.
    """
    start = int(float(clip_property(media, "Start") or 0)) + handle
    off = ""
    for end in (start + count, start + count - 1):
        info: Any = {
            "mediaPoolItem": media,
            "startFrame": start,
            "endFrame": end,
            "mediaType": 1,  # without it a clip at a track index of its own is black
            "trackIndex": track,
            "recordFrame": record,
        }
        appended = [i for i in pool.AppendToTimeline(cast("Any", [info])) or [] if i is not None]
        if not appended:
            raise _failed("Resolve did not place the result", pattern)
        undo.callback(_undone, "the placed clip", partial(_take_away, timeline, appended))
        off = _off(timeline, appended, track, record, handle, count)
        if not off:
            return appended[0]
        if not _take_away(timeline, appended):
            raise _failed(f"the result is off ({off}) and Resolve does not take it away again", pattern)
    raise _failed(f"Resolve placed the result wrongly, so it was taken away: {off}", pattern)


def _take_away(timeline: Timeline, items: list[TimelineItem]) -> bool:
    """Remove clips of ours that are still there."""
    there = [i for i in items if find_item(timeline, i.GetUniqueId()) is not None]
    return not there or timeline.DeleteClips(there, False)


def _off(timeline: Timeline, items: list[TimelineItem], track: int, record: int, handle: int, count: int) -> str:
    """What is not where it should be; "" when all is."""
    if len(items) != 1:
        return f"{len(items)} clips instead of one"
    item = items[0]
    checks = {
        "first record frame": (item.GetStart(False), record),
        "frames": (item.GetDuration(False), count),
        "frames before the trim": (item.GetLeftOffset(False), handle),
        "track": (item.GetTrackTypeAndIndex()[1], track),
    }
    wrong = [f"{name} {found} instead of {wanted}" for name, (found, wanted) in checks.items() if found != wanted]
    if not wrong and find_item(timeline, item.GetUniqueId()) is None:
        wrong.append("it is not on the timeline")
    return ", ".join(wrong)


def _undone(what: str, call: Callable[[], bool]) -> None:
    """One step back; what Resolve does not take away is said, and does not keep the others from going."""
    if not call():
        _log.warning("Resolve did not remove %s again: remove it by hand", what)


def _failed(what: str, path: str) -> HostError:
    return HostError(
        "host.failed",
        what,
        path=path or None,
        remedy="What was added is removed again; the frames are on disk and can be imported by hand.",
    )
