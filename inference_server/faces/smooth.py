"""A track over its whole shot: gaps closed, landmarks smoothed over time, and how much they tremble as a number.

The 1-D Gaussian of StylePortraitVideo section 3.1 runs over each uninterrupted stretch, not over raw coordinates but
over head pose (a 3-D similarity) and, within the head, each point with the width of its group. A moving head then
keeps its shape, blinks and speech keep their height, and only tremor goes. At a stretch's ends the track is continued
point-symmetrically, which leaves steady motion as it is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.faces.geometry import eye_distance
from inference_server.faces.groups import HEAD_SIGMA, RIGID, SIGMA
from inference_server.faces.types import FaceState
from inference_server.shots.types import Track

Meshes = NDArray[np.float64] | NDArray[np.float32]  # [N, 478, 3] square coordinates

LONGEST_GAP = 8  # frames: a longer absence stays one


def stretches(states: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Runs start..stop (exclusive) of positions where the face is present."""
    present = np.concatenate([[False], states != FaceState.ABSENT, [False]])
    edges = np.flatnonzero(present[1:] != present[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def fill_gaps(track: Track, *, pixel_aspect: float, cuts: Sequence[int] = ()) -> Track:
    """The track with absences of at most LONGEST_GAP frames between two sightings interpolated and marked.

    Head pose and shape are interpolated apart, so that a turning head does not shrink on the way. `cuts` are positions
    at which a new shot begins; nothing is filled across one. Scores fall to 0 in a gap. The class map of a filled frame
    is that of the nearer sighting, moved along with the landmarks.
    """
    states = track.states.copy()
    runs = stretches(states)
    gaps = [
        (end, start)
        for (_, end), (start, _) in itertools.pairwise(runs)
        if start - end <= LONGEST_GAP and not any(end <= cut <= start for cut in cuts)
    ]
    if not gaps:
        return track
    landmarks, scores = track.landmarks.copy(), track.scores.copy()
    segmentation, matrices = track.segmentation.copy(), track.matrices.copy()
    for end, start in gaps:
        ends = _square(landmarks[[end - 1, start]], pixel_aspect).astype(np.float64)
        reference = _normalised_head(ends[0])
        poses, shapes = _decompose(ends, reference)
        for i in range(end, start):
            t = (i - end + 1) / (start - end + 1)
            pose, shape = (1 - t) * poses[0] + t * poses[1], (1 - t) * shapes[0] + t * shapes[1]
            landmarks[i] = _plate(_compose(pose[None], shape[None]), pixel_aspect)[0]
            states[i], scores[i] = FaceState.INTERPOLATED, 0.0
            if track.classes:
                near = end - 1 if t < 0.5 else start
                segmentation[i] = segmentation[near]
                matrices[i] = _carried(matrices[near], landmarks[i], landmarks[near])
    return dataclasses.replace(
        track, landmarks=landmarks, states=states, scores=scores, segmentation=segmentation, matrices=matrices
    )


def smooth_track(track: Track, *, pixel_aspect: float) -> Track:
    """The track with its landmarks smoothed over each uninterrupted stretch; a pure function of the whole track."""
    landmarks = track.landmarks.copy()
    for start, stop in stretches(track.states):
        if stop - start > 1:
            meshes = _square(landmarks[start:stop], pixel_aspect)
            landmarks[start:stop] = _plate(smooth_meshes(meshes), pixel_aspect)
    return dataclasses.replace(track, landmarks=landmarks)


def smooth_meshes(meshes: Meshes) -> Meshes:
    """One uninterrupted stretch [N, 478, 3] in square coordinates, smoothed, float32."""
    reference = _normalised_head(meshes[0].astype(np.float64))
    for _ in range(2):  # the mean head of the stretch, so that no single frame's errors are everyone's
        total = np.zeros_like(reference)
        for _, _, shapes in _heads(meshes, reference):
            total += shapes.sum(axis=0)
        reference = _normalised_head(total / len(meshes))
    within = np.empty(meshes.shape, dtype=np.float32)  # the shape of each frame's head, of unit size
    poses = np.empty((len(meshes), 3, 4))
    for part, pose, shapes in _heads(meshes, reference):
        poses[part], within[part] = pose, shapes
    poses = gaussian_over_time(poses, HEAD_SIGMA)
    for sigma in np.unique(SIGMA):
        members = np.flatnonzero(sigma == SIGMA)
        for group in np.array_split(members, max(len(members) // 64, 1)):  # few at a time: shots are long
            within[:, group] = gaussian_over_time(within[:, group].astype(np.float64), float(sigma))
    out = np.empty(meshes.shape, dtype=np.float32)
    for part in _parts(len(meshes)):
        out[part] = _compose(poses[part], within[part].astype(np.float64))
    return out


def _parts(count: int, size: int = 64) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _heads(
    meshes: Meshes, reference: NDArray[np.float64]
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """`_decompose` in parts of the shot: where, poses, shapes."""
    for part in _parts(len(meshes)):
        yield part, *_decompose(meshes[part].astype(np.float64), reference)


def gaussian_over_time(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """A Gaussian of `sigma` frames along axis 0, truncated at 4 sigma, continued point-symmetrically at both ends."""
    reach = min(int(4 * sigma + 0.5), len(values) - 1)
    if reach <= 0:
        return values.copy()
    before = 2 * values[0] - values[reach:0:-1]
    after = 2 * values[-1] - values[-2 : -reach - 2 : -1]
    long = np.concatenate([before, values, after])
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    out = np.zeros_like(values)
    for k, weight in enumerate(kernel):
        out += weight * long[k : k + len(values)]
    return out


def jitter(tracks: Sequence[Track], *, pixel_aspect: float) -> float:
    """RMS second difference over time of all landmarks seen in three frames running, in pixels per 100 px of eye
    distance (square pixels); 0 where there is nothing to measure.
    """
    total, count = 0.0, 0
    for track in tracks:
        seen = track.states == FaceState.DETECTED
        middle = np.flatnonzero(seen[2:] & seen[1:-1] & seen[:-2]) + 1
        for chunk in np.array_split(middle, max(len(middle) // 256, 1)):
            if len(chunk) == 0:
                continue
            before, here, after = (
                _square(track.landmarks[chunk + k], pixel_aspect).astype(np.float64) for k in (-1, 0, 1)
            )
            size = np.array([max(eye_distance(mesh), 1e-6) for mesh in here]) / 100.0
            second = (before - 2 * here + after)[..., :2] / size[:, None, None]
            total += float((second**2).sum())
            count += second.shape[0] * second.shape[1]
    return float(np.sqrt(total / count)) if count else 0.0


def _square(landmarks: NDArray[np.float32], pixel_aspect: float) -> NDArray[np.float32]:
    return landmarks * np.array([pixel_aspect, 1.0, pixel_aspect], dtype=np.float32)


def _plate(meshes: Meshes, pixel_aspect: float) -> NDArray[np.float32]:
    return (meshes / np.array([pixel_aspect, 1.0, pixel_aspect], dtype=np.float32)).astype(np.float32)


def _normalised_head(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mesh [478, 3] centred on its rigid points, which get unit size."""
    rigid = mesh[list(RIGID)]
    centred = mesh - rigid.mean(axis=0)
    size = np.sqrt((centred[list(RIGID)] ** 2).sum(axis=1).mean())
    return np.asarray(centred / max(float(size), 1e-9))


def _decompose(
    meshes: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses [N, 3, 4] (scaled rotation, translation) that lay the reference's rigid points on each mesh (Umeyama 1991,
    least squares), and the meshes brought back by them [N, 478, 3].
    """
    target = reference[list(RIGID)]
    source = meshes[:, list(RIGID)]
    mean_target, mean_source = target.mean(axis=0), source.mean(axis=1)
    a, b = target - mean_target, source - mean_source[:, None]
    u, s, vt = np.linalg.svd(b.transpose(0, 2, 1) @ a)  # [N, 3, 3]
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    scale = (s * sign).sum(axis=1) / max(float((a**2).sum()), 1e-12)
    turn = scale[:, None, None] * ((u * sign[:, None, :]) @ vt)
    shift = mean_source - (turn @ mean_target)
    poses = np.concatenate([turn, shift[..., None]], axis=-1)
    shapes = np.linalg.solve(turn, (meshes - shift[:, None]).transpose(0, 2, 1)).transpose(0, 2, 1)
    return poses, np.ascontiguousarray(shapes)


def _compose(poses: NDArray[np.float64], shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(shapes @ poses[..., :3].transpose(0, 2, 1) + poses[:, None, :, 3])


def _carried(matrix: NDArray[np.float32], here: NDArray[np.float32], there: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map's matrix for landmarks `here`, made from that for landmarks `there` (plate to map, [2, 3])."""
    ones = np.ones((len(RIGID), 1))
    rigid = np.concatenate([here[list(RIGID), :2].astype(np.float64), ones], axis=1)
    to_there = np.linalg.lstsq(rigid, there[list(RIGID), :2].astype(np.float64), rcond=None)[0].T  # [2, 3]
    linear = matrix[:, :2].astype(np.float64)
    return np.column_stack([linear @ to_there[:, :2], linear @ to_there[:, 2] + matrix[:, 2]]).astype(np.float32)
