"""Paths as text: mapping between hosts, and what in a sequence pattern is a placeholder.

Nothing here touches a disk. The server applies the mapping when it accepts a job; which frames exist is
decided by the plate reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# %04d %d #### @@@ $F $F4 ${F4} %V %v
_TOKEN = re.compile(r"%0?\d*d|#+|@+|\$F\d*|\$\{F\d*\}|%[Vv]")
_RANGE = re.compile(r"\s*(-?\d{1,9})(?:\s*-\s*(-?\d{1,9})(?:\s*[xy:]\s*(\d{1,9}))?)?\s*\Z")


def map_path(path: str, rules: Sequence[tuple[str, str]]) -> str:
    """`path` with the first rule applied that matches: a rule (from, to) replaces a whole leading folder.

    `Z:/shots` matches `Z:/shots/a` and `z:\\shots\\a`, not `Z:/shots2`; a drive letter's case does not matter, other
    letters' does. A path that no rule matches is returned as it is.
    """
    plain = path.replace("\\", "/") if _is_windows(path) else path
    for source, target in rules:
        start = source.replace("\\", "/").rstrip("/") if _is_windows(source) else source.rstrip("/")
        if _fold(plain) == _fold(start) or _fold(plain).startswith(_fold(start) + "/"):
            return (target.rstrip("/\\") + plain[len(start) :]) or "/"
    return path


def has_token(text: str) -> bool:
    """Whether a part of a path holds a frame or view placeholder."""
    return bool(_TOKEN.search(text))


def frame_path(pattern: str, frame: int, view: str = "") -> str:
    """The file of `frame` as far as the text tells: numbers are padded as written, `%V` is `view`, `%v` its letter."""

    def stands_for(match: re.Match[str]) -> str:
        token = match.group()
        if token in ("%V", "%v"):
            return (view if token == "%V" else view[:1]) or token
        return f"{frame:0{_width(token)}d}"

    return _TOKEN.sub(stands_for, pattern)


def token_regex(part: str) -> re.Pattern[str]:
    """What names a path component with placeholders can stand for (`%V` any word, the others digits)."""
    pattern, end = "", 0
    for match in _TOKEN.finditer(part):
        pattern += re.escape(part[end : match.start()])
        pattern += r"[^/\\]+" if match.group().lower() == "%v" else r"-?\d+"
        end = match.end()
    return re.compile(pattern + re.escape(part[end:]) + r"\Z")


def same_pattern(first: str, second: str) -> bool:
    """Whether two patterns name the same files: placeholders of any notation and the same width are equal."""
    return printf_pattern(first) == printf_pattern(second)


def printf_pattern(pattern: str) -> str:
    """The same pattern with every frame placeholder as `%04d`; views stay."""

    def number(match: re.Match[str]) -> str:
        token = match.group()
        if token.lower() == "%v":
            return token
        return f"%0{_width(token)}d"

    return _TOKEN.sub(number, pattern)


def count_frames(text: str) -> int | None:
    """How many frames a range such as `1001-1100x2,1200` names, overlaps counted twice; None if it cannot be read.

    Only a bound against absurd requests; which frames they are is the plate reader's to say.
    """
    total = 0
    for part in text.split(","):
        match = _RANGE.match(part)
        if not match:
            return None
        first, last, step = match.groups()
        if last is None:
            total += 1
            continue
        if step is not None and int(step) == 0:
            return None
        total += abs(int(last) - int(first)) // int(step or 1) + 1
    return total


def _is_windows(path: str) -> bool:
    return bool(re.match(r"[A-Za-z]:([\\/]|\Z)|\\\\", path))


def _fold(path: str) -> str:
    return path[:1].lower() + path[1:] if re.match(r"[A-Za-z]:", path) else path


def _width(token: str) -> int:
    """Digits a number placeholder pads to."""
    return len(token) if token[0] in "#@" else int(re.sub(r"\D", "", token) or 1)
