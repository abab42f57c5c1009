"""pSp and e4e encoders: the codes, before any average is added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.psp import E4eEncoder, PspEncoder, StyleEncoder
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build_psp(manifest: Manifest, partners: Mapping[str, Any]) -> PspEncoder:
    config = manifest.config
    config.expect("num_layers", 50)
    config.expect("mode", "ir_se")
    codes, channels_in = config["n_styles"], config["input_nc"]
    return load_synthetic(lambda: PspEncoder("w+", codes, channels_in=channels_in), manifest)


def build_e4e(manifest: Manifest, partners: Mapping[str, Any]) -> E4eEncoder:
    config = manifest.config
    config.expect("num_layers", 50)
    config.expect("mode", "ir_se")
    config.expect("progressive_stage", "Inference (all deltas on)")
    codes = 2 * int(math.log2(config["stylegan_size"])) - 2
    return load_synthetic(lambda: E4eEncoder(codes), manifest)


def run(network: StyleEncoder, case: Case) -> Results:
    with tapped(network, {"c1": "body.6", "c2": "body.20", "c3": "body.23"}) as inside:
        codes = network(torch.from_numpy(case.inputs["x"]))
    return {"codes": codes, **inside}


NETWORKS = {"psp_encoder": Adapter(build_psp, run), "e4e_encoder": Adapter(build_e4e, run)}
