"""What every effect first asks of a crop: that it is well formed, and where the plate ends."""

from __future__ import annotations

import torch
from torch import Tensor

from host_bridge.errors import EffectError
from inference_server.effects.base import FaceInput
from inference_server.effects.displacement import smoothstep
from inference_server.faces.types import LANDMARKS
from inference_server.plates.types import Window


def check_input(face: FaceInput) -> tuple[int, int]:
    """Height and width of the crop; EffectError (`effect.failed`) naming expected and actual shape otherwise."""
    h, w = face.region.height, face.region.width
    if h < 8 or w < 8:
        raise _unusable(f"a crop of at least 8x8 px is needed, not {w}x{h}", face.frame)
    for name, tensor in (("scene", face.scene), ("picture", face.picture)):
        if tuple(tensor.shape) != (3, h, w):
            raise _unusable(f"{name} is {list(tensor.shape)}, the region asks for {[3, h, w]}", face.frame)
    for name, tensor in face.mattes.items():
        if tuple(tensor.shape) != (h, w):
            raise _unusable(f"matte {name} is {list(tensor.shape)}, the region asks for {[h, w]}", face.frame)
    if face.face.landmarks.shape != (LANDMARKS, 3):
        raise _unusable(f"landmarks are {list(face.face.landmarks.shape)}, not {[LANDMARKS, 3]}", face.frame)
    return h, w


def edge_fade(given: Window, wanted: Window, margin: float, aspect: float, device: torch.device) -> Tensor:
    """[h, w] 1 inside, 0 along those sides of the crop where it ends within the plate; `margin` in square pixels.

    A side on which the plate gave less than was wanted is the plate's own edge, and the effect goes up to it.
    """
    x = torch.arange(given.width, device=device, dtype=torch.float32) * aspect
    y = torch.arange(given.height, device=device, dtype=torch.float32)
    fade_x, fade_y = torch.ones_like(x), torch.ones_like(y)
    if given.x0 <= wanted.x0:
        fade_x = fade_x * smoothstep(x / margin)
    if given.x1 >= wanted.x1:
        fade_x = fade_x * smoothstep(x.flip(0) / margin)
    if given.y0 <= wanted.y0:
        fade_y = fade_y * smoothstep(y / margin)
    if given.y1 >= wanted.y1:
        fade_y = fade_y * smoothstep(y.flip(0) / margin)
    return fade_y[:, None] * fade_x[None]


def bounds(matte: Tensor) -> tuple[slice, slice] | None:
    """Rows and columns that hold anything of a matte [h, w]; None where it is empty."""
    rows = torch.nonzero(matte.amax(dim=1) > 0)[:, 0]
    cols = torch.nonzero(matte.amax(dim=0) > 0)[:, 0]
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)


def _unusable(why: str, frame: int) -> EffectError:
    return EffectError("effect.failed", why, frame=frame, remedy="Report this with the frame and the command.")
