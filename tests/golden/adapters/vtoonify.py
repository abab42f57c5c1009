"""VToonify with either backbone, at any frame size: picture, masks and the encoder's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.vtoonify import VToonify
from tests.golden.harness import Adapter
from tests.golden.manifest import Case, Manifest
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> VToonify:
    config = manifest.config
    config.expect("img_channels", 3)
    return load_synthetic(
        lambda: VToonify(
            backbone=config["backbone"],
            in_size=config["in_size"],
            out_size=config["out_size"],
            style_dim=config["style_channels"],
            n_mlp=config["num_mlps"],
            channel_multiplier=config["channel_multiplier"],
            num_res_layers=config["num_res_layers"],
        ),
        manifest,
    )


def run(network: VToonify, case: Case) -> dict[str, Tensor]:
    x = torch.from_numpy(case.inputs["x"])
    style = network.mapping(torch.from_numpy(case.inputs["zplus"]))
    degree = case.args["d_s"] if network.backbone == "dualstylegan" else 0.0
    to_rgb = f"encoder.{network.stages + 1}"
    inner = "generator.generator" if network.backbone == "dualstylegan" else "generator"
    taps = {"encoder_quarter": "encoder.2", "encoder_rgb": to_rgb, "rgb_mid": f"{inner}.to_rgbs.4"}
    with tapped(network, taps) as inside:
        image, masks = network.forward_with_masks(x, style, degree)
    _, encoder_out, _ = network.encode(x, style, degree)
    results = inside | {"image": image, "image_corner": image, "encoder_out": encoder_out, "s": style}
    return results | {f"mask{k}": mask for k, mask in enumerate(masks)}


NETWORKS = {"vtoonify": Adapter(build, run)}
