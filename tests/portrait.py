"""Small real portrait plates for tests: scikit-image's astronaut (NASA, public domain), moved about, as EXR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

from inference_server.plates.types import Window
from tests.plate_files import PartSpec, write_exr

SIZE = 224  # of the square that holds the head; the eyes are about 34 px apart
COLORSPACE = "lin_rec709"


@lru_cache(maxsize=4)
def still(size: int = SIZE) -> NDArray[np.float32]:
    """[size, size, 3] the astronaut's head and shoulders, scene-linear Rec.709. Do not write to it."""
    crop = astronaut()[0:300, 80:380].astype(np.float32) / 255
    linear = np.where(crop <= 0.04045, crop / 12.92, ((crop + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return np.asarray(cv2.resize(linear, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def moved(frame: int, size: int = SIZE, first: int = 1001, seed: int = 0) -> NDArray[np.float32]:
    """The still as a camera that drifts a little sees it in `frame`, with a little grain of its own."""
    t = frame - first
    matrix = np.array([[1, 0, 1.3 * t], [0, 1, -0.7 * t]], np.float32)
    picture = cv2.warpAffine(still(size), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    noise = np.random.default_rng([seed, frame]).normal(0, 0.01, picture.shape).astype(np.float32)
    return np.asarray(picture * (1 + noise), np.float32)


def channels(picture: NDArray[np.float32], dtype: type = np.float16) -> dict[str, NDArray[Any]]:
    """R, G and B of a picture as stored samples."""
    return {name: np.ascontiguousarray(picture[..., i]).astype(dtype) for i, name in enumerate("RGB")}


def write_shot(
    folder: Path,
    frames: Iterable[int] = range(1001, 1004),
    *,
    size: int = SIZE,
    extra: Mapping[str, NDArray[Any]] | None = None,
    parts: tuple[PartSpec, ...] = (),
    name: str = "shot.%04d.exr",
    seed: int = 0,
    **changes: Any,
) -> str:
    """A sequence of the moving portrait; `extra` channels and more `parts` are the same in every frame.

    Another `seed` gives other grain, and so another shot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        beauty = {**channels(moved(frame, size, seed=seed)), **(extra or {})}
        first = PartSpec(beauty, name="beauty" if parts else "", **changes)
        write_exr(folder / (name % frame), first, *parts)
    return str(folder / name)


def framed(picture: NDArray[np.float32], box: Window, display: Window) -> NDArray[np.float32]:
    """A picture of the display window, cut or padded (black) to the data window `box`."""
    out = np.zeros((box.height, box.width, 3), np.float32)
    x0, y0 = max(box.x0, display.x0), max(box.y0, display.y0)
    x1, y1 = min(box.x1, display.x1), min(box.y1, display.y1)
    out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = picture[
        y0 - display.y0 : y1 - display.y0, x0 - display.x0 : x1 - display.x0
    ]
    return out
