"""`retouch`: an ordered list of attribute directions as one warp and one gain of the scene-linear plate.

Edits that move the face run in their order, each on the landmarks that the earlier ones left; their displacements are
composed on a lattice and brought to the plate once. Edits of light and colour belong to the skin they lie on: their
gain is made on the unmoved picture and travels with the warp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from host_bridge.curves import Value
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData
from inference_server.effects.crops import check_input, edge_fade
from inference_server.effects.displacement import (
    Lattice,
    carry,
    compose,
    follow,
    sample,
    sample_at,
    smoothstep,
    support,
    velocity,
)
from inference_server.effects.mesh import Points, Pose, crop_region, pose_of
from inference_server.effects.retouch import apertures
from inference_server.effects.retouch.descriptor import RETOUCH
from inference_server.effects.retouch.moves import DIRECTIONS, EYE_SIZE, SLIMNESS
from inference_server.effects.retouch.tone import TONE_EDITS, tone_gain
from inference_server.faces.types import FaceFrame
from inference_server.plates.color import srgb_decode
from inference_server.plates.types import Window

_LATTICE = 32.0  # cells per eye distance of smooth moves
_FINE_LATTICE = 96.0  # of lids and lips, whose rims are sharp
APERTURE_EDITS = ("mouth_open", "eye_openness")
_EYES = ((33, 133, 159, 145), (263, 362, 386, 374))  # corners and lids
_BEHIND = (0.020, 0.010, 0.010)  # scene-linear colour behind opened lips, where skin is 0.18


@dataclass(frozen=True)
class Moved:
    """The face after the moving edits so far.

    displacement [2, rows, cols] square pixels, as in `EffectOutput.warp`; touched, fresh [rows, cols] 0..1;
    points [478, 2] square crop pixels.
    """

    displacement: Tensor
    touched: Tensor
    fresh: Tensor
    points: Points


class Retouch:
    """The built-in face editing; see the module."""

    descriptor = RETOUCH

    def __init__(self, resources: Resources | None = None) -> None:
        self._device = torch.device(resources.device if resources else "cpu")

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        return crop_region(face, values)

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0 or all(strength == 0 for _, strength in edits)

    @torch.no_grad()
    def render(self, face: FaceInput) -> EffectOutput:
        height, width = check_input(face)
        for name, _ in face.edits:
            self.descriptor.edit(name)
        pose = pose_of(face.face)
        aspect = face.face.pixel_aspect
        sharp = any(name in APERTURE_EDITS and strength != 0 for name, strength in face.edits)
        cells = _FINE_LATTICE if sharp else _LATTICE
        lattice = Lattice.over(height, width, aspect, pose.scale, cells, self._device)
        origin = np.array([face.region.x0 * aspect, face.region.y0], np.float64)
        points = np.asarray(face.face.square()[:, :2], np.float64) - origin

        matte = torch.zeros(height, width, device=self._device)
        warp: Tensor | None = None
        moved = move(lattice, pose, points, face.edits)
        if moved is not None:
            matte = lattice.scalar_to_plate(moved.touched)
            warp = torch.where(matte > 0, lattice.to_plate(moved.displacement, smooth=not sharp), 0.0)

        gain: Tensor | None = None
        tones = tuple(edit for edit in face.edits if edit[0] in TONE_EDITS and edit[1] != 0)
        if tones:
            mattes = {name: value.to(self._device) for name, value in face.mattes.items()}
            tints = {name: _colour(face.values[name]) for name in ("lip_tint", "cheek_tint")}
            log, touched = tone_gain(lattice, face.picture.to(self._device), mattes, points, tones, tints)
            wanted = self.region(face.face, face.values)
            fade = edge_fade(face.region, wanted, 0.2 * pose.scale, aspect, self._device)
            gain, touched = log * fade, touched * fade
            if warp is not None:
                together = carry(torch.cat([gain, touched[None]]), warp)
                gain, touched = together[:3], together[3].clamp(0, 1)
            matte = torch.maximum(matte, touched)
        if moved is not None and warp is not None and bool(moved.fresh.any()):
            fresh = lattice.scalar_to_plate(moved.fresh)
            behind = _behind(carry(face.picture.to(self._device), warp), fresh)
            gain = behind if gain is None else gain + behind
        if gain is not None:
            gain = torch.where(matte > 0, gain, 0.0).exp()
        return EffectOutput(matte=matte, warp=warp, gain=gain)


def _behind(shown: Tensor, fresh: Tensor) -> Tensor:
    """Log gain [3, h, w] that darkens to `_BEHIND`, whatever the stretched plate shows there; fresh [h, w] 0..1."""
    linear = srgb_decode(shown).clamp_min(0.004)
    target = (linear.new_tensor(_BEHIND)[:, None, None] / linear).clamp(max=1)
    return torch.lerp(torch.ones_like(target), target, fresh[None].expand_as(target)).log()


def move(lattice: Lattice, pose: Pose, points: Points, edits: tuple[tuple[str, float], ...]) -> Moved | None:
    """Run the moving edits in order; None when there is none. `points` [478, 2] in square crop pixels."""
    state: Moved | None = None
    for name, strength in edits:
        if strength == 0 or name in TONE_EDITS:
            continue
        now = state.points if state is not None else points
        for step in _steps(lattice, pose, now, name, strength):
            state = step if state is None else _then(lattice, state, step)
    return state


def _then(lattice: Lattice, before: Moved, step: Moved) -> Moved:
    carried = sample(lattice, torch.stack([before.touched, before.fresh]), step.displacement)
    return Moved(
        compose(lattice, step.displacement, before.displacement),
        torch.maximum(step.touched, torch.where(step.touched > 0, carried[0], before.touched)),
        torch.maximum(step.fresh, carried[1]),
        step.points,
    )


def _steps(lattice: Lattice, pose: Pose, points: Points, name: str, strength: float) -> list[Moved]:
    """What one edit does, as one or more moves; `points` are not changed between the moves of the two eyes."""
    unit = pose.scale
    coarse = lattice.with_cells(_LATTICE)
    if name == "mouth_open":
        return [_aperture(lattice, points, apertures.MOUTH, _mouth(points, unit, strength))]
    if name == "eye_openness":
        steps: list[Moved] = []
        for eye in (apertures.LEFT_EYE, apertures.RIGHT_EYE):
            now = steps[-1].points if steps else points
            steps.append(_aperture(lattice, now, eye, _lids(now, eye, unit, strength)))
        return steps
    if name == "eye_size":
        left, right = (_swelling(coarse, points[list(side)].mean(axis=0), EYE_SIZE) for side in _EYES)
        return [_flow(lattice, coarse, points, left + right, strength)]
    if name == "head_slimness":
        return [_flow(lattice, coarse, points, _slimming(coarse, pose, points), strength)]
    direction = DIRECTIONS[name]
    vertices, moves = direction.controls
    moves = pose.turn(moves) * (direction.backward if strength < 0 else 1.0)
    at = points[list(vertices)] + 0.5 * strength * moves
    return [_flow(lattice, coarse, points, velocity(coarse, at, moves, direction.reach * unit), strength)]


def _flow(lattice: Lattice, coarse: Lattice, points: Points, speed: Tensor, strength: float) -> Moved:
    """Follow a velocity on the coarse lattice (square pixels at strength 1) for `strength`; the result on `lattice`."""
    speed = speed * coarse.border_window(0.3 * coarse.unit)
    inside = support(coarse, speed)
    speed = strength * inside * speed
    after = points + sample_at(coarse, follow(coarse, speed), points)
    displacement, touched = follow(coarse, -speed), smoothstep(2 * inside)
    if lattice is not coarse:
        size = (lattice.rows, lattice.cols)
        displacement = functional.interpolate(displacement[None], size=size, mode="bicubic", align_corners=False)[0]
        touched = functional.interpolate(touched[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        displacement = torch.where(touched > 0, displacement, 0.0)
    return Moved(displacement, touched, lattice.zeros()[0], after)


def _swelling(lattice: Lattice, centre: Points, rate: float) -> Tensor:
    """Velocity that enlarges what lies around `centre`; 0 beyond half an eye distance."""
    x, y = lattice.axes()
    dx, dy = (x - float(centre[0]))[None], (y - float(centre[1]))[:, None]
    away = ((dx / 0.5).square() + (dy / 0.42).square()).sqrt() / lattice.unit
    share = rate * (1 - smoothstep((away - 0.35) / 0.65))
    return torch.stack([dx * share, dy * share])


def _slimming(lattice: Lattice, pose: Pose, points: Points) -> Tensor:
    """Velocity that narrows the whole head, hair and ears included, toward its axis."""
    x, y = lattice.axes()
    centre = points[[10, 152]].mean(axis=0)
    axis = pose.turn(np.array([[1.0, 0.0]]))[0]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-9)
    dx, dy = (x - float(centre[0]))[None], (y - float(centre[1]))[:, None]
    across = dx * float(axis[0]) + dy * float(axis[1])
    along = dy * float(axis[0]) - dx * float(axis[1])
    away = ((across / 2.3).square() + (along / 2.6).square()).sqrt() / lattice.unit
    speed = -SLIMNESS * across * (1 - smoothstep((away - 0.4) / 0.6))
    return torch.stack([speed * float(axis[0]), speed * float(axis[1])])


def _aperture(
    lattice: Lattice, points: Points, contour: tuple[tuple[int, ...], tuple[int, ...]], motion: apertures.Motion
) -> Moved:
    step = apertures.move_rims(lattice, points, contour, motion)
    return Moved(step.displacement, step.touched, step.fresh, step.points)


def _height(points: Points, contour: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
    """Height of an opening at its middle, square pixels."""
    upper, lower = (points[side[len(side) // 2]] for side in contour)
    return float(np.linalg.norm(lower - upper))


def _lids(
    points: Points, eye: tuple[tuple[int, ...], tuple[int, ...]], unit: float, strength: float
) -> apertures.Motion:
    gap = _height(points, eye)
    if strength < 0:
        shut = 0.97 * -strength
        return apertures.Motion(0.84 * shut * gap, -0.16 * shut * gap, True, 0.36 * unit, 0.3 * unit, lashes=0.5)
    return apertures.Motion(-0.3 * strength * gap, 0.1 * strength * gap, True, 0.34 * unit, 0.3 * unit)


def _mouth(points: Points, unit: float, strength: float) -> apertures.Motion:
    if strength < 0:
        shut = 0.97 * -strength * _height(points, apertures.MOUTH)
        return apertures.Motion(0.08 * shut, -0.92 * shut, True, 0.3 * unit, max(1.0 * unit, 1.8 * shut), lashes=0.45)
    drop = 0.3 * unit * strength
    return apertures.Motion(-0.05 * drop, drop, False, 0.3 * unit, 1.35 * unit, spread=1.0, borrowed=0.045 * unit)


def _colour(value: Value) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        raise TypeError(f"a tint is three numbers, not {value!r}")
    return value
