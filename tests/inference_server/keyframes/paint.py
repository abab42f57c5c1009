"""A painter for tests: tones in steps and warmer colours, without moving anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.plates.color import ColorConfig, srgb_encode
from inference_server.source import PlateSource
from tests.plate_files import PartSpec, write_exr
from tests.portrait import COLORSPACE, channels, moved


def painted(scene: NDArray[np.float32], amount: float = 1.0) -> NDArray[np.float32]:
    """Scene-linear [H, W, 3], painted."""
    flat = np.asarray(cv2.bilateralFilter(scene, 5, 0.2, 3), np.float32)
    paint = np.stack([flat[..., 0] * 1.5, flat[..., 1], flat[..., 2] * 0.5], axis=-1)
    return scene + np.float32(amount) * (paint - scene)


def shifted(picture: NDArray[np.float32], dx: float, dy: float) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.float32)


def sized(picture: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def write_paint(path: Path, scene: NDArray[np.float32], alpha: NDArray[np.float32] | None = None) -> str:
    """As EXR, premultiplied where there is an alpha, or as 8-bit sRGB PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        coded = srgb_encode(torch.from_numpy(scene).clamp(0, 1)).numpy()
        cv2.imwrite(str(path), np.rint(coded[..., ::-1] * 255).astype(np.uint8))
        return str(path)
    held: dict[str, Any] = channels(scene if alpha is None else scene * alpha[..., None])
    if alpha is not None:
        held["A"] = alpha.astype(np.float16)
    write_exr(path, PartSpec(held))
    return str(path)


def plate_of(frame: int, size: int) -> NDArray[np.float32]:
    """What tests.portrait.write_shot writes for that frame."""
    return moved(frame, size)


def source_of(pattern: str) -> PlateSource:
    return PlateSource.open(JobSpec("analyse", PlateSpec(pattern, COLORSPACE)), ColorConfig())
