"""What a network learns of one shot: painted frames, the frames between them, and how they move, in one file.

`inference_server.keyframes` makes the file from plate and paint; the two-stage recipes learn from it through
`PaintedPairs` and `ShotWindows`. Everything lies in the network's own picture of the shot (crop and working size are
settled), display-encoded sRGB.

With one or two painted frames none can be kept aside. What is kept aside instead is the paint carried along the flow
to a few frames near by (`CarriedPairs`): frames that no step sees, whose answer is known where the flow holds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.files import write_atomic
from inference_server.training.recipes.two_stage_data import Pair, Window

NAME = "shot.safetensors"
MAINLY = 64  # of 255: what counts less is learned from along with the rest, and not looked for
BORDER = 24  # pixels around what counts that are learned from, too: the network looks beyond a matte's edge


@dataclass(frozen=True)
class KeyframeData:
    """The file's content. F frames of the shot in order, P painted ones, N that the paint is carried to.

    frames       [F, 3, H, W] uint8
    numbers      [F] int64, frame numbers
    matte        [F, H, W] uint8, what counts of each frame
    flow         [F, 2, H, W] float16, pixels (x, y): where each pixel was in the frame before; zero where `first`
    valid        [F, H, W] uint8, 1 where the flow holds
    first        [F] uint8, 1 where the frame before is not there
    painted      [P] int64, numbers of the painted frames; each is one of `numbers`
    paint        [P, 3, H, W] float16, 0..1
    weight       [P, H, W] uint8, how much each pixel of the paint counts
    carried_to   [N] int64, numbers; each is one of `numbers`
    carried      [N, 3, H, W] uint8
    holds        [N, H, W] uint8, how much each pixel of the carried paint counts
    """

    frames: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    matte: NDArray[np.uint8]
    flow: NDArray[np.float16]
    valid: NDArray[np.uint8]
    first: NDArray[np.uint8]
    painted: NDArray[np.int64]
    paint: NDArray[np.float16]
    weight: NDArray[np.uint8]
    carried_to: NDArray[np.int64]
    carried: NDArray[np.uint8]
    holds: NDArray[np.uint8]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}
        write_atomic(folder / NAME, lambda path: save_file(arrays, path))

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over everything."""
        digest = hashlib.sha256()
        for name in self.__dataclass_fields__:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:12]

    @property
    def longest_run(self) -> int:
        """Frames that follow one another, at most."""
        starts = [*np.nonzero(self.first)[0].tolist(), len(self.first)]
        return max((b - a for a, b in pairwise(starts)), default=0)

    def at(self, number: int) -> int:
        """Where the frame of that number lies."""
        return int(np.nonzero(self.numbers == number)[0][0])

    def picture(self, place: int) -> Tensor:
        """A frame [3, H, W] in -1..1."""
        return _picture(self.frames[place])

    def box(self, counts: NDArray[np.uint8] | NDArray[np.bool_], least: int) -> tuple[slice, slice]:
        """Rows and columns around what counts [H, W], with a border, `least` long where the picture is."""
        height, width = counts.shape
        rows, columns = np.nonzero(counts.any(axis=1))[0], np.nonzero(counts.any(axis=0))[0]
        if not len(rows):
            return slice(0, height), slice(0, width)
        return _span(rows, height, least), _span(columns, width, least)


def read_data(folder: Path) -> KeyframeData:
    """What `KeyframeData.write` put there; TrainingError `training.data` where it cannot be used."""
    path = folder / NAME
    try:
        return KeyframeData(**load_file(path))
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise TrainingError(
            "training.data",
            f"{path} cannot be used: {error}",
            remedy="Give the command again with --in and --painted, in a new folder.",
            value=str(path),
        ) from error


@dataclass(frozen=True)
class PaintedPairs:
    """The painted frames (a PairSource), cut to what counts; `least` is the side of the pieces learned from."""

    data: KeyframeData
    least: int

    def size(self) -> int:
        return len(self.data.painted)

    def pair(self, item: int, draw: Draw) -> Pair:
        data = self.data
        rows, columns = data.box(data.weight[item] > MAINLY, self.least)
        x = data.picture(data.at(int(data.painted[item])))[:, rows, columns]
        y = torch.from_numpy(data.paint[item][:, rows, columns].astype(np.float32)) * 2 - 1
        return Pair(x, y, torch.ones(1), _plane(data.weight[item][rows, columns]))


@dataclass(frozen=True)
class CarriedPairs:
    """Frames near painted ones with the paint carried to them (a PairSource), to measure by, never to learn from."""

    data: KeyframeData
    least: int

    def size(self) -> int:
        return len(self.data.carried_to)

    def pair(self, item: int, draw: Draw) -> Pair:
        data = self.data
        rows, columns = data.box(data.holds[item], self.least)
        x = data.picture(data.at(int(data.carried_to[item])))[:, rows, columns]
        y = _picture(data.carried[item])[:, rows, columns]
        return Pair(x, y, torch.ones(1), _plane(data.holds[item][rows, columns]))


@dataclass(frozen=True)
class ShotWindows:
    """Runs of frames of the shot (a ClipSource), cut to what counts in any of them.

    Its items are the frames that `length` frames can begin with. The draw chooses nothing: the recipe cuts.
    """

    data: KeyframeData
    starts: tuple[int, ...]
    least: int

    @classmethod
    def of(cls, data: KeyframeData, length: int, least: int) -> ShotWindows:
        """TrainingError `training.data` where no run of the shot is as long."""
        starts = [s for s in range(len(data.numbers) - length + 1) if not data.first[s + 1 : s + length].any()]
        if not starts:
            raise TrainingError(
                "training.data",
                f"nowhere do {length} frames of the shot follow one another",
                remedy="Give more of the shot (--frames), or shorter windows (--set refiner.recipe.length=3).",
                value=length,
            )
        return cls(data, tuple(starts), least)

    def some(self, count: int) -> ShotWindows:
        """At most so many of its items, evenly spread."""
        picks = np.linspace(0, len(self.starts) - 1, min(count, len(self.starts))).round().astype(int)
        return ShotWindows(self.data, tuple(self.starts[p] for p in picks), self.least)

    def size(self) -> int:
        return len(self.starts)

    def window(self, item: int, draw: Draw, length: int) -> Window:
        data, start = self.data, self.starts[item]
        frames = slice(start, start + length)
        rows, columns = data.box(data.matte[frames].max(axis=0), self.least)
        flow = torch.from_numpy(data.flow[frames, :, rows, columns].astype(np.float32))
        valid = torch.from_numpy(data.valid[frames, None, rows, columns].astype(np.float32))
        flow[0], valid[0] = 0.0, 1.0
        matte = torch.from_numpy(data.matte[frames, None, rows, columns].astype(np.float32)) / 255
        return Window(_picture(data.frames[frames, :, rows, columns]), torch.ones(1), flow, 1 - matte, valid)


def _picture(stored: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(stored)).float() / 127.5 - 1


def _plane(stored: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(stored)).float()[None] / 255


def _span(counted: NDArray[np.int64], size: int, least: int) -> slice:
    low, high = max(int(counted[0]) - BORDER, 0), min(int(counted[-1]) + 1 + BORDER, size)
    length = min(max(high - low, least), size)
    low = min(max(0, low - (length - (high - low)) // 2), size - length)
    return slice(low, low + length)
