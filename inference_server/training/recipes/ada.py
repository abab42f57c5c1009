"""Adaptive discriminator augmentation (arXiv 2006.06676): what keeps a GAN trained on few pictures from learning them
by heart.

The discriminator only sees pictures that were moved and recoloured at random, each kind of change with probability p.
p rises while it is too sure of the training pictures (the mean sign of its scores for them is above the target) and
falls otherwise, so that changes do not leak into what the generator makes. Changes and their strengths are those of
the paper's table of the best set: pixel blitting, geometry and colour, without noise, cutout and filters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference_server.training.draws import Draw, derive
from inference_server.training.recipe import Batch
from inference_server.training.recipes.augment import AffineSettings, apply_affine, sample_affine
from inference_server.training.recipes.gan import over_processes

SCALE = 0.2 * math.log(2)  # standard deviation of the logarithm of scale and stretch
SHIFT = 0.125  # of the side
BRIGHTNESS = 0.2  # standard deviation, of pictures in -1..1
CONTRAST = 0.5 * math.log(2)
SATURATION = math.log(2)

_GREY = torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64)  # the direction of luma


class AdaptiveAugmentation(nn.Module):
    """The probability p and the signs of the discriminator's scores since it last moved; part of checkpoints.

    target: mean sign above which p rises, 0 for no augmentation. length: pictures from p = 0 to p = 1. interval:
    pictures looked at before p moves; it moves by their number over `length`.
    """

    p: Tensor
    signs: Tensor
    count: Tensor

    def __init__(self, target: float = 0.6, length: int = 500_000, interval: int = 256) -> None:
        super().__init__()
        self.target, self.length, self.interval = target, length, interval
        for name in ("p", "signs", "count"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def observe(self, real_scores: Tensor) -> None:
        """Takes note of scores [N, 1] for training pictures."""
        self.signs += over_processes(real_scores.float().sign().sum())
        self.count += over_processes(self.signs.new_tensor(float(len(real_scores))))

    def settle(self) -> None:
        """Between steps: moves p when enough pictures were looked at."""
        if self.target and self.count >= self.interval:
            way = torch.where(self.signs / self.count > self.target, 1.0, -1.0)
            self.p.copy_((self.p + way * self.count / self.length).clamp(0, 1))
            self.signs.zero_()
            self.count.zero_()

    def forward(self, pictures: Tensor, batch: Batch, name: str) -> Tensor:
        """Pictures [N, 3, S, S] in -1..1 as the discriminator sees them; `name` tells one use in a step from another.

        Differentiable twice in the pictures.
        """
        p = float(self.p)
        return augmented(pictures, batch.draws[: len(pictures)], p, name) if p > 0 else pictures


def augmented(pictures: Tensor, draws: tuple[Draw, ...], p: float, name: str) -> Tensor:
    """Pictures [N, 3, S, S], each changed by its own draw, each kind of change with probability p."""
    own = [Draw(derive(d.seed, "augmentation", name), d.step, d.index) for d in draws]
    geometry = [_geometry(draw, p, pictures.shape[-1]) for draw in own]
    colour = torch.stack([_colour(draw, p) for draw in own]).to(pictures)  # [N, 3, 4]
    moved = apply_affine(pictures, geometry)
    recoloured = torch.einsum("nij,njhw->nihw", colour[:, :, :3], moved)
    return recoloured + colour[:, :, 3, None, None]


def _chosen(draw: Draw, kind: str, p: float) -> bool:
    return float(draw.uniform(f"colour {kind}")) < p


def _geometry(draw: Draw, p: float, side: int) -> Tensor:
    """Quarter turns, and then what `sample_affine` does (mirroring before or after a random turn is the same)."""
    settings = AffineSettings(p, SCALE, 180.0, SHIFT, SHIFT, "side")
    matrix = sample_affine(draw, settings, side)
    if _chosen(draw, "quarter", p):
        quarters = draw.integer("quarters", 4)
        c, s = (1, 0, -1, 0)[quarters], (0, 1, 0, -1)[quarters]
        matrix = matrix @ torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)
    return matrix


def _colour(draw: Draw, p: float) -> Tensor:
    """A change of colour as a matrix [3, 4]: brightness, contrast, luma flip, hue, saturation, in this order."""
    eye = torch.eye(3, dtype=torch.float64)
    luma = torch.outer(_GREY, _GREY)
    linear, offset = eye.clone(), torch.zeros(3, dtype=torch.float64)
    if _chosen(draw, "brightness", p):
        offset += BRIGHTNESS * draw.normal("brightness").double()
    steps = []
    if _chosen(draw, "contrast", p):
        steps.append(eye * math.exp(CONTRAST * float(draw.normal("contrast"))))
    if _chosen(draw, "luma", p) and draw.integer("luma flipped", 2):
        steps.append(eye - 2 * luma)
    if _chosen(draw, "hue", p):
        steps.append(_turned(float(draw.uniform("hue", -math.pi, math.pi))))
    if _chosen(draw, "saturation", p):
        steps.append(luma + (eye - luma) * math.exp(SATURATION * float(draw.normal("saturation"))))
    for step in steps:
        linear, offset = step @ linear, step @ offset
    return torch.cat([linear, offset[:, None]], dim=1)


def _turned(angle: float) -> Tensor:
    """A rotation [3, 3] about the grey axis."""
    x, y, z = _GREY.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    eye, luma = torch.eye(3, dtype=torch.float64), torch.outer(_GREY, _GREY)
    return math.cos(angle) * eye + math.sin(angle) * cross + (1 - math.cos(angle)) * luma
