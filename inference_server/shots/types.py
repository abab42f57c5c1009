"""What analysis knows of a shot: the frames it saw, the work exposure, and every face's track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.faces.types import FaceFrame, FaceState, SegmentationMap
from inference_server.plates.types import Window

ANALYSIS_VERSION = "1"


@dataclass(frozen=True)
class Track:
    """One identity over the shot; arrays run over the shot's frames in order (F of them).

    landmarks     [F, 478, 3] float32, smoothed, plate pixels (see faces.types); undefined where states is ABSENT
    states        [F] uint8, FaceState
    scores        [F] float32, detector's confidence 0..1
    segmentation  [F, K, H, W] uint8, 0..255 for 0..1; K = len(classes)
    matrices      [F, 2, 3] float32, plate pixels to map pixels
    """

    id: int
    landmarks: NDArray[np.float32]
    states: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    segmentation: NDArray[np.uint8]
    matrices: NDArray[np.float32]
    enabled: bool = True


@dataclass(frozen=True)
class ShotAnalysis:
    """A shot's analysis. `frames` is sorted; `jitter_before`/`jitter_after` are RMS second differences of the
    landmarks over time in plate pixels per 100 px of eye distance, before and after smoothing. `cuts` are the frames
    at which another take begins.
    """

    frames: tuple[int, ...]
    display_window: Window
    pixel_aspect: float
    work_exposure: float
    tracks: tuple[Track, ...]
    missing: tuple[int, ...] = ()
    jitter_before: float = 0.0
    jitter_after: float = 0.0
    cuts: tuple[int, ...] = ()

    def face_at(self, track_id: int, frame: int) -> FaceFrame | None:
        """The face of that track in that frame, or None where it is absent or the frame is not of the shot."""
        track = next((t for t in self.tracks if t.id == track_id and t.enabled), None)
        if track is None or frame not in self.frames:
            return None
        i = self.frames.index(frame)
        state = FaceState(int(track.states[i]))
        if state is FaceState.ABSENT:
            return None
        points = track.landmarks[i]
        (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        segmentation = None
        if track.classes:
            segmentation = SegmentationMap(
                track.classes, track.segmentation[i].astype(np.float32) / np.float32(255), track.matrices[i]
            )
        return FaceFrame(
            track=track.id,
            frame=frame,
            state=state,
            landmarks=points,
            box=(float(x0), float(y0), float(x1), float(y1)),
            score=float(track.scores[i]),
            pixel_aspect=self.pixel_aspect,
            segmentation=segmentation,
        )
