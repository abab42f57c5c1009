"""The equations of both stages of the two-stage translator, and the features they compare pictures in.

Stage one: least-squares adversarial, L1, and a perceptual distance, which is the contextual loss in VGG19's relu3_1
where that network is at hand. Where it is not, `Bands` stands in: an analysis of the picture that needs no weights.
Stage two: the warp loss (equation 2 of the paper), the temporal feature loss, and two terms of ours, the stability of
the refined picture along the flow, and its texture, which keeps that stability from being bought with blur.

Pictures are display-encoded sRGB in [-1, 1]; every equation is worked out in float32, whatever autocast says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.tensors import check_shape
from inference_server.training.recipes.style_losses import contextual_loss

Distance = Literal["l1", "l2"]
LUMA = (0.2126, 0.7152, 0.0722)  # Rec.709
LEVELS = 4
ORIENTATIONS = 4
WAVELENGTH = 4.0  # pixels of its level
FLOOR = 1e-2  # of an energy: what counts as no texture


def real_or_not(scores: Tensor, real: bool) -> Tensor:
    """Least squares: the mean of (score - 1)^2 for what shall pass as real, of score^2 for what shall not."""
    return (scores.float() - (1.0 if real else 0.0)).square().mean()


def weighted_l1(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of pictures [N, 3, H, W] over the pixels that count, weight [N, 1, H, W]."""
    distance = (output.float() - target.float()).abs().mean(dim=1, keepdim=True)
    return (weight * distance).sum() / weight.sum().clamp(min=1e-6)


# ----------------------------------------------------------------------------------------------------- features


