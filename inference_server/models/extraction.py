"""Decides what is taken out of an opened file, and that it is exactly what the card's networks need.

Names, shapes and types are compared with a network built without storage from the card's configuration. Entries that
never reach an output are dropped. Everything is copied to contiguous memory of the network's type; a value that is
not finite is an error, because it would only show as a black or noisy picture much later.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from host_bridge.errors import ModelError
from inference_server.models.builders import Entry, layout
from inference_server.models.cards import Card, Part, StyleCodesSpec, TensorSpec
from inference_server.models.containers import damaged
from inference_server.models.conversion import converted
from inference_server.models.resemblance import resemblance

TENSORS = "tensors"  # in front of tensors that belong to no network


@dataclass
class Extracted:
    """Tensors under "part/name", the names of style codes in order, and what was not kept."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    code_names: tuple[str, ...] = ()
    kept: int = 0  # values of networks, buffers included
    dropped: int = 0  # values that never reach an output
    left_out: tuple[str, ...] = ()  # entries of the file that the card does not speak of


def mismatch(path: Path, problem: str, contents: Any = None) -> ModelError:
    """The error for a file whose content is not what the card says; tells what it resembles instead."""
    likeness = resemblance(contents) if contents is not None else ""
    return ModelError(
        "model.mismatch",
        problem + (f"; {likeness}" if likeness else ""),
        path=str(path),
        remedy="Import it with the card that fits (`--id`), or fetch the file the card describes.",
    )


def follow(contents: Any, path: str) -> Any:
    """The value under dictionary keys joined by "/"; None when one of them is missing. "" is the whole content."""
    for key in path.split("/") if path else ():
        contents = contents.get(key) if isinstance(contents, Mapping) else None
    return contents


def extract(path: Path, card: Card, contents: Any) -> Generator[str, None, Extracted]:
    """Yield what is being done, and return an `Extracted` (generator return value).

    `contents` is the result of `read_container`. Raises ModelError `model.mismatch`, `model.damaged`, `model.card`.
    """
    out = Extracted()
    if card.style_codes is not None:
        _take_codes(path, card.style_codes, contents, out)
        return out
    pickled: dict[str, dict[str, Tensor]] = {}
    for name, part in card.parts.items():
        yield f"comparing {name} with {part.network}"
        if card.container == "nvidia-pickle":
            pickled[part.root] = converted(path, contents, part.root, part.convert)
        _take_part(path, card, name, part, pickled.get(part.root), contents, out)
    for name, spec in card.tensors.items():
        source = next(iter(pickled.values())) if pickled else contents
        _take_tensor(path, name, spec, source, out)
    used = {p.root.partition("/")[0] for p in card.parts.values()}
    used |= {t.path.partition("/")[0] for t in card.tensors.values()}
    if isinstance(contents, Mapping) and "" not in used:
        out.left_out = tuple(str(key) for key in contents if key not in used)
    return out


def _take_part(
    path: Path,
    card: Card,
    name: str,
    part: Part,
    state: Mapping[str, Tensor] | None,
    contents: Any,
    out: Extracted,
) -> None:
    if state is None:
        found = follow(contents, part.root)
        if found is None and part.optional:
            return
        if not isinstance(found, Mapping):
            where = f"an entry {part.root!r}" if part.root else "a state dict"
            have = ", ".join(map(str, list(contents)[:8])) if isinstance(contents, Mapping) else type(contents).__name__
            raise mismatch(path, f"expected {where} as in {card.title!r}, found {have}", contents)
        state = found
    extra = {tensor.path for tensor in card.tensors.values()} if card.container == "nvidia-pickle" else set()
    taken = {
        key.removeprefix(part.prefix): value
        for key, value in state.items()
        if isinstance(key, str) and key.startswith(part.prefix) and not _ignored(key, part) and key not in extra
    }
    others = [str(k) for k in state if not str(k).startswith(part.prefix) and not _ignored(str(k), part)]
    siblings = [p.prefix for p in card.parts.values() if p.root == part.root and p.prefix]
    others = [k for k in others if not k.startswith(tuple(siblings))] if siblings else others
    wanted = layout(part.network, part.config)
    # What nothing reads may be missing: our own training leaves it out of its files, as the store does.
    expected = {key: entry for key, entry in wanted.entries.items() if key in taken or key not in wanted.unread}
    problem = _difference(taken, expected, others)
    if problem:
        raise mismatch(path, f"{name} is not the {part.network} of {card.title!r}: {problem}", contents)
    for key, entry in expected.items():
        value = taken[key]
        if key in wanted.unread:
            out.dropped += value.numel()
            continue
        out.tensors[f"{name}/{key}"] = _clean(path, key, value, getattr(torch, entry.dtype))
        out.kept += value.numel()


