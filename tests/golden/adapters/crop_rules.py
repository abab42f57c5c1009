"""VToonify's video crop and the FFHQ square: numbers exactly, pictures within a few grey levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.faces import align
from tests.golden.harness import Adapter, Results
from tests.golden.manifest import Case, Manifest, ManifestError


def synthetic_frame(height: int, width: int) -> NDArray[np.uint8]:
    """The recorded cases' picture [H, W, 3]: smooth plus a fine ripple (data/README.md, section 6)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    turn = 2 * np.pi
    value = (
        127.5
        + 55 * np.sin(turn * (x / 53 + y / 97 + c / 3))
        + 45 * np.sin(turn * (x / 37 - y / 41 + c / 5))
        + 15 * np.sin(turn * (x / 4.3 + y / 5.1 + c / 7))
    )
    return np.rint(np.clip(value, 0, 255)).astype(np.uint8)


def build(manifest: Manifest, partners: Mapping[str, Any]) -> int:
    config = manifest.config
    config.expect("target_eye_distance", align.TARGET_EYE_DISTANCE)
    config.expect("multiple_of", align.MULTIPLE_OF)
    config.expect("upscale", align.UPSCALE)
    config.expect("blur_kernel_1d", list(align.BLUR_KERNEL))
    config.expect("blur_thresholds", list(align.BLUR_THRESHOLDS))
    return int(config["aligned_size"])


def run(aligned_size: int, case: Case) -> Results:
    height, width = case.inputs["frame_hw"]
    if case.kind == "align":
        if case.inputs["output_size"] != aligned_size or case.inputs["transform_size"] != aligned_size:
            raise ManifestError(f"{case.id}: only a direct transform to {aligned_size} is supported")
        plan = align.plan_ffhq(case.inputs["landmarks68"], (height, width), aligned_size)
        expected = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(plan).items()
            if name not in ("frame_size", "output_size")
        }
        return {"expected": expected, "aligned": align.apply_ffhq(synthetic_frame(height, width), plan)}
    if case.kind not in ("video_crop", "preprocess"):
        raise ManifestError(f"{case.id}: unknown kind {case.kind!r}")
    crop = align.plan_video_crop(
        case.inputs["eye_left"],
        case.inputs["eye_right"],
        (height, width),
        case.inputs["padding_left_right_top_bottom"],
    )
    results: dict[str, Any] = {
        "expected": {
            **vars(crop),
            "crop_h": crop.crop_h,
            "crop_w": crop.crop_w,
            "output_h": align.UPSCALE * crop.crop_h,
            "output_w": align.UPSCALE * crop.crop_w,
        }
    }
    if case.kind == "preprocess":
        results["frame"] = align.apply_video_crop(synthetic_frame(height, width), crop)
    return results


NETWORKS = {"crop_rules": Adapter(build, run)}
