"""A folder of aligned pictures as training data: which files count, in which order, and what is wrong with one.

Every picture file of the folder is used. One that cannot be read, or is not square of the size asked for, is an error
that names it: alignment and scaling are done before (`faceplate train prepare`), so that nothing is cut by chance here.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from inference_server.training.errors import TrainingError

SUFFIXES = (".png", ".jpg", ".jpeg")
OTHERS = (".webp", ".bmp", ".tif", ".tiff", ".exr", ".dpx", ".gif", ".heic", ".avif")  # pictures, but not read here


class PictureFolder:
    """Pictures of a folder in the order of their names. TrainingError `training.data` where there is none."""

    def __init__(self, folder: str | Path, size: int) -> None:
        self.folder, self.size = Path(folder), size
        if not str(folder):
            raise self._error("none is named", folder)
        if not self.folder.is_dir():
            raise self._error("it is not a folder", folder)
        files = sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))
        strange = [name for name in files if name.lower().endswith(OTHERS)]
        if strange:
            raise self._error(f"{strange[0]} is neither PNG nor JPEG", strange[0])
        self.names = [name for name in files if name.lower().endswith(SUFFIXES)]
        if not self.names:
            raise self._error(f"it holds no picture ({', '.join(SUFFIXES)})", folder)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.folder / self.names[index]

    def picture(self, index: int) -> Tensor:
        """[3, size, size] display-encoded sRGB in -1..1. TrainingError `training.data` names file and fault."""
        path = self.path(index)
        stored = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_COLOR)
        if stored is None:
            raise self._error(f"{path.name} cannot be decoded", path)
        if stored.shape != (self.size, self.size, 3):
            height, width = stored.shape[:2]
            raise self._error(f"{path.name} is {width}x{height} px, expected {self.size}x{self.size}", path)
        rgb = np.ascontiguousarray(stored[:, :, ::-1].transpose(2, 0, 1))
        return torch.from_numpy(rgb).float() / 127.5 - 1

    def _error(self, what: str, value: str | Path) -> TrainingError:
        return TrainingError(
            "training.data",
            f"the pictures in {self.folder} cannot be used: {what}",
            remedy="`faceplate train prepare` makes a folder of aligned pictures of one size.",
            value=str(value),
        )
