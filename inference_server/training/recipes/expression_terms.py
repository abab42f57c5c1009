"""What the expression dynamics optimisation measures in a picture: lips as heat maps, eyes as a perceptual distance.

Decides how a norm is read. StylePortraitVideo writes plain norms and does not say whether of sums or means; here every
one is a mean square, that of a heat map over its cells and that of codes over their numbers. The published weights
multiply these means as they are: against sums of squares that is 1/4096 for a 64 x 64 heat map and 1/9216 for an
18 x 512 code. Read so, lips a heat map's cell away (4 of 256 pixels) cost some 15, and offsets as far as Adam can take
them in the published 200 steps (0.06 in every number) cost 29: the terms weigh against each other. Mean squares also
have a gradient of 0, not an undefined one, at the offsets' start.

Terms are sums over frames, so that a frame's gradient does not depend on how long the shot is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inference_server.networks.hrnet import IBUG_68, WFLW_98, Square
from inference_server.networks.lpips import LPIPS
from inference_server.networks.tensors import imagenet_normalise
from inference_server.training.errors import TrainingError

REACH = 208  # pixels around a changed one that the last tap of VGG16 (196) or AlexNet (163) can see, and some
STRIDE = 16  # pixels of one cell of the coarsest tap, of both

INNER_LIP = {98: WFLW_98["inner_lip"], 68: IBUG_68["inner_lip"]}  # first and last channel


def inner_lip(points: int) -> tuple[int, int]:
    """First and last channel of the inner lip of a landmark network of so many points; TrainingError if not known."""
    if points not in INNER_LIP:
        raise TrainingError(
            "training.config",
            f"a landmark network of {points} points is not known, so neither is which of them are the inner lip",
            remedy="Use one of 98 (WFLW) or 68 points (300W), or say the channels.",
            value=points,
        )
    return INNER_LIP[points]


def halvings(square: Square, side: int) -> int:
    """How often pictures are halved before squares are cut from them: once decided for a shot, so that it is steady."""
    return max(0, int(math.log2(max(1.0, float(square.side.min()) / side))))


def face_crops(pictures: Tensor, square: Square, halved: int, side: int) -> Tensor:
    """The squares of pictures [B, 3, S, S] at side x side, zeros outside the picture; [B, 3, side, side].

    square: centre [B, 2], side [B], in pixels of the picture, pixel i covers i..i+1. halved: see `halvings`.
    """
    size = pictures.shape[-1]
    if halved:
        pictures = F.avg_pool2d(pictures, 2**halved)
    steps = (torch.arange(side, device=pictures.device, dtype=pictures.dtype) + 0.5) / side - 0.5  # [side]
    centre, sides = square.centre.to(pictures), square.side.to(pictures)
    axes = centre[:, :, None] + sides[:, None, None] * steps  # [B, 2, side]: x of columns, y of rows
    axes = axes * (2 / size) - 1
    x = axes[:, 0, None, :].expand(-1, side, -1)
    y = axes[:, 1, :, None].expand(-1, -1, side)
    return F.grid_sample(pictures, torch.stack([x, y], dim=3), "bilinear", "zeros", align_corners=False)


def lip_maps(
    landmarks: nn.Module, pictures: Tensor, square: Square, halved: int, side: int, channels: tuple[int, int]
) -> Tensor:
    """Heat maps of the inner lip, phi of eq. 3: [B, channels, side / 4, side / 4].

    pictures: [B, 3, S, S] display-encoded sRGB in -1..1. square, halved, side: what the network is to see of each, as
    in `face_crops`. channels: first and last.
    """
    crops = imagenet_normalise((face_crops(pictures, square, halved, side) + 1) / 2)
    maps = cast(Tensor, landmarks(crops))
    return maps[:, channels[0] : channels[1] + 1]


def lip_term(maps: Tensor, wanted: Tensor) -> Tensor:
    """Eq. 3: the sum over frames and channels of the mean square over a map's cells. [B, C, h, w] -> []."""
    return (_whole(maps) - _whole(wanted)).square().mean(dim=(2, 3)).sum()


