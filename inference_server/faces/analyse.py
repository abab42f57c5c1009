"""Faces of single pictures and of whole shots.

A shot is looked at once, frame by frame in order. How hard a frame is searched follows a rule on its number and on
whether anything was found in it: the whole frame always, large tiles every 12th and small tiles every 48th frame, at
the shot's start, after a cut, and wherever nothing was found otherwise. In between, a face that the detector misses is
looked for where its track expects it. Memory holds one frame, a small crop per face, and what the analysis keeps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from host_bridge.repairs import Repairs
from inference_server.faces.detect import SURE, Detector, MediaPipeDetector, Search
from inference_server.faces.flow import ClassSmoother, SmoothedClasses
from inference_server.faces.geometry import Points, Roi, View, bounding_box
from inference_server.faces.landmarks import Landmarker, MediaPipeLandmarker, face_frame, find_faces
from inference_server.faces.parsing import MediaPipeParser, Parser
from inference_server.faces.repairs import move_points, restructure
from inference_server.faces.smooth import fill_gaps, jitter, smooth_track
from inference_server.faces.track import Sighting, Tracker, is_cut, thumbnail
from inference_server.faces.types import LANDMARKS, FaceFrame, FaceState, SegmentationMap
from inference_server.plates.types import Window
from inference_server.shots.types import ShotAnalysis, Track

__all__ = [
    "AnalysisProgress",
    "FaceTools",
    "Frame",
    "analyse_frames",
    "faces_of_picture",
]

LARGE_TILES_EVERY = 12
SMALL_TILES_EVERY = 48
LEAST_SIGHTINGS = 3


@dataclass(frozen=True)
class FaceTools:
    """What analysis sees with. Each part can be replaced by another of its interface; `parser` may be left out."""

    detector: Detector
    landmarker: Landmarker
    parser: Parser | None

    @classmethod
    def mediapipe(cls) -> FaceTools:
        """The built-in ones: models load in about a second. `face.detector` where MediaPipe cannot run."""
        return cls(MediaPipeDetector(), MediaPipeLandmarker(), MediaPipeParser())


@dataclass(frozen=True)
class Frame:
    """One frame to analyse: [H, W, 3] RGB display-encoded sRGB, uint8 or floating 0..1, of the whole data window, whose
    first pixel lies at `origin` in the display window. None for a frame that cannot be read: tracks bridge it.
    """

    frame: int
    picture: NDArray[np.generic] | None
    origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class AnalysisProgress:
    """One more frame was looked at: its number, how many are done of how many, and the tracks in it."""

    frame: int
    done: int
    total: int
    tracks: tuple[int, ...]


def faces_of_picture(
    picture: NDArray[np.generic],
    tools: FaceTools,
    *,
    frame: int = 0,
    origin: tuple[int, int] = (0, 0),
    pixel_aspect: float = 1.0,
    search: Search = Search.SMALL_TILES,
) -> list[FaceFrame]:
    """The faces of one picture on its own, best score first; an empty list when there is none. See Frame."""
    view = View.of(picture, origin, pixel_aspect)
    out = []
    for index, (mesh, detection) in enumerate(find_faces(view, tools.detector, tools.landmarker, search)):
        segmentation = None
        if tools.parser is not None:
            parsed = tools.parser.parse(view, mesh)
            matrix = (parsed.matrix * [pixel_aspect, 1.0, 1.0]).astype(np.float32)
            segmentation = SegmentationMap(tools.parser.classes, parsed.values, matrix)
        out.append(
            face_frame(
                mesh,
                frame=frame,
                pixel_aspect=pixel_aspect,
                score=detection.score,
                track=index + 1,
                segmentation=segmentation,
            )
        )
    return out


def analyse_frames(
    frames: Iterable[Frame],
    tools: FaceTools | None = None,
    *,
    total: int | None = None,
    display_window: Window,
    pixel_aspect: float = 1.0,
    repairs: Repairs | None = None,
    work_exposure: float = 0.0,
    missing: Sequence[int] = (),
) -> Generator[AnalysisProgress, None, ShotAnalysis]:
    """Analyses a shot: yields progress after every frame and returns its analysis (`yield from` gives it).

    Frames come with rising numbers. `tools` default to the built-in ones; whoever analyses more than one shot keeps
    them. `total`, `work_exposure` and `missing` are only handed on. Deterministic: the same frames
    and repairs give the same bits. `shot.edit` when a repair does not fit the shot. No face: no tracks.
    """
    repairs = repairs or Repairs()
    tools = tools or FaceTools.mediapipe()
    record = _Record(tools, pixel_aspect)
    look = _Look(tools)
    tracker = Tracker()
    numbers: list[int] = []
    before: NDArray[np.float32] | None = None
    for current in frames:
        if numbers and current.frame <= numbers[-1]:
            raise ValueError(f"frames must rise: {current.frame} after {numbers[-1]}")
        index = len(numbers)
        numbers.append(current.frame)
        if current.picture is None:
            yield AnalysisProgress(current.frame, index + 1, total or index + 1, ())
            continue
        view = View.of(current.picture, current.origin, pixel_aspect)
        now = thumbnail(view)
        cut = before is not None and is_cut(before, now)
        before = now
        if cut:
            record.cut(index)
        sightings = look.follow(tracker, view, index, current.frame, cut)
        for track, mesh in _boxed(repairs, current.frame, view, tools.landmarker, record):
            sightings = [s for s in sightings if s.track != track]
            sightings.append(Sighting(track, index, mesh, mesh, 1.0))
            record.manual.add((track, index))
        for sighting in sightings:
            record.add(view, sighting)
        yield AnalysisProgress(current.frame, index + 1, total or index + 1, tuple(sorted(s.track for s in sightings)))
    before_smoothing = record.jitter(len(numbers))
    tracks = restructure(record.tracks(len(numbers)), numbers, repairs)
    tracks = [fill_gaps(track, pixel_aspect=pixel_aspect, cuts=record.cuts) for track in tracks]
    tracks = [smooth_track(track, pixel_aspect=pixel_aspect) for track in tracks]
    smoothed = jitter(tracks, pixel_aspect=pixel_aspect)
    return ShotAnalysis(
        frames=tuple(numbers),
        display_window=display_window,
        pixel_aspect=pixel_aspect,
        work_exposure=work_exposure,
        tracks=tuple(move_points(tracks, numbers, repairs, pixel_aspect)),
        missing=tuple(missing),
        jitter_before=before_smoothing,
        jitter_after=smoothed,
        cuts=tuple(numbers[i] for i in record.cuts),
    )


class _Look:
    """How hard each frame is searched."""

    def __init__(self, tools: FaceTools) -> None:
        self._tools = tools

    def follow(self, tracker: Tracker, view: View, index: int, frame: int, cut: bool) -> list[Sighting]:
        search = Search.WHOLE
        if index == 0 or cut or frame % SMALL_TILES_EVERY == 0:
            search = Search.SMALL_TILES
        elif frame % LARGE_TILES_EVERY == 0:
            search = Search.LARGE_TILES
        found = self._find(view, search)

        def look_at(roi: Roi) -> Points | None:
            return self._tools.landmarker.find(view, roi)

        sightings = tracker.step(view, index, found, cut=cut, look_at=look_at)
        if not sightings and search is not Search.SMALL_TILES:
            found = self._find(view, Search.SMALL_TILES)
            sightings = tracker.step(view, index, found, cut=False, look_at=lambda _: None) if found else []
        return sightings

    def _find(self, view: View, search: Search) -> list[tuple[Points, float]]:
        tools = self._tools
        return [(mesh, d.score) for mesh, d in find_faces(view, tools.detector, tools.landmarker, search)]


def _boxed(
    repairs: Repairs, frame: int, view: View, landmarker: Landmarker, record: _Record
) -> Iterator[tuple[int, Points]]:
    """The faces that the artist's boxes give in a frame: track and mesh in square coordinates."""
    for keys in repairs.boxes:
        box = keys.at(frame)
        if box is None:
            continue
        x0, y0, x1, y1 = box[0] * view.pixel_aspect, box[1], box[2] * view.pixel_aspect, box[3]
        middle, side = ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0)
        mesh = landmarker.find(view, Roi(*middle, 1.5 * side))
        if mesh is not None:
            found = bounding_box(mesh)
            inside = x0 <= (found[0] + found[2]) / 2 <= x1 and y0 <= (found[1] + found[3]) / 2 <= y1
            mesh = mesh if inside else None
        if mesh is None:
            mesh = record.last_mesh(keys.track)
            if mesh is None:
                continue
            mesh = mesh.copy()
            found = bounding_box(mesh)
            scale = side / max(found[2] - found[0], found[3] - found[1])
            mesh *= scale
            mesh[:, :2] += np.array(middle) - scale * np.array([(found[0] + found[2]) / 2, (found[1] + found[3]) / 2])
        yield keys.track, mesh


