"""The contact sheet: plate, matte and results over time, as a picture a person can judge."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference_server.plates.color import to_picture
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence
from inference_server.plates.types import Part, Window

_COLUMNS = 6
_TILE = (400, 400)
_MARGIN, _LABEL = 6, 26


def contact_sheet(plate: str, results: list[tuple[str, str]], mattes: str, frames: int, path: Path) -> None:
    """Write a PNG: one row each for plate, matte and every (name, pattern) of `results`, six moments of the shot."""
    rows = [("plate", plate), ("matte", mattes), *results]
    files = {name: find_sequence(pattern).files for name, pattern in rows}
    numbers = sorted(files["plate"])[:frames]
    picks = [numbers[round(i * (len(numbers) - 1) / (_COLUMNS - 1))] for i in range(_COLUMNS)]
    width = _COLUMNS * (_TILE[0] + _MARGIN) + _MARGIN
    height = len(rows) * (_TILE[1] + _LABEL + _MARGIN) + _MARGIN
    sheet = np.full((height, width, 3), 24, np.uint8)
    box = _around([read_plate(files["matte"][frame], frame).parts[0] for frame in picks])
    for r, (name, _) in enumerate(rows):
        for c, frame in enumerate(picks):
            part = read_plate(files[name][frame], frame).parts[0]
            tile = _shown(part, box, "faceplate.composite" if name == "matte" else "")
            y, x = _MARGIN + r * (_TILE[1] + _LABEL + _MARGIN) + _LABEL, _MARGIN + c * (_TILE[0] + _MARGIN)
            sheet[y : y + _TILE[1], x : x + _TILE[0]] = tile
            label = f"{name}  {frame}" if c == 0 else str(frame)
            cv2.putText(sheet, label, (x + 2, y - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (200, 200, 200), 1, cv2.LINE_AA)
    if not cv2.imwrite(str(path), np.ascontiguousarray(sheet[..., ::-1])):
        raise OSError(f"cannot write {path}")


def _around(mattes: list[Part]) -> Window:
    """A window of the tiles' shape, in display coordinates, around everything the mattes cover."""
    covered = np.logical_or.reduce([part.channels["faceplate.composite"] > 0.5 for part in mattes])
    data, display = mattes[0].data_window, mattes[0].display_window
    ys, xs = np.nonzero(covered)
    if not ys.size:
        return display
    centre_x, centre_y = (xs.min() + xs.max()) / 2 + data.x0, (ys.min() + ys.max()) / 2 + data.y0
    height = min(display.height, 1.3 * max(np.ptp(ys), np.ptp(xs) * _TILE[1] / _TILE[0]))
    width = height * _TILE[0] / _TILE[1]
    x0 = int(np.clip(centre_x - width / 2, display.x0, display.x1 - width))
    y0 = int(np.clip(centre_y - height / 2, display.y0, display.y1 - height))
    return Window(x0, y0, x0 + int(width), y0 + int(height))


def _shown(part: Part, box: Window, matte: str) -> NDArray[np.uint8]:
    """A window of a part at tile size, 8-bit RGB."""
    x, y = box.x0 - part.data_window.x0, box.y0 - part.data_window.y0
    inside = (slice(y, y + box.height), slice(x, x + box.width))
    names = [matte] * 3 if matte else ["R", "G", "B"]
    rgb = np.stack([part.channels[n][inside].astype(np.float32) for n in names], axis=-1)
    small = np.asarray(cv2.resize(np.nan_to_num(rgb), _TILE, interpolation=cv2.INTER_AREA), np.float32)
    if not matte:
        small = to_picture(torch.from_numpy(small), 0.0).numpy()
    return np.asarray(np.rint(small.clip(0, 1) * 255), np.uint8)
