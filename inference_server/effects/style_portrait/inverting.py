"""Every frame of a shot to its code: aligned crops of the generator's size, read in batches, steadied on request."""

from __future__ import annotations

from collections.abc import Generator as Steps
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_server.effects.base import ShotView
from inference_server.effects.look.filters import resize
from inference_server.effects.style_portrait import memory, placing
from inference_server.effects.style_portrait.interfaces import Encoder
from inference_server.effects.vtoonify.networks import exact
from inference_server.runs import Progress, RunEvent

_TAPS = np.array([0.25, 0.75, 1.0, 0.75, 0.25])  # of `light` (stylegan3-editing, as its authors publish it)


def inverted(
    shot: ShotView,
    squares: Mapping[int, placing.Placing],
    encoder: Encoder,
    size: int,
    batch: int,
    device: torch.device,
    budget: int,
) -> Steps[RunEvent, None, NDArray[np.float32]]:
    """The code of every frame [F, L, D], in the order of `squares`.

    size    side of the aligned crop, the generator's
    batch   faces read at once, fewer where the device's memory runs out
    budget  bytes of the device that may be used, for the error

    Raises JobError `job.out_of_memory` where not even one face fits.
    """
    read = shot.inputs(tuple(squares), lambda face: placing.window_of(squares[face.frame].aligned))
    codes: list[Tensor] = []
    waiting: list[Tensor] = []
    for done, face in enumerate(read, 1):
        square = squares[face.face.frame].aligned
        crop = placing.cut(face.picture.to(device, torch.float32), face.region, square, size)
        waiting.append(resize(crop.clamp(0, 1), encoder.size, encoder.size) * 2 - 1)
        if len(waiting) == batch or done == len(squares):
            codes.extend(part.cpu() for part in _read(encoder, torch.stack(waiting), budget))
            waiting.clear()
        yield Progress("prepare", done, len(squares))
    return np.ascontiguousarray(torch.cat(codes).numpy(), np.float32)


def _read(encoder: Encoder, faces: Tensor, budget: int) -> Iterator[Tensor]:
    """Codes of faces, in fewer at a time where the device's memory runs out."""
    try:
        with exact():
            yield encoder(faces)
        return
    except torch.OutOfMemoryError as error:
        if len(faces) == 1:
            raise memory.too_little("reading", budget) from error
    torch.cuda.empty_cache()
    for half in faces.chunk(2):
        yield from _read(encoder, half, budget)


def smoothed(codes: NDArray[np.float32], frames: Sequence[int]) -> NDArray[np.float32]:
    """Codes [F, L, D] averaged with two neighbours on either side; frames that are farther away do not count."""
    at = np.asarray(frames)
    step = int(np.diff(at).min()) if len(at) > 1 else 1
    out = np.zeros_like(codes, np.float64)
    total = np.zeros(len(codes))
    for k, weight in enumerate(_TAPS, -2):
        here = np.arange(len(codes))
        there = here + k
        inside = (there >= 0) & (there < len(codes))
        inside[inside] &= at[there[inside]] - at[here[inside]] == k * step
        out[inside] += weight * codes[there[inside]]
        total[inside] += weight
    return np.asarray(out / total[:, None, None], np.float32)