@dataclass
class _Face:
    """What is kept of one track while the shot is looked at."""

    indices: list[int] = field(default_factory=list)
    detected: list[NDArray[np.float32]] = field(default_factory=list)
    blended: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    smoother: ClassSmoother = field(default_factory=ClassSmoother)
    maps: list[SmoothedClasses] = field(default_factory=list)


class _Record:
    """Collects sightings and smoothed class maps by track; everything in it is small."""

    def __init__(self, tools: FaceTools, pixel_aspect: float) -> None:
        self._parser = tools.parser
        self._aspect = np.array([pixel_aspect, 1.0, pixel_aspect])
        self._faces: dict[int, _Face] = {}
        self.manual: set[tuple[int, int]] = set()
        self.cuts: list[int] = []

    def cut(self, index: int) -> None:
        self.cuts.append(index)
        for face in self._faces.values():
            face.maps.extend(face.smoother.finish())

    def add(self, view: View, sighting: Sighting) -> None:
        face = self._faces.setdefault(sighting.track, _Face())
        if self._parser is not None:
            if face.indices and face.indices[-1] != sighting.index - 1:
                face.maps.extend(face.smoother.finish())
            parsed = self._parser.parse(view, sighting.blended)
            face.maps.extend(face.smoother.add(sighting.index, parsed))
        face.indices.append(sighting.index)
        face.detected.append((sighting.detected / self._aspect).astype(np.float32))
        face.blended.append((sighting.blended / self._aspect).astype(np.float32))
        face.scores.append(sighting.score)

    def last_mesh(self, track: int) -> Points | None:
        """The track's newest mesh in square coordinates, or the newest of any track, or None."""
        faces = [self._faces[track]] if track in self._faces else list(self._faces.values())
        newest = max(faces, key=lambda f: f.indices[-1], default=None)
        return None if newest is None else np.asarray(newest.blended[-1] * self._aspect, dtype=np.float64)

    def jitter(self, count: int) -> float:
        """How much the faces tremble as detected. The detected meshes are given up for it."""
        tracks = []
        for track_id in self._kept(count):
            face = self._faces[track_id]
            tracks.append(Track(track_id, *self._rows(track_id, face, face.detected, count), (), *_no_classes(count)))
        return jitter(tracks, pixel_aspect=float(self._aspect[0]))

    def tracks(self, count: int) -> list[Track]:
        """The tracks over all `count` frames, landmarks blended with flow, and their classes. Empties the record."""
        out = []
        for track_id in self._kept(count):
            face = self._faces.pop(track_id)
            names = self._parser.classes if self._parser is not None else ()
            rows = self._rows(track_id, face, face.blended, count)
            maps = self._classes(face, count) if names else _no_classes(count)
            out.append(Track(track_id, *rows, names, *maps))
        return out

    def _kept(self, count: int) -> list[int]:
        """Tracks that are faces: not what looked like one for a moment."""
        return [
            track_id
            for track_id, face in sorted(self._faces.items())
            if len(face.indices) >= min(LEAST_SIGHTINGS, count)
            or max(face.scores) >= SURE
            or any((track_id, i) in self.manual for i in face.indices)
        ]

    def _rows(
        self, track_id: int, face: _Face, meshes: list[NDArray[np.float32]], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Landmarks, states and scores over all frames; `meshes` is emptied."""
        landmarks = np.zeros((count, LANDMARKS, 3), dtype=np.float32)
        states = np.zeros(count, dtype=np.uint8)
        scores = np.zeros(count, dtype=np.float32)
        for index in reversed(face.indices):
            landmarks[index] = meshes.pop()
        states[face.indices] = FaceState.DETECTED
        states[[i for i in face.indices if (track_id, i) in self.manual]] = FaceState.MANUAL
        scores[face.indices] = face.scores
        return landmarks, states, scores

    def _classes(self, face: _Face, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Class maps and their matrices over all frames; the face's list is emptied."""
        face.maps.extend(face.smoother.finish())
        segmentation = np.zeros((count, *face.maps[0].values.shape), dtype=np.uint8)
        matrices = np.zeros((count, 2, 3), dtype=np.float32)
        while face.maps:
            smoothed = face.maps.pop()
            segmentation[smoothed.index] = smoothed.values
            matrices[smoothed.index] = smoothed.matrix * [self._aspect[0], 1.0, 1.0]
        return segmentation, matrices


def _no_classes(count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return np.zeros((count, 0, 0, 0), dtype=np.uint8), np.zeros((count, 2, 3), dtype=np.float32)
