"""Synthetic model files in the structure of each official one, and stores that live in a temporary folder."""

from __future__ import annotations

import json
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_server.models.builders import build
from inference_server.models.cards import Card, read_cards
from inference_server.models.store import Folder, ModelStore

HEAD = """
id = "{id}"
title = "A tiny model"
purpose = "tests"
authors = ["nobody"]
file = "{file}"
{more}
"""

TINY_VTOONIFY = {
    "backbone": "dualstylegan",
    "in_size": 32,
    "out_size": 64,
    "style_dim": 8,
    "n_mlp": 7,
    "num_res_layers": 1,
    "parsing_classes": 2,
    "channel_max": 8,
}
TINY_STYLEGAN2 = {"size": 16, "style_dim": 8, "n_mlp": 2, "channel_max": 8}
TINY_ENCODER = {"codes": 8, "image_size": 32, "widths": [16, 16, 16, 16], "depths": [1, 1, 1, 1]}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore((Folder(tmp_path / "own", True),))


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Card]:
    """A card from TOML: `card('container = "npy"', id="x")`; the licence is MIT unless the text names one."""

    def make(more: str, id: str = "tiny", file: str = "tiny.pt") -> Card:
        if "licences" not in more:
            more = 'licences = ["mit"]\n' + more
        path = tmp_path / f"{id}.card.toml"
        path.write_text(HEAD.format(id=id, file=file, more=more), encoding="utf-8")
        return read_cards(path)[0]

    return make


def inline(config: Mapping[str, Any]) -> str:
    """A TOML inline table."""

    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in config.items()) + " }"


def _toml(value: Any) -> str:
    return json.dumps(value)  # numbers, texts, booleans and lists of them are spelled alike


def part(network: str, config: Mapping[str, Any], name: str = "main", **fields: Any) -> str:
    """A [parts.NAME] table."""
    lines = [f"[parts.{name}]", f'network = "{network}"', f"config = {inline(config)}"]
    lines += [f"{key} = {_toml(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def state_of(network: str, config: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of a network as its authors would save it, filled with small random numbers."""
    torch.manual_seed(seed)
    state = build(network, config).state_dict()
    out: dict[str, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}  # one tensor under two names keeps one value
    for name, value in state.items():
        fresh = torch.randn(value.shape) * 0.1 if value.dtype.is_floating_point else value.clone()
        out[name] = values.setdefault(value.data_ptr(), fresh)
    return out


def leftovers(store: ModelStore) -> list[str]:
    """Everything in the user's own folder but the lock."""
    folder = store.own.path
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock") if folder.exists() else []


# ------------------------------------------------------------------------------------- pickles as NVIDIA's


class EasyDict(dict[str, Any]):
    """The dictionary class of the official pickles."""


class Persistent:
    """A module as the official pickles store one: a call with a dictionary that carries source text and state."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.meta = EasyDict(
            type="class", version=6, module_src="raise SystemExit('ran')", class_name=class_name, state=state
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,))


@contextmanager
def official_modules() -> Iterator[None]:
    """While it lasts, the modules that the official pickles name exist, so that such a pickle can be written."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the importer must never call this")

    wanted = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    names = {name: types.ModuleType(name) for name in wanted}
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    names["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    names["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    home = EasyDict.__module__, EasyDict.__qualname__
    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    sys.modules.update(names)
    try:
        yield
    finally:
        EasyDict.__module__, EasyDict.__qualname__ = home
        for name in names:
            del sys.modules[name]


def nested_module(state: Mapping[str, torch.Tensor], buffers: tuple[str, ...], class_name: str = "G") -> Persistent:
    """Nest a flat state dict the way modules nest; names that end in one of `buffers` are buffers."""
    here_parameters: dict[str, Any] = {}
    here_buffers: dict[str, Any] = {"filter_that_is_absent": None}
    children: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if rest:
            children.setdefault(first, {})[rest] = value
        elif first in buffers:
            here_buffers[first] = value
        else:
            here_parameters[first] = torch.nn.Parameter(value)
    return Persistent(
        class_name,
        {
            "training": False,
            "_parameters": here_parameters,
            "_buffers": here_buffers,
            "_non_persistent_buffers_set": set(),
            "_modules": {name: nested_module(child, buffers, name) for name, child in children.items()},
            "_init_kwargs": EasyDict(z_dim=8, ratio=np.float64(0.5), sizes=np.arange(3)),
        },
    )


def write_nvidia(path: Path, state: Mapping[str, torch.Tensor], buffers: tuple[str, ...], protocol: int = 4) -> None:
    module = nested_module(state, buffers)
    other = nested_module({"b4.fc.weight": torch.zeros(2, 2)}, ())
    with official_modules(), path.open("wb") as stream:
        top = {"G": module, "D": other, "G_ema": module, "training_set_kwargs": EasyDict(path="x")}
        pickle.dump(top, stream, protocol=protocol)
