"""RAFT, basic ("large") and small: coarse and full flow, features, and the first correlation window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inference_server.networks.raft import BASIC, RAFT, SMALL
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> RAFT:
    config = manifest.config
    config.expect("mixed_precision", False)
    config.ignore("dropout", "alternate_corr")  # the second computes the same values in less memory
    variant = replace(SMALL if config["small"] else BASIC, levels=config["corr_levels"], radius=config["corr_radius"])
    return load_synthetic(lambda: RAFT(variant), manifest)


def run(network: RAFT, case: Case) -> Results:
    windows: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        windows.append(args[1])

    handle = network.update_block.encoder.register_forward_pre_hook(keep)
    try:
        with tapped(network, {"fmap": "fnet", "cnet": "cnet"}) as inside:
            flow = network(
                torch.from_numpy(case.inputs["image1"]),
                torch.from_numpy(case.inputs["image2"]),
                iterations=case.args["iters"],
            )
    finally:
        handle.remove()
    return {
        "flow_low": flow.low,
        "flow_up": flow.full,
        "fmap1": inside["fmap"].chunk(2)[0],
        "cnet": inside["cnet"],
        "corr0": windows[0],
    }


NETWORKS = {"raft": Adapter(build, run)}
