"""DualStyleGAN at any size: two Z+ codes, one weight per layer, stored noise maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import truncate
from tests.golden.harness import Adapter
from tests.golden.manifest import Case, Manifest
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> DualStyleGAN:
    return load_synthetic(lambda: DualStyleGAN(**manifest.config), manifest)


def run(network: DualStyleGAN, case: Case) -> dict[str, Tensor]:
    case.args.expect("mode", "zplus")
    extrinsic = network.mapping(torch.from_numpy(case.inputs["exstyle_z"]))
    intrinsic = network.mapping(torch.from_numpy(case.inputs["instyle_z"]))
    intrinsic = truncate(intrinsic, case.args["truncation"])
    noise = network.generator.stored_noise()
    taps = {
        "resstyle": "style",
        "feat32": "res.6",
        "feat32_plain": "generator.convs.5",
        "rgb64": "generator.to_rgbs.3",
    }
    with tapped(network, taps) as inside:
        image = network(intrinsic, extrinsic, case.args["interp_weights"], noise)
    if case.args["interp_weights"][6] == 0:  # the last ModRes block is skipped
        inside["feat32"] = inside["feat32_plain"]
    return inside | {"exstyle": extrinsic, "image": image, "image_corner": image}


NETWORKS = {"dualstylegan": Adapter(build, run)}
