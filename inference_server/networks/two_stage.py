"""Context-preserving two-stage video translation: a picture translator, and a refiner that looks back two frames.

The translator turns one frame into its stylised version. The refiner sees three frames of the source, its own two
previous results and the translator's picture, and corrects that picture, so that time is smooth without flow or
parsing at inference. The paper gives their task, their inputs and 5.56 million parameters together; both are plain
U-Nets here:

    block(i, o)   conv 3x3 i->o, batch norm, leaky ReLU 0.2, conv 3x3 o->o, batch norm, leaky ReLU 0.2
    down          2x2 max-pool between blocks            up   bilinear x2, joined with the skip, block to its width
    last          conv 1x1 to 3 channels, tanh (translator) or added to the intermediate picture (refiner)

    network      widths, full resolution first   inputs   parameters   receptive field
    Translator   32, 64, 128, 160, 432                3    4,754,307            236 px
    Refiner      24, 48, 96, 128                     18      804,731            116 px
    together                                               5,559,038

A translator of several styles takes the weight of each as a constant plane beside the frame: 288 parameters a style
(0.005 %), and weights between two styles mix them. The refiner needs to know of no style: it sees the picture.

Batch norm, not instance norm: in inference it is a constant, so that the statistics of a moving picture cannot make
it flicker, a tile gives what the frame gives, and it folds into the convolutions (`folded`). Any height and width:
the edge is repeated up to a multiple of `multiple`, and cut off again.

Pictures are display-encoded sRGB in [-1, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference_server.networks.tensors import ShapeError, check_shape

LEAK = 0.2
ORDER = 2  # L: frames the refiner looks back
TRANSLATOR_WIDTHS = (32, 64, 128, 160, 432)
REFINER_WIDTHS = (24, 48, 96, 128)

Net = TypeVar("Net", bound=nn.Module)


class Block(nn.Module):
    """Two 3x3 convolutions with norm and leaky ReLU: [N, i, H, W] -> [N, o, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(LEAK)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        out: Tensor = self.act(self.norm2(self.conv2(x)))
        return out


class UNet(nn.Module):
    """The U-Net of both stages, without its last activation: [N, in_channels, H, W] -> [N, 3, H, W]."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"a U-Net has two levels or more, not widths {tuple(widths)}")
        self.multiple = 2 ** (len(widths) - 1)
        self.first = Block(in_channels, widths[0])
        self.down = nn.ModuleList(Block(wide, narrow) for wide, narrow in pairwise(widths))
        self.up = nn.ModuleList(
            Block(below + skip, skip) for below, skip in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.last = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2], x.shape[-1]
        below, right = -height % self.multiple, -width % self.multiple
        x = F.pad(x, (0, right, 0, below), mode="replicate")
        x = self.first(x)
        skips = [x]
        for block in self.down:
            x = block(F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], dim=1))
        out: Tensor = self.last(x)
        return out[..., :height, :width]


class Translator(nn.Module):
    """Stage one, G_XY: a frame [N, 3, H, W] in [-1, 1] to its stylised version, same shape and range.

    styles: how many styles the network holds. With one it takes the frame alone.
    """

    def __init__(self, widths: Sequence[int] = TRANSLATOR_WIDTHS, styles: int = 1) -> None:
        super().__init__()
        if styles < 1:
            raise ValueError(f"a translator holds one style or more, not {styles}")
        self.styles = styles
        self.net = UNet(3 + (styles if styles > 1 else 0), widths)

    def forward(self, frame: Tensor, style: Tensor | None = None) -> Tensor:
        """style: [N, styles], weights that sum to 1; needed with several styles, without effect with one.

        Raises ShapeError.
        """
        check_shape("frame", frame, "N", 3, "H", "W")
        if self.styles > 1:
            n, _, h, w = frame.shape
            if style is None:
                raise ShapeError(f"style: expected shape [{n}, {self.styles}], got none")
            check_shape("style", style, n, self.styles)
            planes = style.to(frame.dtype)[:, :, None, None].expand(n, self.styles, h, w)
            frame = torch.cat([frame, planes], dim=1)
        return torch.tanh(self.net(frame))


class Refiner(nn.Module):
    """Stage two, R, of order L = 2: p(y_t | x_{t-2..t}, y_{t-2..t-1}, G_XY(x_t)).

    Before training it returns the intermediate picture: its last convolution starts at zero.
    """

    def __init__(self, widths: Sequence[int] = REFINER_WIDTHS) -> None:
        super().__init__()
        self.net = UNet(3 * (ORDER + 1) + 3 * ORDER + 3, widths)
        nn.init.zeros_(self.net.last.weight)
        if self.net.last.bias is not None:
            nn.init.zeros_(self.net.last.bias)

    def forward(self, frames: Tensor, refined: Tensor, intermediate: Tensor) -> Tensor:
        """Frames x_{t-2}, x_{t-1}, x_t [N, 9, H, W], results y_{t-2}, y_{t-1} [N, 6, H, W] and the translator's
        picture of x_t [N, 3, H, W] -> y_t [N, 3, H, W], clamped to [-1, 1]. Raises ShapeError.
        """
        n, _, h, w = frames.shape
        check_shape("frames", frames, "N", 3 * (ORDER + 1), "H", "W")
        check_shape("refined", refined, n, 3 * ORDER, h, w)
        check_shape("intermediate", intermediate, n, 3, h, w)
        correction = self.net(torch.cat([frames, refined, intermediate], dim=1))
        picture: Tensor = (intermediate + correction).clamp(-1, 1)
        return picture


@dataclass(frozen=True)
class Memory:
    """What one frame hands to the next: x_{t-1}, x_{t-2} and y_{t-1}, y_{t-2}, newest first, each [N, 3, H, W]."""

    frames: tuple[Tensor, Tensor]
    refined: tuple[Tensor, Tensor]


def step(
    translator: nn.Module, refiner: nn.Module, frame: Tensor, memory: Memory | None, style: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """One frame of a sequence [N, 3, H, W] -> its refined picture, and the memory for the next.

    Without memory, at a shot's start, the first frame and its translation stand for those before it. style: as the
    translator takes it.
    """
    intermediate: Tensor = translator(frame) if style is None else translator(frame, style)
    return refine(refiner, frame, intermediate, memory)


def refine(refiner: nn.Module, frame: Tensor, intermediate: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
    """`step` for a frame whose translation is known, [N, 3, H, W] both."""
    if memory is None:
        memory = Memory((frame, frame), (intermediate, intermediate))
    (x1, x2), (y1, y2) = memory.frames, memory.refined
    refined: Tensor = refiner(torch.cat([x2, x1, frame], dim=1), torch.cat([y2, y1], dim=1), intermediate)
    return refined, Memory((frame, x1), (refined, y1))


def folded(network: Net) -> Net:
    """A copy in evaluation mode, for inference only: batch norms are folded into the convolutions before them, and
    activations write over what they are given.
    """
    out = copy.deepcopy(network).eval()
    for module in out.modules():
        if isinstance(module, Block):
            for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
            module.act = nn.LeakyReLU(LEAK, inplace=True)
    return out.requires_grad_(False)


def ready(network: Net, dtype: torch.dtype = torch.float32) -> Net:
    """`folded`, in one precision, with the channels last: how it is fastest, on CPU and GPU.

    Convolutions then work in that layout, whatever the frame's; on a CPU enlarging, pooling and joining skips take a
    fraction of the time too, and the network as a whole three quarters.
    """
    return folded(network).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
