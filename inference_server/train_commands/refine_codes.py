"""Refine a collection's style codes, so that the trained DualStyleGAN draws each exemplar as it is. Optional.

  faceplate train refine-codes --config refine_codes --pictures aligned --codes RUNS/destylize \\
      --model network=our-style-dualstylegan --id our-style-codes-refined --out RUNS/refine
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_server.models.store import ModelStore
from inference_server.train_commands import collection, needs, running

if TYPE_CHECKING:
    from inference_server.training.recipes.refine_codes import RefineCodes

FIXED = {**collection.LPIPS, **collection.FEATURES}
ROLES = ("network", *FIXED)
HINTS = {"network": "Train it: faceplate train dualstylegan --config dualstylegan --pictures FOLDER --codes RUN."}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    collection.add_arguments(parser, "refine_codes")
    parser.add_argument("--codes", type=Path, help="the folder in which these pictures were destylized")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        return collection.run_pictures(args, lambda own: work_from_store(own, ModelStore()))


def work_from_store(table: Mapping[str, Any], store: ModelStore) -> RefineCodes:
    """The work of a [recipe] table with its networks loaded. Raises TrainingError, ModelError."""
    from inference_server.models.loading import load_lpips
    from inference_server.networks.dualstylegan import DualStyleGAN
    from inference_server.networks.vgg import VGG19
    from inference_server.training.recipes.refine_codes import RefineCodes, RefineNetworks

    named = {**FIXED, **table.get("models", {})}
    needs.check_roles(named, ROLES, fixed=FIXED)
    found = needs.find_models(named, store, HINTS)
    network = needs.network(found["network"], DualStyleGAN)
    networks = RefineNetworks(
        network=network,
        codes=collection.codes_of(table, network.generator.size),
        features=needs.network(found["features"], VGG19),
        perceptual=load_lpips("vgg", store=store),
        licences=needs.licences_of(found),
    )
    return RefineCodes({**table, "models": needs.pinned(found)}, networks)
