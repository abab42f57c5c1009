"""Image sequences: patterns as artists write them, frame ranges, what is on disk, and what to do about holes.

Patterns: `%04d` and `%d`, `$F4` and `$F`, `####` (one digit each), `@@@@` (the same), with `%V` (view name) and `%v`
(its first letter) anywhere in the path; a path without any is a single picture. The first kind present, in that
order, is the frame number and the others are plain text, so `cam#2.%04d.exr` works. The number stands in the file's
name, once. Padding is a minimum: frame 10000 of `%04d` has five digits, and a sign counts as a digit (as printf does).

Ranges are read and written by fileseq: `1001-1100`, `1001-1100x2`, `1001,1005-1010`; negative frames are allowed.
Frame sets are sorted and without repeats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fileseq.exceptions import MaxSizeException, ParseException
from fileseq.frameset import FrameSet

from host_bridge.errors import JobError, PlateError, RequestError, unknown_name
from host_bridge.jobspec import MISSING_POLICIES

MAX_FRAMES = 1_000_000
_NUMBER_KINDS = (
    re.compile(r"(?<!%)%(?:0(?P<width>\d{1,2}))?d"),
    re.compile(r"\$F(?P<width>\d?)(?![A-Za-z])"),
    re.compile(r"(?P<run>#+)"),
    re.compile(r"(?P<run>@+)"),
)
_VIEW = re.compile(r"(?<!%)%[Vv]")
_RANGE = re.compile(r"-?\d+(-(-?\d+)(x\d+)?)?(,-?\d+(-(-?\d+)(x\d+)?)?)*")
_STILL_NUMBER = re.compile(r"(?<=[._])(-?\d+)(?=\.[^.]+$)")


@dataclass(frozen=True)
class Pattern:
    """A pattern whose view is settled: `folder`, then `prefix` NUMBER `suffix`. `width` None means a single picture.

    For a single picture `prefix` is the whole name and `still` its frame: the number before the extension, or 1.
    """

    text: str
    folder: str
    prefix: str
    suffix: str = ""
    width: int | None = None
    still: int = 1
    view: str = ""

    @property
    def is_sequence(self) -> bool:
        return self.width is not None

    def path(self, frame: int) -> str:
        """The file of `frame`; a single picture is the same file at every frame."""
        number = "" if self.width is None else f"{frame:0{max(1, self.width)}d}"
        return os.path.join(self.folder, f"{self.prefix}{number}{self.suffix}")

    def frame_of(self, name: str) -> int | None:
        """The frame number in a file name, or None where the name is not of this pattern."""
        if self.width is None:
            return self.still if name == self.prefix else None
        end = len(name) - len(self.suffix)
        if not (name.startswith(self.prefix) and name.endswith(self.suffix) and end > len(self.prefix)):
            return None
        digits = name[len(self.prefix) : end]
        if not re.fullmatch(r"-?[0-9]+", digits):
            return None
        # As printf pads, or (fileseq, some renderers) with the sign outside the padding.
        number = int(digits)
        width = max(1, self.width)
        padded = {f"{number:0{width}d}", f"{'-' if number < 0 else ''}{abs(number):0{width}d}"}
        return number if digits in padded else None


def views_on_disk(text: str) -> list[str]:
    """Names that the first `%V` of `text` stands for on disk; what follows it is checked only within its folder."""
    found = _VIEW.search(text)
    if found is None or found.group() == "%v":
        return []
    cut = text.rfind("/", 0, found.start()) + 1
    after = text.find("/", found.end())
    before_name = text[cut : found.start()]
    if after < 0:
        rest, expression = "", _name_expression(text[found.end() :])
    else:
        rest, expression = text[after:], re.escape(text[found.end() : after])
    views = set()
    for name in _names(text[:cut] or "."):
        match = re.fullmatch(re.escape(before_name) + r"(?P<view>[A-Za-z][A-Za-z0-9_]*?)" + expression, name)
        if match and (not rest or os.path.isdir(os.path.join(text[:cut], name))):
            views.add(match["view"])
    return sorted(views)


def _name_expression(rest: str) -> str:
    for kind in _NUMBER_KINDS:
        found = kind.search(rest)
        if found:
            return re.escape(rest[: found.start()]) + r"-?\d+" + re.escape(rest[found.end() :])
    return re.escape(rest)


def with_view(text: str, view: str = "") -> tuple[str, str]:
    """Put a view's name into `%V` and its first letter into `%v`; returns the text and the view used.

    `view` "" means the first view on disk in alphabetical order. Raises PlateError `plate.layer` where the pattern has
    views and none is named or found.
    """
    text = text.replace(os.sep, "/") if os.sep != "/" else text
    if not _VIEW.search(text):
        return text, ""
    if not view:
        views = views_on_disk(text)
        if not views:
            raise PlateError(
                "plate.layer",
                "the pattern has %V or %v and no view on disk fits it",
                value=text,
                path=text,
                remedy="Name the view (--view left), or check the path.",
            )
        view = views[0]
    return _VIEW.sub(lambda token: view if token.group() == "%V" else view[0], text), view


def parse_pattern(text: str, view: str = "") -> Pattern:
    """Read a pattern. Raises PlateError `plate.pattern` (or `plate.layer`, see `with_view`)."""

    def wrong(reason: str, remedy: str) -> PlateError:
        return PlateError("plate.pattern", f"the pattern {reason}", value=text, path=text or None, remedy=remedy)

    if not text or "\0" in text:
        raise wrong("is empty or has a zero byte", "Write a path such as shots/sh010.%04d.exr.")
    named, used_view = with_view(text, view)
    folder, name = os.path.split(named)
    if not name:
        raise wrong("names a folder, not files", "Add the file name, for example sh010.%04d.exr.")
    for kind in _NUMBER_KINDS:
        if kind.search(folder):
            raise wrong("has a frame number in a folder's name", "Put the frame number into the file name only.")
        found = list(kind.finditer(name))
        if len(found) > 1:
            raise wrong("has more than one frame number", "Keep one of them and write the others out.")
        if found:
            groups = found[0].groupdict()
            width = len(groups["run"]) if "run" in groups else int(groups["width"] or 0)
            prefix, suffix = name[: found[0].start()], name[found[0].end() :]
            return Pattern(text, folder, _literal(prefix), _literal(suffix), width, view=used_view)
    number = _STILL_NUMBER.search(name)
    still = int(number.group()) if number and len(number.group()) < 10 else 1
    return Pattern(text, folder, _literal(name), still=still, view=used_view)


def _literal(text: str) -> str:
    return text.replace("%%", "%")


def parse_frames(text: str) -> tuple[int, ...]:
    """A range as frame numbers, sorted. Raises RequestError `request.frame_range`."""

    def wrong(reason: str) -> RequestError:
        return RequestError(
            "request.frame_range",
            f"the frame range {text!r} {reason}",
            value=text,
            remedy="Write it like 1001-1100, 1001-1100x2 or 1001,1005-1010.",
        )

    compact = re.sub(r"\s+", "", text)
    if not _RANGE.fullmatch(compact):
        raise wrong("cannot be read" if compact else "is empty")
    try:
        frames = FrameSet(compact)
        if len(frames) > MAX_FRAMES:
            raise wrong(f"has more than {MAX_FRAMES} frames")
        return tuple(sorted({int(frame) for frame in frames}))
    except (ParseException, MaxSizeException, ValueError) as error:
        raise wrong(f"cannot be read: {str(error).splitlines()[0]}") from error


def format_frames(frames: Iterable[int]) -> str:
    """The shortest usual text of a set of frames (`1001-1100x2`); "" for none. `parse_frames` reads it back."""
    numbers = sorted(set(frames))
    return str(FrameSet.from_iterable(numbers, sort=True).frange) if numbers else ""


@dataclass(frozen=True)
class Sequence:
    """A pattern and the files it has on disk, by frame, in order."""

    pattern: Pattern
    files: Mapping[int, str]

    @property
    def frames(self) -> tuple[int, ...]:
        return tuple(self.files)


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError as error:
        raise PlateError(
            "plate.no_frames",
            "the folder does not exist",
            path=folder,
            remedy="Check the path, and path mapping if the server is another machine.",
        ) from error
    except NotADirectoryError as error:
        raise PlateError(
            "plate.no_frames", "the folder is a file", path=folder, remedy="Check the path of the pattern."
        ) from error
    except OSError as error:
        raise PlateError(
            "plate.permission",
            f"the folder cannot be listed: {error.strerror}",
            value=error.errno,
            path=folder,
            remedy="Give the server's user the right to read it.",
        ) from error


def find_sequence(text: str, view: str = "") -> Sequence:
    """List a pattern's files, sorted by frame.

    Raises PlateError `plate.pattern`, `plate.layer`, `plate.permission`, or `plate.no_frames`. A frame that is there
    under two paddings is the one printf would write.
    """
    pattern = parse_pattern(text, view)
    found: dict[int, str] = {}
    for name in _names(pattern.folder):
        frame = pattern.frame_of(name)
        if frame is None:
            continue
        path = os.path.join(pattern.folder, name)
        if frame not in found or path == pattern.path(frame):
            found[frame] = path
    if not found:
        raise PlateError(
            "plate.no_frames",
            "no file on disk fits the pattern" if pattern.is_sequence else "the file does not exist",
            value=text,
            path=text,
            remedy=_nearest_names(pattern),
        )
    return Sequence(pattern, dict(sorted(found.items())))


def _nearest_names(pattern: Pattern) -> str:
    extension = os.path.splitext(f"x{pattern.suffix or pattern.prefix}")[1].lower()
    alike = sorted(n for n in _names(pattern.folder) if n.lower().endswith(extension) and not n.startswith("."))
    if not alike:
        return f"The folder has no {extension or 'such'} files: check the path."
    return f"The folder has {len(alike)} {extension} files, the first is {alike[0]}: check name and padding."


@dataclass(frozen=True)
class InBetween:
    """Where a frame lies between two of the plate: the later one's file and number, and its share, 0..1."""

    path: str
    source: int
    share: float


