"""What the effect asks of a generator, an encoder and a landmark network; others than the known ones may come."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Generator(Protocol):
    """Draws W+ codes. Differentiable in codes and weights.

    size           side of its pictures
    layers, width  of a code
    turns          whether it takes transforms
    module         the network, whose `state_dict` names are those of an adapted file
    """

    size: int
    layers: int
    width: int
    turns: bool
    module: nn.Module

    def __call__(self, codes: Tensor, transforms: Tensor | None = None) -> Tensor:
        """codes [N, L, D], transforms [N, 3, 3] (networks.stylegan3) -> [N, 3, S, S], nominally -1..1, not clamped."""
        ...

    def trainable(self) -> list[nn.Parameter]:
        """What adaptation changes: all that draws; neither the mapping network nor where StyleGAN3 puts the face."""
        ...


class Encoder(Protocol):
    """Reads aligned faces. `size` is the side of its input."""

    size: int
    layers: int
    width: int

    def __call__(self, faces: Tensor) -> Tensor:
        """faces [N, 3, size, size] RGB in -1..1 -> W+ codes [N, L, D] float32."""
        ...


class LandmarkNetwork(Protocol):
    """Heat maps of landmarks.

    module     face squares [N, 3, 256, 256] after ImageNet's normalisation -> heat maps [N, points, 64, 64]
               (networks.hrnet), differentiable
    inner_lip  the channels of the inner lips
    """

    module: nn.Module
    inner_lip: slice
