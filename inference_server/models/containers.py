"""Decides how a published file is opened without running anything in it: as nested dicts and lists of tensors.

PyTorch files go through `torch.load(weights_only=True)`, after the pickle inside has been scanned against a list
shorter than torch's own; `.npy` arrays are read with pickling disabled; a `.npy` that holds a pickled dictionary and
the pickles of the StyleGAN authors are read on inert stand-ins (`pickles.py`).
"""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.torch import load_file

from host_bridge.errors import FaceplateError, ModelError
from inference_server.models.cards import Container
from inference_server.models.looks import Look, look_at
from inference_server.models.pickles import MalformedPickle, RefusedGlobal, load_records, scan
from inference_server.models.rebuilding import (
    CODES_GLOBALS,
    CODES_REBUILDERS,
    NVIDIA_GLOBALS,
    TORCH_GLOBALS,
    rebuild,
    torch_load,
)

MAX_PICKLE_BYTES = 256 << 20  # of the pickle inside a torch file: names and sizes, no weights
_CHUNK = 1 << 20

_EXPECTED: Mapping[Container, tuple[tuple[str, ...], str]] = {
    "torch": (("torch-zip", "torch-legacy"), "a PyTorch file"),
    "safetensors": (("safetensors",), "a safetensors file"),
    "npy": (("npy",), "a NumPy array"),
    "npy-dict": (("npy-objects",), "a NumPy file that holds a dictionary of style codes"),
    "nvidia-pickle": (("pickle",), "a Python pickle"),
}


def damaged(path: Path, problem: str) -> ModelError:
    """The error for a file whose beginning is right and whose content is not."""
    return ModelError(
        "model.damaged",
        f"the file is incomplete or damaged: {problem}",
        path=str(path),
        remedy="Download it again and compare its size with `faceplate models show`.",
    )


def unsafe(path: Path, name: str) -> ModelError:
    """The error for a file that asks for a class which is not on the list."""
    return ModelError(
        "model.unsafe",
        f"the file asks for {name}, which this kind of file has no need of; nothing of it was run",
        value=name,
        path=str(path),
        remedy="Do not open it with other programs. Fetch the file from where its authors publish it.",
    )


def wrong_file(path: Path, look: Look, expected: str) -> ModelError:
    """The error for a file of another kind."""
    return ModelError(
        "model.wrong_file",
        f"expected {expected}, but it looks like {look.phrase}",
        value=look.kind,
        path=str(path),
        remedy="Fetch the file from where its authors publish it; `faceplate models show` says where.",
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Whatever a reader runs into with a hostile or cut file becomes one of the errors above."""
    try:
        yield
    except FaceplateError:
        raise
    except RefusedGlobal as error:
        raise unsafe(path, error.name) from error
    except MalformedPickle as error:
        raise damaged(path, str(error)) from error
    except MemoryError as error:
        raise ModelError(
            "model.too_large",
            "the file asks for more memory than there is",
            path=str(path),
            remedy="Fetch the file from where its authors publish it.",
        ) from error
    except Exception as error:  # torch, numpy and zipfile raise many kinds for malformed input
        raise damaged(
            path, f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        ) from error


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """The file as a read-only map: a length in the file that exceeds it reads to the end instead of allocating."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def read_container(path: Path, container: Container, objects: tuple[str, ...] = (), *, check_sums: bool = True) -> Any:
    """The content of a file: nested dicts and lists of tensors, arrays and plain values.

    `objects` are harmless classes the card allows in addition. `check_sums` verifies a zip's own checksums, which is
    not needed where the whole file's hash is known. Raises ModelError `model.wrong_file`, `model.damaged`,
    `model.unsafe`, `model.too_large`.
    """
    look = look_at(path)
    kinds, expected = _EXPECTED[container]
    if look.kind == "broken-zip":
        raise damaged(path, f"it looks like {look.phrase}")
    if look.kind not in kinds:
        raise wrong_file(path, look, expected)
    with translated(path):
        if look.kind == "torch-zip":
            return _read_torch_zip(path, objects, check_sums)
        if look.kind == "torch-legacy":
            return _read_torch_legacy(path, objects)
        if container == "safetensors":
            return load_file(path)
        if container == "npy":
            return _read_array(path)
        if container == "npy-dict":
            return _read_codes(path)
        with _mapped(path) as stream:
            return load_records(cast(Any, stream), NVIDIA_GLOBALS)


# ------------------------------------------------------------------------------------------------------- torch


def _read_torch_zip(path: Path, objects: tuple[str, ...], check_sums: bool) -> Any:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) != len(members):
            raise damaged(path, "two members of the archive have the same name")
        if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
            raise damaged(path, "members of the archive are compressed or encrypted, which PyTorch never does")
        if sum(member.file_size for member in members) > size:
            raise damaged(path, "the archive's members claim to be larger than the archive")
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > MAX_PICKLE_BYTES:
                    raise damaged(path, f"{member.filename} has {member.file_size} bytes")
                if member.filename.partition("/")[2] != "data.pkl":
                    raise unsafe(path, f"a second pickle, {member.filename}")
                scan(io.BytesIO(archive.read(member)), _torch_globals(objects), persistent_ids=True, indirect=False)
        if check_sums:
            for member in members:
                with archive.open(member) as stream:
                    while stream.read(_CHUNK):
                        pass
    return torch_load(path, objects, mapped=True)


def _read_torch_legacy(path: Path, objects: tuple[str, ...]) -> Any:
    with _mapped(path) as stream:
        for _part in range(5):  # magic number, version, sizes of types, the object, the order of storages
            scan(cast(Any, stream), _torch_globals(objects), persistent_ids=True, indirect=False)
    return torch_load(path, objects, mapped=False)


def _torch_globals(objects: tuple[str, ...]) -> frozenset[str]:
    return TORCH_GLOBALS | frozenset(objects)


# ------------------------------------------------------------------------------------------------------- numpy


def _read_array(path: Path) -> np.ndarray[Any, Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(array)


def _read_codes(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with _mapped(path) as mapped:
        stream = cast(Any, mapped)
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        reader: Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]] = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = reader(stream)
        if dtype != np.dtype(object) or shape != ():
            raise damaged(path, f"expected a single pickled object, got {dtype} {list(shape)}")
        record = load_records(stream, CODES_GLOBALS)
    content = rebuild(record, CODES_REBUILDERS)
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise damaged(path, f"expected a dictionary of style codes, got a {type(content).__name__}")
    return cast("dict[str, np.ndarray[Any, Any]]", content)
