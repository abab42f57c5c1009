"""A tiny pair of generators with everything else that VToonify's training needs, and tables that fit their sizes."""

from __future__ import annotations

from typing import Any

import torch

from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.lpips import LPIPS
from inference_server.networks.psp import PspEncoder
from inference_server.networks.stylegan2 import Generator
from inference_server.training.recipes.vtoonify_pairs import Teachers

OUT, IN, DIM, STYLES = 64, 32, 16, 3
SIZES = {"style_dim": DIM, "n_mlp": 7, "channel_max": 8}
NETWORK = {"in_size": IN, "out_size": OUT, "num_res_layers": 6, "parsing_classes": 19, **SIZES}
LICENCE = {"id": "own", "name": "Own work", "noncommercial": False, "summary": "Made in a test."}
LATENTS = 10
PSP = {"space": "z+", "codes": LATENTS, "image_size": 32, "widths": [16, 16, 16, DIM], "depths": [1, 1, 1, 1]}


def generator(seed: int) -> Generator:
    torch.manual_seed(seed)
    network = Generator(OUT, **SIZES)
    for name, value in network.named_parameters():
        if name.endswith("noise.weight"):  # zero as built; a trained network adds noise
            torch.nn.init.constant_(value, 0.1)
    return network.eval().requires_grad_(False)


def dual(seed: int = 1) -> DualStyleGAN:
    torch.manual_seed(seed)
    network = DualStyleGAN(OUT, **SIZES)
    network.generator.load_state_dict(generator(seed).state_dict())
    for block in network.res[: network.res_index + 1]:
        for value in block.parameters():
            value.data.add_(0.1 * torch.randn_like(value))
    return network.eval().requires_grad_(False)


def teachers(backbone: str = "dualstylegan", **more: Any) -> Teachers:
    style = dual() if backbone == "dualstylegan" else generator(2)
    base = style.generator if isinstance(style, DualStyleGAN) else generator(1)
    torch.manual_seed(3)
    own: dict[str, Any] = {
        "parser": BiSeNet(width=4).eval().requires_grad_(False),
        "directions": torch.cat([torch.zeros(1, LATENTS, DIM), torch.randn(4, LATENTS, DIM)]),
        "colours": PspEncoder("z+", LATENTS, 32, 3, (16, 16, 16, DIM), (1, 1, 1, 1)).eval().requires_grad_(False),
        "colour_average": 0.1 * torch.randn(LATENTS, DIM),
        "perceptual": LPIPS("vgg", width_divisor=16).eval(),
    }
    if backbone == "dualstylegan":
        own["exemplars"] = torch.randn(STYLES, LATENTS, DIM)
        own["names"] = tuple(f"style_{i}.jpg" for i in range(STYLES))
    return Teachers(base, style, licences=(LICENCE,), **{**own, **more})


def encoder_table(backbone: str = "dualstylegan", **more: Any) -> dict[str, Any]:
    """[recipe] of the first stage."""
    table = {"stage": "encoder", "id": "tiny-encoder", "backbone": backbone, "network": NETWORK, "held_out": 2}
    if backbone == "toonify":
        table["data"] = {"blend": [1.0] * 7 + [0.0] * 3}
    return {**table, **more}


def translator_table(backbone: str = "dualstylegan", **more: Any) -> dict[str, Any]:
    """[recipe] of the second stage."""
    losses = {"perceptual_size": 32, "adversarial_size": 32, "flicker_crop": 56}
    return {**encoder_table(backbone), "stage": "translator", "id": "tiny-vtoonify", "losses": losses, **more}
