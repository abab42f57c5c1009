"""The 19 parsing maps beside the picture: from BiSeNet, or made of the built-in mattes, and how they are kept.

BiSeNet is fed what VToonify was trained with (networks.vtoonify.parser_input). The built-in mattes become logits of the
kind it gives: far above the others where a class is certain. What mattes cannot tell apart (glasses, earrings,
necklaces, clothes, hats) stays background or what it lies on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference_server.effects.base import Arrays
from inference_server.effects.placement import Placement
from inference_server.faces.types import FaceFrame
from inference_server.networks.bisenet import CLASSES, BiSeNet
from inference_server.networks.vtoonify import parser_input

_CERTAIN, _ABSENT = 9.0, -3.0  # logits of a class where it is and where it is not
_NOSE_TOP, _CHIN, _MOUTH_LEFT, _MOUTH_RIGHT = 168, 152, 61, 291
_MOUTH_MIDDLE = (13, 14)
_SPLIT = 1.5  # crop pixels over which left goes into right


def parsed(parser: BiSeNet, frames: Tensor) -> Tensor:
    """Raw logits [N, 19, 2H, 2W] of frames [N, 3, H, W] in [-1, 1]."""
    return parser.parse(parser_input(frames))


def logits_of_mattes(mattes: Mapping[str, Tensor], face: FaceFrame, placement: Placement, count: int) -> Tensor:
    """Logits [1, count, H, W] of mattes name -> [H, W] in the crop; `count` classes in BiSeNet's order."""
    some = next(iter(mattes.values()))
    h, w = some.shape
    none = torch.zeros_like(some)
    at = {name: mattes.get(name, none).clamp(0, 1) for name in ("face", "brows", "eyes", "nose", "lips", "mouth")}
    at |= {name: mattes.get(name, none).clamp(0, 1) for name in ("ears", "hair", "neck", "hat")}
    points = placement.to_crop(face.landmarks[:, :2].astype(np.float64))
    person_left = _side(points[_CHIN], points[_NOSE_TOP], h, w, some)  # the picture's right, for an upright head
    lower = _side(points[_MOUTH_LEFT], points[_MOUTH_RIGHT], h, w, some, points[list(_MOUTH_MIDDLE)].mean(axis=0))
    features = torch.stack([at[n] for n in ("brows", "eyes", "nose", "lips", "mouth")]).amax(dim=0)
    skin = at["face"] * (1 - features) * (1 - torch.maximum(at["hair"], at["hat"]))
    share = {
        "skin": skin,
        "l_brow": at["brows"] * person_left,
        "r_brow": at["brows"] * (1 - person_left),
        "l_eye": at["eyes"] * person_left,
        "r_eye": at["eyes"] * (1 - person_left),
        "l_ear": at["ears"] * person_left,
        "r_ear": at["ears"] * (1 - person_left),
        "nose": at["nose"] * (1 - torch.maximum(at["eyes"], at["lips"])),
        "mouth": at["mouth"],
        "u_lip": at["lips"] * (1 - lower),
        "l_lip": at["lips"] * lower,
        "neck": at["neck"] * (1 - at["face"]),
        "hair": at["hair"],
        "hat": at["hat"],
    }
    share["background"] = 1 - torch.stack(list(share.values())).amax(dim=0)
    stacked = torch.stack([share.get(name, none) for name in CLASSES[:count]])
    return (_ABSENT + (_CERTAIN - _ABSENT) * stacked)[None]


def _side(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    h: int,
    w: int,
    like: Tensor,
    through: NDArray[np.float64] | None = None,
) -> Tensor:
    """[h, w] 1 on the right hand of somebody who walks from start to end (as seen), 0 on the left, softly.

    `through` bends the way to a parabola by that point: the corners of a smile lie above the middle of the lips.
    """
    length = max(float(np.hypot(*(end - start))), 1e-6)
    along = (end - start) / length
    x = torch.arange(w, device=like.device, dtype=like.dtype) + 0.5 - float(start[0])
    y = torch.arange(h, device=like.device, dtype=like.dtype) + 0.5 - float(start[1])
    away = x[None] * -float(along[1]) + y[:, None] * float(along[0])
    if through is not None:
        off = through - start
        part = ((x[None] * float(along[0]) + y[:, None] * float(along[1])) / length).clamp(0, 1)
        away = away - float(along[0] * off[1] - along[1] * off[0]) * 4 * part * (1 - part)
    return (away / _SPLIT + 0.5).clamp(0, 1)


# --- kept with the shot ----------------------------------------------------------------------------------------------


def packed(logits: Tensor, exact: bool) -> Arrays:
    """Smoothed logits [19, H, W] as arrays of a frame.

    Exact: half floats at full size. Otherwise 8 bits a class at half the size: the parser itself decides at a quarter
    of it, and a step is about as large, in the network's input, as one of an 8-bit picture.
    """
    if exact:
        return {"logits": logits.to("cpu", torch.float16).numpy()}
    small = functional.avg_pool2d(logits[None], 2)[0].cpu()
    low = small.amin(dim=(1, 2))
    step = ((small.amax(dim=(1, 2)) - low) / 255).clamp_min(1e-6)
    coded = ((small - low[:, None, None]) / step[:, None, None]).round().to(torch.uint8)
    return {"coded": coded.numpy(), "low": low.numpy(), "step": step.numpy()}


def unpacked(arrays: Arrays, device: torch.device) -> Tensor:
    """Logits [1, 19, H, W] from `packed`."""
    if "logits" in arrays:
        return torch.from_numpy(arrays["logits"]).to(device, torch.float32)[None]
    coded, low, step = (torch.from_numpy(arrays[name]).to(device) for name in ("coded", "low", "step"))
    small = coded.float() * step[:, None, None] + low[:, None, None]
    return functional.interpolate(small[None], scale_factor=2, mode="bilinear", align_corners=False)
