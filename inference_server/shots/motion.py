"""How a head moves from frame to frame, as its tracked landmarks tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference_server.faces.types import FaceFrame
from inference_server.shots.types import ShotAnalysis

_NEAR = 4  # frame numbers: neighbours further away than this say nothing of this frame's motion


def head_motion(analysis: ShotAnalysis, track: int, frame: int) -> NDArray[np.float64] | None:
    """[2, 3] affine: plate pixels (x, y, 1) to their displacement (dx, dy) in one frame's time around `frame`.

    From the frames on either side, or from one of them where the shot or a take ends. None where neither has the face.
    """
    here = analysis.face_at(track, frame)
    if here is None:
        return None
    place = analysis.frames.index(frame)
    before = after = here
    if place > 0 and frame not in analysis.cuts:
        before = _near(analysis, track, place - 1, frame) or here
    if place + 1 < len(analysis.frames) and analysis.frames[place + 1] not in analysis.cuts:
        after = _near(analysis, track, place + 1, frame) or here
    if before is after:
        return None
    points = np.asarray(here.landmarks[:, :2], np.float64)
    moved = np.asarray(after.landmarks[:, :2] - before.landmarks[:, :2], np.float64) / (after.frame - before.frame)
    middle = points.mean(axis=0)
    known = np.column_stack([points - middle, np.ones(len(points))])  # centred: a well-posed fit
    fit: NDArray[np.float64] = np.linalg.lstsq(known, moved, rcond=None)[0].T
    fit[:, 2] -= fit[:, :2] @ middle
    return fit


def _near(analysis: ShotAnalysis, track: int, place: int, frame: int) -> FaceFrame | None:
    other = analysis.frames[place]
    return analysis.face_at(track, other) if abs(other - frame) <= _NEAR else None
