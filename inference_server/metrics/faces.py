"""Where a face and its gaze are in one sequence and in the other. Landmarks are MediaPipe's mesh, [T, 478, 2 or 3].

Coordinates are square pixels of the same picture in both (FaceFrame.square()); frames without a face hold nan. An edit
is meant to move landmarks, so a drift is no error by itself: that of the head should be near 0 (or the face floats on
its neck), and that of the gaze should be (or the actor looks elsewhere).
"""

from __future__ import annotations

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


def landmark_drift(a: Meshes, b: Meshes) -> PerFrame:
    """RMS distance of the landmarks of two sequences in each frame [T], in hundredths of the eye distance in `a`.

    nan where either has no face. ValueError where shapes differ.
    """
    _check(a, b)
    apart = np.asarray(a[..., :2] - b[..., :2], np.float64)
    return np.asarray(100 * np.sqrt((apart**2).sum(axis=-1).mean(axis=-1)) / _eye_distance(a))


def head_drift(a: Meshes, b: Meshes) -> PerFrame:
    """How far the head itself is moved, turned or resized in each frame [T], in hundredths of the eye distance in `a`.

    The similarity that best lays the points of the bone in `a` on those in `b` (least squares), as the RMS distance
    that it moves them: a point that slides along the skin counts little, a face that floats on its neck in full. nan
    where either has no face.
    """
    _check(a, b)
    first, second = (_complex(meshes[:, list(RIGID)]) for meshes in (a, b))  # [T, R]
    middle = first.mean(axis=1, keepdims=True)
    centred, shift = first - middle, second.mean(axis=1, keepdims=True) - middle
    size = (np.abs(centred) ** 2).sum(axis=1, keepdims=True)
    turn = (centred.conj() * (second - second.mean(axis=1, keepdims=True))).sum(axis=1, keepdims=True) / size
    moved = np.abs((turn - 1) * centred + shift)
    return np.asarray(100 * np.sqrt((moved**2).mean(axis=1)) / _eye_distance(a))


def _complex(points: Meshes) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1], np.complex128)


def _eye_distance(meshes: Meshes) -> PerFrame:
    """[T]; nan where there is none."""
    middles = [(meshes[:, left, :2] + meshes[:, right, :2]) / 2 for _, left, right, *_ in EYES]
    out = np.hypot(*np.moveaxis(np.asarray(middles[1] - middles[0], np.float64), -1, 0))
    return np.where(out > 0, out, np.nan)


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

    The mean of the eyes that are open in both; nan where none is. Other grain alone makes about 0.2, measured on faces
    100 and 200 pixels wide.
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
