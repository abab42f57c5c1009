"""The format of the recorded cases: what a manifest may say, and the numbers it stands for.

A manifest is a JSON file beside an `.npz` file of the same stem (data/README.md describes both). Nothing is
guessed: a field that this module does not know is a `ManifestError`, because a case that says more than is
checked would pass without meaning it. Weights and inputs are not stored; they are functions of names.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class ManifestError(ValueError):
    """A manifest, a case or an array is not what the format promises, or says more than is understood."""


class Fields(Mapping[str, Any]):
    """A mapping that remembers which keys were read, so that what nobody looked at can be refused.

    A value that cannot influence the result is still read, with `ignore`, by whoever knows that.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self._values = dict(values)
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise ManifestError(f"{self.where}: no '{key}' (has {sorted(self._values)})")
        self._read.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self._values else default

    def expect(self, key: str, value: Any) -> None:
        """Reads a value that our code supports in one setting only."""
        if key in self._values and self[key] != value:
            raise ManifestError(f"{self.where}.{key} is {self._values[key]!r}, only {value!r} is supported")

    def ignore(self, *keys: str) -> None:
        """Reads values that do not influence inference (dropout, EMA rates); absent ones are fine."""
        self._read.update(keys)

    def refuse_unread(self) -> None:
        unread = sorted(set(self._values) - self._read)
        if unread:
            raise ManifestError(f"{self.where}: nothing reads {unread}")


@dataclass(frozen=True)
class Parameter:
    """One state-dict entry: `mean + std * n`, n seeded by the name; constants are left to the module."""

    name: str
    shape: tuple[int, ...]
    fill: str | None  # normal | abs | zero; None for constants
    mean: float
    std: float
    constant: bool
    alias_of: str | None

    def value(self) -> Array:
        """The entry's synthetic value (float32, or int64 for counters)."""
        if self.constant:
            raise ManifestError(f"{self.name} is a constant of the architecture and has no recorded value")
        if self.fill == "zero":
            return np.zeros(self.shape, dtype=np.int64)
        n = standard_normal(self.alias_of or self.name, self.shape)
        if self.fill == "abs":
            n = np.abs(n)
        return np.asarray(np.float32(self.mean) + np.float32(self.std) * n, dtype=np.float32)


@dataclass(frozen=True)
class Output:
    """A recorded array: `slice` of the full result, and how far ours may be from it."""

    name: str
    kind: str  # output | intermediate
    npz_key: str
    full_shape: tuple[int, ...]
    index: tuple[slice, ...]
    shape: tuple[int, ...]
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """One recorded call. `inputs` and `args` are read-tracked; `inputs` are arrays or plain JSON values."""

    id: str
    kind: str | None
    args: Fields
    inputs: Fields
    outputs: tuple[Output, ...]
    expected: Mapping[str, Any] | None
    arrays: Arrays


class Arrays:
    """The `.npz` beside a manifest, opened when first asked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _file(self) -> Mapping[str, Array]:
        if not self.path.is_file():
            raise ManifestError(f"missing array file {self.path.name}")
        with np.load(self.path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def __getitem__(self, key: str) -> Array:
        if key not in self._file:
            raise ManifestError(f"missing array '{key}' in {self.path.name}")
        return self._file[key]


@dataclass(frozen=True)
class Manifest:
    """One file of recorded cases of one network."""

    path: Path
    network: str
    config: Fields
    parameters: tuple[Parameter, ...]
    weights: Mapping[str, str]  # role -> network of another manifest in the same folder
    tolerance: Mapping[str, Any]  # of `expected` values
    raw_cases: tuple[Mapping[str, Any], ...] = field(repr=False)

    @cached_property
    def arrays(self) -> Arrays:
        return Arrays(self.path.with_suffix(".npz"))

    def case_ids(self) -> list[str]:
        return [str(raw.get("id", f"#{i}")) for i, raw in enumerate(self.raw_cases)]

    def case(self, index: int) -> Case:
        """Reads case `index`; inputs are computed here, so that one bad case does not stop the others."""
        raw = self.raw_cases[index]
        where = f"{self.network}/{raw.get('id')}"
        _only(where, raw, {"id", "kind", "note", "call", "args", "inputs", "outputs", "expected"})
        if "id" not in raw or "inputs" not in raw:
            raise ManifestError(f"{where}: a case needs 'id' and 'inputs'")
        if not raw.get("outputs") and not raw.get("expected"):
            raise ManifestError(f"{where}: a case without 'outputs' and 'expected' checks nothing")
        return Case(
            id=raw["id"],
            kind=raw.get("kind"),
            args=Fields(f"{where}.args", raw.get("args", {})),
            inputs=Fields(f"{where}.inputs", _inputs(where, raw["inputs"], self.arrays)),
            outputs=tuple(_output(where, o) for o in raw.get("outputs", ())),
            expected=raw.get("expected"),
            arrays=self.arrays,
        )


def read_manifest(path: Path) -> Manifest:
    """Reads one manifest; `ManifestError` when it is not one or has fields that are not known."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("network"), str) or not raw.get("cases"):
        raise ManifestError(f"{path.name} is not a manifest: it needs 'network' and at least one of 'cases'")
    _only(
        path.name,
        raw,
        {"network", "config", "reference", "note", "versions", "weights", "tolerance", "parameters", "cases"},
    )
    return Manifest(
        path=path,
        network=raw["network"],
        config=Fields(f"{path.name}: config", raw.get("config", {})),
        parameters=tuple(_parameter(path.name, p) for p in raw.get("parameters", ())),
        weights=raw.get("weights", {}),
        tolerance=raw.get("tolerance", {}),
        raw_cases=tuple(raw["cases"]),
    )


