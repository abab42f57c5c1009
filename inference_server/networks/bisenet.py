"""BiSeNet: a face picture to 19 classes per pixel.

Decides the arithmetic of the parser (BiSeNet, ECCV 2018, its spatial path replaced by an early feature of the
ResNet-18 backbone), its state-dict names, and the order of the classes.

Official file: `79999_iter.pth` = `faceparsing.pth` (zllrunning/face-parsing.PyTorch, MIT code; CelebAMask-HQ is for
non-commercial research), a plain state dict without a prefix: 191 entries, 13,300,416 parameters.

What is fed is part of what was trained with the result: the parser itself wants `imagenet_normalise(rgb)`, VToonify
feeds twice its -1..1 frame at double size instead. The logits differ, so a user keeps to its own convention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tensors import check_shape

# Left and right are the person's; a later class was painted over an earlier one when the labels were composed.
CLASSES = (
    "background",
    "skin",
    "l_brow",
    "r_brow",
    "l_eye",
    "r_eye",
    "eye_g",  # glasses
    "l_ear",
    "r_ear",
    "ear_r",  # earring
    "nose",
    "mouth",  # inner
    "u_lip",
    "l_lip",
    "neck",
    "neck_l",  # necklace
    "cloth",
    "hair",
    "hat",
)


class ParsingLogits(NamedTuple):
    """Raw logits of the three heads, each [B, classes, H, W]; only `main` is used once the network is trained."""

    main: Tensor
    aux16: Tensor
    aux32: Tensor


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, H, W]
        return functional.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """Residual block of ResNet-18; the shortcut is projected where width or stride changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, ceil(H/s), ceil(W/s)]
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(residual + shortcut)


class ResNet18(nn.Module):
    """The backbone's three features, at 1/8, 1/16 and 1/32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.layer1(self.maxpool(functional.relu(self.bn1(self.conv1(x)))))  # [B, w, H/4, W/4]
        f8 = self.layer2(x)  # [B, 2w, H/8, W/8]
        f16 = self.layer3(f8)  # [B, 4w, H/16, W/16]
        f32 = self.layer4(f16)  # [B, 8w, H/32, W/32]
        return f8, f16, f32


class AttentionRefinement(nn.Module):
    """Convolve, then gate each channel by a function of all channels' means."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels_in, channels, 3)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, H, W]
        feature: Tensor = self.conv(x)
        mean = feature.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        return feature * torch.sigmoid(self.bn_atten(self.conv_atten(mean)))


class ContextPath(nn.Module):
    """Backbone, then context from the whole picture handed down from 1/32 over 1/16 to 1/8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        context = 2 * width
        self.resnet = ResNet18(width)
        self.arm16 = AttentionRefinement(4 * width, context)
        self.arm32 = AttentionRefinement(8 * width, context)
        self.conv_head32 = ConvNormReLU(context, context, 3)
        self.conv_head16 = ConvNormReLU(context, context, 3)
        self.conv_avg = ConvNormReLU(8 * width, context, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the backbone's feature at 1/8 and the context at 1/8 and at 1/16, each [B, 2w, ., .]."""
        f8, f16, f32 = self.resnet(x)
        whole = self.conv_avg(f32.mean(dim=(2, 3), keepdim=True))  # [B, 2w, 1, 1]
        c16 = self.conv_head32(_nearest(self.arm32(f32) + whole, f16))  # [B, 2w, H/16, W/16]
        c8 = self.conv_head16(_nearest(self.arm16(f16) + c16, f8))  # [B, 2w, H/8, W/8]
        return f8, c8, c16


class FeatureFusion(nn.Module):
    """Join two features, then add the join gated by its own channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvNormReLU(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:  # [B, C/2, H, W] twice -> [B, C, H, W]
        feature: Tensor = self.convblk(torch.cat([fine, context], dim=1))
        mean = feature.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        gate = torch.sigmoid(self.conv2(functional.relu(self.conv1(mean))))  # [B, C, 1, 1]
        return feature * gate + feature


class ParsingHead(nn.Module):
    """Logits at the feature's own size."""

    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels_in, channels, 3)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, h, w] -> [B, classes, h, w]
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class BiSeNet(nn.Module):
    """Face parser. classes: 19 in the official file (CLASSES). width: channels of the backbone's stem, 64 there."""

    def __init__(self, classes: int = len(CLASSES), width: int = 64) -> None:
        super().__init__()
        self.cp = ContextPath(width)
        self.ffm = FeatureFusion(4 * width)
        self.conv_out = ParsingHead(4 * width, 4 * width, classes)
        self.conv_out16 = ParsingHead(2 * width, width, classes)
        self.conv_out32 = ParsingHead(2 * width, width, classes)

    def forward(self, images: Tensor) -> ParsingLogits:
        """images: [B, 3, H, W], any size, normalised as the user of the result was trained with.

        Returns raw logits, each [B, classes, H, W]: bilinear with aligned corners from 1/8 (main, aux16) and 1/16
        (aux32). Multiples of 32 avoid ragged maps; the network was trained around 512 x 512. Raises ShapeError.
        """
        f8, c8, c16 = self._features(images)
        main, aux16, aux32 = self.conv_out(self.ffm(f8, c8)), self.conv_out16(c8), self.conv_out32(c16)
        return ParsingLogits(_enlarged(main, images), _enlarged(aux16, images), _enlarged(aux32, images))

    def parse(self, images: Tensor) -> Tensor:
        """The main head alone: logits [B, classes, H, W]; equal to `forward(images).main`. Raises ShapeError."""
        f8, c8, _ = self._features(images)
        return _enlarged(self.conv_out(self.ffm(f8, c8)), images)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_shape("images", images, "B", 3, "H", "W")
        features: tuple[Tensor, Tensor, Tensor] = self.cp(images)
        return features


def _nearest(x: Tensor, like: Tensor) -> Tensor:
    """Nearest neighbour to the height and width of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners aligned, to the height and width of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
