"""Reads 2-D tracks that Nuke exports, as keys for repairs.

Understood are a Tracker node as text (a .nk file or a node copied from the graph: every pair of `{curve ...}` of a
track) and the curve editor's "Export ASCII" (lines of frame, x, y). Nuke counts y upward from the lower edge of the
format; keys come out in Faceplate's plate pixels, y downward from the upper edge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from host_bridge.errors import ShotError

Keys = dict[int, tuple[float, float]]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PAIR = re.compile(r'(?:"(?P<quoted>[^"]*)"|(?P<bare>\w+))\s*\{?\s*\{curve\s(?P<x>[^{}]*)\}\s*\{curve\s(?P<y>[^{}]*)\}')
_ROW = re.compile(rf"^\s*({_NUMBER})[\s,;]+({_NUMBER})[\s,;]+({_NUMBER})\s*$")


def read_nuke_tracks(text: str, display_height: int) -> dict[str, Keys]:
    """Tracks by name, each frame -> (x, y) in plate pixels; frames where only one coordinate has a key are left out.

    A curve file has one track, named "curve". `shot.edit` when the text holds no track.
    """
    found: dict[str, Keys] = {}
    for match in _PAIR.finditer(text):
        xs, ys = curve_values(match["x"]), curve_values(match["y"])
        keys = {frame: (xs[frame], display_height - ys[frame]) for frame in sorted(xs.keys() & ys.keys())}
        if keys:
            found.setdefault(match["quoted"] or match["bare"], keys)
    if not found:
        rows = [_ROW.match(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if rows and all(rows):
            found["curve"] = {
                round(float(row[1])): (float(row[2]), display_height - float(row[3])) for row in rows if row
            }
    if not found:
        raise ShotError(
            "shot.edit",
            "the file holds no Nuke track",
            remedy="Export a Tracker node (copy it into a text file) or a curve as ASCII with frame, x and y.",
            value=text[:80],
        )
    return found


def curve_values(curve: str) -> Mapping[int, float]:
    """The keys of the inside of a `{curve ...}`: `x1001 5.5 6.25 x1010 7` sets frames 1001, 1002 and 1010.

    Interpolation marks and slopes are skipped; keys between whole frames are left out.
    """
    out: dict[int, float] = {}
    frame = 1.0
    for token in curve.split():
        if token[0] == "x" and re.fullmatch(_NUMBER, token[1:]):
            frame = float(token[1:])
        elif re.fullmatch(_NUMBER, token):
            if frame == int(frame):
                out[int(frame)] = float(token)
            frame += 1
    return out
