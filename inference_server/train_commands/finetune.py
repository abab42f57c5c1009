"""Fine-tune a face generator on the pictures of a style: the first stage of a collection of your own.

  faceplate train finetune --config stylegan_finetune --pictures aligned --id our-style-stylegan2 --out RUNS/finetune

The result is what VToonify-T blends, and what destylization needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inference_server.models.store import ModelStore
from inference_server.train_commands import collection, needs, running

if TYPE_CHECKING:
    from inference_server.training.recipe import Recipe

ROLES = ("base",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    collection.add_arguments(parser, "stylegan_finetune")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        return running.run(args, collection.table_of(args), lambda own: recipe_from_store(own, ModelStore()))


def recipe_from_store(table: Mapping[str, Any], store: ModelStore) -> Recipe:
    """The recipe of a [recipe] table, its generator and discriminator loaded. Raises TrainingError, ModelError."""
    from inference_server.networks.stylegan2 import Generator
    from inference_server.training.recipes.stylegan_finetune import FinetuneStart, StyleganFinetune

    named = dict(table.get("models", {}))
    needs.check_roles(named, ROLES)
    found = needs.find_models(named, store, {})
    base = found["base"]
    averaged = needs.network(base, Generator)
    raw = collection.has_part(base, "raw")
    start = FinetuneStart(
        generator=needs.network(base, Generator, "raw") if raw else averaged,
        discriminator=collection.discriminator_of(base),
        config=collection.config_of(base),
        licences=needs.licences_of(found),
        averaged=averaged if raw else None,
    )
    return StyleganFinetune({**table, "models": needs.pinned(found)}, start)
