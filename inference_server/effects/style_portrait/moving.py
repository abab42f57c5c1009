"""How the edit moves the face, and the picture that keeps what the generator cannot draw.

The generator draws the face twice: R from its code, E from the edited code. What the plate has and R has not (pores,
lashes, a hand in front, light the generator does not know) is the residual; it belongs to the face, so it moves as the
edit moves it, from R to E:

    edited plate = E + W(plate - R)       W along the flow from E back to R

in display-encoded values, where a difference means about the same in light and shade; a difference in linear light
would push what is darker than R below black. At no edit E is R and W moves nothing: the plate is left.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference_server.effects.displacement import carry, smoothstep
from inference_server.effects.look.filters import gaussian, resize
from inference_server.plates.warp import warp_picture

_SIDE = 256  # of the pictures that the motion is measured between
_SMOOTH = 4.0  # of their pixels
_WORTH = 0.02  # mean difference below which there is nothing to explain
_BELIEVED = (0.2, 0.7)  # share of the difference that motion explains: from not at all to wholly


def motion(edited: Tensor, drawn: Tensor) -> Tensor:
    """Where the edited picture has its pixels from: [2, P, P] in parts of the side; E(p) shows R(p + motion(p)).

    edited, drawn  [3, S, S] in -1..1

    OpenCV's DIS, smoothed, and believed only where moving R explains some of the difference: new wrinkles and another
    colour are no motion. Exactly 0 for equal pictures.
    """
    side = min(_SIDE, drawn.shape[-1])
    e, r = (resize(picture.clamp(-1, 1), side, side) for picture in (edited, drawn))
    if torch.equal(e, r):
        return torch.zeros(2, side, side, device=drawn.device)
    flow = torch.from_numpy(_dis(e, r)).to(drawn.device)
    flow = gaussian(flow, _SMOOTH)
    before = gaussian((e - r).abs().mean(dim=0, keepdim=True), _SMOOTH)
    after = gaussian((e - carry(r, flow)).abs().mean(dim=0, keepdim=True), _SMOOTH)
    low, high = _BELIEVED
    explained = (before - after) / (before + _WORTH)
    return flow * gaussian(smoothstep((explained - low) / (high - low)), _SMOOTH) / side


def _dis(here: Tensor, there: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    def grey(picture: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        rgb = ((picture + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8).permute(1, 2, 0).contiguous()
        return np.asarray(cv2.cvtColor(rgb.numpy(), cv2.COLOR_RGB2GRAY), np.uint8)

    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = dis.calc(grey(here), grey(there), None)  # type: ignore[call-overload]
    return np.ascontiguousarray(np.asarray(flow, np.float32).transpose(2, 0, 1))


def enlarged(field: Tensor, side: int) -> Tensor:
    """A smooth field [C, P, P] at another size."""
    return functional.interpolate(field[None], size=(side, side), mode="bilinear", align_corners=False)[0]


def with_residual(plate: Tensor, edited: Tensor, drawn: Tensor, warp: Tensor | None) -> Tensor:
    """The edited plate [3, h, w], display-encoded 0..1, of plate, E and R of the same pixels; see the module.

    warp  [2, h, w] in pixels, or None where nothing moves
    """
    residual = plate - drawn
    moved = residual if warp is None else warp_picture(residual, warp)
    return (edited + moved).clamp(0, 1)
