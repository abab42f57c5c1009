"""Structure degree: the head's shape, exaggerated.

Two rules act on control points of the mesh, in the head frame. The caricature rule moves each point away from the
mean face by a share of what tells this face from it. The proportion rule resizes eyes, skull, jaw, mouth and nose
as the style says. Both are velocities for `displacement.follow`, so that no degree can fold the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from inference_server.effects import mesh
from inference_server.effects.displacement import Lattice, velocity
from inference_server.effects.look.styles import Shape

_EYE = (*mesh.LID_UPPER[1:-1:2], *mesh.LID_LOWER[1:-1:2], 33, 133, *mesh.IRIS)
_BROW = (70, 105, 107, 46, 52, 55)
_MOUTH = (61, 40, 37, 0, 91, 84, 17, 78, 13, 14)
_NOSE = (4, 1, 129, 48, 98, 2, 195)
_JAW = (58, 172, 136, 150, 176, 152)
_SKULL = (10, 109, 103, 54, 21, 162, 151, 104)
_SIDES = (127, 234, 93, 132)
_MIDDLE = (168, 6, 50, 205, 200)
_GROUPS = {
    name: mesh.both(group)
    for name, group in {
        "eyes": _EYE,
        "brows": _BROW,
        "mouth": _MOUTH,
        "nose": _NOSE,
        "jaw": _JAW,
        "head": _SKULL,
        "sides": _SIDES,
        "middle": _MIDDLE,
    }.items()
}
_CONTROLS = tuple(dict.fromkeys(v for group in _GROUPS.values() for v in group))
_REACH = 1.9  # eye distances
_RIDGE = 0.08  # exaggeration is broad: single points do not stick out
_MOST = 0.25  # eye distances a point is moved by the caricature rule at most


def shape_moves(pose: mesh.Pose, shape: Shape, parts: Mapping[str, float]) -> mesh.Points:
    """Moves [K, 2] of the control points in the head frame at structure degree 1.

    `parts` multiplies what happens to `eyes`, `head`, `jaw`, `mouth`, `nose`.
    """
    mean = mesh.mean_face().points
    index = {vertex: row for row, vertex in enumerate(_CONTROLS)}
    place = pose.shape[list(_CONTROLS), :2]
    special = place - mean[list(_CONTROLS), :2]
    # On the side that is turned away points lie behind each other: their moves would tear at what covers them.
    turned = pose.rotation[0, 2]  # sine of the turn
    hidden = np.clip(-np.sign(turned) * place[:, 0], 0, None) * abs(turned)
    moves = shape.caricature * special * np.clip(1 - 1.6 * hidden, 0, 1)[:, None]
    share = np.ones(len(_CONTROLS))
    for name, part in (("eyes", "eyes"), ("mouth", "mouth"), ("nose", "nose"), ("jaw", "jaw"), ("head", "head")):
        share[[index[v] for v in _GROUPS[name]]] = parts[part]
    moves *= share[:, None]
    # Irises keep to their lids: the gaze is not part of a face's shape.
    mirror = mesh.mean_face().mirror
    for side in (tuple(_EYE), tuple(int(mirror[v]) for v in _EYE)):
        rows = [index[v] for v in side]
        lids = [index[v] for v in side if v not in mesh.both(mesh.IRIS)]
        moves[rows] = moves[lids].mean(axis=0)
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    moves *= _MOST * np.tanh(length / _MOST) / np.maximum(length, 1e-9)

    def resize(vertices: tuple[int, ...], size: float, across: float = 1.0, down: float = 1.0) -> None:
        rows = [index[v] for v in vertices]
        middle = place[rows].mean(axis=0)
        moves[rows] += (place[rows] - middle) * (np.log(size) * np.array([across, down]))

    left_eye = tuple(_EYE)
    resize(left_eye, shape.eyes ** parts["eyes"])
    resize(tuple(int(mirror[v]) for v in left_eye), shape.eyes ** parts["eyes"])
    lift = 0.28 * (shape.eyes ** parts["eyes"] - 1)
    moves[[index[v] for v in _GROUPS["brows"]], 1] -= lift
    resize(_GROUPS["mouth"], shape.mouth ** parts["mouth"])
    resize(_GROUPS["nose"], shape.nose ** parts["nose"], 1.0, 0.5)
    jaw = np.log(shape.jaw) * parts["jaw"]
    rows = [index[v] for v in _GROUPS["jaw"]]
    moves[rows, 0] += place[rows, 0] * jaw
    moves[rows, 1] += shape.chin * parts["jaw"]
    skull = np.log(shape.cranium) * parts["head"]
    rows = [index[v] for v in _GROUPS["head"]]
    moves[rows] += place[rows] * skull * np.array([1.0, 1.6])
    rows = [index[v] for v in _GROUPS["sides"]]
    moves[rows, 0] += place[rows, 0] * 0.5 * (skull + jaw)
    return np.asarray(moves)


def shape_velocity(
    lattice: Lattice, pose: mesh.Pose, origin: mesh.Points, shape: Shape, degree: float, parts: Mapping[str, float]
) -> Tensor:
    """Where the head's parts move at `degree`, as velocity [2, rows, cols] in square pixels; 0 on the crop's edge.

    `origin` [2] is the crop's corner in square plate pixels.
    """
    moves = pose.turn(degree * shape_moves(pose, shape, parts))
    at = pose.project(pose.shape[list(_CONTROLS)]) - origin
    field = velocity(lattice, at + 0.5 * moves, moves, _REACH * pose.scale, _RIDGE)
    return field * lattice.border_window(0.35 * pose.scale)
