"""A 32 px face generator, networks around it, and a folder of pictures in one colour scheme: a collection in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from inference_server.networks.arcface import ArcFace
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.lpips import LPIPS
from inference_server.networks.psp import PspEncoder
from inference_server.networks.stylegan2 import Discriminator, Generator
from inference_server.networks.vgg import VGG19
from inference_server.training.recipes.codes import CollectionCodes, FaceEncoder
from inference_server.training.recipes.destylize import DestylizeNetworks
from inference_server.training.recipes.dualstylegan import PretrainStart, TransferStart
from inference_server.training.recipes.refine_codes import RefineNetworks
from inference_server.training.recipes.stylegan_finetune import FinetuneStart

SIZE, DIM, ROWS = 32, 16, 8
SIZES = {"size": SIZE, "style_dim": DIM, "n_mlp": 7, "channel_max": 8}
LICENCE = {"id": "own", "name": "Own work", "noncommercial": False, "summary": "Made in a test."}
LICENCES = (LICENCE,)


def generator(seed: int = 1) -> Generator:
    torch.manual_seed(seed)
    network = Generator(**SIZES)  # type: ignore[arg-type]
    for name, value in network.named_parameters():
        if name.endswith("noise.weight"):  # zero as built; a trained network adds noise
            torch.nn.init.constant_(value, 0.05)
        if "to_rgb" in name and name.endswith("conv.weight"):
            value.data.mul_(0.3)  # pictures within -1..1, as a trained network's are
    return network.eval().requires_grad_(False)


def discriminator(seed: int = 2, sure: float = 1.0) -> Discriminator:
    """`sure`: what is added to every score."""
    torch.manual_seed(seed)
    network = Discriminator(SIZE, channel_max=8)
    torch.nn.init.constant_(network.final_linear[1].bias, sure)  # type: ignore[arg-type]
    return network


def dual(seed: int = 3) -> DualStyleGAN:
    torch.manual_seed(seed)
    network = DualStyleGAN(**SIZES)  # type: ignore[arg-type]
    network.generator.load_state_dict(generator().state_dict())
    return network.eval().requires_grad_(False)


def encoder(seed: int = 4) -> FaceEncoder:
    torch.manual_seed(seed)
    network = PspEncoder("z+", ROWS, 32, 3, (16, 16, 16, DIM), (1, 1, 1, 1))
    return FaceEncoder(network, 0.3 * torch.randn(ROWS, DIM))


def arcface(seed: int = 5) -> ArcFace:
    torch.manual_seed(seed)
    return ArcFace(16, 8, (16, 16, 16, 16), (1, 1, 1, 1)).eval().requires_grad_(False)


def vgg(seed: int = 6) -> VGG19:
    torch.manual_seed(seed)
    return VGG19(width_divisor=8)


def lpips(seed: int = 7) -> LPIPS:
    torch.manual_seed(seed)
    return LPIPS("vgg", width_divisor=8).eval()


def write_pictures(folder: Path, count: int = 4, size: int = SIZE) -> Path:
    """Blue discs on orange, each at another place."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = np.full((size, size, 3), (40, 120, 230), np.uint8)  # BGR
        cv2.circle(picture, (size // 2 + i - 1, size // 2 - i + 1), size // 3, (220, 90, 30), -1)
        cv2.imwrite(str(folder / f"style_{i:02d}.png"), picture)
    return folder


def codes(names: list[str]) -> CollectionCodes:
    torch.manual_seed(8)
    return CollectionCodes(tuple(names), torch.randn(len(names), ROWS, DIM), torch.randn(len(names), ROWS, DIM))


def finetune_start(**more: Any) -> FinetuneStart:
    return FinetuneStart(generator(), discriminator(), SIZES, LICENCES, **more)


def pretrain_start(**more: Any) -> PretrainStart:
    own = {"features": vgg(), "encoder": encoder(), **more}
    return PretrainStart(dual(), SIZES, discriminator(), licences=LICENCES, **own)


def transfer_start(names: list[str], **more: Any) -> TransferStart:
    return TransferStart(dual(), SIZES, discriminator(), vgg(), arcface(), codes(names), LICENCES, **more)


def destylize_networks() -> DestylizeNetworks:
    return DestylizeNetworks(generator(1), generator(9), encoder(), arcface(), lpips(), LICENCES)


def refine_networks(names: list[str]) -> RefineNetworks:
    return RefineNetworks(dual(), codes(names), vgg(), lpips(), LICENCES)
