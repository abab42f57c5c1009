"""Motion between frames around a face: landmarks carried by Lucas-Kanade, class maps by dense flow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.faces.geometry import (
    Matrix,
    Picture8,
    Points,
    View,
    eye_distance,
    invert,
    roi_of_landmarks,
    transform,
)
from inference_server.faces.parsing import ParsedFace
from inference_server.networks.parse_smoothing import COLOUR_SIGMA, COVERAGE, window

CROP_SIZE = 256
CROP_MARGIN = 2.2  # room for motion: half a face on each side
PYRAMID_LEVELS = 4
LK_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
RETURN_SIGMA = 0.6  # crop pixels: a point that does not come back to itself within this was not followed


@dataclass(frozen=True)
class Patch:
    """What is kept of a frame to follow a face into the next: a grey crop and where it lies."""

    grey: NDArray[np.uint8]  # [S, S]
    matrix: Matrix  # crop to square coordinates


def patch_of(view: View, mesh: Points) -> Patch:
    """The patch around a mesh [478, 3] in square coordinates."""
    matrix = roi_of_landmarks(mesh, CROP_MARGIN).matrix(CROP_SIZE)
    return Patch(_grey(view.warp(matrix, CROP_SIZE)), matrix)


def follow(patch: Patch, view: View, mesh: Points) -> tuple[Points, NDArray[np.float64]]:
    """Where pyramidal Lucas-Kanade carries the mesh's points: [478, 2] square coordinates, and trust 0..1 [478].

    Window and stopping rule are those published for this scheme (a quarter of the eye distance; 10 steps or 0.03 px).
    Trust is how well the backward flow returns to the start.
    """
    now = _grey(view.warp(patch.matrix, CROP_SIZE))
    to_crop = invert(patch.matrix)
    start = (transform(to_crop, mesh[:, :2]) - 0.5).astype(np.float32).reshape(-1, 1, 2)
    side = int(np.clip(eye_distance(transform(to_crop, mesh[:, :2])) / 4, 7, 31)) | 1
    options = {"winSize": (side, side), "maxLevel": PYRAMID_LEVELS, "criteria": LK_CRITERIA}
    there, ok, _ = cv2.calcOpticalFlowPyrLK(patch.grey, now, start, None, **options)  # type: ignore[call-overload]
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(now, patch.grey, there, None, **options)  # type: ignore[call-overload]
    apart = np.hypot(*(back - start).reshape(-1, 2).astype(np.float64).T)
    trust = np.exp(-((apart / RETURN_SIGMA) ** 2)) * (ok.ravel() & ok_back.ravel())
    ended = there.reshape(-1, 2).astype(np.float64)
    trust[((ended < 0) | (ended > CROP_SIZE - 1)).any(axis=1)] = 0.0
    return transform(patch.matrix, np.nan_to_num(ended) + 0.5), np.nan_to_num(trust)


def _grey(picture: Picture8) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


@dataclass(frozen=True)
class SmoothedClasses:
    """A face's classes at one position of the shot: uint8 [K, S, S] and square coordinates to map [2, 3]."""

    index: int
    values: NDArray[np.uint8]
    matrix: Matrix


@dataclass(frozen=True)
class _Held:
    """A frame in the smoother's window; `stack` [S, S, 3 + K + 1] is its picture (-1..1), its classes and ones."""

    index: int
    grey: NDArray[np.uint8]
    stack: NDArray[np.float32]
    matrix: Matrix


class ClassSmoother:
    """Smooths one face's class maps over time along dense flow (VToonify eqs. 6-7, OpenCV DIS for the flow).

    Fed frame by frame, it answers `radius` frames later and keeps only its window. `finish` ends an uninterrupted
    stretch, at whose ends the window repeats frames as the published rule does.
    """

    def __init__(self, radius: int = 3) -> None:
        self._radius = radius
        self._held: deque[_Held] = deque(maxlen=2 * radius + 1)
        self._count = 0  # frames of this stretch so far
        self._answered = 0
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def add(self, index: int, parsed: ParsedFace) -> Iterator[SmoothedClasses]:
        """Takes the next frame of the stretch and yields what can be answered."""
        ones = np.ones((*parsed.picture.shape[:2], 1), dtype=np.float32)
        signed = parsed.picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
        stack = np.concatenate([signed, np.moveaxis(parsed.values, 0, -1), ones], axis=-1)
        self._held.append(_Held(index, _grey(parsed.picture), stack, parsed.matrix))
        self._count += 1
        while self._answered + self._radius < self._count:
            yield self._answer()

    def finish(self) -> Iterator[SmoothedClasses]:
        """Ends the stretch: yields the rest and forgets it."""
        while self._answered < self._count:
            yield self._answer()
        self._held.clear()
        self._count = self._answered = 0

    def _answer(self) -> SmoothedClasses:
        first = self._count - len(self._held)
        entries = [max(j - first, 0) for j in window(self._answered, self._count, self._radius)]
        centre = self._held[self._answered - first]
        self._answered += 1
        values = self._fuse(centre, [self._held[entry] for entry in entries])
        return SmoothedClasses(centre.index, np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), centre.matrix)

    def _fuse(self, centre: _Held, entries: list[_Held]) -> NDArray[np.float32]:
        """The weighted mean of a window's maps along flow, [K, S, S].

        The same sums as `networks.parse_smoothing.smooth_window`, in OpenCV: on maps this small torch's threads take
        ten times as long as the arithmetic.
        """
        picture = centre.stack[..., :3]
        total = centre.stack[..., 3:-1].copy()  # [S, S, K]
        norm = np.ones(centre.grey.shape, dtype=np.float32)
        radius = len(entries) // 2
        for j, held in enumerate(entries):
            if j == radius:
                continue
            warped = held.stack
            if held is not centre:  # it is where a stretch's end repeats it
                flow = self._dis.calc(centre.grey, held.grey, None)  # type: ignore[call-overload]
                warped = warp(held.stack, np.asarray(flow, dtype=np.float32))
            colour = ((warped[..., :3] - picture) ** 2).mean(axis=-1)
            time = np.exp(-((j - radius) ** 2) / (2 * (radius + 0.5) ** 2))
            weight = np.exp(-colour / (2 * COLOUR_SIGMA**2)) * (warped[..., -1] >= COVERAGE) * np.float32(time)
            total += weight[..., None] * warped[..., 3:-1]
            norm += weight
        return np.ascontiguousarray(np.moveaxis(total / norm[..., None], -1, 0))


def warp(picture: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture [H, W, C] sampled bilinearly at each pixel plus its flow [H, W, 2]; 0 outside."""
    height, width = flow.shape[:2]
    at = flow + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    parts = [  # remap takes four channels at most
        cv2.remap(np.ascontiguousarray(picture[..., c : c + 4]), at, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
        for c in range(0, picture.shape[-1], 4)
    ]
    return np.concatenate([p.reshape(height, width, -1) for p in parts], axis=-1)
