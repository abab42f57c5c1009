"""Attribute directions that change light and colour: gains on the scene-linear plate, nothing moved.

A gain multiplies, so it keeps highlights, negative values and the plate's own texture. Wrinkles and unevenness are
bands of the logarithm of luminance; filters are confined to the skin, so that no halo comes from brows or hair.
All lengths follow the eye distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from inference_server.effects.crops import bounds
from inference_server.effects.displacement import Lattice, smoothstep
from inference_server.effects.look.filters import gaussian
from inference_server.effects.mesh import Points, mean_face
from inference_server.plates.color import LUMINANCE, srgb_decode

TONE_EDITS = ("age", "skin_smoothing", "lip_color", "cheek_color", "eye_brightness")

_USED = ("skin", "face", "lips", "eyes", "hair")
_FINE, _MID, _COARSE = 0.014, 0.07, 0.2  # band limits in eye distances
_LIPS, _SKIN = (0.36, 0.15, 0.14), (0.45, 0.25, 0.18)  # typical scene-linear colours
# Large folds, as polylines of the mesh on the picture's left: (vertices, depth at age 1, half width)
_FOLDS: tuple[tuple[tuple[int, ...], float, float], ...] = (
    ((129, 203, 206, 216, 212), 0.22, 0.055),  # from the nose past the corner of the mouth
    ((231, 230, 229, 228, 31), 0.13, 0.05),  # under the eye
    ((107, 108, 69), 0.07, 0.03),  # forehead
    ((9, 107), 0.06, 0.03),  # between the brows
    ((61, 210), 0.14, 0.045),  # from the corner of the mouth down
)


def bands(picture: Tensor, skin: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Fine (pores) and middle (wrinkles, blemishes) band of the log luminance within the skin, [h, w] each.

    picture [3, h, w] display-encoded; skin [h, w] 0..1; `unit` the eye distance in pixels.
    """
    luma = sum(weight * channel for weight, channel in zip(LUMINANCE, picture, strict=True))
    log = (torch.as_tensor(luma) + 0.06).log() * 2.2  # about the log of linear light
    stack = torch.stack([log * skin, skin])

    def mean(sigma: float) -> Tensor:
        total, weight = gaussian(stack, sigma)
        return torch.where(weight > 1e-3, total / weight.clamp_min(1e-3), log)

    fine_mean, mid_mean = mean(_FINE * unit), mean(_MID * unit)
    return (log - fine_mean) * skin, (fine_mean - mid_mean) * skin


def _soft(x: Tensor, limit: float) -> Tensor:
    """Large steps are edges, not wrinkles: they saturate."""
    return limit * torch.tanh(x / limit)


def skin_smoothing(fine: Tensor, mid: Tensor, strength: float) -> Tensor:
    """Log gain [h, w]: bands taken away (above 0) or brought out."""
    if strength >= 0:
        return -strength * (0.85 * _soft(mid, 0.18) + 0.35 * _soft(fine, 0.12))
    return -strength * (0.8 * _soft(mid, 0.2) + 0.5 * _soft(fine, 0.15))


def age(fine: Tensor, mid: Tensor, folds: Tensor, strength: float) -> Tensor:
    """Log gain [h, w]: wrinkles and folds deeper (above 0) or softer."""
    if strength >= 0:
        dark, light = mid.clamp(max=0), mid.clamp_min(0)
        return strength * (1.6 * _soft(dark, 0.3) + 0.6 * _soft(light, 0.2) + 0.3 * _soft(fine, 0.2) - 1.2 * folds)
    return strength * (0.75 * _soft(mid, 0.2) + 0.4 * _soft(fine, 0.15) - 0.6 * folds)


def fold_shading(lattice: Lattice, points: Points) -> Tensor:
    """Depth of shading of the large folds, [rows, cols]; `points` [478, 2] square crop pixels."""
    mirror = mean_face().mirror
    out = lattice.zeros()[0]
    for vertices, depth, width in _FOLDS:
        for side in (vertices, tuple(int(mirror[v]) for v in vertices)):
            line = points[list(side)]
            margin = 3.0 * width * lattice.unit
            rows, cols = lattice.box(line.min(axis=0) - margin, line.max(axis=0) + margin)
            if rows.start >= rows.stop or cols.start >= cols.stop:
                continue
            distance = _distance(lattice, line, rows, cols) / (width * lattice.unit)
            shade = depth * torch.exp(-0.5 * distance.square()) * smoothstep((3.0 - distance) * 0.8)
            out[rows, cols] = torch.maximum(out[rows, cols], shade)
    return out


def _distance(lattice: Lattice, line: Points, rows: slice, cols: slice) -> Tensor:
    """Distance [r, c] to a polyline [N, 2], tapering: farther toward the ends, so that folds fade out."""
    x, y = lattice.axes()
    px, py = x[cols][None], y[rows][:, None]
    best = torch.full((rows.stop - rows.start, cols.stop - cols.start), math.inf, device=x.device)
    count = len(line) - 1
    for k in range(count):
        (x0, y0), (x1, y1) = ((float(a), float(b)) for a, b in line[k : k + 2])
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
        along = (((px - x0) * (x1 - x0) + (py - y0) * (y1 - y0)) / length).clamp(0, 1)
        from_end = ((k + along) / count - 0.5).abs() * 2  # 0 in the middle, 1 at both ends
        away = ((px - x0 - along * (x1 - x0)).square() + (py - y0 - along * (y1 - y0)).square()).sqrt()
        best = torch.minimum(best, away + 0.08 * lattice.unit * from_end**3)
    return best


