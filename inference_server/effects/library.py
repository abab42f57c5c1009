"""What an effect makes of the imported models, made again when a model folder has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from inference_server.models.store import ModelStore

T = TypeVar("T")


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
