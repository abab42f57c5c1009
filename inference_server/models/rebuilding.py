"""Decides what the calls recorded from a pickle stand for: arrays, tensors, dictionaries, stored modules.

Only plain data is made here, from bytes whose length is checked against the shape that is claimed for them. Storage
of tensors inside a pickle is again a PyTorch file and takes the same way as any other.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from inference_server.models.pickles import MalformedPickle, Record, RefusedGlobal, scan

_DTYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
TORCH_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "torch.storage.UntypedStorage",
        *(f"torch.{name}Storage" for name in _DTYPES),
    }
)
CODES_GLOBALS = frozenset(
    {
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",
    }
)
NVIDIA_GLOBALS = CODES_GLOBALS | {
    "torch_utils.persistence._reconstruct_persistent_obj",
    "dnnlib.util.EasyDict",
    "collections.OrderedDict",
    "builtins.set",
    "__builtin__.set",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.storage._load_from_bytes",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}


def torch_load(source: Path | io.BytesIO, objects: tuple[str, ...], *, mapped: bool) -> Any:
    """torch.load with its restricted reader, on the CPU; `objects` are the classes allowed in addition.

    The caller has scanned the pickle inside against its own list.
    """
    classes = [argparse.Namespace] if "argparse.Namespace" in objects else []
    with warnings.catch_warnings(), torch.serialization.safe_globals(list(classes)):
        warnings.simplefilter("ignore")  # old files make torch speak of TypedStorage, which is no news to an artist
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)


Rebuild = Callable[[Record], Any]
Rebuilder = Callable[[Record, Rebuild], Any]


def rebuild(value: Any, rebuilders: Mapping[str, Rebuilder]) -> Any:
    """Replace the stand-ins in `value` by what they stood for, as far as `rebuilders` (by global name) say how.

    Shared objects are rebuilt once; a value that contains itself raises MalformedPickle.
    """
    done: dict[int, Any] = {}
    keep: list[Any] = []  # ids stay unique while the objects live
    busy: set[int] = set()

    def walk(item: Any) -> Any:
        if isinstance(item, type):
            return None  # a class handed over as an argument
        if not isinstance(item, (Record, dict, list, tuple, set)):
            return item
        key = id(item)
        if key in done:
            return done[key]
        if key in busy:
            raise MalformedPickle("a value contains itself")
        busy.add(key)
        keep.append(item)
        if isinstance(item, Record):
            handler = rebuilders.get(item.global_name)
            if handler is None:
                raise RefusedGlobal(item.global_name)
            result = handler(item, walk)
        elif isinstance(item, dict):
            result = {walk(k): walk(v) for k, v in item.items()}
        elif isinstance(item, tuple):
            result = tuple(walk(v) for v in item)
        else:
            result = [walk(v) for v in item]
        busy.discard(key)
        done[key] = result
        return result

    return walk(value)


def _dtype(record: Record, walk: Rebuild) -> np.dtype[Any]:
    code = record.args[0] if record.args else None
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "|"
    if not isinstance(code, str) or code not in _DTYPE_CODES or order not in ("<", ">", "|", "="):
        raise MalformedPickle(f"array type {code!r} {order!r}")
    return np.dtype(object) if code.startswith("O") else np.dtype(order + code)


_DTYPE_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "O", "O8"})


def _array(record: Record, walk: Rebuild) -> Any:
    state = walk(record.state)
    if not isinstance(state, tuple) or len(state) != 5:
        raise MalformedPickle("an array without its five fields")
    _, shape, dtype, fortran, data = state
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise MalformedPickle(f"array shape {shape!r}")
    if not isinstance(dtype, np.dtype):
        raise MalformedPickle("an array without a type")
    count = 1
    for n in shape:
        count *= n
    if dtype.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise MalformedPickle("an array of objects whose length is not its shape's")
        return data
    if not isinstance(data, bytes) or len(data) != count * dtype.itemsize:
        raise MalformedPickle(f"an array of shape {shape} whose bytes are missing")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def _encode(record: Record, walk: Rebuild) -> bytes:
    if len(record.args) != 2 or not isinstance(record.args[0], str) or record.args[1] != "latin1":
        raise MalformedPickle("a text that does not stand for bytes")
    return record.args[0].encode("latin1")


def _mapping(record: Record, walk: Rebuild) -> dict[Any, Any]:
    pairs = walk(record.args[0]) if record.args else []
    out = dict(pairs)
    out.update((walk(key), walk(value)) for key, value in record.items)
    return out


def _sequence(record: Record, walk: Rebuild) -> Any:
    return walk(record.args[0]) if record.args else []


def _scalar(record: Record, walk: Rebuild) -> Any:
    dtype, data = walk(record.args[0]), walk(record.args[1])
    whole = isinstance(dtype, np.dtype) and isinstance(data, bytes) and len(data) == dtype.itemsize
    if not whole or dtype.hasobject:
        raise MalformedPickle("a number whose bytes are missing")
    return np.frombuffer(data, dtype)[0].item()


def _storage(record: Record, walk: Rebuild) -> torch.UntypedStorage:
    data = walk(record.args[0]) if record.args else None
    if not isinstance(data, bytes):
        raise MalformedPickle("a tensor without its bytes")
    stream = io.BytesIO(data)
    if data[:2] == b"PK":
        raise MalformedPickle("a tensor stored in a format its writers never used")
    for _part in range(5):
        scan(stream, TORCH_GLOBALS, persistent_ids=True, indirect=False)
    storage = torch_load(io.BytesIO(data), (), mapped=False)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise MalformedPickle("a tensor without its storage")
    return cast(torch.UntypedStorage, storage)


def _tensor(record: Record, walk: Rebuild) -> Tensor:
    if len(record.args) < 4:
        raise MalformedPickle("a tensor without its sizes")
    storage: Any = walk(record.args[0])
    offset, size, stride = record.args[1:4]
    if not isinstance(storage, torch.storage.TypedStorage):
        raise MalformedPickle("a tensor without its storage")
    numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (-1,)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise MalformedPickle(f"tensor sizes {size!r}, strides {stride!r}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    if 0 not in size and last >= flat.numel():
        raise MalformedPickle(f"a tensor of shape {list(size)} larger than its storage")
    return torch.as_strided(flat, size, stride, offset)


def _parameter(record: Record, walk: Rebuild) -> Any:
    if not record.args:
        raise MalformedPickle("a parameter without its tensor")
    return walk(record.args[0])


def _persistent(record: Record, walk: Rebuild) -> Any:
    fields = walk(record.args[0]) if record.args else None
    if not isinstance(fields, dict) or not isinstance(fields.get("state"), dict):
        raise MalformedPickle("a stored module without its state")
    return fields


CODES_REBUILDERS: Mapping[str, Rebuilder] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
}
NVIDIA_REBUILDERS: Mapping[str, Rebuilder] = {
    **CODES_REBUILDERS,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "dnnlib.util.EasyDict": _mapping,
    "collections.OrderedDict": _mapping,
    "builtins.set": _sequence,
    "__builtin__.set": _sequence,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
