"""Sequences on disk as a Nuke node sees them: which files there are, and whether they have changed. Needs no Nuke."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

FRAME_TOKEN = re.compile(r"%0?(\d*)d|(#+)|(@+)")
_SAMPLED_FILES = 16


def missing_files(pattern: str, frames: Iterable[int], views: Sequence[str] = ()) -> list[str]:
    """Files of a pattern that are not on disk, in order."""
    paths = (at_frame(with_view(pattern, view), frame) for view in views or ("",) for frame in frames)
    return [path for path in paths if not os.path.isfile(path)]


def missing_frames(pattern: str, frames: Iterable[int], views: Sequence[str] = ()) -> tuple[int, ...]:
    """Frames of which a file (of any view) is not on disk."""
    return tuple(frame for frame in frames if missing_files(pattern, [frame], views))


def at_frame(pattern: str, frame: int) -> str:
    """A pattern's file for one frame; the last placeholder of the name counts, as in Nuke."""
    folder, name = os.path.split(pattern)
    found = list(FRAME_TOKEN.finditer(name))
    if not found:
        return pattern
    last = found[-1]
    width = int(last[1] or 1) if last[0].startswith("%") else len(last[0])
    return os.path.join(folder, name[: last.start()] + f"{frame:0{width}d}" + name[last.end() :])


def with_view(pattern: str, view: str) -> str:
    """A pattern for one view: `%V` is its name, `%v` its first letter."""
    return pattern.replace("%V", view).replace("%v", view[:1]) if view else pattern


def stamps(
    pattern: str, frames: Sequence[int], *, every: bool = False, views: Sequence[str] = ()
) -> list[list[int] | None]:
    """Size and time (whole seconds, which every file system keeps) of a sequence's files.

    Without `every` of at most 16 frames, evenly spaced: a comp reads many sequences.
    """
    if not every and len(frames) > _SAMPLED_FILES:
        step = (len(frames) - 1) / (_SAMPLED_FILES - 1)
        frames = [frames[round(i * step)] for i in range(_SAMPLED_FILES)]
    if not FRAME_TOKEN.search(os.path.basename(pattern)):
        frames = frames[:1]
    paths = [at_frame(with_view(pattern, view), frame) for view in views or ("",) for frame in frames]
    return [_stamp(path) for path in paths]


def _stamp(path: str) -> list[int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None  # a frame that is not there is part of the state: it may come
    return [info.st_size, int(info.st_mtime)]
