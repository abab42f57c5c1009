"""Train a DualStyleGAN on a style collection whose pictures were destylized.

  faceplate train dualstylegan --config dualstylegan --pictures aligned --codes RUNS/destylize \\
      --id our-style-dualstylegan --out RUNS/dualstylegan

It starts from the authors' pre-trained network (model dualstylegan-pretrain), or from one that stages 1 and 2 made:

  faceplate train dualstylegan --config dualstylegan_pretrain --out RUNS/pretrain
  ... --config dualstylegan --model start=my-dualstylegan-pretrain ...
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_server.models.store import ModelStore
from inference_server.train_commands import collection, needs, running
from inference_server.training.errors import TrainingError

if TYPE_CHECKING:
    from inference_server.training.recipe import Recipe

ROLES = {
    "pretrain": ("base", "encoder", *collection.FEATURES),
    "transfer": ("start", "identity", *collection.FEATURES),
}
HINTS = {"start": "Or train it: faceplate train dualstylegan --config dualstylegan_pretrain --out RUN."}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    collection.add_arguments(parser, "dualstylegan")
    parser.add_argument("--codes", type=Path, help="the folder in which these pictures were destylized")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        return running.run(args, collection.table_of(args), lambda own: recipe_from_store(own, ModelStore()))


def recipe_from_store(table: Mapping[str, Any], store: ModelStore) -> Recipe:
    """The recipe that a [recipe] table asks for by its `stage`, with its networks loaded.

    Raises TrainingError, ModelError.
    """
    stage = table.get("stage")
    if stage not in ROLES:
        raise TrainingError(
            "training.config",
            f"recipe.stage is {stage!r}",
            remedy=f"Allowed: {', '.join(map(repr, ROLES))}.",
            value=stage,
        )
    named = {**collection.FEATURES, **table.get("models", {})}
    optional = ("encoder",) if table.get("encoded_every") == 0 else ()
    needs.check_roles(named, ROLES[stage], optional=optional, fixed=collection.FEATURES)
    found = needs.find_models(named, store, HINTS)
    own = {**table, "models": needs.pinned(found)}
    return _pretrain(own, found) if stage == "pretrain" else _transfer(own, found)


def _pretrain(table: Mapping[str, Any], found: Mapping[str, Any]) -> Recipe:
    import torch

    from inference_server.networks.dualstylegan import DualStyleGAN
    from inference_server.networks.psp import PspEncoder
    from inference_server.networks.stylegan2 import Generator
    from inference_server.networks.vgg import VGG19
    from inference_server.training.draws import seeded
    from inference_server.training.recipes.codes import FaceEncoder
    from inference_server.training.recipes.dualstylegan import DualPretrain, PretrainStart

    base, encoder = found["base"], found.get("encoder")
    config = collection.config_of(base)
    with seeded(torch.device("cpu"), "dualstylegan begins"):
        network = DualStyleGAN(**config)
    network.generator.load_state_dict(needs.network(base, Generator).state_dict(), strict=True)
    read = encoder and FaceEncoder(needs.network(encoder, PspEncoder), needs.tensor(encoder, "latent_avg"))
    start = PretrainStart(
        network=network,
        config=config,
        discriminator=collection.discriminator_of(base),
        features=needs.network(found["features"], VGG19),
        licences=needs.licences_of(found),
        encoder=read,
    )
    return DualPretrain(table, start)


def _transfer(table: Mapping[str, Any], found: Mapping[str, Any]) -> Recipe:
    from inference_server.networks.arcface import ArcFace
    from inference_server.networks.dualstylegan import DualStyleGAN
    from inference_server.networks.vgg import VGG19
    from inference_server.training.recipes.dualstylegan import DualTransfer, TransferStart

    model = found["start"]
    averaged = needs.network(model, DualStyleGAN)
    raw = collection.has_part(model, "raw")
    start = TransferStart(
        network=needs.network(model, DualStyleGAN, "raw") if raw else averaged,
        config=collection.config_of(model),
        discriminator=collection.discriminator_of(model),
        features=needs.network(found["features"], VGG19),
        identity=needs.network(found["identity"], ArcFace),
        codes=collection.codes_of(table, averaged.generator.size),
        licences=needs.licences_of(found),
        averaged=averaged if raw else None,
    )
    return DualTransfer(table, start)
