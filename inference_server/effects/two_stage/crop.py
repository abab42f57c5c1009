"""How a frame of the shot becomes the network's picture, and how that comes back.

The network is convolutional and takes any size; what matters is that a face has the size it had in training. `follow`
and `fixed` crop the head so that its eyes lie `size` network pixels apart; `full` takes the whole plate, reduced to
`size` pixels along its longer side. A refiner compares frames, so the crop of `follow` is laid from the whole shot's
track, smoothed once more, restarts at cuts, and has one size over the shot (effects.placement says how). Resampling
either way is by the same placement, at positions that are exact to a fraction of a pixel. Training crops by this module
too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from inference_server.effects import placement
from inference_server.effects.placement import Padding, Placement
from inference_server.effects.resample import separable
from inference_server.faces.align import TARGET_EYE_DISTANCE
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window

MODES = ("follow", "fixed", "full")
LARGEST = 8192  # network pixels of a side: more is a mistake in the parameters


@dataclass(frozen=True)
class Framing:
    """What of the plate the network sees, and how large.

    size     follow, fixed: distance of the eyes in network pixels. full: the longer side in network pixels, 0 the
             plate's own
    padding  left, right, top, bottom of the middle of the eyes, in pixels of a frame in which the eyes are 64 px apart
    """

    mode: str = "follow"
    size: float = 64.0
    padding: Padding = (140.0, 140.0, 150.0, 160.0)


def place_shot(
    faces: Mapping[int, FaceFrame], window: Window, framing: Framing, cuts: Sequence[int] = ()
) -> tuple[Placement, ...]:
    """The crop of each frame of a face, in their order. ValueError where the framing gives no usable size.

    faces   frame -> the tracked face, rising; at least one
    window  what the plate holds, display window and data window together, seen from the display window's corner
    cuts    frames at which another take begins
    """
    frames, aspect = list(faces), next(iter(faces.values())).pixel_aspect
    if framing.mode == "full":
        return (_whole(window, aspect, framing.size),) * len(frames)
    factor = framing.size / TARGET_EYE_DISTANCE
    padding = framing.padding
    if framing.mode == "fixed":
        good, _ = placement.first_good(list(faces.values()), window)
        places = np.repeat(placement.centred(good)[None], len(frames), axis=0)
    else:
        places = np.stack([placement.centred(face) for face in faces.values()])
        for take in _takes(frames, cuts):
            places[take] = placement.steadied(frames[take], places[take])
    left, right, top, bottom = (side * factor for side in placement.fitted(places, window, aspect, padding))
    places[:, 2] -= math.log(factor)
    placements = tuple(placement.place(at, aspect, (left, right, top, bottom)) for at in places)
    _check(placements[0], framing)
    return placements


def place_alone(face: FaceFrame, framing: Framing) -> Placement:
    """The crop of a face of which no shot is known; `full` is taken as if the plate ended with the padding."""
    factor = (framing.size if framing.mode != "full" else float(TARGET_EYE_DISTANCE)) / TARGET_EYE_DISTANCE
    at = placement.centred(face)
    at[2] -= math.log(factor)
    left, right, top, bottom = (side * factor for side in framing.padding)
    return placement.place(at, face.pixel_aspect, (left, right, top, bottom))


def network_picture(picture: Tensor, region: Window, place: Placement) -> Tensor:
    """[3, h, w] display-encoded sRGB in 0..1 of the plate's pixels in `region` -> the network's [1, 3, H, W] in -1..1.

    Where the crop reaches beyond `region` the picture is mirrored.
    """
    return separable(picture, *place.sampling(region)).clamp(0, 1)[None] * 2 - 1


def plate_picture(drawn: Tensor, region: Window, place: Placement) -> Tensor:
    """The network's [1, 3, H, W] in -1..1 -> display-encoded [3, h, w] in 0..1 at the plate's pixels of `region`."""
    return ((separable(drawn[0], *place.returning(region, 1)) + 1) / 2).clamp(0, 1)


def _takes(frames: Sequence[int], cuts: Sequence[int]) -> list[slice]:
    """The stretches of a face's frames that no cut divides."""
    borders = [0, *(int(np.searchsorted(frames, cut)) for cut in sorted(cuts)), len(frames)]
    return [slice(a, b) for a, b in pairwise(borders) if b > a]


def _whole(window: Window, aspect: float, size: float) -> Placement:
    width, height = window.width * aspect, float(window.height)
    scale = size / max(width, height) if size else 1.0
    sides = math.ceil(width * scale - 1e-6), math.ceil(height * scale - 1e-6)
    place = Placement(
        aspect * scale, -window.x0 * aspect * scale, scale, -window.y0 * scale, max(sides[0], 1), max(sides[1], 1)
    )
    _check(place, Framing("full", size))
    return place


def _check(place: Placement, framing: Framing) -> None:
    if max(place.width, place.height) > LARGEST:
        raise ValueError(
            f"{framing.mode} with size {framing.size:g} gives a picture of {place.width}x{place.height} px; "
            f"at most {LARGEST} a side"
        )