@dataclass(frozen=True)
class PlannedFrame:
    """One frame to make. `path` is the file to read, `source` the frame that file is; `error` where it is missing.

    `between`: the frame is one of a retimed shot (see retiming), whose analysis is numbered as it is.
    """

    frame: int
    path: str
    source: int
    error: PlateError | None = None
    between: InBetween | None = None

    @property
    def held(self) -> bool:
        """Whether another frame's file stands in for this one."""
        return self.error is None and self.source != self.frame and self.between is None

    @property
    def made(self) -> bool:
        """Whether no file is this frame: it is interpolated."""
        return self.between is not None and self.between.share > 0

    @property
    def own(self) -> bool:
        """Whether the file is just this frame."""
        return self.source == self.frame and not self.made

    @property
    def analysed_as(self) -> int:
        """The number under which its faces are known."""
        return self.source if self.between is None else self.frame


@dataclass(frozen=True)
class FramePlan:
    """The frames of a run in order, and those that are not on disk (under any policy)."""

    frames: tuple[PlannedFrame, ...]
    missing: tuple[int, ...]

    def raise_missing(self) -> None:
        """Raise the first missing frame's error, if the policy made any."""
        for planned in self.frames:
            if planned.error is not None:
                raise planned.error


def plan_frames(sequence: Sequence, frames: str = "", missing: str = "error") -> FramePlan:
    """Resolve a range against what is on disk. "" = every frame on disk.

    `missing` is `error` (the frame is planned with its error), `hold` (the nearest earlier file, else the nearest
    later one) or `skip` (left out). A single picture answers every frame under `hold`.
    Raises RequestError `request.frame_range`, or PlateError `plate.no_frames` if nothing remains.
    """
    if missing not in MISSING_POLICIES:
        raise unknown_name("request.unknown_name", "missing-frame policy", missing, list(MISSING_POLICIES))
    wanted = parse_frames(frames) if frames.strip() else sequence.frames
    have = sequence.frames
    planned: list[PlannedFrame] = []
    absent = tuple(frame for frame in wanted if frame not in sequence.files)
    for frame in wanted:
        if frame in sequence.files:
            planned.append(PlannedFrame(frame, sequence.files[frame], frame))
        elif missing == "hold":
            source = max((f for f in have if f < frame), default=have[0])
            planned.append(PlannedFrame(frame, sequence.files[source], source))
        elif missing == "error":
            planned.append(PlannedFrame(frame, "", frame, missing_frame(sequence, frame, absent)))
    if not planned:
        raise PlateError(
            "plate.no_frames",
            f"none of the frames {frames} is on disk",
            value=frames,
            path=sequence.pattern.text,
            remedy=f"On disk: {format_frames(have)}.",
        )
    return FramePlan(tuple(planned), absent)


