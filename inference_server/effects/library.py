"""What an effect makes of the imported models, made again when a model folder has changed, and models they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from host_bridge.errors import EffectError
from inference_server.models.store import ModelStore, StoredModel

T = TypeVar("T")
_PARSERS = ("bisenet-faceparsing", "bisenet-79999")  # files of the same face parser; the first is preferred


def face_parser(models: Mapping[str, StoredModel]) -> StoredModel | None:
    """The face parser among the imported models, if there is one."""
    return next((models[i] for i in _PARSERS if i in models), None)


def needed_model(models: Mapping[str, StoredModel], model_id: str, why: str, source: str) -> StoredModel:
    """The imported model of that id. EffectError `effect.needs_model` where there is none.

    why     what needs it, the beginning of the message
    source  how it is got, the beginning of the remedy
    """
    if model_id in models:
        return models[model_id]
    raise EffectError(
        "effect.needs_model",
        f"{why} needs the model {model_id!r}, which is not imported",
        value=model_id,
        remedy=f"{source}; a file you have already: `faceplate models import FILE --id {model_id}`.",
    )


class Library(Generic[T]):
    """`now` is what `make` makes of the store as it is."""

    def __init__(self, store: ModelStore, make: Callable[[ModelStore], T]) -> None:
        self._store, self._make = store, make
        self._seen: list[tuple[Path, int]] | None = None
        self._made: T | None = None

    @property
    def now(self) -> T:
        folders = [f.path for f in self._store.folders]
        # Cards are put in place by a rename, which changes the folder's own time.
        seen = [(path, path.stat().st_mtime_ns) for path in folders if path.is_dir()]
        if self._made is None or seen != self._seen:
            self._made = self._make(self._store)
            self._seen = seen
        return self._made
