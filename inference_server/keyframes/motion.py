"""Motion between frames of the network's picture: dense flow, where it holds, and paint carried along it.

Flow is OpenCV's DIS. It holds where going there and coming back ends within half a pixel (more where it is fast), and
where it shows the same colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.faces.flow import warp

Picture8 = NDArray[np.uint8]  # [H, W, 3] RGB
Plane = NDArray[np.float32]

RETURN_SHARE, RETURN_PIXELS = 0.01, 0.25  # |forth + back|^2 below this share of both squared, plus these pixels squared
COLOUR = 0.12  # 0..1: mean difference of the three channels above which a place is not the same place


@dataclass(frozen=True)
class Motion:
    """flow [H, W, 2]: where each pixel of a frame is in another one, seen from itself; holds [H, W] bool."""

    flow: NDArray[np.float32]
    holds: NDArray[np.bool_]


class Flows:
    """Flow between pictures of one size. Holds OpenCV's work space; not for several threads at once."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, here: Picture8, there: Picture8) -> Motion:
        """From `here` to `there`."""
        forth, back = self._flow(here, there), self._flow(there, here)
        returned = warp(back, forth)
        away = ((forth + returned) ** 2).sum(axis=-1)
        most = RETURN_SHARE * ((forth**2).sum(axis=-1) + (returned**2).sum(axis=-1)) + RETURN_PIXELS
        seen = warp(there.astype(np.float32) / 255, forth)
        same = np.abs(seen - here.astype(np.float32) / 255).mean(axis=-1) < COLOUR
        return Motion(forth, (away < most) & same & inside(forth))

    def _flow(self, here: Picture8, there: Picture8) -> NDArray[np.float32]:
        grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (here, there)]
        return np.asarray(self._dis.calc(grey[0], grey[1], None), np.float32)  # type: ignore[call-overload]


def inside(flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[H, W] where the flow ends within the picture."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return np.asarray((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))


def carried(paint: NDArray[np.float32], weight: Plane, motion: Motion) -> tuple[NDArray[np.float32], Plane]:
    """Paint [H, W, 3] and its weight [H, W] of another frame as this one sees them, `motion` from here to there.

    The weight is 0 where the motion does not hold, and fades over a few pixels towards such places.
    """
    both = warp(np.concatenate([paint, weight[..., None]], axis=-1).astype(np.float32), motion.flow)
    trust = cv2.erode(motion.holds.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    return both[..., :3], both[..., 3] * cv2.GaussianBlur(trust, (0, 0), 1.5) * motion.holds
