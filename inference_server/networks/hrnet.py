"""HRNetV2-W18: a face crop to one heat map per landmark, and heat maps to points.

Decides the arithmetic of the high-resolution network (arXiv 1908.07919), its state-dict names, which square of a
picture it is shown, and how a peak becomes a sub-pixel position.

Official files (HRNet/HRNet-Facial-Landmark-Detection, MIT code): `HR18-WFLW.pth`, 98 points, plain names, 9,662,528
parameters; `HR18-300W.pth`, 68 points, every name prefixed with CHECKPOINT_PREFIX_300W, 9,654,398 parameters; 1839
entries each. `model_best.pth` of the training script pickles a whole module and is not a state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tensors import check_shape

CHECKPOINT_PREFIX_300W = "module."
CHANNELS = (18, 36, 72, 144)  # of the four branches; branch b works at 1/4 / 2^b
MODULES = (1, 4, 3)  # exchange modules of stages 2, 3 and 4
BLOCKS = 4  # residual blocks per branch and module, and bottlenecks of layer1
BOX_MARGIN = 1.25  # the square is this much larger than the box of the landmarks

# Indices per group, first and last included; left and right as seen in the picture.
WFLW_98 = MappingProxyType(
    {
        "contour": (0, 32),
        "left_brow": (33, 41),
        "right_brow": (42, 50),
        "nose_bridge": (51, 54),
        "nose_base": (55, 59),
        "left_eye": (60, 67),
        "right_eye": (68, 75),
        "outer_lip": (76, 87),
        "inner_lip": (88, 95),
        "pupils": (96, 97),
    }
)
IBUG_68 = MappingProxyType(
    {
        "contour": (0, 16),
        "left_brow": (17, 21),
        "right_brow": (22, 26),
        "nose_bridge": (27, 30),
        "nose_base": (31, 35),
        "left_eye": (36, 41),
        "right_eye": (42, 47),
        "outer_lip": (48, 59),
        "inner_lip": (60, 67),
    }
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity; ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times the channels at the end; the shortcut is projected where channels differ."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample: nn.Sequential | None = None
        if channels_in != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, 4C, H, W]
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn3(self.conv3(y)) + shortcut)


def _conv_norm(channels_in: int, channels: int, kernel: int, stride: int, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class ExchangeModule(nn.Module):
    """Residual blocks on each branch, then every branch receives the sum of all, brought to its size and channels.

    From a coarser branch: 1x1 convolution, norm, bilinear enlargement. From a finer one: a 3x3 convolution of stride
    2 per halving, ReLU between them; only the last changes the channels.
    """

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in channels)
        self.fuse_layers = nn.ModuleList()
        for target, wanted in enumerate(channels):
            sources = nn.ModuleDict()  # the branch itself has no layers and no entry
            for source, given in enumerate(channels):
                if source > target:
                    sources[str(source)] = _conv_norm(given, wanted, 1, 1, relu=False)
                elif source < target:
                    between = [_conv_norm(given, given, 3, 2, relu=True) for _ in range(target - source - 1)]
                    sources[str(source)] = nn.Sequential(*between, _conv_norm(given, wanted, 3, 2, relu=False))
            self.fuse_layers.append(sources)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:  # branch b: [B, C_b, H/2^b, W/2^b], in and out
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [functional.relu(self._sum(target, maps)) for target in range(len(maps))]

    def _sum(self, target: int, maps: list[Tensor]) -> Tensor:
        layers = self.fuse_layers[target]
        assert isinstance(layers, nn.ModuleDict)  # for the type checker: ModuleList forgets what it holds
        total: Tensor | None = None
        for source, x in enumerate(maps):
            if source != target:
                x = layers[str(source)](x)
            if source > target:
                x = _resized(x, maps[target])
            total = x if total is None else total + x
        assert total is not None  # there is at least the branch itself
        return total


class HRNet(nn.Module):
    """Heat-map landmark detector.

    points: 98 (WFLW) or 68 (300W) in the official files. channels, modules, blocks, stem: see CHANNELS, MODULES,
    BLOCKS; 64 channels in the stem.
    """

    def __init__(
        self,
        points: int,
        channels: Sequence[int] = CHANNELS,
        modules: Sequence[int] = MODULES,
        blocks: int = BLOCKS,
        stem: int = 64,
    ) -> None:
        super().__init__()
        if len(channels) != 4 or len(modules) != 3:
            raise ValueError(
                "stages: expected channels of 4 branches and module counts of 3 stages, "
                f"got {tuple(channels)} and {tuple(modules)}"
            )
        self.points = points
        self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.layer1 = nn.Sequential(*(Bottleneck(4 * stem if i else stem, stem) for i in range(blocks)))
        # A new branch begins from the coarsest so far; the names carry the index of the branch they make.
        self.transition1 = nn.ModuleDict(
            {
                "0": _conv_norm(4 * stem, channels[0], 3, 1, relu=True),
                "1": nn.Sequential(_conv_norm(4 * stem, channels[1], 3, 2, relu=True)),
            }
        )
        self.transition2 = nn.ModuleDict({"2": nn.Sequential(_conv_norm(channels[1], channels[2], 3, 2, relu=True))})
        self.transition3 = nn.ModuleDict({"3": nn.Sequential(_conv_norm(channels[2], channels[3], 3, 2, relu=True))})
        self.stage2 = nn.Sequential(*(ExchangeModule(channels[:2], blocks) for _ in range(modules[0])))
        self.stage3 = nn.Sequential(*(ExchangeModule(channels[:3], blocks) for _ in range(modules[1])))
        self.stage4 = nn.Sequential(*(ExchangeModule(channels, blocks) for _ in range(modules[2])))
        joined = sum(channels)
        self.head = nn.Sequential(
            nn.Conv2d(joined, joined, 1), nn.BatchNorm2d(joined), nn.ReLU(), nn.Conv2d(joined, points, 1)
        )

    def forward(self, faces: Tensor) -> Tensor:
        """faces: [B, 3, H, W], square crops per `face_square` after `imagenet_normalise`; 256 x 256 in training,
        any size runs. Returns raw heat maps [B, points, H/4, W/4], sizes rounded up. Raises ShapeError.
        """
        check_shape("faces", faces, "B", 3, "H", "W")
        x = functional.relu(self.bn1(self.conv1(faces)))  # [B, stem, H/2, W/2]
        x = functional.relu(self.bn2(self.conv2(x)))  # [B, stem, H/4, W/4]
        x = self.layer1(x)  # [B, 4 stem, H/4, W/4]
        maps = self.stage2([self.transition1["0"](x), self.transition1["1"](x)])
        maps = self.stage3([*maps, self.transition2["2"](maps[-1])])
        maps = self.stage4([*maps, self.transition3["3"](maps[-1])])
        joined = torch.cat([maps[0]] + [_resized(x, maps[0]) for x in maps[1:]], dim=1)  # [B, 270, H/4, W/4]
        heatmaps: Tensor = self.head(joined)
        return heatmaps


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, pixel centres at half positions, to the height and width of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Square(NamedTuple):
    """An axis-parallel square per face; picture coordinates in which pixel i covers i..i+1."""

    centre: Tensor  # [B, 2] x, y
    side: Tensor  # [B]


def face_square(points: Tensor) -> Square:
    """The square that the network was trained to see: around the tight box of a face's landmarks, BOX_MARGIN larger.

    points: [B, N, 2] x, y of any landmark set that spans brows to chin (the four corners of such a box will do).
    Cut it out with zeros outside the picture and resize it to 256 x 256. Raises ShapeError.
    """
    check_shape("points", points, "B", "N", 2)
    low, high = points.amin(dim=1), points.amax(dim=1)  # [B, 2]
    return Square((low + high) / 2, (high - low).amax(dim=1) * BOX_MARGIN)


class Landmarks(NamedTuple):
    """Decoded heat maps. A map without any positive value has no landmark: its point is NaN."""

    points: Tensor  # [B, N, 2] x, y in the picture, pixel i covers i..i+1
    peaks: Tensor  # [B, N] the maps' maxima, trained towards 1


def decode_heatmaps(heatmaps: Tensor, square: Square) -> Landmarks:
    """Peak positions to sub-pixel points of the picture that the squares were cut from.

    The peak's cell, moved a quarter of a cell towards the larger neighbour on each axis where the cell is not on the
    border of the map, plus half a cell; then (u, v) * side / width + centre - side / 2. The official decoder truncates
    the same values to integers and counts from 1.

    heatmaps: [B, N, S, S] as the network gives them; square: centre [B, 2] and side [B], with `heatmaps`' precision
    and device. Raises ShapeError.
    """
    check_shape("heatmaps", heatmaps, "B", "N", "S", "S")
    batch, size = heatmaps.shape[0], heatmaps.shape[-1]
    check_shape("square.centre", square.centre, batch, 2)
    check_shape("square.side", square.side, batch)
    peaks, index = heatmaps.flatten(2).max(dim=2)  # [B, N]
    column, row = index % size, index // size  # [B, N]
    inside = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)

    # Neighbours are read from a map with one more cell around, so that border cells need no case of their own.
    padded = functional.pad(heatmaps, (1, 1, 1, 1)).flatten(2)  # [B, N, (S+2)^2]
    stride = size + 2
    here = (row + 1) * stride + column + 1  # [B, N]

    def value(at: Tensor) -> Tensor:
        return padded.gather(2, at[..., None])[..., 0]

    across = torch.sign(value(here + 1) - value(here - 1))  # [B, N]
    down = torch.sign(value(here + stride) - value(here - stride))
    shift = torch.stack([across, down], dim=2) * (0.25 * inside[..., None])  # [B, N, 2] cells
    cells = torch.stack([column, row], dim=2) + shift + 0.5  # [B, N, 2]
    corner = square.centre - square.side[:, None] / 2  # [B, 2]
    points = cells * (square.side[:, None, None] / size) + corner[:, None]  # [B, N, 2]
    return Landmarks(points.masked_fill((peaks <= 0)[..., None], torch.nan), peaks)
