"""RAFT: dense optical flow between two pictures, basic and small.

Decides the arithmetic of the iterative estimator (arXiv 2003.12039), its state-dict names, and how pictures of any
size are padded for it.

Official files (princeton-vl/RAFT, BSD-3-Clause): `raft-things`, `-sintel`, `-kitti`, `-chairs` for BASIC, 179 entries,
5,257,536 parameters; `raft-small` for SMALL, 106 entries, 990,162 parameters; plain state dicts whose names all carry
CHECKPOINT_PREFIX. In BASIC's context encoder the norm of a strided shortcut is listed twice, as `norm3` and as
`downsample.1` (the same tensors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tensors import ShapeError, check_shape

CHECKPOINT_PREFIX = "module."
STRIDE = 8  # pixels per cell of the features

Norm = Literal["instance", "batch", "none"]
PaddingRule = Literal["sintel", "kitti"]


@dataclass(frozen=True)
class RAFTConfig:
    """Sizes of one variant; BASIC if nothing is said.

    bottleneck: encoders of bottleneck blocks, one 3x3 GRU pass and bilinear up-sampling (small), instead of basic
    blocks, two separable GRU passes and learned up-sampling. widths: channels of the encoders' stages; the stem has
    those of the first. correlation_widths, flow_widths: of the motion encoder's convolutions. motion: its result,
    of which two channels are the flow itself. head: hidden channels of the flow (and mask) head.
    """

    bottleneck: bool = False
    widths: tuple[int, int, int] = (64, 96, 128)
    features: int = 256
    hidden: int = 128
    context: int = 128
    radius: int = 4
    correlation_widths: tuple[int, ...] = (256, 192)
    flow_widths: tuple[int, int] = (128, 64)
    motion: int = 128
    head: int = 256
    levels: int = 4


BASIC = RAFTConfig()
SMALL = RAFTConfig(
    bottleneck=True,
    widths=(32, 64, 96),
    features=128,
    hidden=96,
    context=64,
    radius=3,
    correlation_widths=(96,),
    flow_widths=(64, 32),
    motion=82,
    head=128,
)


class Flow(NamedTuple):
    """image1(p) shows what image2(p + flow(p)) shows; channel 0 is x, channel 1 is y."""

    low: Tensor  # [B, 2, H/8, W/8] in cells of 8 pixels
    full: Tensor  # [B, 2, H, W] in pixels


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a strided block projects its shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm1 = _norm(norm, channels)
        self.norm2 = _norm(norm, channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.norm3 = _norm(norm, channels)  # published under this name, too
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, H/s, W/s]
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class BottleneckBlock(nn.Module):
    """1x1, strided 3x3 and 1x1 convolution at a quarter of the channels; a strided block projects its shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels // 4, 1)
        self.conv2 = nn.Conv2d(channels // 4, channels // 4, 3, stride, 1)
        self.conv3 = nn.Conv2d(channels // 4, channels, 1)
        self.norm1 = _norm(norm, channels // 4)
        self.norm2 = _norm(norm, channels // 4)
        self.norm3 = _norm(norm, channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.norm4 = _norm(norm, channels)
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), self.norm4)

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C, H/s, W/s]
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        y = functional.relu(self.norm3(self.conv3(y)))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Encoder(nn.Module):
    """A picture to features at 1/8."""

    def __init__(self, config: RAFTConfig, channels: int, norm: Norm) -> None:
        super().__init__()
        block = BottleneckBlock if config.bottleneck else BasicBlock
        first, second, third = config.widths
        self.norm1 = _norm(norm, first)
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3)
        self.layer1 = nn.Sequential(block(first, first, 1, norm), block(first, first, 1, norm))
        self.layer2 = nn.Sequential(block(first, second, 2, norm), block(second, second, 1, norm))
        self.layer3 = nn.Sequential(block(second, third, 2, norm), block(third, third, 1, norm))
        self.conv2 = nn.Conv2d(third, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W] in -1..1 -> [B, C, H/8, W/8]
        x = functional.relu(self.norm1(self.conv1(x)))
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return features


class MotionEncoder(nn.Module):
    """Correlation and current flow to motion features, the flow itself being the last two channels."""

    def __init__(self, config: RAFTConfig) -> None:
        super().__init__()
        window = config.levels * (2 * config.radius + 1) ** 2
        self.convc1 = nn.Conv2d(window, config.correlation_widths[0], 1)
        self.convc2: nn.Conv2d | None = None
        if len(config.correlation_widths) > 1:
            self.convc2 = nn.Conv2d(config.correlation_widths[0], config.correlation_widths[1], 3, 1, 1)
        self.convf1 = nn.Conv2d(2, config.flow_widths[0], 7, 1, 3)
        self.convf2 = nn.Conv2d(config.flow_widths[0], config.flow_widths[1], 3, 1, 1)
        joined = config.correlation_widths[-1] + config.flow_widths[1]
        self.conv = nn.Conv2d(joined, config.motion - 2, 3, 1, 1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:  # [B, 2, h, w], [B, K, h, w] -> [B, M, h, w]
        seen = functional.relu(self.convc1(correlation))
        if self.convc2 is not None:
            seen = functional.relu(self.convc2(seen))
        moved = functional.relu(self.convf2(functional.relu(self.convf1(flow))))
        return torch.cat([functional.relu(self.conv(torch.cat([seen, moved], dim=1))), flow], dim=1)


def _gru_pass(hidden: Tensor, x: Tensor, update: nn.Module, reset: nn.Module, candidate: nn.Module) -> Tensor:
    """One gated recurrent step, its three linear maps being convolutions. hidden [B, D, h, w], x [B, X, h, w]."""
    joined = torch.cat([hidden, x], dim=1)
    z = torch.sigmoid(update(joined))
    r = torch.sigmoid(reset(joined))
    q = torch.tanh(candidate(torch.cat([r * hidden, x], dim=1)))
    return (1 - z) * hidden + z * q


class ConvGRU(nn.Module):
    """One 3x3 pass (small)."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (nn.Conv2d(hidden + inputs, hidden, 3, 1, 1) for _ in range(3))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        return _gru_pass(hidden, x, self.convz, self.convr, self.convq)


class SeparableConvGRU(nn.Module):
    """A pass along rows, then one along columns (basic)."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        both = hidden + inputs
        self.convz1, self.convr1, self.convq1 = (nn.Conv2d(both, hidden, (1, 5), 1, (0, 2)) for _ in range(3))
        self.convz2, self.convr2, self.convq2 = (nn.Conv2d(both, hidden, (5, 1), 1, (2, 0)) for _ in range(3))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        hidden = _gru_pass(hidden, x, self.convz1, self.convr1, self.convq1)
        return _gru_pass(hidden, x, self.convz2, self.convr2, self.convq2)


class FlowHead(nn.Module):
    """Hidden state to a step of the flow."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, 2, 3, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # [B, D, h, w] -> [B, 2, h, w]
        step: Tensor = self.conv2(functional.relu(self.conv1(hidden)))
        return step


class UpdateBlock(nn.Module):
    """One iteration: motion features, recurrent state, step of the flow; basic also has the up-sampling mask."""

    def __init__(self, config: RAFTConfig) -> None:
        super().__init__()
        self.encoder = MotionEncoder(config)
        gru = ConvGRU if config.bottleneck else SeparableConvGRU
        self.gru = gru(config.hidden, config.context + config.motion)
        self.flow_head = FlowHead(config.hidden, config.head)
        self.mask: nn.Sequential | None = None
        if not config.bottleneck:
            self.mask = nn.Sequential(
                nn.Conv2d(config.hidden, config.head, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(config.head, 9 * STRIDE * STRIDE, 1),
            )

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the new hidden state [B, D, h, w] and the step [B, 2, h, w]."""
        motion = self.encoder(flow, correlation)
        hidden = self.gru(hidden, torch.cat([context, motion], dim=1))
        return hidden, self.flow_head(hidden)


class CorrelationPyramid:
    """Similarity of every cell of one picture with every cell of the other, and with averages of 2, 4, 8 cells.

    first, second: features [B, D, h, w]. Holds 4/3 * (h * w)^2 values per pair: 33 MB at 400 x 400 pixels, 533 MB at
    800 x 800 in float32.
    """

    def __init__(self, first: Tensor, second: Tensor, levels: int, radius: int) -> None:
        batch, channels, height, width = first.shape
        products = (first / channels**0.5).flatten(2).transpose(1, 2) @ second.flatten(2)  # [B, hw, hw]
        volume = products.view(batch * height * width, 1, height, width)
        self.levels = [volume]
        for _ in range(levels - 1):
            volume = functional.avg_pool2d(volume, 2)
            self.levels.append(volume)
        self.shape = (batch, height, width)
        # Window of (2r+1)^2 offsets whose x varies slowest: [2r+1, 2r+1, 2] as (x, y).
        steps = torch.arange(-radius, radius + 1, device=first.device, dtype=first.dtype)
        self.window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)

    def at(self, positions: Tensor) -> Tensor:
        """Windows around each cell's current position in the other picture, bilinear, 0 outside.

        positions: [B, 2, h, w] x, y in cells. Returns [B, levels * (2r+1)^2, h, w].
        """
        batch, height, width = self.shape
        centres = positions.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)  # [Bhw, 1, 1, 2]
        windows: list[Tensor] = []
        for level, volume in enumerate(self.levels):
            cells = centres / 2**level + self.window  # [Bhw, 2r+1, 2r+1, 2]
            size = cells.new_tensor([volume.shape[3], volume.shape[2]])
            # Cell borders, not cell centres, are mapped to -1 and 1, so that a level of one cell needs no division
            # by zero; which cells are mixed is the same.
            grid = (2 * cells + 1) / size - 1
            sampled = functional.grid_sample(volume, grid, "bilinear", "zeros", align_corners=False)
            windows.append(sampled.view(batch, height, width, -1))
        return torch.cat(windows, dim=3).permute(0, 3, 1, 2).contiguous()


