"""VGG19 as a source of features: the perceptual, style and contextual losses that train DualStyleGAN read it.

Decides which layers exist (up to the last tap that is asked for; nothing above it is built) and their names, which
are torchvision's, so that its file loads as it is.

Official file: torchvision's `vgg19` (arXiv 1409.1556, IMAGENET1K_V1), entries `features.K.{weight,bias}` beside
`classifier.*`; 555,328 parameters up to relu3_1. Code BSD-3-Clause, weights under ImageNet's terms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn

from .tensors import ShapeError, check_shape, imagenet_normalise

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions; a 2x2 max-pool between stages


def _taps() -> dict[str, int]:
    """Index in torchvision's `features` of each ReLU."""
    places: dict[str, int] = {}
    index = 0
    for stage, (_, convs) in enumerate(STAGES, 1):
        for conv in range(1, convs + 1):
            places[f"relu{stage}_{conv}"] = index + 1
            index += 2
        index += 1  # the pool
    return places


TAPS: Mapping[str, int] = MappingProxyType(_taps())


class VGG19(nn.Module):
    """The convolutional part of VGG19 up to the tap `last`; its weights take no gradient.

    width_divisor: 1 in the published weights; larger makes a thinner network.
    """

    def __init__(self, last: str = "relu3_1", width_divisor: int = 1) -> None:
        super().__init__()
        if last not in TAPS:
            raise ValueError(f"last: expected one of {', '.join(TAPS)}, got {last!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels, index = 3, 0
        for width, convs in STAGES:
            for _ in range(convs):
                if index <= TAPS[last]:
                    wide = max(width // width_divisor, 1)
                    layers[str(index)] = nn.Conv2d(channels, wide, 3, padding=1)
                    layers[str(index + 1)] = nn.ReLU()
                    channels = wide
                index += 2
            if index < TAPS[last]:
                layers[str(index)] = nn.MaxPool2d(2, 2)
            index += 1
        self.features = nn.Sequential(layers)
        self.last = last
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Features after every ReLU, by name: relu1_1 [B, 64, H, W], relu2_1 [B, 128, H/2, W/2] and so on.

        pictures: [B, 3, H, W] RGB in -1..1. Raises ShapeError, also where a side is too short for the pools.
        """
        check_shape("pictures", pictures, "B", 3, "H", "W")
        least = 2 ** (int(self.last[4]) - 1)
        if min(pictures.shape[-2:]) < least:
            raise ShapeError(
                f"pictures: expected shape [B, 3, H, W] with H, W >= {least} for {self.last}, "
                f"got {list(pictures.shape)}"
            )
        names = {str(index): name for name, index in TAPS.items()}
        x = imagenet_normalise((pictures + 1) / 2)
        taps: dict[str, Tensor] = {}
        for key, layer in self.features.named_children():
            x = layer(x)
            if key in names:
                taps[names[key]] = x
        return taps
