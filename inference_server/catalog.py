"""What the server offers without a worker: effects and models, asked for on the gateway's helper threads."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import ServerError
from inference_server.config import ServerConfig


class Catalog:
    """Thread-safe. The registries are imported at the first question, so that the server answers pings at once."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._descriptors: tuple[EffectDescriptor, ...] = ()
        self._seen: object = None

    def descriptors(self) -> tuple[EffectDescriptor, ...]:
        """Every effect's descriptor; ServerError (`server.missing_package`) if the registry cannot be imported.

        They are made anew when a model folder has changed: controls offer the models that are imported.
        """
        with self._lock:
            store = _module("inference_server.models.store").store_of(self._config.models)
            seen = [_changed(folder.path) for folder in store.folders]
            if seen != self._seen:
                module, _, function = self._config.effects.partition(":")
                self._descriptors = tuple(getattr(_module(module), function)(store))
                self._seen = seen
            return self._descriptors

    def forget(self) -> None:
        """A model has been imported; file systems may be too coarse to show that right away."""
        with self._lock:
            self._seen = None

    def effects(self) -> list[dict[str, Any]]:
        """The descriptors as JSON."""
        return [d.to_json() for d in self.descriptors()]

    def models(self) -> list[dict[str, Any]]:
        """Every official card and every stored model as JSON; `present` says whether its weights are here."""
        with self._lock:
            cards = _module("inference_server.models.cards")
            stored = _module("inference_server.models.store").store_of(self._config.models).models()
        listed = {card.id: card for card in cards.official_cards()}
        listed.update({model_id: model.card for model_id, model in stored.items()})
        return [
            {**cards.card_to_table(card), "present": model_id in stored} for model_id, card in sorted(listed.items())
        ]


def _changed(folder: Path) -> int:
    """When something was put into a folder or taken out, as the file system counts; 0 where there is none."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ServerError(
            "server.missing_package",
            f"{name} cannot be imported: {error}",
            value=name,
            remedy="Install the server: pip install 'faceplate[server]'.",
        ) from error
