"""A Resolve with a project for tests: one timeline at 86400, one sequence of ten small files, one clip of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from host_bridge.hosts.resolve import ResolveHost
from tests.fakes import resolve as fake

if TYPE_CHECKING:
    import fusionscript

FIRST, LAST = 1001, 1010
RECORD, LEFT, COUNT = 86420, 3, 5  # the clip shows 1004 to 1008


@dataclass
class Suite:
    """What an artist has open."""

    resolve: fake.Resolve
    project: fake.Project
    timeline: fake.Timeline
    media: fake.MediaPoolItem
    item: fake.TimelineItem
    folder: Path

    def root(self) -> fusionscript.Resolve:
        """As Faceplate's code takes it."""
        return cast("fusionscript.Resolve", self.resolve)

    def host(self) -> ResolveHost:
        return ResolveHost(self.root)

    def clip(self, media: fake.MediaPoolItem | None, duration: int = COUNT, left: int = LEFT) -> fake.TimelineItem:
        """Put another clip in the place of the clip."""
        item = fake.TimelineItem(media, RECORD, duration, left)
        self.timeline._tracks[0] = []
        self.timeline._current = self.item = self.timeline._add(item)
        return item

    def movie(self) -> fake.MediaPoolItem:
        """A clip whose media is no sequence; a render takes its frames from the sequence's files."""
        path = self.folder / "sh010.mov"
        path.write_bytes(b"moov")
        found = fake.MediaPoolItem(
            "sh010.mov",
            File_Path=str(path),
            Type="Video + Audio",
            Frames=self.media._properties["Frames"],
            Start="0",
            FPS="24",
        )
        found._properties |= {"Resolution": "144x144", "Online Status": "Online"}
        found._pictures = self.media._pictures
        self.clip(found, self.item._duration, self.item._left)
        return found

    def result(self, first: int = 1004, last: int = 1008) -> str:
        """Finished frames of a job."""
        folder = self.folder / "out"
        folder.mkdir(exist_ok=True)
        for frame in range(first, last + 1):
            (folder / f"sh010_toon.{frame:04d}.exr").write_bytes(b"exr")
        return str(folder / "sh010_toon.%04d.exr")


def open_suite(
    pattern: str, *, input_space: str = "ACEScg", last: int = LAST, left: int = LEFT, count: int = COUNT
) -> Suite:
    """The project over the sequence at `pattern`, FIRST to `last`."""
    project = fake.Project()
    media = fake.sequence(pattern, FIRST, last, Input_Color_Space=input_space)
    project._pool._root._clips.append(media)
    timeline = fake.Timeline("Edit v1")
    timeline._timecode = "01:00:00:21"
    item = timeline._add(fake.TimelineItem(media, RECORD, count, left))
    timeline._current = item
    project._timelines.append(timeline)
    project._current = timeline
    return Suite(fake.Resolve(project), project, timeline, media, item, Path(pattern).parent)
