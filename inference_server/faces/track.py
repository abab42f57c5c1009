"""Which face of a frame is which face of the frame before, and each face's landmarks carried forward.

As in StylePortraitVideo section 3.1: landmarks are found in every frame, pyramidal Lucas-Kanade predicts them from the
previous frame, and both are blended (the Gaussian over the shot follows in smooth.py). The published scheme of that
kind weights the flow by exp(-d^2 / 100), d the distance from the previous position, so that a moving face gets no help
from it; here d is the distance between prediction and detection in hundredths of the eye distance, so flow counts where
the two agree and detection decides where they do not (a blink, an occlusion, a lost point).

A face found again is the same if it lies where its track was carried to and has its shape. A cut ends every track.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.faces.flow import Patch, follow, patch_of
from inference_server.faces.geometry import Points, Roi, View, eye_distance, roi_of_landmarks
from inference_server.faces.groups import FLOW_SHARE

AGREEMENT = 4.0  # hundredths of the eye distance within which flow and detection mean the same
GATE = 0.6  # eye distances a face may be from where its track expects it
GATE_GROWTH = 0.08  # more of it with every frame unseen
FORGET = 24  # frames after which an unseen face is a new one
SHAPE_WEIGHT = 2.0


@dataclass(frozen=True)
class Sighting:
    """A track's face in one frame: meshes [478, 3] in square coordinates, as detected and as blended with flow."""

    track: int
    index: int
    detected: Points
    blended: Points
    score: float


@dataclass
class _Live:
    """A track that may go on."""

    id: int
    mesh: Points
    patch: Patch
    seen: int
    score: float
    velocity: Points  # [2] square pixels per frame
    expected: Points = field(default_factory=lambda: np.empty((0, 3)))
    trust: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


class Tracker:
    """Follows all faces of a shot from its first frame to its last; ids count from 1 in order of appearance."""

    def __init__(self) -> None:
        self._live: list[_Live] = []
        self._next_id = 1

    def step(
        self,
        view: View,
        index: int,
        found: list[tuple[Points, float]],
        *,
        cut: bool,
        look_at: Callable[[Roi], Points | None],
    ) -> list[Sighting]:
        """The faces of the shot's frame number `index` (counted from 0, one call for each), each with its track.

        found    mesh in square coordinates and score of every face detected in the frame
        look_at  looks for a mesh in a region: asked where a track expects a face that was not detected
        """
        if cut:
            self._live = []
        self._live = [track for track in self._live if index - track.seen <= FORGET]
        for track in self._live:
            self._expect(track, view, index)
        pairs = self._match(found, index)
        out: list[Sighting] = []
        claimed = {face for face, _ in pairs}
        for face, track in pairs:
            out.append(self._continue(track, view, index, *found[face]))
        for track in self._live:
            if track.seen == index:
                continue
            mesh = look_at(roi_of_landmarks(track.expected)) if index - track.seen <= 3 else None
            if mesh is not None and self._apart(track, mesh) < GATE / 2 and not _taken(mesh, out):
                out.append(self._continue(track, view, index, mesh, max(track.score * 0.98, 0.3)))
        for face in range(len(found)):
            mesh, score = found[face]
            if face not in claimed and not _taken(mesh, out):
                track = _Live(self._next_id, mesh, patch_of(view, mesh), index, score, np.zeros(2))
                self._next_id += 1
                self._live.append(track)
                out.append(Sighting(track.id, index, mesh, mesh, score))
        return sorted(out, key=lambda s: s.track)

    def _expect(self, track: _Live, view: View, index: int) -> None:
        """Where the track's face should be now: carried by flow from the previous frame, by its speed otherwise."""
        track.expected = track.mesh.copy()
        track.trust = np.zeros(len(track.mesh))
        gap = index - track.seen
        if gap == 1:
            carried, trust = follow(track.patch, view, track.mesh)
            if (trust > 0.5).mean() > 0.3:
                step = np.median((carried - track.mesh[:, :2])[trust > 0.5], axis=0)
                track.expected[:, :2] += step
                believable = np.hypot(*(carried - track.expected[:, :2]).T) < 0.3 * eye_distance(track.mesh)
                use = believable & (trust > 0.1)
                track.expected[use, :2] = carried[use]
                track.trust = np.where(use, trust, 0.0)
                return
        track.expected[:, :2] += track.velocity * min(gap, 6)

    def _match(self, found: list[tuple[Points, float]], index: int) -> list[tuple[int, _Live]]:
        """Detections and tracks that belong together, nearest first."""
        costs = []
        for face, (mesh, _) in enumerate(found):
            for track in self._live:
                apart = self._apart(track, mesh)
                if apart < GATE + GATE_GROWTH * (index - track.seen - 1):
                    costs.append((apart + SHAPE_WEIGHT * _shape_difference(track.mesh, mesh), face, track.id, track))
        pairs: list[tuple[int, _Live]] = []
        faces: set[int] = set()
        tracks: set[int] = set()
        for _, face, track_id, track in sorted(costs, key=lambda c: c[:3]):
            if face not in faces and track_id not in tracks:
                pairs.append((face, track))
                faces.add(face)
                tracks.add(track_id)
        return pairs

    def _apart(self, track: _Live, mesh: Points) -> float:
        size = max(eye_distance(track.mesh), 0.25 * float(np.ptp(track.mesh[:, 1])), 1e-6)
        return float(np.hypot(*(track.expected - mesh)[:, :2].T).mean()) / size

    def _continue(self, track: _Live, view: View, index: int, mesh: Points, score: float) -> Sighting:
        blended = blend(mesh, track.expected, track.trust)
        moved = (blended - track.mesh)[:, :2].mean(axis=0) / max(index - track.seen, 1)
        track.velocity = 0.5 * track.velocity + 0.5 * moved
        track.mesh, track.patch = blended, patch_of(view, blended)
        track.seen, track.score = index, score
        return Sighting(track.id, index, mesh, blended, score)


