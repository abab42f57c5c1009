"""One module per network, each with `NETWORKS: dict[str, Adapter]` from kind to adapter.

A kind serves the network of that name and every network named `<kind>_...` (`stylegan2` serves
`stylegan2_256`); the longest kind wins. Modules here are found by themselves, so a new one needs no list.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.golden.harness import Adapter


def collect() -> dict[str, Adapter]:
    """All adapters by kind; `ValueError` when two modules claim one kind."""
    found: dict[str, Adapter] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for kind, adapter in getattr(module, "NETWORKS", {}).items():
            if kind in found:
                raise ValueError(f"two adapters for the network kind {kind!r}, the second in {info.name}.py")
            found[kind] = adapter
    return found