def offset_term(offsets: Tensor) -> Tensor:
    """Eq. 5: the sum over frames of the mean square of a code's offset. [F, L, D] -> []."""
    return offsets.square().mean(dim=(1, 2)).sum()


def temporal_term(offsets: Tensor, joined: Tensor | None = None) -> Tensor:
    """Eq. 6: the same of the differences between frames that follow each other. joined: bool [F - 1], or all."""
    steps = (offsets[1:] - offsets[:-1]).square().mean(dim=(1, 2))  # [F - 1]
    return (steps if joined is None else steps * joined.to(steps)).sum()


@dataclass(frozen=True)
class EyeWindow:
    """The part of a picture outside of which a change under the eye mask changes no feature of the distance.

    What lies outside is equal in both pictures, so the distance over the window is that over the picture, but for the
    spatial means: `shares` are the window's cells over the picture's, of every tap.
    """

    rows: slice
    columns: slice
    shares: tuple[float, ...]

    def cut(self, pictures: Tensor) -> Tensor:
        return pictures[..., self.rows, self.columns]


def whole_picture(size: int, taps: int = 5) -> EyeWindow:
    """No part, the picture itself."""
    return EyeWindow(slice(0, size), slice(0, size), (1.0,) * taps)


def eye_window(mask: Tensor, perceptual: LPIPS) -> EyeWindow:
    """The window of masks [S, S] or [F, S, S], one for all frames; TrainingError `training.data` for an empty mask."""
    any_frame = mask.reshape(-1, *mask.shape[-2:]).ne(0).any(dim=0)  # [S, S]
    if not any_frame.any():
        raise TrainingError(
            "training.data",
            "the eye mask is empty in all frames",
            remedy="Look at the eyes' landmarks, or leave the eyes out (eyes = 0).",
        )
    size = int(any_frame.shape[0])
    rows, columns = (_reach(any_frame.any(dim=d).nonzero().flatten(), size) for d in (1, 0))
    like = next(perceptual.parameters())
    part = perceptual.features(like.new_zeros(1, 3, rows.stop - rows.start, columns.stop - columns.start))
    full = perceptual.features(like.new_zeros(1, 3, size, size))
    shares = tuple(p[0, 0].numel() / f[0, 0].numel() for p, f in zip(part, full, strict=True))
    return EyeWindow(rows, columns, shares)


def _reach(touched: Tensor, size: int) -> slice:
    """From the first to the last touched place, with what can see them; begins on the grid of the coarsest tap."""
    first, last = int(touched[0]), int(touched[-1])
    return slice(max(0, (first - REACH) // STRIDE * STRIDE), min(size, last + 1 + REACH))


def eye_term(perceptual: LPIPS, drawn: Tensor, wanted: Tensor, window: EyeWindow) -> Tensor:
    """Eq. 4 of pictures that are masked and cut to the window, [B, 3, h, w]: the sum over frames. [].

    Masked is zero in -1..1, a middle grey, in both.
    """
    with torch.no_grad():
        target = perceptual.features(wanted)
    terms = _whole(perceptual.compare(perceptual.features(drawn), target))  # [B, taps]
    return (terms * terms.new_tensor(window.shares)).sum()


def eye_masks(eyes: Sequence[NDArray[np.float32]], size: int, grow: float = 0.03) -> Tensor:
    """The eyes' outlines, filled and grown: uint8 [F, S, S], 0 or 1.

    eyes: for each eye its landmarks in every frame, [F, N, 2] x, y in pixels of the aligned picture; their convex hull
    is filled. grow: by how much, as a share of the picture's side.
    """
    masks = np.zeros((len(eyes[0]), size, size), np.uint8)
    reach = max(1, round(grow * size))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    for place, mask in enumerate(masks):
        for eye in eyes:
            hull = cv2.convexHull(np.asarray(eye[place], np.float32))
            cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), (1,))
        mask[:] = cv2.dilate(mask, brush)
    return torch.from_numpy(masks)


def _whole(x: Tensor) -> Tensor:
    """In float32 at least: differences of short floats would be mostly rounding."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
