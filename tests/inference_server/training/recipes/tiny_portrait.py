"""A 64 px face generator whose own samples are a "video" with known codes, and an encoder that reads codes from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.hrnet import HRNet, Square
from inference_server.networks.lpips import LPIPS
from inference_server.networks.stylegan2 import Generator
from inference_server.training.recipes.expression import Expression, ExpressionNetworks, ExpressionShot

SIZE, DIM, ROWS, FRAMES = 64, 8, 10, 6
SIZES: Mapping[str, Any] = {"size": SIZE, "style_dim": DIM, "n_mlp": 2, "channel_max": 8}
LICENCES = ({"id": "own", "name": "Own work", "noncommercial": False, "summary": "Made in a test."},)


class Pictures:
    """Frames that are there; counts how often one was asked for."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def picture(self, index: int) -> Tensor:
        self.asked.append(index)
        return self.pictures[index]


def generator(seed: int = 1) -> Generator:
    torch.manual_seed(seed)
    network = Generator(**SIZES)
    for name, value in network.named_parameters():
        if name.endswith("noise.weight"):  # zero as built; a trained network adds noise
            torch.nn.init.constant_(value, 0.05)
        if "to_rgb" in name and name.endswith("conv.weight"):
            value.data.mul_(0.3)  # pictures within -1..1, as a trained network's are
    return network.eval().requires_grad_(False)


def moved(network: Generator, by: float, seed: int = 2) -> Generator:
    """The same face generator before it knew the actor: every weight a little elsewhere."""
    other = generator()
    other.load_state_dict(network.state_dict())
    draw = torch.Generator().manual_seed(seed)
    for name, value in other.named_parameters():
        if not name.startswith("style."):
            value.data.add_(by * torch.randn(value.shape, generator=draw))
    return other


def draw(network: Generator, codes: Tensor) -> Tensor:
    with torch.no_grad():
        return network.synthesis(codes, network.stored_noise())


def walk(network: Generator, frames: int = FRAMES, seed: int = 3) -> Tensor:
    """Codes [F, L, D] of a head that moves: from one sample of the generator to another."""
    z = torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed))
    first, last = network.mapping(z)
    share = torch.linspace(0, 1, frames)[:, None]
    return network.expand((1 - share) * first + share * last).contiguous()


def encoder(network: Generator, samples: int = 192) -> Callable[[Tensor], Tensor]:
    """A linear one, fitted to samples of the generator: pictures [F, 3, S, S] -> codes [F, L, D], rows alike."""
    w = network.mapping(torch.randn(samples, DIM, generator=torch.Generator().manual_seed(4)))

    def seen(x: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
        return torch.cat([small, torch.ones(len(x), 1)], dim=1)

    a = seen(draw(network, network.expand(w)))
    weights = torch.linalg.solve(a.T @ a + 1e-2 * torch.eye(a.shape[1]), a.T @ w)
    return lambda pictures: network.expand(seen(pictures) @ weights).contiguous()


def lpips(seed: int = 5) -> LPIPS:
    torch.manual_seed(seed)
    return LPIPS("alex", width_divisor=16).eval()


def hrnet(seed: int = 6) -> HRNet:
    """Heat maps of 98 points that answer to a picture about as strongly as a trained network's."""
    torch.manual_seed(seed)
    network = HRNet(98, channels=(4, 4, 4, 4), modules=(1, 1, 1), blocks=1, stem=4).eval()
    network.head[3].weight.data.mul_(30)  # type: ignore[operator, union-attr]
    return network.requires_grad_(False)


SQUARE = Square(torch.full((FRAMES, 2), SIZE / 2), torch.full((FRAMES,), 0.75 * SIZE))
LIP_SIDE = 64


def eye_mask() -> Tensor:
    mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    mask[20:30, 12:52] = 1
    return mask


def edit(seed: int = 9) -> Tensor:
    """A direction of the codes that moves the whole face: [L, D]."""
    return 0.35 * torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed))


def networks(**more: Any) -> ExpressionNetworks:
    return ExpressionNetworks(
        **{"generator": generator(), "landmarks": hrnet(), "perceptual": lpips(), **more}, licences=LICENCES
    )


def shot(frames: int = FRAMES, **more: Any) -> ExpressionShot:
    """The walk with the edit in it, and the walk as the performance."""
    g = generator()
    own = walk(g)[:frames]
    square = Square(SQUARE.centre[:frames], SQUARE.side[:frames])
    given = {"codes": own + edit(), "reference": Pictures(draw(g, own)), "square": square, "eye_mask": eye_mask()}
    return ExpressionShot(**{**given, **more})


def expression(table: Mapping[str, Any], own: ExpressionShot | None = None, **more: Any) -> Expression:
    return Expression({"lip_side": LIP_SIDE, **table}, own or shot(), more.pop("networks", None) or networks(), **more)
