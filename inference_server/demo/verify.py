"""Promise 1, checked on finished files: outside the matte, and in every other channel and part, nothing changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence
from inference_server.plates.types import Part

_COLOUR = ("R", "G", "B")


@dataclass(frozen=True)
class Verdict:
    """Counts of stored colour samples over all frames, compared bit for bit."""

    outside: int
    outside_different: int
    inside: int
    inside_different: int
    rest_identical: bool


def verify(plate: str, output: str, mattes: str, frames: int) -> Verdict:
    """Compare every output frame with its plate under the matte it was composited with (`faceplate.composite`)."""
    sources, made, used = (find_sequence(p).files for p in (plate, output, mattes))
    counts = np.zeros(4, np.int64)
    same = len(made) == frames
    for frame, path in made.items():
        before, after = read_plate(sources[frame], frame), read_plate(path, frame)
        matte = read_plate(used[frame], frame).parts[0].channels["faceplate.composite"]
        outside = np.asarray(matte == 0)
        for name in _COLOUR:
            differs = _bits(before.parts[0].channels[name]) != _bits(after.parts[0].channels[name])
            counts += (outside.sum(), (differs & outside).sum(), (~outside).sum(), (differs & ~outside).sum())
        same &= len(before.parts) == len(after.parts)
        for i, (a, b) in enumerate(zip(before.parts, after.parts, strict=False)):
            same &= _same(a, b, _COLOUR if i == 0 else ())
    return Verdict(int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]), bool(same))


def _same(a: Part, b: Part, skip: tuple[str, ...]) -> bool:
    headers = [
        {k: v for k, v in p.header.items() if not k.startswith("faceplate:") and k not in ("channels", "chunkCount")}
        for p in (a, b)
    ]
    return (
        list(a.channels) == list(b.channels)
        and a.data_window == b.data_window
        and a.display_window == b.display_window
        and all(headers[1].get(k) == v for k, v in headers[0].items())
        and all(np.array_equal(_bits(a.channels[n]), _bits(b.channels[n])) for n in a.channels if n not in skip)
    )


def _bits(samples: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(samples).view(np.uint16 if samples.dtype.itemsize == 2 else np.uint32)
