"""ArcFace IR-SE-50: the embedding of a 112 px crop, and of an aligned 256 px picture through the crop rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.arcface import ArcFace, identity_crop
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest, ManifestError
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> ArcFace:
    manifest.config.expect("num_layers", 50)
    manifest.config.expect("mode", "ir_se")
    manifest.config.ignore("drop_ratio")
    return load_synthetic(lambda: ArcFace(manifest.config["input_size"]), manifest)


def run(network: ArcFace, case: Case) -> Results:
    x = torch.from_numpy(case.inputs["x"])
    mode = case.args["mode"]
    if mode == "256":
        x = identity_crop(x, network.image_size)
    elif mode != str(network.image_size):
        raise ManifestError(f"{case.id}: unknown mode {mode!r}")
    with tapped(network, {"body2": "body.2", "body20": "body.20", "body23": "body.23"}) as inside:
        embedding = network(x)
    return {"embedding": embedding, **inside}


NETWORKS = {"arcface_irse50": Adapter(build, run)}
