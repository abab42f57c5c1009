"""A picture between two frames, by optical flow: what a plate under a frame that was never shot is made of.

Flow is OpenCV's DIS between display-encoded pictures, both ways. The flow at the time between is put together from the
two as Super SloMo does (Jiang et al. 2018, eq. 4); both frames are fetched along it and mixed by nearness in time,
a frame counting less where its flow does not lead back (there something was covered).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]  # [H, W, 2] x, y pixels

_LARGEST = 1920  # flow of larger pictures is found at this size
_ASTRAY = 1.5  # pixels, of pictures of that size, by which a flow may miss its way back


@dataclass(frozen=True)
class Motion:
    """Flow from the earlier frame to the later one, and back; and how far each is to be trusted, [H, W] in 0..1."""

    there: Flow
    back: Flow
    trust_there: NDArray[np.float32]
    trust_back: NDArray[np.float32]


def motion_between(earlier: NDArray[np.float32], later: NDArray[np.float32]) -> Motion:
    """Of two pictures [H, W, 3], display-encoded 0..1, of the same size."""
    height, width = earlier.shape[:2]
    scale = min(1.0, _LARGEST / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    greys = [_grey(picture, size) for picture in (earlier, later)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = (np.asarray(dis.calc(*pair, None), np.float32) for pair in (greys, greys[::-1]))  # type: ignore[call-overload]
    trusts = [_trust(flow, other) for flow, other in ((there, back), (back, there))]
    stretch = np.array([width / size[0], height / size[1]], np.float32)
    flows = [np.asarray(cv2.resize(flow, (width, height)), np.float32) * stretch for flow in (there, back)]
    wide = [np.asarray(cv2.resize(trust, (width, height)), np.float32) for trust in trusts]
    return Motion(flows[0], flows[1], wide[0], wide[1])


def between(
    earlier: NDArray[np.float32], later: NDArray[np.float32], share: float, motion: Motion
) -> NDArray[np.float32]:
    """The picture [H, W, C] at `share` of the way from the earlier frame (0) to the later one (1). Finite values."""
    t = np.float32(share)
    to_earlier = -(1 - t) * t * motion.there + t * t * motion.back
    to_later = (1 - t) * (1 - t) * motion.there - t * (1 - t) * motion.back
    first = _fetch(np.dstack([earlier, motion.trust_there]), to_earlier)
    second = _fetch(np.dstack([later, motion.trust_back]), to_later)
    a = (1 - t) * (first[..., -1:] + np.float32(1e-3))
    b = t * (second[..., -1:] + np.float32(1e-3))
    return np.asarray((a * first[..., :-1] + b * second[..., :-1]) / (a + b), np.float32)


def _grey(picture: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(np.asarray(small, np.float32), cv2.COLOR_RGB2GRAY)
    return np.asarray(np.rint(np.clip(grey, 0, 1) * 255), np.uint8)


def _trust(flow: Flow, other: Flow) -> NDArray[np.float32]:
    """How near a pixel comes to itself, there and back."""
    astray = np.linalg.norm(flow + _fetch(other, flow), axis=-1)
    return np.asarray(np.exp(-((astray / _ASTRAY) ** 2)), np.float32)


def _fetch(picture: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """[H, W, C] sampled bilinearly at each pixel plus its flow; the border goes on beyond itself."""
    height, width = flow.shape[:2]
    at = flow + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    parts = [  # remap takes four channels at most
        cv2.remap(
            np.ascontiguousarray(picture[..., c : c + 4]),
            at,
            None,  # type: ignore[call-overload]
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(height, width, -1)
        for c in range(0, picture.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)
