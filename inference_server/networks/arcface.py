"""ArcFace identity network (IR-SE-50), and the trunk that the pSp and e4e encoders share with it.

Decides the arithmetic of the improved residual network with squeeze-and-excitation (arXiv 1801.07698 for ArcFace,
1709.01507 for the squeeze), its state-dict names, and the crop under which identity is compared.

Official file: `model_ir_se50.pth` (TreB1eN/InsightFace_Pytorch, MIT code, weights trained on research-only face
data), a plain state dict without a prefix: 397 entries, 43,797,696 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tensors import ShapeError, check_shape

WIDTHS = (64, 128, 256, 512)  # channels of the four stages; the stem has as many as the first
DEPTHS = (3, 4, 14, 3)  # units of the four stages
SQUEEZE = 16  # the squeeze layer has 1/16 of a unit's channels

ALIGNED_SIZE = 256  # FFHQ-aligned picture under which the crop rule is stated
CROP_ROWS = (35, 223)  # of 256: first row, row after the last
CROP_COLUMNS = (32, 220)


def halved(size: int, times: int) -> int:
    """Size of an axis after `times` convolutions 3x3 of stride 2 and padding 1 (rounded up each time)."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        mean = x.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        return x * torch.sigmoid(self.fc2(functional.relu(self.fc1(mean))))


class BottleneckIRSE(nn.Module):
    """One unit: norm, conv, PReLU, strided conv, norm, squeeze-and-excite; plus the shortcut, nothing after the sum."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Sequential | None = None
        if channels_in != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, ceil(H/s), ceil(W/s)]
        if self.shortcut_layer is None:
            shortcut = x[:, :, :: self.stride, :: self.stride]  # sub-sampled, as max-pooling with window 1 does
        else:
            shortcut = self.shortcut_layer(x)
        out: Tensor = self.res_layer(x) + shortcut
        return out


class TrunkIRSE(nn.Module):
    """Stem and body of IR-SE-50: a base class, so that `input_layer.*` and `body.*` stay at the top of the names.

    widths, depths: channels and number of units of the stages; every stage halves the picture with its first unit,
    also the first stage, whose channels do not change.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(depths) or min(*widths, *depths) < 1 or min(widths) < SQUEEZE:
            raise ValueError(
                f"stages: expected as many widths (each at least {SQUEEZE}) as depths (each at least 1), "
                f"got widths {tuple(widths)} and depths {tuple(depths)}"
            )
        self.widths = tuple(widths)
        self.input_layer = nn.Sequential(
            nn.Conv2d(channels_in, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        units: list[nn.Module] = []
        ends: list[int] = []  # index of the last unit of each stage
        channels = widths[0]
        for width, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                units.append(BottleneckIRSE(channels, width, stride=2 if index == 0 else 1))
                channels = width
            ends.append(len(units) - 1)
        self.body = nn.Sequential(*units)
        self._stage_ends = tuple(ends)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The output of each stage; stage i of an input [B, C, H, W] is [B, widths[i], H/2^(i+1), W/2^(i+1)]
        with sizes rounded up."""
        x = self.input_layer(x)
        taps: list[Tensor] = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in self._stage_ends:
                taps.append(x)
        return taps


class ArcFace(TrunkIRSE):
    """Identity embedding of an aligned face: a unit vector; the dot product of two is their similarity.

    image_size: side of the square input; the official weights have 112. embedding: length of the vector.
    """

    def __init__(
        self,
        image_size: int = 112,
        embedding: int = 512,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        super().__init__(3, widths, depths)
        self.image_size = image_size
        cells = halved(image_size, len(depths)) ** 2  # 7 * 7 at 112
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(0.6),
            nn.Flatten(),  # channels vary slowest
            nn.Linear(widths[-1] * cells, embedding),
            nn.BatchNorm1d(embedding),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """faces: [B, 3, S, S] RGB in -1..1, cropped tightly (see `identity_crop`). Returns [B, E] of length 1.

        Raises ShapeError where S is not `image_size`.
        """
        check_shape("faces", faces, "B", 3, self.image_size, self.image_size)
        features: Tensor = self.output_layer(self.stages(faces)[-1])  # [B, E]
        length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)  # [B, 1]
        return features / length


def identity_crop(images: Tensor, size: int = 112) -> Tensor:
    """Cut the part of an FFHQ-aligned picture that ArcFace sees, and average it to the network's size.

    images: [B, 3, S, S] with S >= 256, RGB in -1..1; larger pictures are averaged to 256 first. Rows 35..222 and
    columns 32..219 of the 256 remain (188 x 188). Returns [B, 3, size, size]. Raises ShapeError.
    """
    check_shape("images", images, "B", 3, "S", "S")
    if images.shape[-1] < ALIGNED_SIZE:
        raise ShapeError(f"images: expected shape [B, 3, S, S] with S >= {ALIGNED_SIZE}, got {list(images.shape)}")
    if images.shape[-1] > ALIGNED_SIZE:
        images = functional.adaptive_avg_pool2d(images, ALIGNED_SIZE)  # [B, 3, 256, 256]
    crop = images[:, :, slice(*CROP_ROWS), slice(*CROP_COLUMNS)]  # [B, 3, 188, 188]
    return functional.adaptive_avg_pool2d(crop, size)


class IdentityLoss(nn.Module):
    """Mean over the batch of 1 - <f(output), f(target)>, f being a frozen ArcFace after `identity_crop`.

    The network is put into evaluation mode, stays there, and takes no gradient; neither does the target.
    """

    def __init__(self, network: ArcFace) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> IdentityLoss:
        """Changes the flag of this module only: running statistics of the network must not follow the training."""
        self.training = mode
        return self

    def embed(self, images: Tensor) -> Tensor:
        """images: [B, 3, S, S], S >= 256, RGB in -1..1, FFHQ-aligned. Returns unit vectors [B, E]."""
        embedding: Tensor = self.network(identity_crop(images, self.network.image_size))
        return embedding

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """output, target: [B, 3, S, S], S >= 256, RGB in -1..1, FFHQ-aligned. Returns a scalar in 0..2.

        Raises ShapeError where the shapes differ or do not fit.
        """
        check_shape("target", target, *output.shape)
        with torch.no_grad():
            wanted = self.embed(target)  # [B, E]
        similarity = (self.embed(output) * wanted).sum(dim=1)  # [B]
        return (1.0 - similarity).mean()
