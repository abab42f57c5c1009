"""Learned transformers of codes: edits that are not linear. Decides how one of them gets into an edit list.

Two ways:

1. A Latent Transformer's file, imported into the model store as any other model:

       faceplate models import tnet_31.pth.tar --template latent-transformer --id direction-lt-smiling

2. Any other: a Python package installed beside Faceplate says in its pyproject.toml

       [project.entry-points."faceplate.directions"]
       blink = "our_package.blink:BLINK"

   and `BLINK` is a `Transformer`. `make(store)` is called when the edit is first used and returns a `CodeEdit`, an
   object with `name`, `licence`, `digest`, `check(layers, size)` and `edit(codes, strength)`; its networks are loaded
   there, not when the package is imported. Code of such a package runs in the server, with the server's rights: it is
   there because somebody installed it. Model files never bring code along.

An edit must be a pure function of one code and one strength, whatever batch they come in: frames are rendered in any
order and any grouping, and have to come out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import numpy as np

from host_bridge.errors import ModelError
from inference_server.directions.types import CodeEdit, Codes, Strength
from inference_server.models.store import ModelStore, StoredModel

if TYPE_CHECKING:
    from inference_server.networks.latent_transformer import LatentTransformer

GROUP = "faceplate.directions"
NETWORK = "latent-transformer"
DISPLAY = (-1.5, 1.5)  # the strengths the authors of the Latent Transformer tried


@dataclass(frozen=True)
class Transformer:
    """What an entry point names. `display` are the strengths a slider spans; strength 0 must change nothing."""

    label: str
    make: Callable[[ModelStore], CodeEdit]
    hint: str = ""
    display: tuple[float, float] = (-1.0, 1.0)
    licence: str = ""
    noncommercial: bool = False


def registered() -> tuple[dict[str, Transformer], list[ModelError]]:
    """The transformers that installed packages register, by name, and what is wrong with the others."""
    found: dict[str, Transformer] = {}
    problems: list[ModelError] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        problem = ""
        try:
            value = entry.load()
        except Exception as error:  # noqa: BLE001 - a package's own failure is told by name, and hurts no other edit
            problem = f"{type(error).__name__}: {error}"
        else:
            if isinstance(value, Transformer):
                found[entry.name] = value
            else:
                problem = f"it is of type {type(value).__name__}, not a Transformer"
        if problem:
            problems.append(
                ModelError(
                    "model.unsupported",
                    f"the code transformer {entry.name!r} ({entry.value}) cannot be used: {problem}",
                    value=entry.name,
                    remedy="Correct or uninstall the package that registers it.",
                )
            )
    return found, problems


class LatentTransformerEdit:
    """A stored Latent Transformer as an edit."""

    def __init__(self, name: str, model: StoredModel) -> None:
        self.name = name
        self.licence = model.licence
        self.digest = model.sha256
        self._network = _loaded(model)

    def check(self, layers: int, size: int) -> None:
        own = [self._network.rows, self._network.size]
        if own != [layers, size]:
            raise ModelError(
                "model.mismatch",
                f"the transformer {self.name!r} works on codes {own}, the generator's are [{layers}, {size}]",
                value=own,
                remedy="Take a direction made for this generator, or the generator it was trained on.",
            )

    def edit(self, codes: Codes, strength: Strength) -> Codes:
        import torch

        alpha = np.broadcast_to(np.asarray(strength, np.float32), (len(codes),))
        with torch.inference_mode():
            moved = self._network(torch.from_numpy(np.array(codes, np.float32)), torch.from_numpy(np.array(alpha)))
        out: Codes = moved.numpy()
        return out


def _loaded(model: StoredModel) -> LatentTransformer:
    from inference_server.models.loading import load_network
    from inference_server.networks.latent_transformer import LatentTransformer

    network = load_network(model)
    assert isinstance(network, LatentTransformer)  # the card's network is the one in the table
    return network
