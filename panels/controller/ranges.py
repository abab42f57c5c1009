"""Frame ranges as text, for looking at and checking them; what a job does with a range the server decides."""

from __future__ import annotations

import re

from host_bridge.errors import RequestError
from host_bridge.paths import count_frames

MOST = 1_000_000
_PART = re.compile(r"\s*(-?\d+)(?:\s*-\s*(-?\d+)(?:\s*[xy:]\s*(\d+))?)?\s*\Z")


def frames_of(text: str) -> tuple[int, ...]:
    """The frames of `1001-1100x2,1200`, each once, in order; () for "".

    Raises RequestError (`request.frame_range`) for what is no range, and for more than a million frames.
    """
    if not text.strip():
        return ()
    count = count_frames(text)
    if count is None or count > MOST:
        raise RequestError(
            "request.frame_range",
            f"cannot read the frame range {text!r}",
            value=text,
            remedy="Write it as 1001-1100, 1001-1100x2 or 1001,1005-1010.",
        )
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part)
        assert match is not None  # `count_frames` has read it
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        step = int(match[3] or 1)
        found.update(range(first, last + 1, step) if last >= first else range(first, last - 1, -step))
    return tuple(sorted(found))
