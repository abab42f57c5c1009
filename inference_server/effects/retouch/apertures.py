"""Openings of the face: lids over an eyeball, lips over teeth.

A smooth warp that shuts an eye squashes the iris. Here what lies inside the opening stays where it is, and the lid or
lip slides over it: the displacement jumps at the rim when the opening gets smaller, which hides pixels and never
folds. When it gets larger the inside is stretched, and `fresh` says where the plate had nothing to show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference_server.effects.displacement import Lattice, sample_at, smoothstep
from inference_server.effects.mesh import Points

LEFT_EYE = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133))
RIGHT_EYE = ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263))
MOUTH = ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308))

_SEAM = 0.03  # eye distances that rims which meet stay apart
_RIM = 0.02  # eye distances over which the jump at a rim is spread
_ROUND = 0.6  # 0 would open the mouth to a point in the middle
_LEAST = 0.2  # share of an even stretch that the inside keeps everywhere, so that nothing is squeezed to a point


@dataclass(frozen=True)
class Motion:
    """How far the rims go, in square pixels, as a profile over the opening.

    upper, lower  moves of the rims at the middle (positive down)
    by_gap        they follow the opening's own height instead of an arch, so that the rims meet evenly
    above, below  how far the skin beyond each rim is taken along
    spread        how much wider the move gets away from the lower rim (the jaw is wider than the mouth)
    borrowed      depth of lower lip that an opening mouth may turn inside
    lashes        darkness of the line along which rims meet
    """

    upper: float
    lower: float
    by_gap: bool
    above: float
    below: float
    spread: float = 0.0
    borrowed: float = 0.0
    lashes: float = 0.0


@dataclass(frozen=True)
class Moved:
    """displacement [2, rows, cols] square pixels; touched, fresh [rows, cols] 0..1; points [478, 2] after the move."""

    displacement: Tensor
    touched: Tensor
    fresh: Tensor
    points: Points


def move_rims(
    lattice: Lattice, points: Points, contour: tuple[tuple[int, ...], tuple[int, ...]], motion: Motion
) -> Moved:
    """Move the rims of an opening of the mesh `points` [478, 2] (square crop pixels)."""
    upper, lower = (points[list(side)] for side in contour)
    half = 0.5 * float(np.linalg.norm(upper[-1] - upper[0]))
    field, touched, fresh = lattice.zeros(), lattice.zeros()[0], lattice.zeros()[0]
    if half < 1e-3:  # seen from the side: there is no opening to move
        return Moved(field, touched, fresh, points)
    middle = 0.5 * (upper[0] + upper[-1])
    across = (upper[-1] - upper[0]) / (2 * half)
    down = np.array([-across[1], across[0]])
    curve_up = _curve((upper - middle) @ across / half, (upper - middle) @ down)
    curve_low = _curve((lower - middle) @ across / half, (lower - middle) @ down)

    wide = 1.3 * half * (1 + motion.spread)
    corners = np.array(
        [
            middle + sx * wide * across + y * down
            for sx in (-1, 1)
            for y in (-1.3 * motion.above - half, 1.3 * motion.below + half + abs(motion.lower))
        ]
    )
    rows, cols = lattice.box(corners.min(axis=0), corners.max(axis=0))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return Moved(field, touched, fresh, points)
    x, y = lattice.axes()
    dx, dy = (x[cols] - float(middle[0]))[None], (y[rows] - float(middle[1]))[:, None]
    t = (dx * float(across[0]) + dy * float(across[1])) / half  # [r, c]
    b = dx * float(down[0]) + dy * float(down[1])

    up, low = _evaluate(curve_up, t), _evaluate(curve_low, t)
    low = torch.maximum(low, up)
    gap = low - up
    arch = _arch(t)
    tallest = max(float((curve_low - curve_up)[0]), 1e-3)
    profile = gap / tallest if motion.by_gap else arch
    new_up = up + motion.upper * profile
    new_low = low + motion.lower * profile
    # Rims that meet keep a seam a few cells wide, or as high as the opening was, over which the jump is spread.
    seam = torch.minimum(gap, torch.full_like(gap, max(_SEAM * lattice.unit, 2.5 * max(lattice.step))))
    centre, height = 0.5 * (new_up + new_low), torch.maximum(new_low - new_up, seam)
    new_up, new_low = centre - 0.5 * height, centre + 0.5 * height

    away_up = ((new_up - b) / motion.above).clamp_min(0)
    away_low = ((b - new_low) / motion.below).clamp_min(0)
    broader = 1 + motion.spread * smoothstep(away_low)  # of the part that goes along, away from the lower rim
    low_move = new_low - low
    if motion.spread > 0:
        low_move = motion.lower * _arch(t / broader)
    skin_up = -(new_up - up) * (1 - smoothstep(away_up))
    skin_low = -low_move * (1 - smoothstep(away_low))
    borrowed = motion.borrowed * arch
    if motion.lower > 0 or motion.upper < 0:
        inside = _stretched(b, up, new_up, gap + borrowed, new_low - new_up + borrowed)
    else:
        rim = (0.5 * (new_low - new_up)).clamp(1e-3, _RIM * lattice.unit)
        still = smoothstep((b - new_up) / rim) * smoothstep((new_low - b) / rim)
        inside = torch.where(b - new_up < new_low - b, up - new_up, low - new_low) * (1 - still)
    moved = torch.where(b < new_low + borrowed, inside, skin_low)
    moved = torch.where(b < new_up, skin_up, moved)

    limits = smoothstep((1.25 - t.abs() / broader) / 0.2)
    limits = limits * smoothstep((1.25 - away_up) / 0.2) * smoothstep((1.25 - away_low) / 0.2)
    window = lattice.border_window(0.3 * lattice.unit)[rows, cols]
    moved = moved * smoothstep(limits * 4) * window
    field[0, rows, cols] = moved * float(down[0])
    field[1, rows, cols] = moved * float(down[1])
    touched[rows, cols] = torch.where(window > 0, limits, 0.0)
    if motion.borrowed > 0:
        grown = new_low - new_up - gap
        begins = smoothstep((b - new_up - 0.75 * gap) / (0.03 * lattice.unit + 0.1 * grown))
        ends = smoothstep((new_low + 0.75 * borrowed - b) / (0.6 * borrowed + 0.015 * lattice.unit))
        fresh[rows, cols] = begins * ends * smoothstep(grown / (0.06 * lattice.unit)) * window
    if motion.lashes > 0:
        closed = (1 - height / gap.clamp_min(1e-3)).clamp(0, 1).square()
        met = closed * smoothstep((2 * seam - height) / seam.clamp_min(1e-3)) * smoothstep(4 * (1 - t.abs()))
        fresh[rows, cols] = motion.lashes * met * torch.exp(-((b - centre) / (0.6 * seam + 1e-3)).square()) * window
    return Moved(
        field, touched, fresh, _moved_points(lattice, field, points, contour, middle, across, down, half, motion)
    )


def _stretched(b: Tensor, up: Tensor, new_up: Tensor, gap: Tensor, new_gap: Tensor) -> Tensor:
    """Displacement within an opening that grows: still at the upper rim, stretched toward the lower one."""
    z = ((b - new_up) / new_gap.clamp_min(1e-4)).clamp(0, 1)
    ratio = (new_gap / gap.clamp_min(1e-4)).clamp(1, 12)
    eased = (1 - _LEAST) * (1 - (1 - z) ** ratio) + _LEAST * z
    return up + gap * eased - b


def _moved_points(
    lattice: Lattice,
    field: Tensor,
    points: Points,
    contour: tuple[tuple[int, ...], tuple[int, ...]],
    middle: Points,
    across: Points,
    down: Points,
    half: float,
    motion: Motion,
) -> Points:
    """The mesh after the move: rims by definition, skin by inverting the field, what lies inside stays."""
    upper, lower = (points[list(side)] for side in contour)
    t_up, t_low = ((rim - middle) @ across / half for rim in (upper, lower))
    curve_up, curve_low = _curve(t_up, (upper - middle) @ down), _curve(t_low, (lower - middle) @ down)
    tallest = max(float((curve_low - curve_up)[0]), 1e-3)

    def profile(t: Points) -> Points:
        if motion.by_gap:
            return np.asarray(np.clip(_value(curve_low, t) - _value(curve_up, t), 0, None) / tallest)
        return np.asarray(np.clip((1 - t * t) * (1 + _ROUND * t * t), 0, None))

    moved = points.copy()
    for _ in range(12):
        moved = points - sample_at(lattice, field, moved)
    moved[list(contour[0])] = upper + (motion.upper * profile(t_up))[:, None] * down
    moved[list(contour[1])] = lower + (motion.lower * profile(t_low))[:, None] * down
    return moved


def _curve(t: Points, b: Points) -> Points:
    """A rim as (1 - t^2) * (c0 + c1 t + c2 t^2): it ends in the corners; the three coefficients."""
    arch = 1 - t * t
    basis = np.stack([arch, arch * t, arch * t * t], axis=1)
    return np.asarray(np.linalg.solve(basis.T @ basis + 1e-6 * np.eye(3), basis.T @ b))


def _value(curve: Points, t: Points) -> Points:
    arch = np.clip(1 - t * t, 0, None)
    return np.asarray(arch * (curve[0] + curve[1] * t + curve[2] * t * t))


def _arch(t: Tensor) -> Tensor:
    """1 in the middle of an opening, 0 in its corners and beyond."""
    square = t * t
    return ((1 - square) * (1 + _ROUND * square)).clamp_min(0)


def _evaluate(curve: Points, t: Tensor) -> Tensor:
    c0, c1, c2 = (float(c) for c in curve)
    return (1 - t * t).clamp_min(0) * (c0 + c1 * t + c2 * t * t)
