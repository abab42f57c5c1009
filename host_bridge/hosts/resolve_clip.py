"""What is under Resolve's playhead, as Faceplate needs it: which frames of which files stand at which record frames.

Decides whether a clip's own files can be used (an EXR or DPX sequence that is neither retimed nor a subclip) or the
clip has to be rendered first, and what cannot be worked on at all. A timeline counts from its start timecode (86400),
a sequence from its first file (1001): file = first file + left offset + (record frame - clip's start). Nothing in
Resolve is changed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from host_bridge.errors import HostError
from host_bridge.paths import frame_path

if TYPE_CHECKING:
    from fusionscript import MediaPoolItem, Project, Resolve, Timeline, TimelineItem
    from fusionscript.fusionscript import MarkInOutSet

INPUT_SPACE = "Input Color Space"
_SEQUENCE = re.compile(r"(?P<stem>.*)\[(?P<first>\d+)-(?P<last>\d+)\](?P<suffix>\.(?:exr|dpx))\Z", re.IGNORECASE)
# Resolve's names of linear spaces whose OCIO names are certain; "" where nothing is said about the clip.
_OCIO = {"": "", "acescg": "ACEScg", "aces2065-1": "ACES2065-1", "acescct": "ACEScct", "acescc": "ACEScc"}


@dataclass(frozen=True)
class ClipFacts:
    """A clip, or the marked part of it.

    `record` is its first frame on the timeline, `count` its frames, `offset` the media's frames before it. `pattern`
    and `first` are the media's own sequence ("" and 0 where there is none); `why` says why that cannot be used ("" =
    it can). `media` (first, last) are the files there are.
    """

    name: str
    timeline: str  # unique ids
    item: str
    timeline_name: str
    track: int
    playhead: int | None
    record: int
    count: int
    offset: int
    path: str
    pattern: str
    first: int
    media: tuple[int, int]
    why: str
    input_space: str
    managed: str  # the project's colour science
    size: tuple[int, int]
    fps: float
    drop: bool
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    @property
    def ocio(self) -> str | None:
        """The OCIO name of the media's colourspace; None where only the artist can say it."""
        if not self.input_space and self.path.lower().endswith(".dpx"):
            return None
        return _OCIO.get(self.input_space.lower())


def current_project(resolve: Resolve) -> Project:
    """The open project; HostError (`host.no_source`)."""
    manager = resolve.GetProjectManager()
    project: Project | None = manager.GetCurrentProject() if manager else None
    if project is None:
        raise HostError("host.no_source", "no project is open in Resolve", remedy="Open one.")
    return project


def current_timeline(project: Project) -> Timeline:
    """The timeline shown; HostError (`host.no_source`)."""
    timeline: Timeline | None = project.GetCurrentTimeline()
    if timeline is None:
        raise HostError(
            "host.no_source",
            f"the project {project.GetName()} has no timeline open",
            remedy="Open the timeline with the clip on the Edit page.",
        )
    return timeline


def read_clip(resolve: Resolve, *, marked: bool = True) -> ClipFacts:
    """The clip under the playhead, or where in and out are marked (and `marked`) the part of a clip between them.

    Raises HostError: `host.no_source`, `host.unsupported` (what cannot be worked on, with the reason), `host.missing`
    (offline media, a drive that is not there).
    """
    project = current_project(resolve)
    timeline = current_timeline(project)
    marks = marked_range(timeline) if marked else None
    item = _current_item(timeline, marks)
    start, count = int(item.GetStart(False)), int(item.GetDuration(False))
    media = _media_of(item)
    path = clip_property(media, "File Path")
    pattern, files = sequence_of(path)
    check_online(item.GetName(), path, pattern, files, clip_property(media, "Online Status"))
    fps, drop = frame_rate(timeline)
    _refuse_retime(item, media, count, fps)

    first, last = start, start + count - 1
    notes: list[str] = []
    if marks is not None:
        first, last = max(first, marks[0]), min(last, marks[1])
        if marks[0] < start or marks[1] > start + count - 1:
            notes.append(f"the marked range goes beyond {item.GetName()}: only its part in this clip is worked on")
    left = int(item.GetLeftOffset(False))
    begins = _number(clip_property(media, "Start"))
    if begins is not None and item.GetSourceStartFrame() - begins != left:
        notes.append(
            f"Resolve says that {left} frames and that {item.GetSourceStartFrame() - begins} frames come before this "
            "clip's first one; the former is taken: compare the first frame of the result"
        )
    offset = left + first - start
    return ClipFacts(
        name=item.GetName(),
        timeline=timeline.GetUniqueId(),
        item=item.GetUniqueId(),
        timeline_name=timeline.GetName(),
        track=item.GetTrackTypeAndIndex()[1],
        playhead=playhead(timeline),
        record=first,
        count=last - first + 1,
        offset=offset,
        path=path,
        pattern=pattern,
        first=files[0] + offset if pattern else 0,
        media=files,
        why=_why_not(path, pattern, files, _number(clip_property(media, "Frames"))),
        input_space=_plain(clip_property(media, INPUT_SPACE)),
        managed=project.GetSetting("colorScienceMode") or "",
        size=_size(clip_property(media, "Resolution")),
        fps=fps,
        drop=drop,
        notes=tuple(notes),
    )


