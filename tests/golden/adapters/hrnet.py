"""HRNet-W18 landmarks: raw heat maps, and the maps after layer1, stage 2 and stage 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inference_server.networks.hrnet import HRNet
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Fields, Manifest, ManifestError
from tests.golden.taps import tapped
from tests.golden.weights import load_synthetic


def build(manifest: Manifest, partners: Mapping[str, Any]) -> HRNet:
    config = manifest.config
    config.ignore("image_size", "heatmap_size")  # any size runs; the recorded shapes say which it was
    extra = Fields("extra", config["extra"])
    extra.expect("FINAL_CONV_KERNEL", 1)
    stages = [Fields(name, extra[name]) for name in ("STAGE2", "STAGE3", "STAGE4")]
    extra.refuse_unread()
    modules, channels, blocks = [], list(stages[-1]["NUM_CHANNELS"]), set()
    for branches, stage in enumerate(stages, start=2):
        stage.expect("BLOCK", "BASIC")
        stage.expect("FUSE_METHOD", "SUM")
        stage.expect("NUM_BRANCHES", branches)
        stage.expect("NUM_CHANNELS", channels[:branches])
        modules.append(stage["NUM_MODULES"])
        blocks.update(stage["NUM_BLOCKS"])
        stage.refuse_unread()
    if len(blocks) != 1:
        raise ManifestError(f"block counts {sorted(blocks)}: only one count for all branches is supported")
    points = config["num_joints"]
    return load_synthetic(lambda: HRNet(points, channels, modules, blocks.pop()), manifest)


def run(network: HRNet, case: Case) -> Results:
    taps = {"layer1": "layer1", "stage2": "stage2", "stage4": "stage4"}
    with tapped(network, taps) as inside:
        heatmaps = network(torch.from_numpy(case.inputs["x"]))
    return {
        "heatmaps": heatmaps,
        "heatmap_corner": heatmaps,
        "layer1": inside["layer1"],
        "stage2_low": inside["stage2"][1],
        "stage4_low": inside["stage4"][3],
    }


NETWORKS = {"hrnet_w18": Adapter(build, run)}
