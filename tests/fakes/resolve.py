"""Resolve's scripting objects as far as Faceplate uses them, with signatures from the published stubs.

State is kept as Resolve keeps it: tracks and timelines count from 1, timelines from their start timecode, properties
and settings are strings, what a setting does not know is answered with True and not stored, and what cannot be placed
comes back as [None]. Renders copy real files. Names that begin with an underscore are the tests' own: how this
Resolve behaves (`_end_included`, `_shift`), and what is in it.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

_ids = itertools.count(1)


class Graph:
    def __init__(self, tools: list[str]) -> None:
        self._tools = tools

    def GetNumNodes(self) -> int:
        return 1

    def GetToolsInNode(self, nodeIndex: int) -> list[str]:
        assert nodeIndex == 1
        return list(self._tools)

    def GetLUT(self, nodeIndex: int) -> str:
        assert nodeIndex == 1
        return ""

    def ResetAllGrades(self) -> bool:
        self._tools.clear()
        return True


class MediaPoolItem:
    def __init__(self, name: str, **properties: str) -> None:
        self._id = f"media-{next(_ids)}"
        self._name = name
        self._properties = {k.replace("_", " "): v for k, v in properties.items()}
        self._spaces: tuple[str, ...] = ()  # the input colourspaces this project offers
        self._pictures: list[str] = []  # the files a render takes for its frames
        self._grade = ["Primaries"]  # its remote version

    def GetName(self) -> str:
        return self._name

    def GetUniqueId(self) -> str:
        return self._id

    def GetClipProperty(self, propertyName: str | None) -> Any:
        return dict(self._properties) if propertyName is None else self._properties.get(propertyName, "")

    def SetClipProperty(self, propertyName: str, propertyValue: Any) -> bool:
        if propertyName == "Input Color Space" and propertyValue not in self._spaces:
            return False
        assert isinstance(propertyValue, str)
        self._properties[propertyName] = propertyValue
        return True

    @property
    def _frames(self) -> int:
        return int(self._properties["Frames"])

    @property
    def _start(self) -> int:
        return int(self._properties["Start"])


class TimelineItem:
    def __init__(self, media: MediaPoolItem | None, start: int, duration: int, left: int, name: str = "") -> None:
        self._id = f"item-{next(_ids)}"
        self._media, self._start, self._duration, self._left = media, start, duration, left
        self._name = name or (media.GetName() if media else "Title")
        self._right = media._frames - left - duration if media and "Frames" in media._properties else 0
        self._span = duration  # frames of media
        self._enabled = True
        self._timeline: Timeline | None = None
        # Where a project says so, a new clip begins with the media's remote version.
        self._versions = {("Version 1", 1): media._grade if media else []}
        self._version = ("Version 1", 1)

    def GetName(self) -> str:
        return self._name

    def GetUniqueId(self) -> str:
        return self._id

    def GetStart(self, subframe_precision: bool) -> int:
        return self._start

    def GetEnd(self, subframe_precision: bool) -> int:
        return self._start + self._duration

    def GetDuration(self, subframe_precision: bool) -> int:
        return self._duration

    def GetLeftOffset(self, subframe_precision: bool) -> int:
        return self._left

    def GetRightOffset(self, subframe_precision: bool) -> int:
        return self._right

    def GetSourceStartFrame(self) -> int:
        return (self._media._start if self._media else 0) + self._left

    def GetSourceEndFrame(self) -> int:
        return self.GetSourceStartFrame() + self._span - 1

    def GetMediaPoolItem(self) -> MediaPoolItem | None:
        return self._media

    def GetClipEnabled(self) -> bool:
        return self._enabled

    def GetNodeGraph(self, layerIdx: int | None) -> Graph:
        assert layerIdx is None or layerIdx >= 1
        return Graph(self._versions[self._version])

    def AddVersion(self, versionName: str, versionType: int) -> bool:
        self._versions[(versionName, versionType)] = list(self._versions[self._version])
        return True

    def LoadVersionByName(self, versionName: str, versionType: int) -> bool:
        if (versionName, versionType) not in self._versions:
            return False
        self._version = (versionName, versionType)
        return True

    def GetCurrentVersion(self) -> dict[str, Any]:
        return {"versionName": self._version[0], "versionType": self._version[1]}

    def GetTrackTypeAndIndex(self) -> tuple[str, int]:
        assert self._timeline is not None
        return "video", next(i for i, t in enumerate(self._timeline._tracks, 1) if self in t)


class Timeline:
    def __init__(self, name: str, start: int = 86400, fps: str = "24") -> None:
        self._id = f"timeline-{next(_ids)}"
        self._name, self._start = name, start
        self._tracks: list[list[TimelineItem]] = [[]]
        self._locked: set[int] = set()
        self._disabled: set[int] = set()
        self._settings = {"timelineFrameRate": fps, "timelineDropFrameTimecode": "0", "useCustomSettings": "0"}
        self._known: dict[str, tuple[str, ...]] = {}  # values a setting takes; without an entry: any
        self._marks: dict[str, dict[str, int]] = {}
        self._timecode = "01:00:00:00"
        self._current: TimelineItem | None = None
        self._adds_tracks_at_the_top = False

    def _add(self, item: TimelineItem, track: int = 1) -> TimelineItem:
        while len(self._tracks) < track:
            self._tracks.append([])
        self._tracks[track - 1].append(item)
        item._timeline = self
        return item

    def GetName(self) -> str:
        return self._name

    def GetUniqueId(self) -> str:
        return self._id

    def GetStartFrame(self) -> int:
        return self._start

    def GetTrackCount(self, trackType: str) -> int:
        assert trackType == "video"
        return len(self._tracks)

    def GetItemListInTrack(self, trackType: str, index: int) -> list[TimelineItem]:
        assert 1 <= index <= len(self._tracks), index
        return list(self._tracks[index - 1])

    def GetIsTrackEnabled(self, trackType: str, trackIndex: int) -> bool:
        assert 1 <= trackIndex <= len(self._tracks)
        return trackIndex not in self._disabled

    def GetIsTrackLocked(self, trackType: str, trackIndex: int) -> bool:
        assert 1 <= trackIndex <= len(self._tracks)
        return trackIndex in self._locked

    def AddTrack(self, trackType: str, newTrackOptions: dict[str, Any]) -> bool:
        assert set(newTrackOptions) <= {"audiotype", "index"}
        index = newTrackOptions.get("index", 0)
        if self._adds_tracks_at_the_top or not 1 <= index <= len(self._tracks):
            index = len(self._tracks) + 1
        self._tracks.insert(index - 1, [])
        self._locked = {n + (n >= index) for n in self._locked}
        return True

    def DeleteTrack(self, trackType: str, trackIndex: int) -> bool:
        assert not self._tracks[trackIndex - 1], "a track with clips was deleted"
        del self._tracks[trackIndex - 1]
        self._locked = {n - (n > trackIndex) for n in self._locked}
        return True

    def DeleteClips(self, timelineItems: list[TimelineItem], Bool: bool) -> bool:
        for item in timelineItems:
            track = next(t for t in self._tracks if item in t)
            track.remove(item)
        return True

    def GetCurrentVideoItem(self) -> TimelineItem | None:
        return self._current

    def GetCurrentTimecode(self) -> str:
        return self._timecode

    def SetCurrentTimecode(self, timecode: str) -> bool:
        assert re.fullmatch(r"\d\d:\d\d:\d\d[:;]\d\d", timecode), timecode
        self._timecode = timecode
        return True

    def GetMarkInOut(self) -> dict[str, dict[str, int]]:
        return {k: dict(v) for k, v in self._marks.items()}

    def GetSetting(self, settingName: str) -> str:
        return self._settings.get(settingName, "")

    def SetSetting(self, settingName: str, settingValue: str) -> bool:
        assert isinstance(settingValue, str), settingValue
        own = settingName == "useCustomSettings" or self._settings["useCustomSettings"] == "1"
        if own and settingValue in self._known.get(settingName, (settingValue,)):
            self._settings[settingName] = settingValue
        return True


class Folder:
    def __init__(self, name: str) -> None:
        self._name = name
        self._clips: list[MediaPoolItem] = []
        self._folders: list[Folder] = []

    def GetName(self) -> str:
        return self._name

    def GetClipList(self) -> list[MediaPoolItem]:
        return list(self._clips)

    def GetSubFolderList(self) -> list[Folder]:
        return list(self._folders)


class MediaPool:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._root = Folder("Master")
        self._folder = self._root
        self._spaces: tuple[str, ...] = ("ACEScg", "ACES2065-1", "Rec.709 Linear", "ARRI LogC3")
        self._sequences_start = "1"  # what "Start" is for an imported sequence
        self._end_included = False  # older versions
        self._shift = 0  # a Resolve that places frames elsewhere than asked
        self._imports = True
        self._imports_once = False  # what is in the bin already is not imported again
        self._appends = True

    def GetRootFolder(self) -> Folder:
        return self._root

    def GetCurrentFolder(self) -> Folder:
        return self._folder

    def SetCurrentFolder(self, folder: Folder) -> bool:
        self._folder = folder
        return True

    def AddSubFolder(self, folder: Folder, name: str) -> Folder:
        made = Folder(name)
        folder._folders.append(made)
        self._folder = made  # Resolve opens it
        return made

    def DeleteFolders(self, subfolders: list[Folder]) -> bool:
        for folder in subfolders:
            assert not folder._clips, "a bin with clips was deleted"
            self._root._folders.remove(folder)
        return True

    def ImportMedia(self, clipInfo: list[dict[str, Any]]) -> list[MediaPoolItem]:
        out = []
        for info in clipInfo:
            assert set(info) == {"FilePath", "StartIndex", "EndIndex"}
            first, last = info["StartIndex"], info["EndIndex"]
            if not self._imports or not all(Path(info["FilePath"] % n).is_file() for n in range(first, last + 1)):
                continue
            made = sequence(info["FilePath"], first, last, start=self._sequences_start)
            if self._imports_once and made.GetName() in [c.GetName() for c in self._folder._clips]:
                continue
            out.append(made)
            made._spaces = self._spaces
            self._folder._clips.append(made)
        return out

    def DeleteClips(self, clips: list[MediaPoolItem]) -> bool:
        for folder in (self._root, *self._root._folders):
            folder._clips = [c for c in folder._clips if c not in clips]
        return True

    def AppendToTimeline(self, clipInfo: list[dict[str, Any]]) -> list[TimelineItem | None]:
        timeline = self._project._current
        assert timeline is not None
        out: list[TimelineItem | None] = []
        for info in clipInfo:
            item = self._item(info, info["recordFrame"] + self._shift)
            track = info["trackIndex"]
            assert info.get("mediaType") == 1, "without it the clip is black"
            taken = not 1 <= track <= len(timeline._tracks) or track in timeline._locked
            taken = taken or any(
                i._start < item._start + item._duration and item._start < i._start + i._duration
                for i in timeline._tracks[track - 1]
            )
            out.append(None if taken or not self._appends else timeline._add(item, track))
        return out

    def CreateTimelineFromClips(self, name: str, clipInfo: list[dict[str, Any]]) -> Timeline:
        timeline = Timeline(name)
        timeline._known = self._project._known
        timeline._add(self._item(clipInfo[0], timeline._start))
        self._project._timelines.append(timeline)
        self._project._current = timeline  # Resolve opens it
        return timeline

    def DeleteTimelines(self, timeline: list[Timeline]) -> bool:
        for one in timeline:
            assert one is not self._project._current, "Resolve does not delete the timeline that is open"
            self._project._timelines.remove(one)
        return True

    def _item(self, info: dict[str, Any], record: int) -> TimelineItem:
        media: MediaPoolItem = info["mediaPoolItem"]
        begin, end = info["startFrame"] - media._start, info["endFrame"] - media._start + self._end_included
        assert 0 <= begin < end, info
        end = min(end, media._frames)
        return TimelineItem(media, record, end - begin, begin)


class Project:
    def __init__(self, name: str = "Show") -> None:
        self._name = name
        self._pool = MediaPool(self)
        self._timelines: list[Timeline] = []
        self._current: Timeline | None = None
        self._settings = {"colorScienceMode": "davinciYRGBColorManagedv2"}
        self._known: dict[str, tuple[str, ...]] = {"colorSpaceOutput": ("Rec.709", "Rec.2020", "P3-D65")}
        self._formats = {"EXR": "exr", "QuickTime": "mov"}
        self._codecs = {
            "exr": {
                "RGB float (ZIP Compression)": "RGBFloatZIP",
                "RGB half (DWAA Compression)": "RGBHalfDWAA",
                "RGB half (ZIP Compression)": "RGBHalfZIP",
            }
        }
        self._format = {"format": "mov", "codec": "H264"}
        self._mode = 0
        self._render: dict[str, Any] = {"TargetDir": "/artist/deliveries"}
        self._presets: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._rendering: list[str] = []
        self._looks = 0  # at a render, before it is done
        self._loses = 0  # frames of a render
        self._rendered: list[dict[str, Any]] = []  # how each render was set up

    def GetName(self) -> str:
        return self._name

    def GetMediaPool(self) -> MediaPool:
        return self._pool

    def GetTimelineCount(self) -> int:
        return len(self._timelines)

    def GetTimelineByIndex(self, idx: int) -> Timeline:
        assert idx >= 1
        return self._timelines[idx - 1]

    def GetCurrentTimeline(self) -> Timeline | None:
        return self._current

    def SetCurrentTimeline(self, timeline: Timeline) -> bool:
        self._current = timeline
        return True

    def GetSetting(self, settingName: str) -> str:
        return self._settings.get(settingName, "")

    def GetRenderFormats(self) -> dict[str, str]:
        return dict(self._formats)

    def GetRenderCodecs(self, renderFormat: str) -> dict[str, str]:
        return dict(self._codecs.get(renderFormat, {}))

    def GetCurrentRenderFormatAndCodec(self) -> dict[str, str]:
        return dict(self._format)

    def SetCurrentRenderFormatAndCodec(self, format: str, codec: str) -> bool:
        if codec not in self._codecs.get(format, {"": "H264"}).values():
            return False
        self._format = {"format": format, "codec": codec}
        return True

    def GetCurrentRenderMode(self) -> int:
        return self._mode

    def SetCurrentRenderMode(self, renderMode: int) -> bool:
        self._mode = renderMode
        return True

    def SetRenderSettings(self, settings: dict[str, Any]) -> bool:
        self._render = {**self._render, **settings}
        return True

    def SaveAsNewRenderPreset(self, presetName: str) -> bool:
        self._presets[presetName] = (dict(self._format), dict(self._render))
        return True

    def LoadRenderPreset(self, presetName: str) -> bool:
        self._format, self._render = (dict(part) for part in self._presets[presetName])
        return True

    def DeleteRenderPreset(self, presetName: str) -> bool:
        del self._presets[presetName]
        return True

    def AddRenderJob(self) -> str:
        job = f"job-{next(_ids)}"
        self._jobs[job] = {"JobStatus": "Ready", "CompletionPercentage": 0, "timeline": self._current}
        return job

    def DeleteRenderJob(self, jobId: str) -> bool:
        del self._jobs[jobId]
        return True

    def StartRendering(self, jobIds: list[str], isInteractiveMode: bool = False) -> bool:
        self._rendering = list(jobIds)
        self._looks = 2
        return True

    def IsRenderingInProgress(self) -> bool:
        if not self._rendering:
            return False
        self._looks -= 1
        if self._looks <= 0:
            self._write(self._jobs[self._rendering.pop()])
        return bool(self._rendering)

    def StopRendering(self) -> None:
        self._rendering = []

    def GetRenderJobStatus(self, jobId: str) -> dict[str, Any]:
        return {k: v for k, v in self._jobs[jobId].items() if k != "timeline"}

    def _write(self, job: dict[str, Any]) -> None:
        timeline: Timeline = job["timeline"]
        (item,) = timeline._tracks[0]
        assert item._media is not None
        graded = bool(item._versions[item._version])
        self._rendered.append({**self._format, **self._render, **timeline._settings, "graded": graded})
        suffix = self._formats[next(k for k, v in self._formats.items() if v == self._format["format"])]
        for n in range(item._duration - self._loses):
            name = f"{self._render['CustomName']}{timeline._start + n:08d}.{suffix}"
            shutil.copyfile(item._media._pictures[item._left + n], Path(self._render["TargetDir"]) / name)
        job.update(JobStatus="Failed" if self._loses else "Complete", CompletionPercentage=100)
        if self._loses:
            job["Error"] = "disk full"


class ProjectManager:
    def __init__(self, project: Project | None) -> None:
        self._project = project

    def GetCurrentProject(self) -> Project | None:
        return self._project


class Resolve:
    def __init__(self, project: Project | None, version: str = "21.0.0") -> None:
        self._manager = ProjectManager(project)
        self._version = version
        self._page = "edit"

    def GetProjectManager(self) -> ProjectManager:
        return self._manager

    def GetProductName(self) -> str:
        return "DaVinci Resolve Studio"

    def GetVersion(self) -> list[Any]:
        return [int(n) for n in self._version.split(".")]

    def GetVersionString(self) -> str:
        return self._version

    def GetCurrentPage(self) -> str:
        return self._page

    def OpenPage(self, pageName: str) -> bool:
        self._page = pageName
        return True


def sequence(pattern: str, first: int, last: int, *, start: str = "1", **properties: str) -> MediaPoolItem:
    """An image sequence as the media pool shows it: `sh010.[1001-1010].exr`."""
    match = re.search(r"%0(\d+)d", pattern)
    assert match is not None, pattern
    path = pattern.replace(match.group(), f"[{first:0{int(match[1])}d}-{last:0{int(match[1])}d}]")
    found = {"Type": "Video", "FPS": "24", "Resolution": "144x144", "Online_Status": "Online", **properties}
    media = MediaPoolItem(Path(path).name, File_Path=path, Frames=str(last - first + 1), Start=start, **found)
    media._pictures = [pattern % n for n in range(first, last + 1)]
    return media


def snapshot(project: Project) -> str:
    """Everything that is the artist's, to be compared before and after."""
    return json.dumps(
        {
            "timelines": [
                [t._name, [[[i._id, i._start, i._duration, i._left] for i in k] for k in t._tracks], t._settings]
                for t in project._timelines
            ],
            "grades": [
                list(i._media._grade) for t in project._timelines for k in t._tracks for i in k if i._media is not None
            ],
            "current": project._current._name if project._current else None,
            "bins": [
                [f._name, [c._id for c in f._clips]] for f in (project._pool._root, *project._pool._root._folders)
            ],
            "bin": project._pool._folder._name,
            "render": [project._format, project._mode, project._render, list(project._presets), list(project._jobs)],
        },
        indent=1,
    )