def missing_frame(sequence: Sequence, frame: int, absent: tuple[int, ...]) -> PlateError:
    """`plate.missing_frame`, with all that are `absent`."""
    return PlateError(
        "plate.missing_frame",
        f"the frame is not on disk ({len(absent)} missing: {format_frames(absent)})",
        value=format_frames(absent),
        frame=frame,
        path=sequence.pattern.path(frame),
        remedy="Render it, or choose --missing hold or skip; --missing interpolate makes it of its neighbours.",
    )


def refuse_overwriting(plan: FramePlan, output: Pattern, frames: Iterable[int], also: Iterable[str] = ()) -> None:
    """See that no output frame is an input file, by whatever name, and that each frame has its own file.

    `also` are other files that are read (masks, the style image). Raises JobError `job.output_is_input`, or PlateError
    `plate.pattern` where several frames would share one output file.
    """
    numbers = sorted(set(frames))
    if len(numbers) > 1 and not output.is_sequence:
        raise PlateError(
            "plate.pattern",
            f"{len(numbers)} frames would be written to one file",
            value=output.text,
            path=output.text,
            remedy="Put a frame number into the output, for example out.%04d.exr.",
        )
    inputs = InputFiles([p.path for p in plan.frames if p.path] + list(also))
    for number in numbers:
        inputs.refuse(output.path(number), number)


class InputFiles:
    """A set of files that must not be written, known by device and inode, and by real path where they are not there."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: set[str] = set()
        self._nodes: set[tuple[int, int]] = set()
        for path in set(paths):
            self._paths.add(os.path.realpath(path))
            node = _node(path)
            if node is not None:
                self._nodes.add(node)

    def refuse(self, path: str, frame: int | None = None) -> None:
        """Raise JobError `job.output_is_input` if `path` is one of them (also by link or relative path)."""
        if os.path.realpath(path) in self._paths or _node(path) in self._nodes:
            raise JobError(
                "job.output_is_input",
                "the output would overwrite an input file",
                value=path,
                frame=frame,
                path=path,
                remedy="Write to another folder or another name.",
            )


def _node(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None  # not there (or not visible): nothing that could be overwritten under this name
    return (status.st_dev, status.st_ino) if status.st_ino else None
