"""Where a face and its gaze are in one sequence and in the other. Landmarks are MediaPipe's mesh, [T, 478, 2 or 3].

Coordinates are square pixels of the same picture in both (FaceFrame.square()); frames without a face hold nan. An edit
is meant to move landmarks, so a drift is no error by itself: that of the points of the bone should be near 0 (or the
face floats on its neck), and that of the gaze should be (or the actor looks elsewhere).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.faces.groups import RIGID
from inference_server.faces.types import LANDMARKS
from inference_server.metrics.pictures import PerFrame

Meshes = NDArray[np.floating[Any]]  # [T, 478, 2 or 3]

# Per eye: iris, the corners on the picture's left and right, upper and lower lid.
EYES = ((468, 33, 133, 159, 145), (473, 362, 263, 386, 374))
OPEN = 0.12  # lids closer than this part of the eye's width hide the gaze


def landmark_drift(a: Meshes, b: Meshes, points: Sequence[int] | None = None) -> PerFrame:
    """RMS distance of the landmarks of two sequences in each frame [T], in hundredths of the eye distance in `a`.

    points  which landmarks; all without. `RIGID` are those of the bone.

    nan where either has no face. ValueError where shapes differ.
    """
    _check(a, b)
    chosen = list(range(LANDMARKS)) if points is None else list(points)
    apart = np.asarray(a[:, chosen, :2] - b[:, chosen, :2], np.float64)
    eyes = [(a[:, left, :2] + a[:, right, :2]) / 2 for _, left, right, *_ in EYES]
    size = np.hypot(*np.moveaxis(np.asarray(eyes[1] - eyes[0], np.float64), -1, 0))
    size[size <= 0] = np.nan
    return np.asarray(100 * np.sqrt((apart**2).sum(axis=-1).mean(axis=-1)) / size)


def rigid_drift(a: Meshes, b: Meshes) -> PerFrame:
    """`landmark_drift` of the points that expression hardly moves: how far the head itself is off."""
    return landmark_drift(a, b, RIGID)


def gaze(meshes: Meshes) -> NDArray[np.float64]:
    """Where each eye's iris is between its corners, [T, 2 eyes, 2]: (0, 0) half way, x +-0.5 at a corner, y down.

    In widths of the eye and along its own axis, so that neither the head's place nor its size nor its tilt shows. nan
    where the eye is shut or there is no face.
    """
    out = np.empty((len(meshes), len(EYES), 2))
    for e, (iris, left, right, upper, lower) in enumerate(EYES):
        p = np.asarray(meshes[..., :2], np.float64)
        across = p[:, right] - p[:, left]
        width = np.hypot(across[:, 0], across[:, 1])
        width[width <= 0] = np.nan
        along = across / width[:, None]
        down = np.stack([-along[:, 1], along[:, 0]], axis=-1)
        away = p[:, iris] - (p[:, left] + p[:, right]) / 2
        out[:, e] = np.stack([(away * along).sum(axis=-1), (away * down).sum(axis=-1)], axis=-1) / width[:, None]
        opening = ((p[:, lower] - p[:, upper]) * down).sum(axis=-1) / width
        out[~(opening > OPEN), e] = np.nan
    return out


def gaze_drift(a: Meshes, b: Meshes) -> PerFrame:
    """How far the gaze of two sequences is apart in each frame [T], in hundredths of an eye's width.

    The mean of the eyes that are open in both; nan where none is. About 1 is the landmarks' own uncertainty.
    """
    _check(a, b)
    apart = np.hypot(*np.moveaxis(gaze(a) - gaze(b), -1, 0))  # [T, 2]
    known = np.isfinite(apart)
    count = known.sum(axis=1)
    total = np.where(known, apart, 0).sum(axis=1)
    return np.where(count > 0, 100 * total / np.maximum(count, 1), np.nan)


def _check(a: Meshes, b: Meshes) -> None:
    if a.ndim != 3 or a.shape[1] != LANDMARKS or a.shape[2] not in (2, 3) or a.shape[:2] != b.shape[:2]:
        raise ValueError(f"expected two meshes [T, {LANDMARKS}, 2 or 3], got {list(a.shape)} and {list(b.shape)}")
