"""One picture through all of VToonify-D by the effect's own steps: alignment, codes, parsing, network, 8-bit result.

The recording continues from its own aligned crop (another resampler is within tolerance, but moves the codes), so
ours is compared and then left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inference_server.effects.vtoonify.codes import aligned_face, face_code, signed, style_code
from inference_server.effects.vtoonify.parsing import parsed
from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.psp import PspEncoder
from inference_server.networks.vtoonify import VToonify, network_input, parser_input
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest, ManifestError


@dataclass(frozen=True)
class Pipeline:
    vtoonify: VToonify
    encoder: PspEncoder
    parser: BiSeNet
    aligned_size: int


def build(manifest: Manifest, partners: Mapping[str, Any]) -> Pipeline:
    manifest.config.expect("output", "4 x frame size")
    aligned_size = manifest.config["aligned_size"]
    pipeline = Pipeline(**partners, aligned_size=aligned_size)
    classes = pipeline.parser.conv_out.conv_out.out_channels
    found = (pipeline.vtoonify.backbone, classes, pipeline.encoder.image_size)
    wanted = (manifest.config["backbone"], manifest.config["classes"], aligned_size)
    if found != wanted:
        raise ManifestError(f"the networks have (backbone, classes, aligned size) {found}, the config {wanted}")
    return pipeline


def run(pipeline: Pipeline, case: Case) -> Results:
    frame = case.inputs["frame"].astype(np.uint8)
    points = case.inputs["landmarks68"].astype(np.float64)
    aligned = aligned_face(frame, points, pipeline.aligned_size)
    [recorded] = [case.arrays[o.npz_key] for o in case.outputs if o.name == "aligned"]

    mapping = pipeline.vtoonify.mapping
    encoder_input = signed(recorded)  # [1, 3, 256, 256]
    zplus = face_code(pipeline.encoder, torch.from_numpy(case.inputs["latent_avg"]), encoder_input)
    exemplar = torch.from_numpy(case.inputs["exstyle_z"])
    style = style_code(mapping, zplus, exemplar, color=1.0 if case.args["color_transfer"] else 0.0)

    picture = signed(frame)  # [1, 3, H, W]
    logits = parsed(pipeline.parser, picture)  # [1, 19, 2H, 2W]
    inputs = network_input(picture, logits)
    image = pipeline.vtoonify(inputs, style, case.args["d_s"])  # [1, 3, 4H, 4W]
    final = ((image.clamp(-1, 1) + 1) * 127.5)[0].permute(1, 2, 0).to(torch.uint8)  # the published rule truncates
    return {
        "aligned": aligned,
        "encoder_input": encoder_input,
        "zplus": zplus,
        "exstyle_wplus": mapping(exemplar),
        "wplus": mapping(zplus),
        "style": style,
        "parser_input": parser_input(picture),
        "logits2x": logits,
        "inputs22": inputs,
        "inputs22_corner": inputs,
        "image": image,
        "image_corner": image,
        "final": final,
    }


NETWORKS = {"vtoonify_pipeline": Adapter(build, run)}
