"""LPIPS v0.1: how different two pictures look, measured in the features of a classification network.

Decides the arithmetic of the distance (arXiv 1801.03924), its trunks (VGG16 and AlexNet without their classifiers),
its state-dict names, and how the two published weight files of a trunk and of its linear heads become one state.

Official files: `alex.pth`, `vgg.pth` (richzhang/PerceptualSimilarity, weights/v0.1, BSD-2-Clause), five entries
`lin{l}.model.1.weight`; trunks from torchvision's `alexnet` and `vgg16` (IMAGENET1K_V1; BSD-3-Clause code, ImageNet
terms), entries `features.K.{weight,bias}` beside `classifier.*`. `published_state` joins them. 2,470,848 parameters
with AlexNet, 14,716,160 with VGG16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from .tensors import ShapeError, check_shape

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, restated for RGB in -1..1
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10

Trunk = Literal["alex", "vgg"]


@dataclass(frozen=True)
class _Conv:
    """A 3x3 convolution followed by a ReLU, unless said otherwise. index: its place in torchvision's `features`."""

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class _Trunk:
    """stages: convolutions up to each tap. pool: window of the stride-2 max-pooling. pooled: stages it precedes."""

    stages: tuple[tuple[_Conv, ...], ...]
    pool: int
    pooled: tuple[int, ...]
    smallest: int  # picture side at which the last tap still has one cell


_TRUNKS: Mapping[str, _Trunk] = MappingProxyType(
    {
        "alex": _Trunk(
            stages=(
                (_Conv(0, 64, 11, 4, 2),),
                (_Conv(3, 192, 5, 1, 2),),
                (_Conv(6, 384),),
                (_Conv(8, 256),),
                (_Conv(10, 256),),
            ),
            pool=3,
            pooled=(1, 2),
            smallest=31,
        ),
        "vgg": _Trunk(
            stages=(
                (_Conv(0, 64), _Conv(2, 64)),
                (_Conv(5, 128), _Conv(7, 128)),
                (_Conv(10, 256), _Conv(12, 256), _Conv(14, 256)),
                (_Conv(17, 512), _Conv(19, 512), _Conv(21, 512)),
                (_Conv(24, 512), _Conv(26, 512), _Conv(28, 512)),
            ),
            pool=2,
            pooled=(1, 2, 3, 4),
            smallest=16,
        ),
    }
)


class ScalingLayer(nn.Module):
    """RGB in -1..1 to what the trunk was trained on."""

    shift: Tensor  # [1, 3, 1, 1]
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 3, H, W]
        return (x - self.shift) / self.scale


