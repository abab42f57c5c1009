"""Decides which networks a card may name, and how a card's configuration becomes a network's arguments.

The table is closed: a card can choose among these networks and set their sizes, it cannot name code to run. Networks
are imported when one is built, so that this module costs nothing where torch is not installed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A class of `inference_server.networks`. `configuration` names a dataclass that takes the card's configuration
    and is the constructor's only argument; without one the configuration is the constructor's keywords. `entries`,
    when set, says that a file holds a piece of the network only: a pattern of the network's names, and what they are
    called in the file. `summary` is for the artist.
    """

    module: str
    name: str
    summary: str
    configuration: str = ""
    entries: tuple[str, str] | None = None


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "stylegan2": Network("stylegan2", "Generator", "StyleGAN2 generator"),
        "stylegan2-discriminator": Network("stylegan2", "Discriminator", "StyleGAN2 discriminator"),
        "stylegan3": Network("stylegan3", "StyleGAN3", "StyleGAN3 generator", configuration="StyleGAN3Config"),
        "dualstylegan": Network("dualstylegan", "DualStyleGAN", "DualStyleGAN generator"),
        "vtoonify": Network("vtoonify", "VToonify", "VToonify translator"),
        "psp": Network("psp", "PspEncoder", "pSp encoder"),
        "e4e": Network("psp", "E4eEncoder", "e4e encoder"),
        "restyle-e4e": Network("restyle", "ReStyleEncoder", "ReStyle e4e encoder"),
        "bisenet": Network("bisenet", "BiSeNet", "BiSeNet face parser"),
        "arcface": Network("arcface", "ArcFace", "ArcFace identity network"),
        "raft": Network("raft", "RAFT", "RAFT optical flow", configuration="RAFTConfig"),
        "hrnet": Network("hrnet", "HRNet", "HRNet landmark network"),
        "latent-transformer": Network("latent_transformer", "LatentTransformer", "learned move of a face's code"),
        "vgg19": Network("vgg", "VGG19", "VGG19 features"),
        "two-stage-translator": Network("two_stage", "Translator", "translator of the two-stage video network"),
        "two-stage-refiner": Network("two_stage", "Refiner", "refiner of the two-stage video network"),
        "lpips-heads": Network("lpips", "LPIPS", "linear weights of LPIPS", entries=(r"(lin\d+\..+)", r"\1")),
        "lpips-trunk": Network(
            "lpips", "LPIPS", "feature network of LPIPS", entries=(r"net\.slice\d+\.(.+)", r"features.\1")
        ),
    }
)


@dataclass(frozen=True)
class Entry:
    """What one entry of a state dict must be. `dtype` is torch's name without the prefix ("float32")."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def build(network: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network on torch's current default device.

    Raises ModelError `model.card` when the configuration is not one the network takes.
    """
    spec = NETWORKS[network]
    module = importlib.import_module(f"inference_server.networks.{spec.module}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    try:
        if spec.configuration:
            built = getattr(module, spec.name)(getattr(module, spec.configuration)(**arguments))
        else:
            built = getattr(module, spec.name)(**arguments)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ModelError(
            "model.card",
            f"network {network!r} cannot be built with the configuration {dict(config)}: {error}",
            value=dict(config),
            remedy="Correct [parts.*.config] of the card.",
        ) from error
    result: nn.Module = built
    return result


@dataclass(frozen=True)
class Layout:
    """Names, shapes and types of a network's state dict, and the names of it that no output depends on."""

    entries: Mapping[str, Entry]
    unread: frozenset[str]


def layout(network: str, config: Mapping[str, Any]) -> Layout:
    """What the network's official state dict must be, without allocating its weights.

    Networks of which inference reads only a part say so by `unread_entries()`. Raises ModelError `model.card`.
    """
    import torch

    with torch.device("meta"):
        built = build(network, config)
    state: dict[str, Tensor] = built.state_dict()
    entries = {}
    for name, value in state.items():
        published = name
        if piece := NETWORKS[network].entries:
            found = re.fullmatch(piece[0], name)
            if found is None:
                continue
            published = found.expand(piece[1])
        entries[published] = Entry(tuple(value.shape), str(value.dtype).removeprefix("torch."))
    unread: Callable[[], list[str]] | None = getattr(built, "unread_entries", None)
    return Layout(MappingProxyType(entries), frozenset(unread() if unread is not None else ()))
