"""What one frame takes of the device, from the size of the network's picture, before anything is loaded.

A job that does not fit is refused and told what would: nothing replans in mid-job, and a smaller picture is another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from host_bridge.errors import JobError
from inference_server.effects.two_stage.variants import Variant
from inference_server.effects.vtoonify.memory import ITEM_BYTES

_RESERVE = 256 << 20  # the plate's region on its way, resampling
_WIDTH = 32  # of the translator's finest level, where its card does not say
# Bytes at the peak per pixel of the network's picture and channel of that level. On a CPU 33 and 70 were measured with
# the published widths; half precision is reordered there by way of float32. Elsewhere, what lives at once at full size
# on the way up: what came from below, the skip, the two joined, what the convolution makes of them, its workspace.
_BYTES = {"cpu": {"fp32": 42, "fp16": 80, "bf16": 80}, "cuda": {"fp32": 58, "fp16": 30, "bf16": 30}}


def frame_bytes(variant: Variant, precision: str, pixels: int, device: str) -> int:
    """Bytes at the peak, for a network's picture of so many pixels."""
    widths = variant.model.card.parts[variant.translator].config.get("widths") or (_WIDTH,)
    per_pixel = int(widths[0]) * _BYTES["cpu" if device == "cpu" else "cuda"][precision]
    weights = variant.model.stored.kept * (4 + ITEM_BYTES[precision])
    return int(weights + _RESERVE + pixels * per_pixel)


def check_memory(
    variant: Variant,
    precision: str,
    sizes: Mapping[int, tuple[int, int]],
    device: str,
    memory: int,
    plan: Mapping[str, Any],
) -> int:
    """Bytes that the largest picture (height, width) takes; JobError `job.out_of_memory` where they are not there."""
    height, width = max(sizes.values(), key=lambda s: s[0] * s[1], default=(0, 0))
    total = frame_bytes(variant, precision, height * width, device)
    if total <= memory:
        return total
    ways = []
    room = memory - frame_bytes(variant, precision, 0, device)
    if room > 0:
        share = math.sqrt(room / (total - frame_bytes(variant, precision, 0, device)))
        ways.append(f"a crop or size of {share:.2f} of this one's sides")
    ways += [
        f"precision={other}"
        for other in ITEM_BYTES
        if device != "cpu"
        and ITEM_BYTES[other] < ITEM_BYTES[precision]
        and frame_bytes(variant, other, height * width, device) <= memory
    ]
    raise JobError(
        "job.out_of_memory",
        f"{variant.id} needs {total / 2**30:.1f} GiB for a picture of {width}x{height} px in {precision}, "
        f"this device has {memory / 2**30:.1f} GiB",
        value={**plan, "bytes": total},
        remedy=f"What fits: {' or '.join(ways) or 'nothing on this device'}. Or render on a device with more memory, "
        "or raise memory_gb in server.toml.",
    )