class FeatureTrunk(nn.Module):
    """Convolutions of VGG16 or AlexNet, cut into slices that end at the taps (after a ReLU)."""

    def __init__(self, trunk: _Trunk, width_divisor: int) -> None:
        super().__init__()
        channels_in = 3
        self.channels: list[int] = []
        for number, convs in enumerate(trunk.stages):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if number in trunk.pooled:
                layers[str(convs[0].index - 1)] = nn.MaxPool2d(trunk.pool, 2)
            for conv in convs:
                channels = max(conv.channels // width_divisor, 1)
                layers[str(conv.index)] = nn.Conv2d(channels_in, channels, conv.kernel, conv.stride, conv.padding)
                layers[str(conv.index + 1)] = nn.ReLU()
                channels_in = channels
            self.add_module(f"slice{number + 1}", nn.Sequential(layers))
            self.channels.append(channels_in)

    def forward(self, x: Tensor) -> list[Tensor]:  # [B, 3, H, W] -> five features [B, C_l, h_l, w_l]
        taps: list[Tensor] = []
        for piece in self.children():
            x = piece(x)
            taps.append(x)
        return taps


class LinearHead(nn.Module):
    """Non-negative weights of a tap's channels. Entry 0 was dropout when the published heads were trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
        nn.init.constant_(self.model[1].weight, 1.0 / channels)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # [B, C, h, w] -> [B, 1, h, w]
        weighted: Tensor = self.model(x)
        return weighted


class LPIPS(nn.Module):
    """Learned perceptual distance, differentiable in both pictures; its weights take no gradient.

    trunk: "vgg" or "alex". width_divisor: 1 in the published weights; larger makes a thinner trunk.
    Names as in the official module, which lists every head twice, as `lin{l}` and as `lins.{l}` (the same tensor).
    """

    def __init__(self, trunk: Trunk, width_divisor: int = 1) -> None:
        super().__init__()
        if trunk not in _TRUNKS:
            raise ValueError(f"trunk: expected one of {sorted(_TRUNKS)}, got {trunk!r}")
        self.trunk = trunk
        self.smallest = _TRUNKS[trunk].smallest
        self.scaling_layer = ScalingLayer()
        self.net = FeatureTrunk(_TRUNKS[trunk], width_divisor)
        heads = [LinearHead(channels) for channels in self.net.channels]
        for number, head in enumerate(heads):
            self.add_module(f"lin{number}", head)
        self.lins = nn.ModuleList(heads)
        self.requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """The five taps, scaled to length 1 over the channels: [B, C_l, h_l, w_l] each.

        images: [B, 3, H, W] RGB in -1..1 (0..1 silently gives another value), at least 16 (vgg) or 31 (alex) pixels
        on each side. Keep them when one picture is compared many times. Raises ShapeError.
        """
        check_shape("images", images, "B", 3, "H", "W")
        if min(images.shape[-2:]) < self.smallest:
            raise ShapeError(
                f"images: expected shape [B, 3, H, W] with H, W >= {self.smallest} for {self.trunk}, "
                f"got {list(images.shape)}"
            )
        return [_unit(tap) for tap in self.net(self.scaling_layer(images))]

    def compare(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The five terms of two pictures' `features`: [B, 5], the spatial means of weighted squared differences.

        Raises ShapeError.
        """
        terms: list[Tensor] = []
        for number, (head, of_a, of_b) in enumerate(zip(self.lins, a, b, strict=True)):
            check_shape(f"feature {number} of b", of_b, *of_a.shape)
            terms.append(head((of_a - of_b).square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms, dim=1)

    def per_layer(self, a: Tensor, b: Tensor) -> Tensor:
        """The five terms whose sum is the distance: [B, 5]. a, b: as in `forward`."""
        check_shape("b", b, *a.shape)
        return self.compare(self.features(a), self.features(b))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair, [B, 1, 1, 1]. a, b: [B, 3, H, W] RGB in -1..1; symmetric. Raises ShapeError."""
        return self.per_layer(a, b).sum(dim=1).view(-1, 1, 1, 1)


def published_state(
    trunk: Trunk, trunk_file: Mapping[str, Tensor], heads_file: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """One state for `LPIPS(trunk).load_state_dict(..., strict=True)` from the two published files.

    trunk_file: torchvision's state dict (`features.K.*`; `classifier.*` is left out).
    heads_file: `lin{l}.model.1.weight`, nothing else.
    Raises KeyError that names entries missing from either file and entries that belong to another one.
    """
    state: dict[str, Tensor] = {}
    wanted: dict[str, str] = {}  # name in trunk_file -> name in the module
    for number, convs in enumerate(_TRUNKS[trunk].stages):
        for conv in convs:
            for kind in ("weight", "bias"):
                wanted[f"features.{conv.index}.{kind}"] = f"net.slice{number + 1}.{conv.index}.{kind}"
        wanted_head = f"lin{number}.model.1.weight"
        if wanted_head in heads_file:
            state[wanted_head] = state[f"lins.{number}.model.1.weight"] = heads_file[wanted_head]
    heads = {name for name in state if not name.startswith("lins.")}
    present = {name for name in trunk_file if not name.startswith("classifier.")}
    lost = sorted(wanted.keys() - present) + [
        name for name in (f"lin{i}.model.1.weight" for i in range(len(_TRUNKS[trunk].stages))) if name not in heads
    ]
    foreign = sorted(present - wanted.keys()) + sorted(heads_file.keys() - heads)
    if lost or foreign:
        raise KeyError(f"LPIPS {trunk}: missing entries {lost}, unexpected entries {foreign}")
    state.update({ours: trunk_file[theirs] for theirs, ours in wanted.items()})
    state.update({f"scaling_layer.{name}": value for name, value in ScalingLayer().state_dict().items()})
    return state


def _unit(feature: Tensor) -> Tensor:
    """Length 1 over the channels; where all channels are 0 the feature stays 0, and so does its gradient."""
    length: Tensor = torch.linalg.vector_norm(feature, dim=1, keepdim=True)  # [B, 1, h, w]
    return feature / (length + EPSILON)
