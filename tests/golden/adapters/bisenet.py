"""BiSeNet: three heads at the input's size, and the features that they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.bisenet import BiSeNet
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> BiSeNet:
    classes = manifest.config["n_classes"]
    return load_synthetic(lambda: BiSeNet(classes), manifest)


def run(network: BiSeNet, case: Case) -> Results:
    with tapped(network, {"feat8": "cp.resnet.layer2", "cp8": "cp.conv_head16", "ffm": "ffm"}) as inside:
        logits = network(torch.from_numpy(case.inputs["x"]))
    return {
        "out": logits.main,
        "out_corner": logits.main,
        "out16": logits.aux16,
        "out32": logits.aux32,
        **inside,
    }


NETWORKS = {"bisenet": Adapter(build, run)}
