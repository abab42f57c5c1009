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
_WIDTHS = (32, 64)  # of the translator's finest levels, where its card does not say


def frame_bytes(variant: Variant, precision: str, pixels: int) -> int:
    """Bytes at the peak, for a network's picture of so many pixels.

    The peak is at full size on the way up: what came from below, the skip beside it, the two joined, and what the
    convolution makes of them in its own order.
    """
    widths = variant.model.card.parts[variant.translator].config.get("widths") or _WIDTHS
    values = 4 * (int(widths[0]) + int(widths[1])) + 2 * int(widths[0])
    weights = variant.model.stored.kept * (4 + ITEM_BYTES[precision])
    return int(weights + _RESERVE + pixels * (values * ITEM_BYTES[precision] + 18 * 4))


def check_memory(
    variant: Variant, precision: str, sizes: Mapping[int, tuple[int, int]], memory: int, plan: Mapping[str, Any]
) -> int:
    """Bytes that the largest picture (height, width) takes; JobError `job.out_of_memory` where they are not there."""
    height, width = max(sizes.values(), key=lambda s: s[0] * s[1], default=(0, 0))
    total = frame_bytes(variant, precision, height * width)
    if total <= memory:
        return total
    ways = []
    room = memory - frame_bytes(variant, precision, 0)
    if room > 0:
        share = math.sqrt(room / (total - frame_bytes(variant, precision, 0)))
        ways.append(f"a crop or size of {share:.2f} of this one's sides")
    ways += [
        f"precision={other}"
        for other in ITEM_BYTES
        if ITEM_BYTES[other] < ITEM_BYTES[precision] and frame_bytes(variant, other, height * width) <= memory
    ]
    raise JobError(
        "job.out_of_memory",
        f"{variant.id} needs {total / 2**30:.1f} GiB for a picture of {width}x{height} px in {precision}, "
        f"this device has {memory / 2**30:.1f} GiB",
        value={**plan, "bytes": total},
        remedy=f"What fits: {' or '.join(ways) or 'nothing on this device'}. Or render on a device with more memory, "
        "or raise memory_gb in server.toml.",
    )
