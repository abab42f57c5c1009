"""Model cards, import of published checkpoints, and the safetensors store.

`cards` and `store` need no torch; `import_file`, `load_network` and their kin import it when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inference_server.models.cards import Card, Licence, official_card, official_cards
from inference_server.models.store import ModelStore, StoredModel

if TYPE_CHECKING:
    from inference_server.models.importer import import_file, importing
    from inference_server.models.loading import load_lpips, load_network, load_style_codes, load_tensors

__all__ = [
    "Card",
    "Licence",
    "ModelStore",
    "StoredModel",
    "import_file",
    "importing",
    "load_lpips",
    "load_network",
    "load_style_codes",
    "load_tensors",
    "official_card",
    "official_cards",
]

_NEED_TORCH = {
    "import_file": "importer",
    "importing": "importer",
    "load_lpips": "loading",
    "load_network": "loading",
    "load_style_codes": "loading",
    "load_tensors": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
