"""The composite: the only place where stored plate samples are replaced.

Where the matte is 0 the stored bits are kept; non-finite samples, and pixels whose alpha is 0, are kept at any
matte value; alpha itself is never written. All of it happens in scene-linear light:

    replace   out = P + m * (a * E - P)
    delta     out = P + m * (a * E - a * R)

with P the plate (premultiplied by its alpha a, or a = 1), E the edited picture and R the reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import EffectError
from inference_server.plates.color import PlateColor

HALF_MAX = np.float32(65504.0)


@dataclass(frozen=True)
class Straight:
    """A region of a plate made ready for an effect.

    scene   [h, w, 3] float32 scene-linear Rec.709, unpremultiplied, non-finite samples filled
    alpha   [h, w] float32 what E is multiplied by; 1 where the plate is straight or has none
    valid   [h, w] bool, False where the composite leaves the pixel alone (alpha 0)
    """

    scene: NDArray[np.float32]
    alpha: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def cut(self, box: tuple[slice, slice]) -> Straight:
        """Rows and columns of it."""
        return Straight(self.scene[box], self.alpha[box], self.valid[box])


def quantise_matte(matte: NDArray[np.float32]) -> NDArray[np.float16]:
    """A matte as it is written: half float in 0..1, non-finite values 0. The composite uses exactly this."""
    return np.nan_to_num(matte, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1).astype(np.float16)


def straighten(
    rgb: NDArray[Any], alpha: NDArray[Any] | None, premult: str, associated: bool, color: PlateColor
) -> Straight:
    """Unpremultiply, fill and convert a region.

    rgb         [h, w, 3] stored samples, float16 or float32
    alpha       [h, w] stored samples, or None
    premult     `auto` (premultiplied where the format says its alpha is associated), `premultiplied`, `straight`,
                `ignore` (alpha is not looked at)
    associated  whether the file format stores premultiplied colour
    """
    values = rgb.astype(np.float32)
    filled = fill_non_finite(values)
    coverage = np.ones(values.shape[:2], np.float32)
    valid = np.ones(values.shape[:2], np.bool_)
    if alpha is not None and premult != "ignore":
        a = np.nan_to_num(alpha.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        valid = a > 0
        if premult == "premultiplied" or (premult == "auto" and associated):
            coverage = np.where(valid, a, np.float32(1)).astype(np.float32)
            filled = filled / coverage[..., None]
    return Straight(color.to_scene(filled), coverage, valid)


def fill_non_finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[h, w, 3] with NaN and Inf replaced by the mean of the finite neighbours within 2 pixels (else 0)."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    zeroed = np.where(finite, values, np.float32(0))
    count = cv2.boxFilter(finite.astype(np.float32), -1, (5, 5), normalize=False, borderType=cv2.BORDER_CONSTANT)
    total = cv2.boxFilter(zeroed.astype(np.float64), -1, (5, 5), normalize=False, borderType=cv2.BORDER_CONSTANT)
    near = (total / np.maximum(count, 1)).astype(np.float32)
    return np.where(finite, values, near)


def composite(
    stored: NDArray[Any],
    straight: Straight,
    edited: NDArray[np.float32],
    reconstructed: NDArray[np.float32] | None,
    matte: NDArray[np.float16],
    mode: str,
    color: PlateColor,
) -> NDArray[Any]:
    """New stored samples for a region.

    stored         [h, w, 3] float16 or float32, as in the file
    edited         [h, w, 3] E, scene-linear Rec.709, unpremultiplied
    reconstructed  [h, w, 3] R, needed for mode `delta`; None means R is the plate
    matte          [h, w] as quantised by `quantise_matte`
    Returns [h, w, 3] of the stored dtype. Raises EffectError `effect.failed` when E or R is not finite.
    """
    if not np.isfinite(edited).all() or (reconstructed is not None and not np.isfinite(reconstructed).all()):
        raise EffectError(
            "effect.failed",
            "the effect returned values that are not finite",
            remedy="Report this with the frame; a lower strength may avoid it.",
        )
    m = matte.astype(np.float32)[..., None]
    a = straight.alpha[..., None]
    plate = stored.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        if color.linear:
            target = a * color.from_scene(edited)
            base = plate
            if mode == "delta" and reconstructed is not None:
                base = a * color.from_scene(reconstructed)
            mixed = plate + m * (target - base)
        else:  # a matrix cannot stand in for the transfer curve: mix in scene light, then encode
            base = straight.scene
            if mode == "delta" and reconstructed is not None:
                base = reconstructed
            mixed = a * color.from_scene(straight.scene + m * (edited - base))
    if stored.dtype == np.float16:
        mixed = mixed.clip(-HALF_MAX, HALF_MAX)
    keep = (matte == 0)[..., None] | ~straight.valid[..., None] | ~np.isfinite(plate) | ~np.isfinite(mixed)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(keep, stored, mixed.astype(stored.dtype))
