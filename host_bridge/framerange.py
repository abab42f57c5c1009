"""Frame ranges as text, in the notations of those who read them.

Faceplate, Nuke, fileseq and OpenCue write a step as `1001-1100x2`, Open Job Description as `1001-1100:2` (which to
fileseq is something else). A range is read once, and written for whoever gets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from host_bridge.errors import RequestError

_PART = re.compile(r"\s*(-?\d{1,9})(?:\s*-\s*(-?\d{1,9})(?:\s*([x:])\s*(\d{1,9}))?)?\s*\Z")


def parse_frames(text: str, *, step: str = "x") -> tuple[int, ...]:
    """The frames of `1001-1010x2,1020`, sorted, each once. `step` is the notation: "x", ":" or "x:" for either.

    Raises RequestError `request.frame_range`.
    """
    out: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part)
        first, last, sign, every = match.groups() if match else ("", None, None, None)
        if not match or (sign and sign not in step) or every == "0":
            raise RequestError(
                "request.frame_range",
                f"cannot read the frame range {text!r}",
                value=text[:200],
                remedy=f"Write ranges such as 1001-1100, 1001-1100{step[0]}2 or 1001,1005-1010.",
            )
        low, high = sorted((int(first), int(last if last is not None else first)))
        frames = range(low, high + 1, int(every or 1))
        out.update(frames if int(first) == low else range(int(first), low - 1, -int(every or 1)))
    return tuple(sorted(out))


def format_frames(frames: Iterable[int], *, step: str = "x") -> str:
    """Frames as a range: runs of equal distance, joined by commas; "" for none."""
    left = sorted(set(frames))
    parts: list[str] = []
    while left:
        count = 1
        every = left[1] - left[0] if len(left) > 1 else 1
        while count < len(left) and left[count] - left[count - 1] == every:
            count += 1
        if every > 1 and count < 3:
            count = 1
        first, last = left[0], left[count - 1]
        if count == 1:
            parts.append(str(first))
        else:
            parts.append(f"{first}-{last}" + (f"{step}{every}" if every > 1 else ""))
        left = left[count:]
    return ",".join(parts)