def greying(picture: Tensor, amount: float) -> Tensor:
    """Log gain [3, h, w] that takes the colour out of hair, by `amount` 0..1."""
    linear = srgb_decode(picture).clamp_min(0.004)
    luma = sum(weight * channel for weight, channel in zip(LUMINANCE, linear, strict=True))
    grey = torch.as_tensor(luma)[None] * 1.15
    return ((1 - amount) + amount * grey / linear).clamp(0.25, 4.0).log()


def tint(colour: tuple[float, ...], typical: tuple[float, ...], exponent: float) -> list[float]:
    """Log gains per channel that lead from a typical scene-linear colour toward a display colour.

    They keep the luminance of the typical colour. A negative exponent leads away, and less: there it is soon too much.
    """
    wanted = [float(c) for c in srgb_decode(torch.tensor(colour, dtype=torch.float32)).clamp_min(0.01)]
    if exponent < 0:
        exponent *= 0.3
    steps = [exponent * math.log(w / t) for w, t in zip(wanted, typical, strict=True)]
    before = sum(weight * t for weight, t in zip(LUMINANCE, typical, strict=True))
    after = sum(weight * t * math.exp(s) for weight, t, s in zip(LUMINANCE, typical, steps, strict=True))
    return [s - math.log(after / before) for s in steps]


def blush(lattice: Lattice, points: Points) -> Tensor:
    """Soft patches on both cheeks [rows, cols] 0..1; 0 beyond 0.6 eye distances."""
    mirror = mean_face().mirror
    x, y = lattice.axes()
    out = lattice.zeros()[0]
    for vertices in ((50, 205, 187), tuple(int(mirror[v]) for v in (50, 205, 187))):
        centre = points[list(vertices)].mean(axis=0)
        away = ((x[None] - float(centre[0])).square() + (y[:, None] - float(centre[1])).square()).sqrt() / lattice.unit
        out = torch.maximum(out, torch.exp(-0.5 * (away / 0.22).square()) * smoothstep((0.6 - away) / 0.2))
    return out


def tone_gain(
    lattice: Lattice,
    picture: Tensor,
    mattes: Mapping[str, Tensor],
    points: Points,
    edits: tuple[tuple[str, float], ...],
    tints: Mapping[str, tuple[float, ...]],
) -> tuple[Tensor, Tensor]:
    """Log gain [3, h, w] of all tone edits on the unmoved picture, and the matte [h, w] of what they touch.

    Gains commute, so their order does not matter. picture [3, h, w] display-encoded; points [478, 2] unmoved.
    """
    h, w = picture.shape[-2:]
    box = bounds(sum((mattes[name] for name in _USED if name in mattes), torch.zeros(h, w, device=picture.device)))
    total, touched = torch.zeros_like(picture), torch.zeros(h, w, device=picture.device)
    if box is not None:
        inside = {name: mattes[name][box] for name in _USED if name in mattes}
        shades = _Shades(lattice, points, box)
        gain, matte = _tone_gain(picture[:, box[0], box[1]], inside, shades, edits, tints)
        total[:, box[0], box[1]], touched[box] = gain, (matte * 8).clamp(max=1)
    return total, touched


class _Shades:
    """What is drawn from the mesh, at plate resolution, within the part of the crop that tones touch."""

    def __init__(self, lattice: Lattice, points: Points, box: tuple[slice, slice]) -> None:
        self._lattice, self._points, self._box = lattice, points, box
        self.unit = lattice.unit

    def folds(self) -> Tensor:
        return self._lattice.scalar_to_plate(fold_shading(self._lattice, self._points))[self._box]

    def blush(self) -> Tensor:
        return self._lattice.scalar_to_plate(blush(self._lattice, self._points))[self._box]


def _tone_gain(
    picture: Tensor,
    mattes: Mapping[str, Tensor],
    shades: _Shades,
    edits: tuple[tuple[str, float], ...],
    tints: Mapping[str, tuple[float, ...]],
) -> tuple[Tensor, Tensor]:
    h, w = picture.shape[-2:]
    none = torch.zeros(h, w, device=picture.device)
    skin, lips = mattes.get("skin", mattes.get("face", none)), mattes.get("lips", none)
    eyes, hair = mattes.get("eyes", none), mattes.get("hair", none) * (1 - mattes.get("face", none))
    total = torch.zeros_like(picture)
    touched = none
    known: tuple[Tensor, Tensor] | None = None
    for name, strength in edits:
        if strength == 0:
            continue
        if name in ("age", "skin_smoothing"):
            fine, mid = known = known or bands(picture, skin, shades.unit)
            if name == "skin_smoothing":
                total = total + skin * skin_smoothing(fine, mid, strength)
            else:
                folds = shades.folds()
                total = total + skin * age(fine, mid, folds, strength)
                if strength > 0:
                    total = total + hair * greying(picture, 0.55 * strength)
                    touched = torch.maximum(touched, hair)
            touched = torch.maximum(touched, skin)
        elif name == "lip_color":
            total = (
                total + lips * _column(tint(tints["lip_tint"], _LIPS, 0.3 * strength), picture) - lips * 0.15 * strength
            )
            touched = torch.maximum(touched, lips)
        elif name == "cheek_color":
            patch = shades.blush() * skin
            total = total + patch * _column(tint(tints["cheek_tint"], _SKIN, 0.28 * strength), picture)
            touched = torch.maximum(touched, patch)
        elif name == "eye_brightness":
            total = total + eyes * 0.55 * strength
            touched = torch.maximum(touched, eyes)
    return total, touched


def _column(values: list[float], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]