class RAFT(nn.Module):
    """Optical flow. config: BASIC or SMALL in the official files."""

    def __init__(self, config: RAFTConfig) -> None:
        super().__init__()
        self.config = config
        self.smallest = STRIDE * 2 ** (config.levels - 1)
        self.fnet = Encoder(config, config.features, "instance")
        self.cnet = Encoder(config, config.hidden + config.context, "none" if config.bottleneck else "batch")
        self.update_block = UpdateBlock(config)

    def forward(self, image1: Tensor, image2: Tensor, iterations: int = 20, start: Tensor | None = None) -> Flow:
        """Flow from image1 to image2.

        image1, image2: [B, 3, H, W] RGB in 0..255, H and W multiples of 8 and at least `smallest` (64 with four
        levels; the official code needs 128); see `flow` for other sizes. iterations: 12 in training, 20 in VToonify,
        32 and 24 in the official evaluations. start: [B, 2, H/8, W/8] in cells, a flow to begin from. Between
        iterations no gradient passes through the positions. Raises ShapeError, and ValueError below one iteration.
        """
        check_shape("image1", image1, "B", 3, "H", "W")
        check_shape("image2", image2, *image1.shape)
        batch, _, height, width = image1.shape
        if height % STRIDE or width % STRIDE or min(height, width) < self.smallest:
            raise ShapeError(
                f"image1: expected shape [B, 3, H, W], H and W multiples of {STRIDE} and at least {self.smallest}, "
                f"got {list(image1.shape)}"
            )
        if iterations < 1:
            raise ValueError(f"iterations: expected at least 1, got {iterations}")
        if start is not None:
            check_shape("start", start, batch, 2, height // STRIDE, width // STRIDE)

        first, second = 2 * (image1 / 255) - 1, 2 * (image2 / 255) - 1
        both = self.fnet(torch.cat([first, second]))  # [2B, D, h, w]
        # Positions and what is looked up at them stay float32 where the convolutions run in half precision.
        both = both.to(torch.promote_types(both.dtype, torch.float32))
        with torch.autocast(both.device.type, enabled=False):
            pyramid = CorrelationPyramid(both[:batch], both[batch:], self.config.levels, self.config.radius)
        hidden, context = self.cnet(first).split([self.config.hidden, self.config.context], dim=1)
        hidden, context = torch.tanh(hidden), functional.relu(context)

        origin = _cells(both)  # [1, 2, h, w]
        flow = torch.zeros_like(origin).expand(batch, -1, -1, -1) if start is None else start
        for _ in range(iterations):
            flow = flow.detach()
            seen = pyramid.at(origin + flow)  # [B, levels * (2r+1)^2, h, w]
            hidden, step = self.update_block(hidden, context, seen, flow)
            flow = flow + step
        if self.update_block.mask is None:
            return Flow(flow, _enlarged(flow))
        return Flow(flow, convex_upsample(flow, 0.25 * self.update_block.mask(hidden)))

    def flow(self, image1: Tensor, image2: Tensor, iterations: int = 20, rule: PaddingRule = "sintel") -> Tensor:
        """Flow in pixels [B, 2, H, W] for pictures of any size of at least `smallest` after padding.

        Pads to multiples of 8 by `padding`, runs, and cuts the padding off. Arguments and errors as in `forward`.
        """
        check_shape("image1", image1, "B", 3, "H", "W")
        check_shape("image2", image2, *image1.shape)
        height, width = image1.shape[-2:]
        left, right, top, bottom = padding(height, width, rule)
        padded = [functional.pad(image, (left, right, top, bottom), mode="replicate") for image in (image1, image2)]
        full: Tensor = self(*padded, iterations).full
        return full[:, :, top : top + height, left : left + width]


def padding(height: int, width: int, rule: PaddingRule = "sintel") -> tuple[int, int, int, int]:
    """Pixels to replicate (left, right, top, bottom) so that both sides are multiples of 8.

    "sintel" splits both axes, the smaller half on the left and on top; "kitti" splits the width and adds all rows at
    the bottom. Raises ValueError for another rule.
    """
    if rule not in ("sintel", "kitti"):
        raise ValueError(f"rule: expected 'sintel' or 'kitti', got {rule!r}")
    rows, columns = -height % STRIDE, -width % STRIDE
    top = rows // 2 if rule == "sintel" else 0
    return columns // 2, columns - columns // 2, top, rows - top


def convex_upsample(flow: Tensor, mask: Tensor) -> Tensor:
    """Every fine pixel as a convex mix of the 3x3 coarse cells around its own.

    flow: [B, 2, h, w] in cells; mask: [B, 9 * 64, h, w], the neighbour (row-major) varying slowest, then the row,
    then the column within the cell; softmax over the neighbours. Returns [B, 2, 8h, 8w] in pixels. Raises ShapeError.
    """
    check_shape("flow", flow, "B", 2, "h", "w")
    batch, _, height, width = flow.shape
    check_shape("mask", mask, batch, 9 * STRIDE * STRIDE, height, width)
    weights = mask.view(batch, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    around = functional.unfold(STRIDE * flow, 3, padding=1)  # [B, 2 * 9, h * w]
    around = around.view(batch, 2, 9, 1, 1, height, width)
    fine = (weights * around).sum(dim=2)  # [B, 2, 8, 8, h, w]
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, STRIDE * height, STRIDE * width)


def _enlarged(flow: Tensor) -> Tensor:
    """Bilinear, corners aligned: [B, 2, h, w] in cells to [B, 2, 8h, 8w] in pixels."""
    size = (STRIDE * flow.shape[2], STRIDE * flow.shape[3])
    return STRIDE * functional.interpolate(flow, size=size, mode="bilinear", align_corners=True)


def _cells(like: Tensor) -> Tensor:
    """Position of every cell, x first: [1, 2, h, w]."""
    height, width = like.shape[-2:]
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])[None]
