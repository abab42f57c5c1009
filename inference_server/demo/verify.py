"""Promise 1, checked on finished files: outside the matte, and in every other channel and part, nothing changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence
from inference_server.plates.types import Part, PlateFrame
from inference_server.prefetch import prefetch

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

    def compare(frame: int) -> tuple[NDArray[np.int64], bool]:
        return _compare(
            read_plate(sources[frame], frame), read_plate(made[frame], frame), read_plate(used[frame], frame)
        )

    counts, same = np.zeros(4, np.int64), len(made) == frames
    with ThreadPoolExecutor(2, thread_name_prefix="faceplate-verify") as pool:
        for _, compared in prefetch(pool, compare, list(made), 2):
            found, identical = compared.result()
            counts, same = counts + found, same and identical
    return Verdict(int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]), same)


def _compare(before: PlateFrame, after: PlateFrame, mattes: PlateFrame) -> tuple[NDArray[np.int64], bool]:
    """The four counts of one frame, and whether everything but the colour is the same."""
    counts = np.zeros(4, np.int64)
    outside = np.asarray(mattes.parts[0].channels["faceplate.composite"] == 0)
    for name in _COLOUR:
        differs = _bits(before.parts[0].channels[name]) != _bits(after.parts[0].channels[name])
        counts += (outside.sum(), (differs & outside).sum(), (~outside).sum(), (differs & ~outside).sum())
    same = len(before.parts) == len(after.parts)
    for i, (a, b) in enumerate(zip(before.parts, after.parts, strict=False)):
        same &= _same(a, b, _COLOUR if i == 0 else ())
    return counts, bool(same)


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
