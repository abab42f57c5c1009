"""What one frame takes of the device, from the crop's size and the precision, before anything is loaded.

Instance statistics are those of the whole crop, so a crop cannot be cut into tiles and give the same picture; a job
that does not fit is refused, and told what would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from host_bridge.errors import JobError
from inference_server.effects.vtoonify.variants import Variant
from inference_server.networks.stylegan2 import channels_at

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Values per pixel of the crop at the peak, of the convolutions' precision and of float32, for the published widths. On
# a CPU, where bands are worked through and half precision is reordered on the way, 2.2 kB in fp32 and 2.0 kB in bf16
# were measured (D at 256x256); elsewhere maps are whole, and these are the widest that live at once, at up to 4 times
# the crop's size.
_VALUES = {"cpu": (200.0, 560.0), "cuda": (2600.0, 400.0)}
_RESERVE = 256 << 20  # the plate's region on its way, resampling, the parser
_PUBLISHED_CHANNELS = 128  # of the finest encoder stage in the published sizes


@dataclass(frozen=True)
class Need:
    """Bytes of a rendering: of the weights while they are baked, and of one pixel of the crop."""

    weights: int
    per_pixel: float

    @classmethod
    def of(cls, variant: Variant, precision: str, device: str) -> Need:
        config = variant.model.card.parts["main"].config
        width = channels_at(
            int(config.get("in_size", 256)),
            int(config.get("channel_multiplier", 2)),
            int(config.get("channel_max", 512)),
        )
        share = width / _PUBLISHED_CHANNELS
        item = ITEM_BYTES[precision]
        own, full = _VALUES["cpu" if device == "cpu" else "cuda"]
        return cls(variant.model.stored.kept * (4 + item), share * (own * item + full * 4))

    def total(self, pixels: int) -> int:
        """What a crop of so many pixels takes."""
        return int(self.weights + _RESERVE + self.per_pixel * pixels)

    def pixels(self, memory: int) -> float:
        """How large a crop fits."""
        return max((memory - self.weights - _RESERVE) / self.per_pixel, 0.0)


def check_memory(
    variant: Variant,
    precision: str,
    sizes: Mapping[int, tuple[int, int]],
    device: str,
    memory: int,
    plan: Mapping[str, Any],
) -> int:
    """Bytes that the largest crop (height, width) takes; JobError `job.out_of_memory` where they are not there."""
    need = Need.of(variant, precision, device)
    height, width = max(sizes.values(), key=lambda s: s[0] * s[1], default=(0, 0))
    total = need.total(height * width)
    if total <= memory:
        return total
    ways = []
    if (pixels := need.pixels(memory)) >= 80 * 80:
        ways.append(f"padding of at most {math.floor(math.sqrt(pixels) / 16) * 8} on every side")
    for other in ITEM_BYTES:
        smaller = ITEM_BYTES[other] < ITEM_BYTES[precision]
        if smaller and Need.of(variant, other, device).total(height * width) <= memory:
            ways.append(f"precision={other}")
    fits = " or ".join(ways) or "no smaller padding and no other precision"
    raise JobError(
        "job.out_of_memory",
        f"{variant.id} needs {total / 2**30:.1f} GiB for a crop of {width}x{height} px in {precision}, "
        f"this device has {memory / 2**30:.1f} GiB",
        value={**plan, "bytes": total},
        remedy=f"What fits: {fits}. Or render on a device with more memory, or raise memory_gb in server.toml.",
    )
