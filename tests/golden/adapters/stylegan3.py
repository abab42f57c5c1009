"""StyleGAN3 R and T: z and truncation to code, Fourier features, two layers and the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.stylegan3 import StyleGAN3, StyleGAN3Config
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest
from tests.golden.weights import load_synthetic

_PUBLISHED = {
    "num_layers": 14,
    "num_critical": 2,
    "first_cutoff": 2,
    "first_stopband": "2**2.1",
    "last_stopband_rel": "2**0.3",
    "margin_size": 10,
    "output_scale": 0.25,
    "conv_clamp": 256,
    "filter_size": 6,
    "lrelu_upsampling": 2,
}


def build(manifest: Manifest, partners: Mapping[str, Any]) -> StyleGAN3:
    config = manifest.config
    config.expect("img_channels", 3)
    config.expect("defaults", _PUBLISHED)
    synthesis = dict(config["synthesis"])
    synthesis.pop("magnitude_ema_beta", None)  # a training rate
    sizes = StyleGAN3Config(
        resolution=config["img_resolution"],
        kernel=synthesis.pop("conv_kernel", 3),
        radial=synthesis.pop("use_radial_filters", False),
        channel_base=synthesis.pop("channel_base"),
        channel_max=synthesis.pop("channel_max"),
        z_dim=config["z_dim"],
        c_dim=config["c_dim"],
        w_dim=config["w_dim"],
        mapping_layers=config["mapping_kwargs"]["num_layers"],
    )
    if synthesis:
        raise ValueError(f"synthesis options that are not supported: {sorted(synthesis)}")
    return load_synthetic(lambda: StyleGAN3(sizes), manifest)


def run(network: StyleGAN3, case: Case) -> Results:
    z = torch.from_numpy(case.inputs["z"])
    w = network.mapping(z, truncation_psi=case.args["truncation_psi"])
    features: dict[str, torch.Tensor] = {}
    image = network.synthesis(w, features=features)
    names = network.synthesis.layer_names
    return {
        "image": image,
        "image_corner": image,
        "w": w,
        "fourier": features["input"],
        "layer4": features[names[4]],
        "layer10": features[names[10]],
    }


NETWORKS = {"stylegan3": Adapter(build, run)}