def _ignored(key: str, part: Part) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in part.ignore)


def _difference(taken: Mapping[str, Any], expected: Mapping[str, Entry], others: list[str]) -> str:
    """What differs, in words with numbers and the first names; empty when nothing does."""
    problems = []
    missing = [key for key in expected if key not in taken]
    unexpected = [key for key in taken if key not in expected] + others
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} entries {what} ({listed})")
    wrong = [
        f"{key}: expected {entry}, got {_described(taken[key])}"
        for key, entry in expected.items()
        if key in taken and not _fits(taken[key], entry)
    ]
    if wrong:
        problems.append(f"{len(wrong)} entries of another shape or type ({'; '.join(wrong[:3])})")
    return "; ".join(problems)


def _fits(value: Any, entry: Entry) -> bool:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    wanted: torch.dtype = getattr(torch, entry.dtype)
    same_kind = value.dtype.is_floating_point == wanted.is_floating_point and not value.dtype.is_complex
    return same_kind and tuple(value.shape) == entry.shape


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _clean(path: Path, key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    copied = torch.empty(value.shape, dtype=dtype)
    copied.copy_(value.detach())
    if dtype.is_floating_point and not bool(torch.isfinite(copied).all()):
        raise damaged(path, f"{key} holds values that are not finite")
    return copied


def _take_tensor(path: Path, name: str, spec: TensorSpec, contents: Any, out: Extracted) -> None:
    value = follow(contents, spec.path)
    if value is None and spec.optional:
        return
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("=")))
    allowed = " or ".join(str(list(shape)) for shape in spec.shapes)
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        where = f"entry {spec.path!r}" if spec.path else "the file"
        raise mismatch(path, f"{name}: expected {allowed} floats in {where}, found {_described(value)}", contents)
    shape = tuple(value.shape)
    if not any(len(s) == len(shape) and all(a in (-1, b) for a, b in zip(s, shape, strict=True)) for s in spec.shapes):
        raise mismatch(path, f"{name}: expected shape {allowed}, got {list(shape)}", contents)
    if value.numel() > max(1, value.untyped_storage().nbytes()):
        raise damaged(path, f"{name} claims {value.numel()} values and has fewer")
    out.tensors[f"{TENSORS}/{name}"] = _clean(path, name, value, torch.float32)


def _take_codes(path: Path, spec: StyleCodesSpec, contents: Any, out: Extracted) -> None:
    if not isinstance(contents, Mapping) or not contents:
        raise mismatch(path, "expected a dictionary of style codes, found none")
    names, codes = [], []
    for name, code in contents.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 200:
            raise mismatch(path, f"expected names of style pictures, found {str(name)[:60]!r}")
        if not isinstance(code, np.ndarray) or code.dtype != np.float32 or code.shape != spec.shape:
            got = f"{code.dtype} {list(code.shape)}" if isinstance(code, np.ndarray) else f"a {type(code).__name__}"
            raise mismatch(path, f"code {name!r}: expected float32 {list(spec.shape)}, got {got}")
        if not np.isfinite(code).all():
            raise damaged(path, f"code {name!r} holds values that are not finite")
        names.append(name)
        codes.append(torch.from_numpy(np.array(code)))
    if spec.count is not None and len(names) != spec.count:
        raise mismatch(path, f"expected {spec.count} style codes, found {len(names)}")
    out.code_names = tuple(names)
    out.tensors[f"{TENSORS}/codes"] = torch.cat(codes)
