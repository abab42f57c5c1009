"""Changes of a training pair: place and size for both pictures alike, colour and grain for the frame only.

A pair is cut, or turned and scaled and cut, by one resampling straight into the crop. Half of the pairs are only cut
(`probability`), so that the network also learns from pixels that were never interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.training.draws import Draw


@dataclass(frozen=True)
class Geometry:
    """`probability` is that of a turn and a change of size; `scale` its limits, `angle` degrees either way; pairs are
    cut at a random place. `mirror`: the probability of a mirrored pair.
    """

    probability: float = 0.5
    scale: tuple[float, float] = (0.75, 1.25)
    angle: float = 20.0
    mirror: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not 0 <= self.mirror <= 1:
            raise ValueError("probability and mirror are shares of 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be two sizes above 0, the smaller one first")


@dataclass(frozen=True)
class Photometry:
    """Changes of the frame, uniform within the limits: `exposure` stops either way (of display-encoded values as if
    they were linear light with gamma 2.2), `contrast`, `saturation` and `tint` (of each channel) as a share of 1
    either way. `noise`: standard deviation of the grain, up to this. `blur`: pixels of a Gaussian, up to this.
    """

    exposure: float = 0.25
    contrast: float = 0.1
    saturation: float = 0.15
    tint: float = 0.03
    noise: float = 0.02
    blur: float = 0.0

    def __post_init__(self) -> None:
        if min(self.exposure, self.contrast, self.saturation, self.tint, self.noise, self.blur) < 0:
            raise ValueError("changes of colour must not be negative")


def cut(picture: Tensor, side: int, draw: Draw, geometry: Geometry) -> Tensor:
    """A crop [C, side, side] of a picture [C, H, W] of any size; what belongs together goes side by side in C.

    A picture smaller than the crop, or one that is turned out of it, is continued by its reflection. Bicubic.
    """
    _, h, w = picture.shape
    moved = float(draw.uniform("moved")) < geometry.probability
    if not moved and min(h, w) >= side:
        top, left = draw.integer("top", h - side + 1), draw.integer("left", w - side + 1)
        out = picture[:, top : top + side, left : left + side]
    else:
        low, high = geometry.scale
        size = math.exp(float(draw.uniform("size", math.log(low), math.log(high)))) if moved else 1.0
        angle = math.radians(float(draw.uniform("angle", -geometry.angle, geometry.angle))) if moved else 0.0
        out = _resampled(picture, side, draw, size, angle)
    if float(draw.uniform("mirrored")) < geometry.mirror:
        out = out.flip(2)
    return out


def _resampled(picture: Tensor, side: int, draw: Draw, size: float, angle: float) -> Tensor:
    _, h, w = picture.shape
    reach = side / size / 2  # of the crop within the picture, from its centre
    room = (max(0.0, h / 2 - reach), max(0.0, w / 2 - reach))
    y0, x0 = (float(draw.uniform(name, -by, by)) for name, by in zip(("down", "right"), room, strict=True))
    at = (torch.arange(side, dtype=torch.float32, device=picture.device) - (side - 1) / 2) / size
    y, x = torch.meshgrid(at, at, indexing="ij")
    c, s = math.cos(angle), math.sin(angle)
    grid = torch.stack([(c * x - s * y + x0) / (w / 2), (s * x + c * y + y0) / (h / 2)], dim=-1)
    read = F.grid_sample(picture[None], grid[None], mode="bicubic", padding_mode="reflection", align_corners=False)
    return read[0]


def recoloured(frame: Tensor, draw: Draw, photometry: Photometry) -> Tensor:
    """A frame [3, H, W] in -1..1 with other colours, grain or softness, clamped to -1..1."""
    p = photometry

    def about(name: str, by: float) -> float:
        return float(draw.uniform(name, -by, by))

    x = (frame + 1) / 2
    x = x * 2.0 ** (about("exposure", p.exposure) / 2.2)
    if p.tint:
        x = x * (1 + draw.uniform("tint", -p.tint, p.tint, (3, 1, 1))).to(x)
    mean = x.mean()
    x = mean + (x - mean) * (1 + about("contrast", p.contrast))
    grey = x.mean(dim=0, keepdim=True)
    x = grey + (x - grey) * (1 + about("saturation", p.saturation))
    sigma = float(draw.uniform("blur", 0, p.blur))
    if sigma > 0.1:
        x = _blurred(x, sigma)
    if p.noise:
        x = x + (draw.normal("grain", x.shape) * draw.uniform("noise", 0, p.noise)).to(x)
    return (x * 2 - 1).clamp(-1, 1)


def _blurred(x: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=torch.float32, device=x.device)
    line = torch.exp(-at.square() / (2 * sigma**2))
    line = (line / line.sum()).expand(3, 1, 1, -1)
    padded = F.pad(x[None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, line, groups=3), line.transpose(2, 3), groups=3)[0]
