"""TOML tables and frozen dataclasses: strict reading, full writing.

Reading refuses unknown keys and wrong types; writing puts out every field, defaults included.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import tomli_w

from inference_server.training.errors import TrainingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(
            "training.config",
            f"{path} cannot be read: {error.strerror}",
            remedy="Give the path of a TOML file.",
            value=str(path),
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(
            "training.config",
            f"{path} is not valid TOML: {error}",
            remedy="Correct the file at the place named.",
            value=str(path),
        ) from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of TOML text; ValueError when it is none."""
    return cast(dict[str, Any], tomllib.loads(text))


def from_table(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass `kind`; nested dataclasses are nested tables.

    Field types may be bool, int, float, str, Literal, tuple[X, ...], dict[str, X], X | None and dataclasses.
    """
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.init]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise _bad(f"{where}{key}", "is not a known key", key, f"{hint}Allowed: {', '.join(names) or 'nothing'}.")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.init
        and f.name not in table
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise _bad(f"{where}{missing[0]}", "is missing", None, "Give it a value; it has no default.")
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise _bad(where.rstrip(".") or "the configuration", f"is not valid: {error}", None, "Correct it.") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_table(hint, value, f"{where}.")
    if origin is Literal:
        if value in arguments and type(value) is type(arguments[arguments.index(value)]):
            return value
        raise _bad(where, f"is {value!r}", value, f"Allowed: {', '.join(map(repr, arguments))}.")
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in arguments if a is not type(None)]
        if value is None:
            return None
        return _convert(inner[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(arguments) == len(value):
            pairs = zip(arguments, value, strict=True)
            return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(pairs))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise _bad(where, f"is {value!r}", value, f"Expected a value of type {expected}.")


def _bad(where: str, what: str, value: Any, remedy: str) -> TrainingError:
    return TrainingError("training.config", f"{where} {what}", remedy=remedy, value=value)


def to_table(instance: Any) -> dict[str, Any]:
    """All fields of a dataclass as TOML- and JSON-representable values; None is left out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return to_table(value)
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, Path):
            return str(value)
        return value

    pairs = ((f.name, getattr(instance, f.name)) for f in dataclasses.fields(instance))
    return {name: plain(value) for name, value in pairs if value is not None}


def dump_toml(table: Mapping[str, Any]) -> str:
    """The table as TOML text."""
    return tomli_w.dumps(table)