def standard_normal(text: str, shape: tuple[int, ...]) -> Array:
    """float32 standard normals seeded by the CRC-32 of `text`."""
    state = np.random.RandomState(zlib.crc32(text.encode()) & 0xFFFFFFFF)
    return np.asarray(state.standard_normal(shape), dtype=np.float32)


def _only(where: str, raw: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ManifestError(f"{where}: unknown field(s) {unknown}")


def _parameter(where: str, raw: Mapping[str, Any]) -> Parameter:
    where = f"{where}: parameter {raw.get('name')}"
    _only(where, raw, {"name", "shape", "fill", "mean", "std", "constant", "alias_of"})
    constant = bool(raw.get("constant", False))
    fill = raw.get("fill")
    if not constant and fill not in ("normal", "abs", "zero"):
        raise ManifestError(f"{where}: unknown fill {fill!r}")
    if fill in ("normal", "abs") and ("mean" not in raw or "std" not in raw):
        raise ManifestError(f"{where}: fill {fill!r} needs 'mean' and 'std'")
    return Parameter(
        name=raw["name"],
        shape=tuple(raw["shape"]),
        fill=fill,
        mean=float(raw.get("mean", 0.0)),
        std=float(raw.get("std", 0.0)),
        constant=constant,
        alias_of=raw.get("alias_of"),
    )


def _output(where: str, raw: Mapping[str, Any]) -> Output:
    where = f"{where}: output {raw.get('name')}"
    _only(where, raw, {"name", "kind", "npz_key", "full_shape", "slice", "shape", "tolerance", "what"})
    tolerance = raw["tolerance"]
    _only(f"{where}: tolerance", tolerance, {"atol", "rtol", "max_abs", "mean_abs"})
    if not {"atol", "max_abs"} & set(tolerance):
        raise ManifestError(f"{where}: a tolerance needs 'atol' or 'max_abs', has {sorted(tolerance)}")
    kind = raw.get("kind", "output")
    if kind not in ("output", "intermediate"):
        raise ManifestError(f"{where}: unknown kind {kind!r}")
    return Output(
        name=raw["name"],
        kind=kind,
        npz_key=raw["npz_key"],
        full_shape=tuple(raw["full_shape"]),
        index=parse_index(raw["slice"]),
        shape=tuple(raw["shape"]),
        tolerance=tolerance,
    )


def parse_index(text: str) -> tuple[slice, ...]:
    """`"[:, ::8, -4:]"` as a tuple of slices; the empty text keeps everything."""
    if not text:
        return ()
    if not re.fullmatch(r"\[[-0-9:, ]+\]", text):
        raise ManifestError(f"unknown slice {text!r}")
    slices = []
    for part in text[1:-1].split(","):
        bounds = [int(b) if b.strip() else None for b in part.split(":")]
        if len(bounds) not in (2, 3):
            raise ManifestError(f"unknown slice {text!r}")
        slices.append(slice(*bounds))
    return tuple(slices)


def _inputs(where: str, raw: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, spec in raw.items():
        here = f"{where}: input {name}"
        if not isinstance(spec, dict):  # a plain value, as the crop rules have
            out[name] = spec
        elif "npz_key" in spec:
            _only(here, spec, {"npz_key", "shape", "transform"})
            out[name] = np.asarray(arrays[spec["npz_key"]], dtype=np.float32)
            _same_shape(here, out[name], spec["shape"])
        else:
            out[name] = _seeded_input(here, spec, out)
    return out


def _seeded_input(here: str, spec: Mapping[str, Any], earlier: Mapping[str, Array]) -> Array:
    _only(here, spec, {"seed_text", "seed", "shape", "mul", "add", "coarse", "base", "clip", "transform"})
    _same_seed(here, spec)
    shape = tuple(spec["shape"])
    x = standard_normal(spec["seed_text"], shape) * np.float32(spec["mul"]) + np.float32(spec["add"])
    if "coarse" in spec:  # a blocky low-frequency part, for inputs that stand for pictures
        coarse = spec["coarse"]
        _only(f"{here}: coarse", coarse, {"factor", "mul", "seed_text", "seed"})
        _same_seed(here, coarse)
        f = coarse["factor"]
        blocks = standard_normal(coarse["seed_text"], (*shape[:-2], shape[-2] // f, shape[-1] // f))
        x = x + np.float32(coarse["mul"]) * blocks.repeat(f, axis=-2).repeat(f, axis=-1)
    if "base" in spec:
        if spec["base"] not in earlier:
            raise ManifestError(f"{here}: base {spec['base']!r} is not an earlier input of the case")
        x = x + earlier[spec["base"]]
    if "clip" in spec:
        x = np.clip(x, np.float32(spec["clip"][0]), np.float32(spec["clip"][1]))
    return x.astype(np.float32)


def _same_seed(here: str, spec: Mapping[str, Any]) -> None:
    seed = zlib.crc32(spec["seed_text"].encode()) & 0xFFFFFFFF
    if spec.get("seed", seed) != seed:
        raise ManifestError(f"{here}: seed {spec['seed']} is not the CRC-32 of its seed_text ({seed})")


def _same_shape(here: str, array: Array, shape: list[int]) -> None:
    if list(array.shape) != list(shape):
        raise ManifestError(f"{here}: stored array has shape {list(array.shape)}, the manifest says {shape}")
