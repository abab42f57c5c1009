"""The end of a run: weights as safetensors with a model card beside them, in the form the model store imports.

The card's fields are those of `inference_server.models.cards.Card`, written as plain tables, because training knows
nothing of the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from inference_server.training.checkpoint import Snapshot
from inference_server.training.errors import TrainingError
from inference_server.training.files import sha256, write_atomic, write_text
from inference_server.training.recipe import CardFacts
from inference_server.training.tables import dump_toml

_ID = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


def check_facts(facts: CardFacts, trained: Mapping[str, object]) -> None:
    """Before the first step, so that a long run does not end in a card that cannot be written."""
    problem = ""
    if not _ID.fullmatch(facts.id):
        problem = f"id {facts.id!r} must be lower-case letters and digits joined by single hyphens or underscores"
    elif not facts.licences:
        problem = "licences must name those of everything that was learned from"
    elif not facts.parts:
        problem = "it exports nothing"
    for name, part in facts.parts.items():
        if not _ID.fullmatch(name):
            problem = (
                f"part name {name!r} must be lower-case letters and digits joined by single hyphens or underscores"
            )
        elif part.module not in trained:
            problem = f"part {name!r} is module {part.module!r}, which is none of the trained ones {sorted(trained)}"
    if problem:
        raise TrainingError("training.recipe", f"the model card: {problem}", remedy="Correct the recipe's card().")


def exported(snapshot: Snapshot, facts: CardFacts) -> dict[str, Tensor]:
    """The tensors of the card's parts under `<part>.`, averaged copies where there are any."""
    tensors: dict[str, Tensor] = {}
    for name, part in facts.parts.items():
        prefixes = (f"ema/{part.module}/", f"module/{part.module}/")
        prefix = next((p for p in prefixes if any(key.startswith(p) for key in snapshot.tensors)), prefixes[1])
        for key, value in snapshot.tensors.items():
            if key.startswith(prefix):
                tensors[f"{name}.{key.removeprefix(prefix)}"] = value
    return tensors


def export(snapshot: Snapshot, facts: CardFacts, steps: int, folder: Path) -> tuple[Path, Path]:
    """Writes `<id>.safetensors` and `<id>.toml` of a snapshot into `folder`; returns both paths.

    `steps` is the length the run was meant to have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, card = folder / f"{facts.id}.safetensors", folder / f"{facts.id}.toml"
    tensors = {key: value.contiguous() for key, value in exported(snapshot, facts).items()}
    write_atomic(weights, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    best = snapshot.facts["best"]
    trained = f"Trained by recipe {snapshot.facts['recipe']}, step {snapshot.step} of {steps}"
    if best["step"] == snapshot.step:
        trained += f", the best of its run (score {best['score']:.6g})"
    notes = f"{trained}, seed {snapshot.facts['config']['seed']}. {facts.notes}".strip()
    table: dict[str, Any] = {
        "id": facts.id,
        "title": facts.title,
        "purpose": facts.purpose,
        "authors": list(facts.authors),
        "licences": list(facts.licences),
        "file": weights.name,
        "format": 1,
        "bytes": weights.stat().st_size,
        "sha256": sha256(weights),
        "container": "safetensors",
        "notes": notes,
        "sources": [{"host": "own"}],
        "parts": {
            name: {"network": part.network, "prefix": f"{name}.", "config": dict(part.config)}
            for name, part in facts.parts.items()
        },
        **facts.more,
    }
    write_text(card, dump_toml(table))
    return weights, card