def find_item(timeline: Timeline, unique_id: str) -> TimelineItem | None:
    """A clip of the timeline by its id."""
    for track in range(1, timeline.GetTrackCount("video") + 1):
        for item in timeline.GetItemListInTrack("video", track) or []:
            if item.GetUniqueId() == unique_id:
                return item
    return None


def find_timeline(project: Project, unique_id: str) -> Timeline | None:
    """A timeline of the project by its id."""
    for index in range(1, project.GetTimelineCount() + 1):
        timeline = project.GetTimelineByIndex(index)
        if timeline is not None and timeline.GetUniqueId() == unique_id:
            return timeline
    return None


def clip_property(media: MediaPoolItem, name: str) -> str:
    """A clip's property as text; "" where this clip has none of that name."""
    value = media.GetClipProperty(name)
    return value if isinstance(value, str) else "" if value is None or isinstance(value, dict) else str(value)


def marked_range(timeline: Timeline) -> tuple[int, int] | None:
    """In and out as record frames, both included; None unless both are set. Resolve counts them from the start."""
    marks: MarkInOutSet | None = timeline.GetMarkInOut()
    video = marks.get("video") if marks else None
    if video is None or "in" not in video or "out" not in video:
        return None
    start = timeline.GetStartFrame()
    base = start if video["out"] < start else 0
    return video["in"] + base, video["out"] + base


def frame_rate(timeline: Timeline) -> tuple[float, bool]:
    """Frames per second, and whether its timecode drops frame numbers."""
    text = str(timeline.GetSetting("timelineFrameRate") or "24")
    number = re.match(r"[0-9.]+", text)
    drop = "DF" in text or str(timeline.GetSetting("timelineDropFrameTimecode")) == "1"
    return (float(number.group()) if number else 24.0), drop


