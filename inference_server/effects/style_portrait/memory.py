"""What the networks take of the device: a frame's drawing before it is begun, the encoder's batch before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from host_bridge.errors import JobError
from inference_server.effects.style_portrait.imported import STYLEGAN2, EncoderModel, GeneratorModel

_BYTES = 4
_RESERVE = 512 << 20  # the plate's region on its way, resampling, the face parser at 512 px
# Values that live at once for each pixel of a generator's picture: StyleGAN2's finest layers of 32 channels, their
# inputs enlarged and blurred; StyleGAN3's non-linearity at twice the rate (networks.stylegan3.HIGH_RATE_ELEMENTS).
_DRAWN = {STYLEGAN2: 130, "": 420}
_READ = 600  # the same for a pixel of the encoder's input: 64 channels at full size, four of them
LARGEST_BATCH = 8


def drawing_bytes(generator: GeneratorModel, parser: int) -> int:
    """Bytes of drawing one picture; `parser` are the face parser's values."""
    weights = generator.model.stored.kept * _BYTES
    values = _DRAWN.get(generator.kind, _DRAWN[""]) * generator.size**2
    return weights + parser * _BYTES + values * _BYTES + _RESERVE


def check_memory(generator: GeneratorModel, parser: int, memory: int, plan: Mapping[str, Any]) -> int:
    """Bytes that rendering a frame takes; JobError `job.out_of_memory` where they are not there."""
    total = drawing_bytes(generator, parser)
    if total > memory:
        raise JobError(
            "job.out_of_memory",
            f"{generator.id} needs {total / 2**30:.1f} GiB to draw a picture of {generator.size} px, this device has "
            f"{memory / 2**30:.1f} GiB",
            value={**plan, "bytes": total},
            remedy="Use a smaller generator, render on a device with more memory, or raise memory_gb in server.toml.",
        )
    return total


def reading_batch(encoder: EncoderModel, memory: int) -> int:
    """How many faces the encoder reads at once; at least one."""
    left = memory - encoder.model.stored.kept * _BYTES - _RESERVE
    return max(1, min(LARGEST_BATCH, left // (_READ * encoder.size**2 * _BYTES)))


def too_little(what: str, memory: int) -> JobError:
    """The device ran out of memory for a single picture."""
    return JobError(
        "job.out_of_memory",
        f"the device's memory ran out while {what} one picture; Faceplate may use {memory / 2**30:.1f} GiB of it",
        remedy="Close what else uses the device, use a smaller network, or render on a device with more memory.",
    )
