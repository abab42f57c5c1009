"""Directions of the artist's own: arrays out of files, and how one gets into the model store.

Decides which arrays count as a direction ([D], [1, D], [L, D], [1, L, D]), that files are read without running anything
in them (`.npy` and `.npz` with pickling disabled, `.pt` and `.pth` for tensors alone, `.safetensors`), and what the
card of such a model says.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ModelError
from inference_server.directions import ganspace
from inference_server.directions.catalog import PREFIX, TENSOR
from inference_server.directions.types import Direction
from inference_server.models.cards import (
    Card,
    DirectionSpec,
    Licence,
    Source,
    TensorSpec,
    check_card,
    licences,
    official_cards,
)
from inference_server.models.store import ModelStore, StoredModel

if TYPE_CHECKING:
    from inference_server.models.cards import Container

Array = NDArray[Any]

MAX_BYTES = 1 << 30  # of an .npz once it is unpacked
OWN = Licence(
    "own",
    "Own",
    False,
    "Made here; the terms of the generator and encoder that its codes came from go with it.",
)
UNSTATED = Licence(
    "unstated", "Licence not stated", True, "Nobody said under which terms it may be used; find out before you publish."
)


def read_arrays(path: Path) -> dict[str, Array]:
    """The numeric arrays of a file by name ("" where it holds one without a name).

    Raises ModelError `model.wrong_file`, `model.damaged`, `model.unsafe`, `model.too_large`.
    """
    from inference_server.models.containers import read_container, translated, wrong_file
    from inference_server.models.looks import look_at

    if not path.is_file():
        raise ModelError(
            "model.wrong_file", "there is no such file", path=str(path), value=path.name, remedy="Check the path."
        )
    look = look_at(path)
    kinds: dict[str, Container] = {
        "npy": "npy",
        "torch-zip": "torch",
        "torch-legacy": "torch",
        "safetensors": "safetensors",
    }
    if look.kind == "npz":
        with translated(path):
            _check_size(path)
            with np.load(path, allow_pickle=False) as archive:
                content: Any = {name: archive[name] for name in archive.files}
    elif look.kind in kinds:
        content = read_container(path, kinds[look.kind])
    else:
        raise wrong_file(path, look, "an array (.npy, .npz) or tensors (.pt, .pth, .safetensors)")
    named = content if isinstance(content, Mapping) else {"": content}
    arrays = {str(name): np.asarray(value) for name, value in named.items() if hasattr(value, "shape")}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > MAX_BYTES:
        raise ModelError(
            "model.too_large",
            f"the archive unpacks to {total:,} bytes, more than {MAX_BYTES:,}",
            path=str(path),
            remedy="Take the arrays that are needed out of it.",
        )


def chosen(arrays: Mapping[str, Array], key: str, path: Path, usual: str) -> Array:
    """The array of that key; without one the only array, or the one called `usual`. ModelError `model.mismatch`."""
    name = key or (next(iter(arrays)) if len(arrays) == 1 else usual)
    if name not in arrays:
        have = ", ".join(repr(k) for k in list(arrays)[:8]) or "none"
        raise ModelError(
            "model.mismatch",
            f"the file has no array {name!r}; it holds {have}",
            value=name,
            path=str(path),
            remedy="Say which with --key.",
        )
    return arrays[name]


def read_rows(path: Path, key: str = "") -> NDArray[np.float32]:
    """The direction in a file, [1, D] or [L, D] float32. Raises ModelError as `read_arrays` and `chosen`."""
    array = chosen(read_arrays(path), key, path, TENSOR)
    shape = array.shape
    if array.ndim == 3 and shape[0] == 1:
        array = array[0]
    if array.ndim not in (1, 2) or array.dtype.kind != "f":
        raise ModelError(
            "model.mismatch",
            f"expected floats [D], [1, D], [L, D] or [1, L, D], got {array.dtype} {list(shape)}",
            value=list(shape),
            path=str(path),
            remedy="A direction has one row, or one for every style input of its generator.",
        )
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]), dtype=np.float32)


def read_component(path: Path, k: int, layers: tuple[int, int] | None) -> Direction:
    """Component `k` of a GANSpace file (mean, comp, std), in standard deviations. Raises ModelError."""
    arrays = read_arrays(path)
    size = arrays["mean"].size if "mean" in arrays else -1
    if {"mean", "comp", "std"} - arrays.keys() or arrays["comp"].shape != (arrays["std"].size, 1, size):
        found = ", ".join(f"{name} {list(array.shape)}" for name, array in list(arrays.items())[:6]) or "nothing"
        raise ModelError(
            "model.mismatch",
            f"expected components as GANSpace writes them, mean [1, D], comp [K, 1, D] and std [K], found {found}",
            path=str(path),
            remedy="Leave --component out for a file that holds one direction.",
        )
    return ganspace.component(arrays, k, layers, name=f"component {k}")


def licence_named(text: str, *, noncommercial: bool = False) -> Licence:
    """The licence of that id, or one of the artist's own words."""
    known = licences()
    if text in known:
        return known[text]
    return Licence("named", text, noncommercial, "As whoever imported it states.") if text else UNSTATED


def model_id(name: str) -> str:
    """The id of the model that holds the direction of that name; ModelError `model.card` where a card has it."""
    own = name if name.startswith(PREFIX) else PREFIX + name
    if own in {card.id for card in official_cards()}:
        raise ModelError(
            "model.card",
            f"{own!r} is the id of a published direction",
            value=own,
            remedy=f"Choose another --name; the published file itself: faceplate models import FILE --id {own}.",
        )
    return own


def keep(
    store: ModelStore,
    name: str,
    rows: NDArray[np.float32],
    *,
    terms: tuple[Licence, ...],
    spec: DirectionSpec,
    notes: str,
    label: str = "",
    replace: bool = False,
) -> StoredModel:
    """Put a direction [1, D] or [L, D] into the store as model `direction-NAME`; usable at once.

    Raises ModelError `model.card`, `model.exists`, `model.folder`, `model.damaged`.
    """
    from inference_server.models.importer import import_file

    Direction(name, rows, spec.layers, spec.scale)  # refuses what could never be applied
    own = model_id(name)
    card = Card(
        id=own,
        title=f"Direction: {label or name}",
        purpose="A direction in W along which one attribute of a face changes.",
        authors=("this studio",),
        licences=terms,
        file=f"{own}.npy",
        family="directions",
        needed_for=("inference",),
        sources=(Source("own"),),
        container="npy",
        tensors={TENSOR: TensorSpec(shapes=((rows.shape[0], rows.shape[1]),))},
        direction=spec,
        notes=notes,
    )
    check_card(card, own)
    with tempfile.TemporaryDirectory(prefix="faceplate-direction-") as folder:
        path = Path(folder) / card.file
        np.save(path, rows, allow_pickle=False)
        return import_file(path, store, card, accept_licence=True, replace=replace).model
