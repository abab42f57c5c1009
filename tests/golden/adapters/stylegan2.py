"""StyleGAN2 at any size: Z with or without truncation, and W+; always the stored noise maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.stylegan2 import Generator, truncate
from tests.golden.harness import Adapter
from tests.golden.manifest import Case, Manifest, ManifestError
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> Generator:
    return load_synthetic(lambda: Generator(**manifest.config), manifest)


def run(generator: Generator, case: Case) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    mode = case.args["mode"]
    if mode == "z":
        w = results["w"] = generator.mapping(torch.from_numpy(case.inputs["z"]))
        centre = case.inputs.get("truncation_latent")
        w = truncate(w, case.args["truncation"], None if centre is None else torch.from_numpy(centre))
    elif mode == "wplus":
        w = torch.from_numpy(case.inputs["wplus"])
    else:
        raise ManifestError(f"{case.id}: unknown mode {mode!r}")
    with tapped(generator, {"feat32": "convs.5", "rgb64": "to_rgbs.3"}) as inside:
        image = generator.synthesis(w, generator.stored_noise())
    return results | inside | {"image": image, "image_corner": image}


NETWORKS = {"stylegan2": Adapter(build, run)}
