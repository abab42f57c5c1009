"""What the fake Nuke's nodes make: real EXR files read, a few operations done, real EXR files written."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.plates.reader import read_plate
from tests.plate_files import PartSpec, write_exr

Picture = dict[str, NDArray[Any]]
_LONG = {"R": "rgba.red", "G": "rgba.green", "B": "rgba.blue", "A": "rgba.alpha"}
_SHORT = {long: short for short, long in _LONG.items()}
_LAYERS = {"all": "", "rgba": "rgba.", "rgb": "rgba.", "alpha": "rgba.alpha"}


def pull(node: Any, frame: int, view: str) -> Picture:
    """A node's picture at a frame, or RuntimeError as Nuke raises it."""
    kind, above = node.Class(), [node._input(i) for i in range(node._count())]
    disable = node._knobs.get("disable")
    if disable is not None and disable._value and kind != "Read":
        return _need(node, above, 0, frame, view)
    if kind == "Read":
        return _read(node, frame, view)
    if kind == "Input":
        outer = node._parent._input(node._knobs["number"]._value)
        if outer is None:
            raise RuntimeError(f"{node._parent._label()}: its input is not connected")
        return pull(outer, frame, view)
    if kind == "Group":
        return pull(next(n for n in node._children if n.Class() == "Output"), frame, view)
    if kind == "Constant":
        return {c: np.full((8, 8), 0.5, np.float32) for c in _SHORT}
    if kind == "Switch":
        return _need(node, above, node._knobs["which"]._value, frame, view)
    if kind == "TimeOffset":
        return _need(node, above, 0, frame - node._knobs["time_offset"]._value, view)
    found = _need(node, above, 0, frame, view)
    if kind == "Assert" and not node._knobs["expression"]._value:
        raise RuntimeError(f"{node._label()}: {node._knobs['message']._value}")
    if kind == "Grade":
        white = node._knobs["white"].getValueAt(frame)
        return {n: (p * white if n != "rgba.alpha" else p) for n, p in found.items()}
    if kind == "Copy":
        other = _need(node, above, 1, frame, view)
        source, goal = node._knobs["from0"]._value, node._knobs["to0"]._value
        if source not in other:
            raise RuntimeError(f"{node._label()}: no channel {source}")
        return {**found, goal: other[source]}
    return found


def write(node: Any, frame: int, view: str) -> None:
    """Write a Write's frame."""
    found = pull(node._input(0), frame, view)
    layer = _LAYERS[node._knobs["channels"]._value]
    dtype = np.float16 if node._knobs["datatype"]._value == "16 bit half" else np.float32
    channels = {_SHORT.get(n, n): np.ascontiguousarray(p, dtype) for n, p in found.items() if n.startswith(layer)}
    path = file_at(node._knobs["file"].evaluate(), frame, view)
    if not os.path.isdir(os.path.dirname(path)):
        raise RuntimeError(f"{node._label()}: {path}: No such directory")
    write_exr(path, PartSpec(channels))


def file_at(pattern: str, frame: int, view: str) -> str:
    """A file knob's text at a frame."""
    text = pattern.replace("%V", view).replace("%v", view[:1])
    text = re.sub(r"#+", lambda m: f"%0{len(m[0])}d", text)
    return text % frame if re.search(r"%0?\d*d", text) else text


def read_frame(node: Any, frame: int) -> int:
    """The file's frame that a Read shows at a frame of the script."""
    knobs = node._knobs
    first, last = knobs["first"]._value, knobs["last"]._value
    mode, text = knobs["frame_mode"]._value, knobs["frame"]._value
    if mode == "start at":
        frame = frame - int(text) + first
    elif mode == "offset":
        frame = frame - int(text or 0)
    elif text:
        frame = int(eval(text, {"frame": frame}))
    return int(min(max(frame, first), last))


def _read(node: Any, frame: int, view: str) -> Picture:
    path = file_at(node._knobs["file"].evaluate(), read_frame(node, frame), view)
    if not os.path.isfile(path):
        raise RuntimeError(f"{node._label()}: {path}: No such file or directory")
    channels = read_plate(path).parts[0].channels
    return {_LONG.get(n, n): np.asarray(p) for n, p in channels.items()}


def _need(node: Any, above: list[Any], index: int, frame: int, view: str) -> Picture:
    if index >= len(above) or above[index] is None:
        raise RuntimeError(f"{node._label()}: its input is not connected")
    return pull(above[index], frame, view)