def blend(detected: Points, carried: Points, trust: NDArray[np.float64]) -> Points:
    """Detection [478, 3] and prediction [478, 2 or 3] blended point by point; `trust` [478] of the flow is 0..1.

    A group's share of flow (groups.FLOW_SHARE) bounds it, so that flow's drift is forgotten within a few frames.
    """
    apart = 100.0 * np.hypot(*(detected[:, :2] - carried[:, :2]).T) / max(eye_distance(detected), 1e-6)
    share = FLOW_SHARE * trust * np.exp(-((apart / AGREEMENT) ** 2))
    out = detected.copy()
    out[:, :2] += share[:, None] * (carried[:, :2] - detected[:, :2])
    return out


def _taken(mesh: Points, sightings: list[Sighting]) -> bool:
    """Whether the mesh lies on a face that already has a track in this frame."""
    for other in sightings:
        apart = np.hypot(*(other.detected - mesh)[:, :2].T).mean()
        if apart < 0.5 * max(eye_distance(other.detected), 0.25 * float(np.ptp(mesh[:, 1]))):
            return True
    return False


def _shape_difference(a: Points, b: Points) -> float:
    """Mean distance of two meshes after removing position and size, in their size."""
    return float(np.hypot(*(_normalised(a) - _normalised(b)).T).mean())


def _normalised(mesh: Points) -> Points:
    p = mesh[:, :2] - mesh[:, :2].mean(axis=0)
    return np.asarray(p / max(float(np.sqrt((p**2).sum(axis=1).mean())), 1e-6))


THUMBNAIL = (32, 18)


def thumbnail(view: View) -> NDArray[np.float32]:
    """A tiny RGB picture [18, 32, 3] by which a cut is seen."""
    small = view.level(max(int(np.log2(max(view.picture.shape[1] / (4 * THUMBNAIL[0]), 1))), 0))
    return np.asarray(cv2.resize(small, THUMBNAIL, interpolation=cv2.INTER_AREA), dtype=np.float32)


def is_cut(before: NDArray[np.float32], now: NDArray[np.float32]) -> bool:
    """Whether a new shot begins: neither the layout nor the colours of two neighbouring thumbnails are alike.

    A flash keeps the layout, a whip pan mostly keeps the colours; a cut keeps neither.
    """
    if before.shape != now.shape:
        return True
    layout = float(np.corrcoef(before.ravel(), now.ravel())[0, 1]) if before.std() > 1 and now.std() > 1 else 0.0
    histograms = []
    for picture in (before, now):
        index = np.clip(picture // 43, 0, 5).astype(int)
        counts = np.bincount((index * [36, 6, 1]).sum(axis=-1).ravel(), minlength=216).astype(np.float32)
        histograms.append(cv2.GaussianBlur(counts.reshape(6, 36), (0, 0), 0.6).ravel() / counts.sum())
    shared = float(np.minimum(*histograms).sum())
    return bool(np.abs(before - now).mean() > 12 and layout < 0.6 and shared < 0.55)
