"""Checkpoints on disk: tensors in safetensors, everything else in JSON, no pickled objects.

`step-NNNNNNNN.safetensors` is written first, then `step-NNNNNNNN.json`, which holds the other one's SHA-256; each
appears atomically. A checkpoint exists once its JSON does, so a kill at any moment leaves whole checkpoints
only, and a damaged one is noticed when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference_server.training.errors import TrainingError
from inference_server.training.files import sha256, write_atomic, write_text

FORMAT = 1

_NAME = re.compile(r"step-(\d{8,})\.json")


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps: tensors by name (CPU), and JSON-representable facts."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def _stem(step: int) -> str:
    return f"step-{step:08d}"


def write(folder: Path, snapshot: Snapshot) -> Path:
    """Stores the snapshot and returns the path of its JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = folder / f"{_stem(snapshot.step)}.safetensors"
    record = folder / f"{_stem(snapshot.step)}.json"
    record.unlink(missing_ok=True)  # of the same step, written before a resume from an earlier one
    # One tensor may stand under several names (tied weights); safetensors wants each to own its memory.
    own = {name: value.detach().cpu().clone().contiguous() for name, value in snapshot.tensors.items()}
    write_atomic(tensors, lambda path: save_file(own, path))
    document = {
        "format": FORMAT,
        "step": snapshot.step,
        "sha256": sha256(tensors),
        "facts": snapshot.facts,
    }
    write_text(record, json.dumps(document, indent=1, allow_nan=True))
    return record


def steps(folder: Path) -> list[int]:
    """Steps of which there is a checkpoint, in rising order."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read(folder: Path, step: int) -> Snapshot:
    """The checkpoint of that step, checked; TrainingError `training.checkpoint` when it is damaged."""
    record = folder / f"{_stem(step)}.json"
    tensors = folder / f"{_stem(step)}.safetensors"
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise _damaged(record, f"its format is {document['format']}, this version reads {FORMAT}")
        if document["step"] != step:
            raise _damaged(record, f"it says that it is of step {document['step']}")
        actual = sha256(tensors)
        if actual != document["sha256"]:
            raise _damaged(tensors, f"its SHA-256 is {actual}, recorded {document['sha256']}")
        loaded: dict[str, Tensor] = load_file(tensors)
        return Snapshot(step, loaded, document["facts"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(record, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, why: str) -> TrainingError:
    return TrainingError(
        "training.checkpoint",
        f"checkpoint {path} cannot be used: {why}",
        remedy="The one before it is used where there is one; otherwise start the run in a new folder.",
        value=str(path),
    )


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint, record first, so that what is left for a moment is no checkpoint."""
    (folder / f"{_stem(step)}.json").unlink(missing_ok=True)
    (folder / f"{_stem(step)}.safetensors").unlink(missing_ok=True)


def prune(folder: Path, keep: int, pinned: Iterable[int]) -> None:
    """Leaves the newest `keep` checkpoints and the pinned ones, and clears what a killed writer left."""
    there = steps(folder)
    for step in set(there[:-keep]) - set(pinned):
        remove(folder, step)
    records = {_stem(step) for step in steps(folder)}
    for path in folder.iterdir():
        orphan = path.suffix == ".safetensors" and path.stem not in records
        half_written = path.name.startswith(".") and path.suffix in (".json", ".safetensors")
        if orphan or half_written:
            path.unlink(missing_ok=True)


def flat_optimiser(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors (`<parameter>/<name>`) and JSON facts."""
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        values[str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                values[str(index)][name] = value
    facts = {"values": values, "groups": state["param_groups"]}
    try:
        json.dumps(facts)
    except TypeError as error:
        raise TrainingError(
            "training.recipe",
            f"the state of {type(optimiser).__name__} is not made of tensors and plain values: {error}",
            remedy="Use an optimiser whose options are numbers, for example without a tensor as learning rate.",
        ) from error
    return tensors, facts


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Puts back what `flat_optimiser` took."""
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in facts["values"].items()}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state[int(index)][name] = value
    groups = []
    for saved, current in zip(facts["groups"], optimiser.param_groups, strict=True):
        # JSON has no tuples; betas are one.
        groups.append({k: tuple(v) if isinstance(current.get(k), tuple) else v for k, v in saved.items()})
    optimiser.load_state_dict({"state": state, "param_groups": groups})
