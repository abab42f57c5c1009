"""Style codes: the face's own, read by the pSp encoder, the exemplar's, and what is made of both.

Codes are kept in Z+, as encoder and collections give them, and pass the mapping network of the VToonify that is
used. VToonify-T takes the face's own code. VToonify-D takes structure (rows 0-6) from the exemplar and colour (rows
7-17) from the face; where the network was trained for colour transfer, colours go from the one to the other by the
colour degree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_server.faces.align import apply_ffhq, plan_ffhq
from inference_server.networks.psp import PspEncoder, with_average
from inference_server.networks.vtoonify import FIRST_CODE, join_style


def aligned_face(picture: NDArray[Any], points68: NDArray[np.float64], size: int) -> NDArray[Any]:
    """The FFHQ square [size, size, 3] of a face, by the published rule, of a picture [H, W, 3] 0..255 (its dtype)."""
    plan = plan_ffhq(points68, (picture.shape[0], picture.shape[1]), size)
    return np.asarray(apply_ffhq(picture, plan))


def signed(picture: NDArray[Any]) -> Tensor:
    """RGB [H, W, 3] 0..255 as [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def face_code(encoder: PspEncoder, latent_avg: Tensor, aligned: Tensor) -> Tensor:
    """Z+ [1, L, D] of an aligned face [1, 3, S, S] in [-1, 1]."""
    return with_average(encoder(aligned), latent_avg)


def style_code(
    mapping: Callable[[Tensor], Tensor], content: Tensor, exemplar: Tensor | None, color: float = 0.0
) -> Tensor:
    """W+ [1, L, D] for the network from Z+ codes; without an exemplar (VToonify-T) the content's.

    color: how far the colour rows go from the content's (0) to the exemplar's (1).
    """
    own = mapping(content)
    if exemplar is None:
        return own
    other = mapping(exemplar)
    colours = other if color == 1 else torch.lerp(own, other, color)
    return join_style(other, colours, FIRST_CODE)
