"""Plates with the portrait's head where a test wants it, as often and as large as it wants it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.plate_files import PartSpec, write_exr
from tests.portrait import channels, still

Head = tuple[int, int, int]  # left edge, upper edge, height of the pasted picture; the face is 0.45 of it high
Picture = NDArray[np.float32]


def head(height: int) -> Picture:
    """[height, 0.8 height, 3] scene-linear: head and shoulders."""
    crop = still(240)[10:210, 40:200]
    return np.asarray(cv2.resize(crop, (height * 4 // 5, height), interpolation=cv2.INTER_AREA), np.float32)


def picture(size: tuple[int, int], heads: Iterable[Head]) -> Picture:
    """[height, width, 3] scene-linear: a dim uneven wall and the heads before it, cut off at the frame's edges."""
    width, height = size
    noise = np.random.default_rng(3).normal(size=(height // 8, width // 8, 3)).astype(np.float32)
    wall = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 2) * 3, (width, height), interpolation=cv2.INTER_LINEAR)
    out = np.asarray((0.15 + 0.04 * wall).clip(0.01), np.float32)
    for x, y, tall in heads:
        small = head(tall)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + small.shape[1], width), min(y + tall, height)
        if x1 > x0 and y1 > y0:
            out[y0:y1, x0:x1] = small[y0 - y : y1 - y, x0 - x : x1 - x]
    return out


def write_heads(folder: Path, size: tuple[int, int], frames: Iterable[Iterable[Head]], first: int = 1001) -> str:
    """A sequence with these heads in each frame; half RGB. Returns its pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, heads in enumerate(frames, first):
        write_exr(folder / f"heads.{frame:04d}.exr", PartSpec(channels(picture(size, heads))))
    return str(folder / "heads.%04d.exr")
