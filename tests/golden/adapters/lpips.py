"""LPIPS: distance of a pair, its five terms, and two trunk features of the second picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.lpips import LPIPS
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> LPIPS:
    config = manifest.config
    config.expect("version", "0.1")
    config.expect("lpips", True)
    config.expect("spatial", False)
    trunk = config["net"]
    return load_synthetic(lambda: LPIPS(trunk), manifest)


def run(network: LPIPS, case: Case) -> Results:
    pair = [torch.from_numpy(case.inputs[name]) for name in ("in0", "in1")]
    if case.args["normalize"]:  # the official option for pictures in 0..1
        pair = [2 * picture - 1 for picture in pair]
    taps = network.net(network.scaling_layer(pair[1]))
    return {
        "value": network(*pair),
        "per_layer": network.per_layer(*pair)[:, :, None, None],
        "in1_layer1": taps[1],
        "in1_layer4": taps[4],
    }


NETWORKS = {"lpips": Adapter(build, run)}
