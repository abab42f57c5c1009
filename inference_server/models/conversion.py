"""Decides how the generators' pickles of the StyleGAN authors become state dicts under the names our networks load.

A stored module is the dictionary of its attributes; parameters, buffers and submodules nest in it. Flattened with
dots that is an ordinary state dict, which StyleGAN3 keeps and StyleGAN2 renames to the names that rosinality's
port, pSp, e4e, DualStyleGAN and VToonify share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from host_bridge.errors import ModelError
from inference_server.models.cards import Conversion
from inference_server.models.containers import translated
from inference_server.models.pickles import Record
from inference_server.models.rebuilding import NVIDIA_REBUILDERS, rebuild


def _not_convertible(path: Path, problem: str) -> ModelError:
    return ModelError(
        "model.mismatch",
        f"the pickle does not hold the network the card describes: {problem}",
        path=str(path),
        remedy="Compare file and card with `faceplate models show`.",
    )


def pickled_module(path: Path, top: Any, root: str) -> dict[str, Tensor]:
    """The state dict of the module stored under `root` of a pickle read on stand-ins.

    Raises ModelError `model.mismatch` when there is no module, `model.damaged`, `model.unsafe`.
    """
    entries = dict(top.items) if isinstance(top, Record) else top
    if not isinstance(entries, dict) or root not in entries:
        found = ", ".join(map(str, entries)) if isinstance(entries, dict) else f"a {type(top).__name__}"
        raise _not_convertible(path, f"expected an entry {root!r}, found {found}")
    with translated(path):
        fields = rebuild(entries[root], NVIDIA_REBUILDERS)
    state: dict[str, Tensor] = {}
    _flatten(path, fields, "", state)
    return state


def _flatten(path: Path, fields: Any, prefix: str, out: dict[str, Tensor]) -> None:
    if not isinstance(fields, dict) or not isinstance(fields.get("state"), dict):
        raise _not_convertible(path, f"{prefix.rstrip('.') or 'the entry'} is not a stored module")
    attributes = fields["state"]
    for kind in ("_parameters", "_buffers"):
        for name, value in (attributes.get(kind) or {}).items():
            if isinstance(value, Tensor):
                out[f"{prefix}{name}"] = value.detach()
            elif value is not None:
                raise _not_convertible(path, f"{prefix}{name} is a {type(value).__name__}, not a tensor")
    for name, child in (attributes.get("_modules") or {}).items():
        if child is not None:
            _flatten(path, child, f"{prefix}{name}.", out)


def _leading(value: Tensor) -> Tensor:
    return value[None]


def _maps(value: Tensor) -> Tensor:
    return value[None, None]


def _scalar(value: Tensor) -> Tensor:
    return value.reshape(1)


def _rgb_bias(value: Tensor) -> Tensor:
    return value.reshape(1, -1, 1, 1)


def _same(value: Tensor) -> Tensor:
    return value


_CONV: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "weight": ("conv.weight", _leading),
    "affine.weight": ("conv.modulation.weight", _same),
    "affine.bias": ("conv.modulation.bias", _same),
    "noise_strength": ("noise.weight", _scalar),
    "bias": ("activate.bias", _same),
}
_TORGB: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "weight": ("conv.weight", _leading),
    "affine.weight": ("conv.modulation.weight", _same),
    "affine.bias": ("conv.modulation.bias", _same),
    "bias": ("bias", _rgb_bias),
}
_UPSAMPLING_GAIN = 4.0  # their filters have gain 1, the stored kernels of our format 2 per axis


def stylegan2_state(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """stylegan2-ada-pytorch names to rosinality's; `latent_avg` [w] is added beside them when there is a w average.

    Entries without a counterpart keep their name, so that the strict comparison that follows shows them.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            out[f"style.{int(found[1]) + 1}.{found[2]}"] = value
        elif name == "mapping.w_avg":
            out["latent_avg"] = value
        elif name == "synthesis.b4.const":
            out["input.input"] = value[None]
        elif found := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name):
            new = _stylegan2_layer(int(found[1]), found[2], found[3], value)
            if new is not None:
                out.update([new])
        elif found := re.fullmatch(r"synthesis\.b(\d+)\.resample_filter", name):
            if int(found[1]) > 4:
                out[f"to_rgbs.{_block(int(found[1]))}.upsample.kernel"] = value * _UPSAMPLING_GAIN
        else:
            out[name] = value
    if "input.input" not in out:
        raise _not_convertible(path, "there is no synthesis.b4.const as in StyleGAN2")
    return out


def _block(resolution: int) -> int:
    """Number of the block that ends at a resolution: 8 is block 0."""
    return resolution.bit_length() - 4


def _stylegan2_layer(resolution: int, layer: str, rest: str, value: Tensor) -> tuple[str, Tensor] | None:
    block = _block(resolution)
    if layer == "torgb":
        prefix = "to_rgb1" if resolution == 4 else f"to_rgbs.{block}"
        table = _TORGB
    else:
        number = 2 * block + (layer == "conv1")  # -1 for the 4 px layer
        prefix = "conv1" if resolution == 4 else f"convs.{number}"
        table = _CONV
        if rest == "noise_const":
            return f"noises.noise_{number + 1}", _maps(value)
        if rest == "resample_filter":
            return (f"{prefix}.conv.blur.kernel", value * _UPSAMPLING_GAIN) if layer == "conv0" else None
    if rest not in table:
        return f"synthesis.b{resolution}.{layer}.{rest}", value
    new, change = table[rest]
    return f"{prefix}.{new}", change(value)


def stylegan3_state(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """StyleGAN3 keeps its names; a left-over user transform is set back and the filters are compared with the design.

    Raises ModelError `model.mismatch` for a geometry other than the published one.
    """
    from inference_server.networks.stylegan3 import config_from_state

    out = dict(state)
    if "synthesis.input.transform" in out:
        out["synthesis.input.transform"] = torch.eye(3)
    try:
        config_from_state(out)
    except (ValueError, KeyError, IndexError) as error:
        raise _not_convertible(path, str(error)) from error
    return out


def converted(path: Path, top: Any, root: str, conversion: Conversion) -> dict[str, Tensor]:
    """The state dict under our names of the module at `root`; raises ModelError as the functions above."""
    state = pickled_module(path, top, root)
    return stylegan3_state(path, state) if conversion == "stylegan3" else stylegan2_state(path, state)