class Bands(nn.Module):
    """What a picture consists of, octave by octave: the stand-in for VGG's features where there are no weights.

    Each of four levels is half of the one before. `detail{l}` [N, 3, h, w] is what the low-pass takes away: signed, in
    place, all colours. `energy{l}` [N, 4, h, w] is the strength of luma's texture in four orientations, the length of
    a quadrature pair of Gabor filters at 4 px of the level: it hardly changes when texture moves by less than that,
    and is lost where texture is blurred. Pictures of 16 px or more. At 256 x 256 about 0.1 G multiply-adds, a
    hundredth of the translator.
    """

    low: Tensor
    pairs: Tensor
    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("low", torch.outer(line, line).expand(3, 1, 5, 5).contiguous(), persistent=False)
        self.register_buffer("pairs", _quadrature_pairs(), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """pictures: [N, 3, H, W]. Raises ShapeError."""
        check_shape("pictures", pictures, "N", 3, "H", "W")
        taps: dict[str, Tensor] = {}
        with torch.autocast(pictures.device.type, enabled=False):
            level = pictures.float()
            for number in range(LEVELS):
                smooth = F.conv2d(F.pad(level, (2, 2, 2, 2), mode="replicate"), self.low, groups=3)
                taps[f"detail{number}"] = level - smooth
                luma = (level * self.luma).sum(dim=1, keepdim=True)
                n, _, h, w = luma.shape
                answers = F.conv2d(F.pad(luma, (4, 4, 4, 4), mode="replicate"), self.pairs)
                answers = answers.view(n, 2, ORIENTATIONS, h, w)
                taps[f"energy{number}"] = (answers.square().sum(dim=1) + FLOOR**2).sqrt()
                level = smooth[..., ::2, ::2]
        return taps


def _quadrature_pairs() -> Tensor:
    """[2 x orientations, 1, 9, 9]: even filters, then odd ones; no answer to a constant, 1 to a wave of amplitude 1."""
    at = torch.arange(-4, 5, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    window = torch.exp(-(x.square() + y.square()) / (2 * 2.0**2))
    even, odd = [], []
    for number in range(ORIENTATIONS):
        angle = math.pi * number / ORIENTATIONS
        phase = 2 * math.pi / WAVELENGTH * (x * math.cos(angle) + y * math.sin(angle))
        c, s = window * phase.cos(), window * phase.sin()
        c -= window * c.sum() / window.sum()
        even.append(c / (c * phase.cos()).sum())
        odd.append(s / (s * phase.sin()).sum())
    return torch.stack(even + odd)[:, None].float()


def perceptual(features: nn.Module, output: Tensor, target: Tensor, band: float = 0.2) -> Tensor:
    """How different two pictures [N, 3, H, W] look.

    With VGG19 the contextual loss at its last tap (relu3_1 when it is built for that), with band width `band`. With
    `Bands` the sum of the mean absolute differences of all taps: pairs are in register, so that nothing has to be
    looked for elsewhere in the picture.
    """
    with torch.no_grad():
        wanted = features(target)
    taps = features(output)
    if isinstance(features, Bands):
        return torch.stack([F.l1_loss(taps[name], wanted[name]) for name in taps]).sum()
    with torch.autocast(output.device.type, enabled=False):
        last: str = features.last  # type: ignore[assignment]
        return contextual_loss(taps[last].float(), wanted[last].float(), band)


def deep(features: nn.Module, taps: Mapping[str, Tensor]) -> list[Tensor]:
    """Features that small motion hardly changes: VGG's last tap, the energies of the two coarsest bands."""
    if isinstance(features, Bands):
        return [taps[f"energy{number}"] for number in range(LEVELS - 2, LEVELS)]
    last: str = features.last  # type: ignore[assignment]
    return [taps[last].float()]


def texture(features: nn.Module, taps: Mapping[str, Tensor]) -> list[Tensor]:
    """Features that blur destroys: VGG's relu1_1, the energies of the two finest bands."""
    if isinstance(features, Bands):
        return [taps[f"energy{number}"] for number in range(2)]
    return [taps["relu1_1"].float()]


def feature_l1(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The sum over taps of the mean absolute difference."""
    return torch.stack([F.l1_loss(x, y) for x, y in zip(a, b, strict=True)]).sum()


# ------------------------------------------------------------------------------------------------------- motion


def warped(picture: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """A picture of frame t-1 as frame t sees it, and where that is known.

    picture [N, C, H, W]; flow [N, 2, H, W] in pixels (x, y), from t back to t-1. Bilinear, the border repeated. The
    second result [N, 1, H, W] is 1 where the place lies within the picture.
    """
    n, _, h, w = picture.shape
    check_shape("flow", flow, n, 2, h, w)
    with torch.autocast(picture.device.type, enabled=False):
        flow = flow.float()
        x = torch.arange(w, device=flow.device, dtype=torch.float32) + flow[:, 0]
        y = torch.arange(h, device=flow.device, dtype=torch.float32)[:, None] + flow[:, 1]
        grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
        out = F.grid_sample(picture.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return out, inside[:, None].float()


def warp_target(
    previous: Tensor,
    current: Tensor,
    backgrounds: tuple[Tensor, Tensor],
    intermediate: Tensor,
    flow: Tensor,
    valid: Tensor,
    share: float = 1.0,
    occluded: Literal["translated", "source"] = "translated",
) -> Tensor:
    """The first argument of equation 2: M * Warp(x_{t-1}, f_t) + (1 - M) * G_XY(x_t), [N, 3, H, W].

    previous, current  x_{t-1}, x_t
    backgrounds        probabilities of background [N, 1, H, W] in x_{t-1} and x_t; that of x_{t-1} is warped with the
                       flow as the picture is
    share              of the background's target that is the source; 1 is the paper's
    occluded           what the target is where the flow does not hold: the translator's picture, or the source's
                       frame t by its own matte
    """
    moved, inside = warped(previous, flow)
    holds = valid.float() * inside
    matte = warped(backgrounds[0], flow)[0] * holds
    if occluded == "source":
        matte = matte + backgrounds[1].float() * (1 - holds)
        moved = moved * holds + current.float() * (1 - holds)
    matte = share * matte
    return matte * moved + (1 - matte) * intermediate.float()


def distance(a: Tensor, b: Tensor, kind: Distance, weight: Tensor | None = None) -> Tensor:
    """Mean absolute or mean squared difference; `weight` [N, 1, H, W] multiplies it pixel by pixel."""
    difference = a.float() - b.float()
    each = difference.abs() if kind == "l1" else difference.square()
    return (each if weight is None else weight * each).mean()


def stability(
    refined: tuple[Tensor, Tensor], frames: tuple[Tensor, Tensor], flow: Tensor, valid: Tensor, alpha: float
) -> Tensor:
    """How much the refined picture changes along the flow where the source does not (not in the paper).

    mean of c * |y_t - Warp(y_{t-1})|^2 with confidence c = valid * exp(-alpha * |x_t - Warp(x_{t-1})|^2), source in
    0..1 and summed over its channels (as in arXiv 1808.00449, alpha 50). Squared, because a picture between "as the
    translator says" and "as before" is then the mean of both over time, and flicker is averaged away; absolute
    distances would choose one of the two. `refined`, `frames`: t-1 and t.
    """
    moved, inside = warped(refined[0], flow)
    before, _ = warped(frames[0], flow)
    change = ((frames[1].float() - before) / 2).square().sum(dim=1, keepdim=True)
    confidence = valid.float() * inside * torch.exp(-alpha * change)
    return distance(refined[1], moved, "l2", confidence.detach())


def flow_warp_error(pictures: Tensor, flow: Tensor, valid: Tensor) -> Tensor:
    """The measure of flicker: for frames 1 to T-1 of [T, 3, H, W] in -1..1, the mean over the pixels where the flow
    holds of the squared difference to the previous picture moved by the flow, pictures taken in 0..1. One number.

    flow, valid: as of a `Window`.
    """
    moved, inside = warped(pictures[:-1], flow[1:])
    holds = valid[1:].float() * inside
    change = ((pictures[1:].float() - moved) / 2).square().mean(dim=1, keepdim=True)
    return (holds * change).sum() / holds.sum().clamp(min=1.0)
