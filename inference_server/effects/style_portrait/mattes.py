"""What is composited: the asked face regions of the plate and of the edited face together, with a soft edge.

With a face parser both pictures are parsed and its classes' probabilities taken, not the winners alone, which would
flicker along an edge. Without one the built-in mattes of the plate stand in for both: those of the edited face are
the plate's, moved along the edit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inference_server.effects.displacement import carry
from inference_server.effects.matte import parse_regions, region_matte
from inference_server.networks.bisenet import CLASSES, BiSeNet
from inference_server.networks.tensors import imagenet_normalise

PARSED = 512
"""Side of what the parser was trained on."""
_SKIN = ("skin", "eye_g")
_PARTS = {
    "brows": ("l_brow", "r_brow"),
    "eyes": ("l_eye", "r_eye"),
    "nose": ("nose",),
    "lips": ("u_lip", "l_lip"),
    "mouth": ("mouth",),
}
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "face": (*_SKIN, *(name for names in _PARTS.values() for name in names)),
    "skin": _SKIN,
    **_PARTS,
    "ears": ("l_ear", "r_ear", "ear_r"),
    "hair": ("hair",),
    "neck": ("neck", "neck_l"),
    "hat": ("hat",),
}


def parsed_regions(parser: BiSeNet, pictures: Tensor, regions: str) -> Tensor:
    """Probability [N, P, P] that a pixel of pictures [N, 3, P, P] in -1..1 is of the named regions.

    Raises EffectError `effect.parameter` (matte.parse_regions).
    """
    take, leave = parse_regions(regions)
    share = parser.parse(imagenet_normalise((pictures.clamp(-1, 1) + 1) / 2)).softmax(dim=1)
    out = _sum(share, take)
    return out * (1 - _sum(share, leave)) if leave else out


def _sum(share: Tensor, regions: tuple[str, ...]) -> Tensor:
    names = {name for region in regions for name in _CLASSES[region]}
    index = [i for i, name in enumerate(CLASSES) if name in names and i < share.shape[1]]
    return share[:, index].sum(dim=1).clamp(0, 1)


def moved_regions(mattes: Mapping[str, Tensor], regions: str, warp: Tensor | None, size: tuple[int, int]) -> Tensor:
    """The union [h, w] of the named built-in mattes and of the same moved along `warp` [2, h, w]."""
    device = next((m.device for m in mattes.values()), torch.device("cpu"))
    own = region_matte(mattes, regions, size, device)
    if warp is None:
        return own
    return torch.maximum(own, carry(own[None], warp)[0])