def timecode_of(frame: int, fps: float, drop: bool) -> str:
    """A record frame as SMPTE timecode; drop-frame leaves out 2 (4 at 60) numbers in nine of ten minutes."""
    base = round(fps)
    if drop:
        dropped = round(base / 15)
        minute = base * 60 - dropped
        tens, rest = divmod(frame, minute * 10 + dropped)
        frame += dropped * 9 * tens + (dropped * ((rest - dropped) // minute) if rest > dropped else 0)
    seconds, frames = divmod(frame, base)
    mark = ";" if drop else ":"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{frames:02d}"


def frame_of(timecode: str, fps: float) -> int:
    """The record frame of a timecode."""
    hours, minutes, seconds, frames = (int(n) for n in re.split(r"[:;.]", timecode))
    base = round(fps)
    number = ((hours * 60 + minutes) * 60 + seconds) * base + frames
    if ";" in timecode:
        total = hours * 60 + minutes
        number -= round(base / 15) * (total - total // 10)
    return number


def playhead(timeline: Timeline) -> int | None:
    """The record frame that is shown; None on pages that do not say it."""
    timecode: str | None = timeline.GetCurrentTimecode()
    if not timecode or not re.fullmatch(r"\d+:\d+:\d+[:;.]\d+", timecode):
        return None
    return frame_of(timecode, frame_rate(timeline)[0])


def check_online(name: str, path: str, pattern: str, files: tuple[int, int], status: str) -> None:
    """HostError (`host.missing`) where a clip's files cannot be read here."""
    windows = bool(PureWindowsPath(path).drive)
    anchor = (PureWindowsPath(path) if windows else PurePosixPath(path)).anchor
    volume = anchor
    if not windows and path.startswith(("/Volumes/", "/mnt/", "/media/")):
        volume = "/".join(path.split("/")[:3])
    if not Path(volume).exists():
        raise HostError(
            "host.missing",
            f"the drive of {name}'s media is not here: {volume}",
            path=path,
            value=volume,
            remedy="Connect or map the drive, or relink the clip to where its files are on this machine.",
        )
    lost = [f for f in files if pattern and not Path(frame_path(pattern, f)).is_file()]
    if lost or (not pattern and not Path(path).exists()) or status.lower() == "offline":
        raise HostError(
            "host.missing",
            f"the media of {name} is offline",
            path=frame_path(pattern, lost[0]) if lost else path,
            remedy="Relink it in the media pool (right-click > Relink Selected Clips), or connect its drive.",
        )


def _current_item(timeline: Timeline, marks: tuple[int, int] | None) -> TimelineItem:
    """The item under the playhead; with marks, the topmost enabled one that they touch if that is not it.

    Not every page says what is under the playhead: then it is looked for at the playhead's frame.
    """
    current: TimelineItem | None = timeline.GetCurrentVideoItem()
    if current is not None and (marks is None or _touches(current, marks)):
        return current
    at = playhead(timeline)
    within = marks or (None if at is None else (at, at))
    found = _topmost(timeline, within) if within else None
    if found is not None:
        return found
    if marks is None:
        raise HostError(
            "host.no_source",
            f"there is no video clip under the playhead of {timeline.GetName()}",
            remedy="On the Edit page, move the playhead onto the clip, or mark its range with I and O.",
        )
    raise HostError(
        "host.no_source",
        "there is no video clip between the in and out points",
        value=list(marks),
        remedy="Mark a range that holds the clip, or clear the marks (Alt+X) and put the playhead onto it.",
    )


def _topmost(timeline: Timeline, within: tuple[int, int]) -> TimelineItem | None:
    for track in range(timeline.GetTrackCount("video"), 0, -1):
        if timeline.GetIsTrackEnabled("video", track):
            for item in timeline.GetItemListInTrack("video", track) or []:
                if _touches(item, within) and item.GetClipEnabled():
                    return item
    return None


def _touches(item: TimelineItem, marks: tuple[int, int]) -> bool:
    return item.GetStart(False) <= marks[1] and item.GetEnd(False) > marks[0]


def _media_of(item: TimelineItem) -> MediaPoolItem:
    """The clip's media; what has no files of its own is refused."""
    media: MediaPoolItem | None = item.GetMediaPoolItem()
    kind = clip_property(media, "Type") if media is not None else ""
    if media is None or not clip_property(media, "File Path"):
        what = f"a clip of the type {kind}" if kind else "a title, generator or effect"
        raise HostError(
            "host.unsupported",
            f"{item.GetName()} is {what}: there are no files behind it",
            value=kind,
            remedy="Use Render in Place on it (or decompose a compound, flatten a multicam clip), then try again.",
        )
    return media


def _refuse_retime(item: TimelineItem, media: MediaPoolItem, count: int, fps: float) -> None:
    """HostError (`host.unsupported`) where record frames are not the media's frames one by one.

    At 100% the media is as long as the clip and what is left of it on both sides.
    """
    why = ""
    rate = _number(clip_property(media, "FPS"))
    frames = _number(clip_property(media, "Frames"))
    if frames == 1 and count > 1:
        raise HostError(
            "host.unsupported",
            f"{item.GetName()} is one picture, held for {count} frames",
            value=item.GetName(),
            remedy="Use Render in Place on it, or render the picture by itself: faceplate render --in FILE.",
        )
    whole = int(item.GetLeftOffset(False)) + count + int(item.GetRightOffset(False))
    span = item.GetSourceEndFrame() - item.GetSourceStartFrame()  # the end is included in some versions
    if rate is not None and abs(rate - fps) > 0.005:
        why = f"its media runs at {rate:g} and the timeline at {fps:g} frames per second"
    elif span not in (count - 1, count) or (frames is not None and whole != frames):
        why = (
            f"{span} frames of media fill {count} frames of the timeline, in {whole} of its {frames:g}"
            if frames
            else ""
        )
        why = why or f"{span} frames of media fill {count} frames of the timeline"
    if why:
        raise HostError(
            "host.unsupported",
            f"{item.GetName()} is retimed: {why}",
            value=item.GetName(),
            remedy="Frames would be repeated or left out. Use Render in Place on the clip, or reset its speed to "
            "100% (R), render, and retime the result.",
        )


def sequence_of(path: str) -> tuple[str, tuple[int, int]]:
    """Resolve's `sh010.[1001-1048].exr` as `sh010.%04d.exr` and its first and last number; "" for anything else."""
    match = _SEQUENCE.match(path)
    if not match:
        return "", (0, 0)
    first, last = match["first"], match["last"]
    token = f"%0{len(first)}d" if first.startswith("0") or len(first) == len(last) else "%d"
    return f"{match['stem']}{token}{match['suffix']}", (int(first), int(last))


def _why_not(path: str, pattern: str, files: tuple[int, int], frames: float | None) -> str:
    if not pattern:
        return f"{PureWindowsPath(path).name} is not an EXR or DPX sequence"
    if frames is not None and frames != files[1] - files[0] + 1:
        return "it is a subclip of its sequence"
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _size(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\s*x\s*(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _plain(space: str) -> str:
    """An input colourspace; "" where the clip only follows the project."""
    return "" if space.lower().startswith(("project", "same as", "no ", "none")) else space
