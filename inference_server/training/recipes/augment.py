"""Random affine changes of a pair of pictures, after adaptive augmentation (arXiv 2006.06676).

Decides which changes there are, how likely and how strong each is, and how a picture is resampled: at twice the rate
between the up- and down-sampling filter of an orthonormal wavelet (sym6), so that nothing aliases and a change that
changes nothing gives back every bit of information; what comes from outside the picture is its reflection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.networks.tensors import check_shape
from inference_server.training.draws import Draw
from inference_server.training.recipes.resampling import bilinear

# Symlet with six vanishing moments: sums to sqrt(2), orthonormal to its own shifts by two.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
DELAY = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6)  # where a sample's content lies within the filter


@dataclass(frozen=True)
class AffineSettings:
    """How likely and how strong. `probability` is that of each kind; 0 switches all of them off.

    Scales are exp of a normal number with `scale` standard deviations; angles are uniform within +-`angle` degrees.
    Translations are uniform within +-`shift` and normal with `shift_normal`, fractions of the side for
    `shift_unit = "side"`. VToonify's training takes the same fractions as pixels ("pixel"), which leaves less than
    half a pixel.
    """

    probability: float = 0.2
    scale: float = 0.1 * math.log(2)
    angle: float = 45.0
    shift: float = 0.125
    shift_normal: float = 0.125
    shift_unit: Literal["pixel", "side"] = "pixel"


def sample_affine(draw: Draw, settings: AffineSettings, side: int) -> Tensor:
    """A change of the picture as a matrix [3, 3], float64, about the picture's centre, in pixels, x to the right.

    In order: mirror (half of the times it is chosen), whole shift, scale, rotation, stretch at constant area,
    rotation, fine shift. Two rotations are each chosen so that one of them happens with `probability`.
    """
    p = settings.probability
    matrix = torch.eye(3, dtype=torch.float64)

    def chosen(kind: str, chance: float) -> bool:
        return float(draw.uniform(f"affine {kind}")) < chance

    def then(step: Tensor) -> None:
        nonlocal matrix
        matrix = step @ matrix

    if chosen("mirror", p) and draw.integer("affine mirrored", 2):
        then(_stretch(-1.0, 1.0))
    unit = side if settings.shift_unit == "side" else 1
    if chosen("shift", p):
        whole = draw.uniform("affine shifted", -settings.shift, settings.shift, (2,)).double()
        then(_shift((whole * side).round() / side * unit))
    if chosen("scale", p):
        factor = math.exp(settings.scale * float(draw.normal("affine scaled")))
        then(_stretch(factor, factor))
    once = 1 - math.sqrt(1 - p)
    if chosen("first rotation", once):
        then(_rotation(float(draw.uniform("affine first angle", -settings.angle, settings.angle))))
    if chosen("stretch", p):
        factor = math.exp(settings.scale * float(draw.normal("affine stretched")))
        then(_stretch(factor, 1 / factor))
    if chosen("second rotation", once):
        then(_rotation(float(draw.uniform("affine second angle", -settings.angle, settings.angle))))
    if chosen("fine shift", p):
        then(_shift(draw.normal("affine finely shifted", (2,)).double() * settings.shift_normal * unit))
    return matrix


def _stretch(x: float, y: float) -> Tensor:
    return torch.diag(torch.tensor([x, y, 1.0], dtype=torch.float64))


def _shift(by: Tensor) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = by
    return matrix


def _rotation(degrees: float) -> Tensor:
    """Counter-clockwise as one sees it, rows counted downwards."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def apply_affine(pictures: Tensor, changes: list[Tensor]) -> Tensor:
    """Moves each picture by its own change. [N, C, H, W] -> the same shape.

    Pictures whose change is the identity are returned as they are. Content that pairs belong together (a face and its
    target) goes side by side in C.
    """
    check_shape("pictures", pictures, len(changes), "C", "H", "W")
    identity = torch.eye(3, dtype=torch.float64)
    with torch.autocast(pictures.device.type, enabled=False):  # places need more than the 8 bits of bf16
        return torch.stack(
            [
                p if torch.equal(m, identity) else _resample(p[None].float(), m)[0].to(p.dtype)
                for p, m in zip(pictures, changes, strict=True)
            ]
        )


def _resample(picture: Tensor, change: Tensor) -> Tensor:
    """One picture [1, C, H, W] through the change."""
    h, w = picture.shape[-2:]
    back = torch.linalg.inv(change)  # from a place in the result to where its content comes from
    corners = torch.tensor([[x * w / 2, y * h / 2, 1.0] for x in (-1, 1) for y in (-1, 1)], dtype=torch.float64)
    reach = (corners @ back.T)[:, :2].abs().amax(dim=0)  # farthest place looked at, from the centre
    # The filter looks 6 pixels further; a reflection reaches no further than the picture itself.
    pad_x = min(max(0, math.ceil(float(reach[0]) - w / 2)) + 6, w - 1)
    pad_y = min(max(0, math.ceil(float(reach[1]) - h / 2)) + 6, h - 1)
    fine = _up2(F.pad(picture, (pad_x, pad_x, pad_y, pad_y), mode="reflect"))  # [1, C, H', W'], twice the rate
    rows, columns = 2 * h + len(SYM6) - 2, 2 * w + len(SYM6) - 2  # what the filter downwards needs for H x W
    # Places are counted from the picture's centre, which lies where the filter has put it.
    y = torch.arange(rows, dtype=torch.float64) - (h - 1 + DELAY)
    x = torch.arange(columns, dtype=torch.float64) - (w - 1 + DELAY)
    places = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.full((rows, columns), 2.0)], dim=-1)
    looked_at = (places.double() @ back.T)[..., :2]  # in fine pixels; a shift counts twice there
    centre = looked_at.new_tensor([w - 1 + 2 * pad_x + DELAY, h - 1 + 2 * pad_y + DELAY])
    last = looked_at.new_tensor([fine.shape[-1] - 1, fine.shape[-2] - 1])
    grid = (2 * (looked_at + centre) / last - 1)[None].to(fine)
    return _down2(bilinear(fine, grid))


def _taps(like: Tensor, gain: float) -> Tensor:
    """[C, 1, 12, 1]: one column of the filter for each channel."""
    line = torch.tensor(SYM6, dtype=torch.float64) * gain
    return line.to(like).view(1, 1, -1, 1).expand(like.shape[1], 1, -1, 1)


def _up2(x: Tensor) -> Tensor:
    """[1, C, H, W] -> [1, C, 2H + 10, 2W + 10]; the opposite of `_down2`, which undoes it exactly."""
    taps, groups = _taps(x, math.sqrt(2)), x.shape[1]
    x = F.conv_transpose2d(x, taps, stride=(2, 1), groups=groups)
    return F.conv_transpose2d(x, taps.transpose(2, 3), stride=(1, 2), groups=groups)


def _down2(x: Tensor) -> Tensor:
    """[1, C, 2H + 10, 2W + 10] -> [1, C, H, W]."""
    taps, groups = _taps(x, math.sqrt(0.5)), x.shape[1]
    x = F.conv2d(x, taps, stride=(2, 1), groups=groups)
    return F.conv2d(x, taps.transpose(2, 3), stride=(1, 2), groups=groups)
