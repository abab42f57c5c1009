"""A small synthetic world for the two-stage recipes: smooth pictures that move, and a style that is easy to tell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.training.draws import Draw, derive
from inference_server.training.recipes.two_stage_data import Pair, Window

SIDE = 40
WIDTHS = (8, 12, 16)


def picture(item: int, side: int = SIDE) -> Tensor:
    """[3, side, side], smooth, in -1..1."""
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(derive("picture", item))) * 2 - 1
    return F.interpolate(noise, size=(side, side), mode="bicubic").clamp(-1, 1)[0]


def styled(x: Tensor, number: int) -> Tensor:
    """Two styles: the channels turned round, and darkened ones."""
    return x.flip(-3) if number == 0 else x * 0.5 - 0.4


class Pairs:
    """Pairs in two styles (or the first one only); `matte` counts the left half only."""

    def __init__(self, first: int, count: int, styles: int = 2, matte: bool = False) -> None:
        self.first, self.count, self.styles, self.matte = first, count, styles, matte

    def size(self) -> int:
        return self.count

    def pair(self, item: int, draw: Draw) -> Pair:
        x = picture(self.first + item)
        number = draw.integer("style", self.styles)
        y, weight = styled(x, number), None
        if self.matte:
            weight = torch.zeros(1, SIDE, SIDE)
            weight[..., : SIDE // 2] = 1
            y = torch.where(weight > 0, y, torch.ones(()))
        return Pair(x, y, F.one_hot(torch.tensor(number), self.styles).float(), weight)


class Clips:
    """A picture that goes to the right by two pixels a frame, the left half of the view being background."""

    def __init__(self, first: int, count: int, styles: int = 1, grain: float = 0.0) -> None:
        self.first, self.count, self.styles, self.grain = first, count, styles, grain

    def size(self) -> int:
        return self.count

    def window(self, item: int, draw: Draw, length: int) -> Window:
        wide = picture(self.first + item, SIDE + 40)
        start = draw.integer("start", 4)
        frames = torch.stack([wide[:, :SIDE, 40 - 2 * (start + t) :][..., :SIDE] for t in range(length)])
        frames = (frames + self.grain * draw.normal("grain", frames.shape)).clamp(-1, 1)
        flow = torch.zeros(length, 2, SIDE, SIDE)
        flow[1:, 0] = -2.0
        background = torch.zeros(length, 1, SIDE, SIDE)
        background[..., : SIDE // 2] = 1
        style = F.one_hot(torch.tensor(draw.integer("style", self.styles)), self.styles).float()
        return Window(frames, style, flow, background, torch.ones(length, 1, SIDE, SIDE))
