"""Decides how frames, a teacher's pictures, flow and mattes of clips are kept in one small file to train from.

One safetensors file holds everything; nothing else is needed to train, not even the clips. Windows of frames that
follow one another lie side by side, cut around the head, in display-encoded sRGB:

    pictures  JPEG, 4:4:4, of the frame and of what the teacher makes of it in each style        [H, W, 3] uint8
    motion    PNG at half the size, four planes: backward flow x and y, where it holds, the head [H/2, W/2, 4] uint8

Flow is kept in steps of an eighth of a pixel of the full size up to 15.875 pixels; faster pixels are marked as not
holding. JPEG is lossy: at quality 95 a picture comes back within about 1/255 on average. All else is lossless.
Reading needs numpy, OpenCV, torch and safetensors, nothing of the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.files import sha256, write_atomic
from inference_server.training.recipes.two_stage_data import Pair, Window

FORMAT = "clip-cache-1"
STEP = 8.0  # steps of flow to a pixel
ZERO = 128
MOST = (255 - ZERO) / STEP  # pixels
QUALITY = 95
LIMIT = 50 << 20  # bytes of a cache

Picture = NDArray[np.uint8]  # [H, W, 3] RGB display-encoded sRGB
Plane = NDArray[np.float32]  # [H, W]


@dataclass(frozen=True)
class PackedFrame:
    """What is kept of one frame.

    teacher   one picture for each style
    flow      [H, W, 2] float32 pixels (x right, y down): where each pixel was in the frame before; zero in the first
    valid     [H, W] 0 or 1: where the flow holds
    head      [H, W] 0..1, the matte that the teacher's picture is composited with
    """

    source: Picture
    teacher: tuple[Picture, ...]
    flow: Plane
    valid: Plane
    head: Plane


@dataclass
class CacheWriter:
    """Collects windows in memory and writes the file. `facts`: what the content was made of, for readers to compare."""

    size: int
    styles: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    _pictures: list[bytes] = field(default_factory=list)
    _motion: list[bytes] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _clips: list[str] = field(default_factory=list)

    def window(self, clip: str, frames: Iterable[PackedFrame]) -> None:
        """One more window of frames that follow one another. Raises ValueError where sizes do not fit."""
        self._starts.append(len(self._motion))
        self._clips.append(clip)
        for frame in frames:
            if len(frame.teacher) != len(self.styles) or frame.source.shape != (self.size, self.size, 3):
                raise ValueError(f"a frame of {list(frame.source.shape)} with {len(frame.teacher)} styles")
            self._pictures += [_jpeg(picture) for picture in (frame.source, *frame.teacher)]
            self._motion.append(_motion(frame))

    @property
    def bytes(self) -> int:
        return sum(map(len, self._pictures)) + sum(map(len, self._motion))

    def write(self, path: Path) -> None:
        """TrainingError `training.data` where it is too large or holds nothing."""
        if not self._motion or self.bytes > LIMIT - (1 << 16):
            raise TrainingError(
                "training.data",
                f"the cache holds {len(self._motion)} frames in {self.bytes / 2**20:.1f} MiB; 50 MiB are the most",
                remedy="Pack fewer windows, or smaller pictures.",
                value=self.bytes,
            )
        tensors: dict[str, NDArray[Any]] = {
            "pictures": np.frombuffer(b"".join(self._pictures), np.uint8),
            "picture_ends": np.cumsum([len(data) for data in self._pictures], dtype=np.int64),
            "motion": np.frombuffer(b"".join(self._motion), np.uint8),
            "motion_ends": np.cumsum([len(data) for data in self._motion], dtype=np.int64),
            "starts": np.array(self._starts, np.int64),
        }
        metadata = {
            "format": FORMAT,
            "size": str(self.size),
            "styles": json.dumps(list(self.styles)),
            "clips": json.dumps(self._clips),
            "facts": json.dumps(dict(self.facts), sort_keys=True),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


class ClipCache:
    """A packed file, read whole; pictures are decoded when they are asked for, by any number of threads.

    size     side of the pictures
    digest   of the file's content, 16 hex digits
    styles   names, in the order of a pair's weights
    windows  (first frame, number of frames) of each; `clips` names the clip of each
    """

    def __init__(self, path: Path) -> None:
        """Raises TrainingError `training.data` where the file is none of these or damaged."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.size = int(metadata["size"])
            self.styles: tuple[str, ...] = tuple(json.loads(metadata["styles"]))
            self.clips: tuple[str, ...] = tuple(json.loads(metadata["clips"]))
            self.facts: dict[str, Any] = json.loads(metadata["facts"])
            self._pictures, self._motion = tensors["pictures"], tensors["motion"]
            self._picture_ends = tensors["picture_ends"].reshape(-1, 1 + len(self.styles))
            self._motion_ends = tensors["motion_ends"]
            starts = [*tensors["starts"].tolist(), len(self._motion_ends)]
            self.digest = sha256(path)[:16]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise TrainingError(
                "training.data",
                f"{path} cannot be used as a cache of clips: {error}",
                remedy="Remove it and pack the clips again.",
                value=str(path),
            ) from error
        self.windows = tuple((first, after - first) for first, after in pairwise(starts))

    def picture(self, frame: int, which: int) -> Picture:
        """0 is the frame itself, 1 + k the teacher's picture in style k."""
        number = frame * (1 + len(self.styles)) + which
        ends = self._picture_ends.ravel()
        data = self._pictures[int(ends[number - 1]) if number else 0 : int(ends[number])]
        return np.ascontiguousarray(_decoded(data, cv2.IMREAD_COLOR)[:, :, ::-1])

    def tensor(self, frame: int, which: int) -> Tensor:
        """`picture` as [3, H, W] in -1..1."""
        return torch.from_numpy(self.picture(frame, which)).permute(2, 0, 1).float() / 127.5 - 1

    def motion(self, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """Flow [2, H, W] in pixels, where it holds [1, H, W] (0 or 1), and the head [1, H, W] (0..1)."""
        data = self._motion[int(self._motion_ends[frame - 1]) if frame else 0 : int(self._motion_ends[frame])]
        planes = torch.from_numpy(_decoded(data, cv2.IMREAD_UNCHANGED)).permute(2, 0, 1).float()
        full = F.interpolate(planes[None], size=(self.size, self.size), mode="bilinear", align_corners=False)[0]
        return (full[:2] - ZERO) / STEP, (full[2:3] >= 254).float(), full[3:] / 255

    def style(self, number: int) -> Tensor:
        """The weights [K] of one style alone."""
        return F.one_hot(torch.tensor(number), len(self.styles)).float()


def split_windows(cache: ClipCache) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Windows to learn from and windows kept aside: the last of every clip that has several."""
    count = {clip: cache.clips.count(clip) for clip in cache.clips}
    last = {clip: number for number, clip in enumerate(cache.clips) if count[clip] > 1}
    aside = tuple(last.values())
    return tuple(number for number in range(len(cache.windows)) if number not in aside), aside


def middles(cache: ClipCache, windows: Sequence[int]) -> tuple[int, ...]:
    """Two frames of each window, at a quarter and three quarters of it: enough to see how far a model has come."""
    return tuple(
        first + count * quarter // 4 for first, count in (cache.windows[w] for w in windows) for quarter in (1, 3)
    )


@dataclass(frozen=True)
class CachedPairs:
    """Pairs of a cache's frames and the teacher's pictures (a PairSource); the draw chooses the style.

    `windows` are numbers of the cache's. `surroundings`: how much a pixel outside the head counts.
    """

    cache: ClipCache
    frames: tuple[int, ...]
    surroundings: float = 0.25

    @classmethod
    def of(cls, cache: ClipCache, windows: Sequence[int], surroundings: float = 0.25) -> CachedPairs:
        frames = [first + i for first, count in (cache.windows[w] for w in windows) for i in range(count)]
        return cls(cache, tuple(frames), surroundings)

    def size(self) -> int:
        return len(self.frames)

    def pair(self, item: int, draw: Draw) -> Pair:
        frame, style = self.frames[item], draw.integer("style", len(self.cache.styles))
        head = self.cache.motion(frame)[2]
        weight = self.surroundings + (1 - self.surroundings) * head
        return Pair(self.cache.tensor(frame, 0), self.cache.tensor(frame, 1 + style), self.cache.style(style), weight)


@dataclass(frozen=True)
class CachedClips:
    """Windows of a cache (a ClipSource), whole pictures; the draw chooses style and first frame."""

    cache: ClipCache
    windows: tuple[int, ...]

    def size(self) -> int:
        return len(self.windows)

    def window(self, item: int, draw: Draw, length: int) -> Window:
        """Raises TrainingError `training.data` where the packed window is shorter."""
        first, count = self.cache.windows[self.windows[item]]
        if count < length:
            raise TrainingError(
                "training.data",
                f"windows of {count} frames are packed, {length} are asked for",
                remedy="Pack longer windows, or train on shorter ones.",
                value=count,
            )
        start = first + draw.integer("start", count - length + 1)
        style = draw.integer("style", len(self.cache.styles))
        numbers = range(start, start + length)
        flow, valid, head = (torch.stack(planes) for planes in zip(*map(self.cache.motion, numbers), strict=True))
        flow[0], valid[0] = 0.0, 1.0
        frames = torch.stack([self.cache.tensor(frame, 0) for frame in numbers])
        return Window(frames, self.cache.style(style), flow, 1 - head, valid)


def _jpeg(picture: Picture) -> bytes:
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return _encoded(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), [*options, cv2.IMWRITE_JPEG_OPTIMIZE, 1])


def _motion(frame: PackedFrame) -> bytes:
    """The four planes at half the size; a pixel whose flow is out of reach does not hold."""
    held = (frame.valid > 0.5) & (np.abs(frame.flow).max(axis=-1) <= MOST)
    flow = np.where(held[..., None], frame.flow, 0).astype(np.float32)
    planes = np.concatenate([ZERO + STEP * flow, 255 * held[..., None], 255 * frame.head[..., None]], axis=-1)
    half = cv2.resize(planes.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    half[..., 2] = np.where(half[..., 2] >= 254, 255, 0)
    return _encoded(".png", np.rint(half).clip(0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _encoded(suffix: str, picture: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, picture, options)
    if not done:
        raise OSError(f"OpenCV could not encode a picture as {suffix}")
    return bytes(data)


def _decoded(data: NDArray[np.uint8], how: int) -> NDArray[np.uint8]:
    picture: Any = cv2.imdecode(data, how)
    if picture is None:
        raise TrainingError(
            "training.data", "a packed picture is damaged", remedy="Remove the cache and pack the clips again."
        )
    return np.asarray(picture, dtype=np.uint8)
