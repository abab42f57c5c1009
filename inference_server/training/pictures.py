"""Loss curves and sample sheets as PNG files, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference_server.training.errors import TrainingError
from inference_server.training.files import write_atomic
from inference_server.training.recipe import Sheet

Canvas: TypeAlias = NDArray[np.uint8]  # [H, W, 3], BGR as OpenCV writes it

WIDTH, HEIGHT = 960, 200  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 84, 14, 24, 24  # margins of the plot in its panel
PAPER, INK, GRID, RAW, LINE = (255, 255, 255), (40, 40, 40), (225, 225, 225), (214, 196, 170), (170, 90, 20)
GAP = 4
SMALLEST_TILE = 96  # pixels; smaller pictures are enlarged by a whole number, so that names fit above them
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_png(path: Path, canvas: Canvas) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        done, data = cv2.imencode(".png", canvas)
        if not done:
            raise OSError(f"OpenCV could not encode {path.name}")
        temporary.write_bytes(bytes(data))

    write_atomic(path, write)


def curves(series: Mapping[str, Sequence[tuple[int, float]]]) -> Canvas:
    """One panel for each series: the values in pale, their running mean in dark, logarithmic where they span much."""
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    return np.concatenate([_panel(name, points) for name, points in drawn.items()])


def _panel(name: str, points: Sequence[tuple[int, float]]) -> Canvas:
    canvas: Canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    steps = np.array([step for step, _ in points], dtype=np.float64)
    values = np.array([value for _, value in points], dtype=np.float64)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if not len(values):
        _text(canvas, f"{name}: no finite value", LEFT, TOP - 8)
        return canvas
    log = bool(values.min() > 0 and values.max() / values.min() > 30)
    scaled = np.log10(values) if log else values
    low, high = float(scaled.min()), float(scaled.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    first, last = float(steps.min()), float(max(steps.max(), steps.min() + 1))

    def place(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
        column = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        row = HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        placed: NDArray[np.int32] = np.rint(np.stack([column, row], axis=1)).astype(np.int32)
        return placed

    for i in range(5):
        level = low + (high - low) * i / 4
        row = int(place(np.array([first]), np.array([level]))[0, 1])
        cv2.line(canvas, (LEFT, row), (WIDTH - RIGHT, row), GRID, 1)
        _text(canvas, f"{10**level if log else level:.4g}", 6, row + 4)
    for i in range(5):
        step = first + (last - first) * i / 4
        column = int(place(np.array([step]), np.array([low]))[0, 0])
        _text(canvas, f"{step:.0f}", min(column, WIDTH - RIGHT - 48), HEIGHT - 6)
    _draw(canvas, place(steps, scaled), RAW)
    _draw(canvas, place(steps, _running_mean(scaled)), LINE)
    _text(
        canvas, f"{name}   last {values[-1]:.5g}   lowest {values.min():.5g}{'   (log)' if log else ''}", LEFT, TOP - 8
    )
    return canvas


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over a window behind each value, a twentieth of the curve long."""
    window = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - window)
    result: NDArray[np.float64] = (total[end] - total[start]) / (end - start)
    return result


def _draw(canvas: Canvas, points: NDArray[np.int32], color: tuple[int, int, int]) -> None:
    if len(points) == 1:
        cv2.circle(canvas, (int(points[0, 0]), int(points[0, 1])), 2, color, -1, cv2.LINE_AA)
    else:
        cv2.polylines(canvas, [points[:, None, :]], False, color, 1, cv2.LINE_AA)


def _text(canvas: Canvas, text: str, x: int, y: int) -> None:
    cv2.putText(canvas, text, (x, y), FONT, 0.4, INK, 1, cv2.LINE_AA)


def sheet(content: Sheet) -> Canvas:
    """The sheet's pictures in a grid, columns named above."""
    pictures = content.pictures.detach().float().cpu()  # [rows, columns, 3, H, W]
    if pictures.ndim != 5 or pictures.shape[2] != 3 or 0 in pictures.shape:
        raise TrainingError(
            "training.recipe",
            f"a sheet has shape {tuple(pictures.shape)}, expected [rows, columns, 3, H, W]",
            remedy="Correct the recipe's sheet().",
        )
    rows, columns, _, height, width = pictures.shape
    grey = ((pictures.nan_to_num(0.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    head = 18 if content.columns else 0
    larger = max(1, math.ceil(SMALLEST_TILE / width))
    grey = grey.repeat(larger, axis=3).repeat(larger, axis=4)
    height, width = height * larger, width * larger
    canvas: Canvas = np.full((head + rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for r in range(rows):
        for c in range(columns):
            y, x = head + GAP + r * (height + GAP), GAP + c * (width + GAP)
            canvas[y : y + height, x : x + width] = grey[r, c, ::-1].transpose(1, 2, 0)
    for c, name in enumerate(content.columns[:columns]):
        _text(canvas, name[: width // 8], GAP + c * (width + GAP), 12)
    return canvas
