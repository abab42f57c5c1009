"""What an effect learned of a face over a shot, kept in the shot's folder: style codes, parsing maps, latent codes.

    <shot id>/effects/<name>/shot.npz        arrays for the whole shot
    <shot id>/effects/<name>/<frame>.npz     arrays of one frame, written as soon as they are known

`name` is the effect and a hash of everything the data depend on, the shot's own repairs included, so that what was
made for other parameters is never taken. A folder is published by one rename; the store's lock of that name makes
sure that only one process makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ShotError
from inference_server.effects.base import Arrays, ShotData
from inference_server.shots.locks import STORE_REMEDY
from inference_server.shots.packing import write_arrays
from inference_server.shots.store import ShotRecord, ShotStore

_WHOLE = "shot.npz"


def data_name(shot: str, effect: str, version: str, track: int, key: Mapping[str, Any]) -> str:
    """The folder's name. `shot` is the record's key, `key` what the effect says its data depend on, as JSON."""
    text = json.dumps([shot, effect, version, track, key], sort_keys=True)
    return f"{effect}-{track}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_data(store: ShotStore, record: ShotRecord, name: str, scale: float = 1.0) -> ShotData | None:
    """What is stored under that name, or None. ShotError `shot.corrupt` where it cannot be read."""
    folder = store.root / record.id / "effects" / name
    if not (folder / _WHOLE).is_file():
        return None

    def maps(frame: int) -> Arrays:
        path = folder / f"{frame}.npz"
        return _read(path, record) if path.is_file() else {}

    return ShotData(_read(folder / _WHOLE, record), maps, scale)


class DataWriter:
    """Collects a face's data in a draft folder; `publish` puts it in place, `discard` drops it.

    Made under the store's lock of that name: what a killed process left of the same data is removed.
    """

    def __init__(self, store: ShotStore, record: ShotRecord, name: str) -> None:
        parent = store.root / record.id / "effects"
        self._final = parent / name
        self._draft = parent / f".draft-{name}-{uuid.uuid4().hex}"
        self._arrays: dict[str, NDArray[Any]] = {}
        for left in parent.glob(f".draft-{name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            self._draft.mkdir(parents=True)
        except OSError as error:
            raise unwritable(self._draft, error) from error

    def put(self, name: str, array: NDArray[Any]) -> None:
        self._arrays[name] = array

    def put_maps(self, frame: int, arrays: Arrays) -> None:
        try:
            write_arrays(self._draft / f"{frame}.npz", arrays)
        except OSError as error:
            raise unwritable(self._draft, error) from error

    def publish(self) -> None:
        try:
            write_arrays(self._draft / _WHOLE, self._arrays)
            os.rename(self._draft, self._final)
        except OSError as error:
            self.discard()
            if not (self._final / _WHOLE).is_file():
                raise unwritable(self._final, error) from error

    def discard(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)


class MemoryData:
    """The same for one preview: nothing is stored."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._maps: dict[int, Arrays] = {}

    def put(self, name: str, array: NDArray[Any]) -> None:
        self._arrays[name] = array

    def put_maps(self, frame: int, arrays: Arrays) -> None:
        self._maps[frame] = dict(arrays)

    def data(self) -> ShotData:
        return ShotData(self._arrays, lambda frame: self._maps.get(frame, {}))


def _read(path: Path, record: ShotRecord) -> Arrays:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ShotError(
            "shot.corrupt",
            f"what an effect stored with shot {record.id} cannot be read: {error}",
            path=str(path),
            remedy=f"Remove the folder {path.parent} and render again.",
        ) from error


def unwritable(path: Path, error: OSError) -> ShotError:
    """The store cannot be written there."""
    return ShotError(
        "shot.store",
        f"the shot store cannot be written: {error.strerror or error}",
        path=str(path),
        remedy=STORE_REMEDY,
    )
