"""The losses of VToonify's training and their schedules, each a function of tensors and numbers.

Equation numbers are those of arXiv 2209.11224. Every result is a mean over the micro-batch, so that a step does not
depend on how its batch is divided; the published perceptual loss, a sum over the pictures of a GPU, is restated so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.networks.lpips import LPIPS
from inference_server.networks.stylegan_layers import downsample2
from inference_server.training.recipes.vtoonify_settings import LossSettings


def second_half(step: int, iterations: int) -> float:
    """0 in the first half of a run, then rising to 1 at its end: the flicker loss, and colour jitter."""
    return min(max(step / (iterations / 2) - 1, 0.0), 1.0)


def halved(x: Tensor, times: int) -> Tensor:
    """Half the size `times` over, each time through the [1, 3, 3, 1] low-pass. [N, C, H, W]"""
    for _ in range(times):
        x = downsample2(x)
    return x


def pooled(pictures: Tensor, side: int) -> Tensor:
    """Averaged down to `side` x `side`, at once where that divides."""
    return pictures if pictures.shape[-1] == side else F.adaptive_avg_pool2d(pictures, side)


def imitation(feature: Tensor, rgb: Tensor, teacher: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Equations 1 and 8: mean squared differences of the 32 px feature and of its picture."""
    return F.mse_loss(feature, teacher[0]), F.mse_loss(rgb, teacher[1])


def perceptual(network: LPIPS, result: Tensor, target: Tensor, losses: LossSettings) -> Tensor:
    """LPIPS at `perceptual_size`, as the sum over `perceptual_batch` pictures has it; not yet weighted."""
    small = [pooled(pictures.float(), losses.perceptual_size) for pictures in (result, target)]
    with torch.autocast(result.device.type, enabled=False):  # its features are divided by lengths that fp16 rounds to 0
        distance: Tensor = network(*small)
    return distance.mean() * losses.perceptual_batch


def real_or_not(scores: Tensor, real: bool) -> Tensor:
    """Equation 3 as a logistic loss: mean softplus(-score) for what should pass as real, softplus(score) for fakes."""
    return F.softplus(-scores if real else scores).mean()


def allowed_mask(degree: float, losses: LossSettings) -> float:
    """g(d) of equation 9: 1 at style degree 0, 0.1 at 1."""
    return losses.mask_floor + losses.mask_range * math.pow(1 - degree, losses.mask_power)


def mask_sparsity(masks: Sequence[Tensor], degree: float, losses: LossSettings) -> Tensor:
    """Equation 9 summed over the fusion masks [N, 1, h, w]: what their means exceed g(d) by; not yet weighted."""
    limit = allowed_mask(degree, losses)
    return torch.stack([F.relu(mask.mean() - limit) for mask in masks]).sum()


def flicker(result: Tensor, of_crop: Tensor, place: tuple[int, int]) -> Tensor:
    """Equation 4: the result [N, 3, S, S] cropped at `place` (top, left), against the result of the cropped frame."""
    top, left = place
    h, w = of_crop.shape[-2:]
    return F.mse_loss(of_crop, result[..., top : top + h, left : left + w])
