"""Frame ranges as text, for looking at and checking them; what a job does with a range the server decides."""

from __future__ import annotations

from host_bridge.errors import RequestError
from host_bridge.framerange import parse_frames
from host_bridge.paths import count_frames

MOST = 1_000_000


def frames_of(text: str) -> tuple[int, ...]:
    """The frames of `1001-1100x2,1200`, each once, in order; () for "".

    Raises RequestError (`request.frame_range`) for what is no range, and for more than a million frames.
    """
    if not text.strip():
        return ()
    if (count_frames(text) or 0) > MOST:
        raise RequestError(
            "request.frame_range", f"{text!r} names more than a million frames", value=text, remedy="Name fewer frames."
        )
    return parse_frames(text)
