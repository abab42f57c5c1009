"""Parsing maps smoothed along flow: one window, or a sequence with its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inference_server.networks.parse_smoothing import COLOUR_SIGMA, smooth_sequence, smooth_window
from tests.golden.harness import Adapter
from tests.golden.manifest import Case, Manifest, ManifestError


def build(manifest: Manifest, partners: Mapping[str, Any]) -> int:
    manifest.config.expect("colour_sigma", COLOUR_SIGMA)
    manifest.config.ignore("warp", "temporal_sigma", "downsample")  # in words
    return int(manifest.config["classes"])


def run(classes: int, case: Case) -> dict[str, Tensor]:
    frames, parsing, flows = (torch.from_numpy(case.inputs[name]).unbind() for name in ("frames", "parsing", "flows"))
    k = case.args["k"]
    if parsing[0].shape[0] != classes:
        raise ManifestError(f"{case.id}: parsing maps have {parsing[0].shape[0]} channels, config {classes}")
    if case.args["sequence"]:
        return {"fused": torch.stack(list(smooth_sequence(frames, parsing, lambda i, _: flows[i].unbind(), k)))}
    if len(frames) != 2 * k + 1:
        raise ManifestError(f"{case.id}: {len(frames)} frames are not a window of radius {k}")
    smoothed = smooth_window(frames, parsing, flows)
    return {
        "fused": smoothed.halved()[None],
        "fused_full": smoothed.fused[None],
        "weights": smoothed.weights[:, None],
    }


NETWORKS = {"parse_smoothing": Adapter(build, run)}
