"""Find the codes of a collection's pictures: the style of each, and the face that is behind it.

  faceplate train destylize --config destylize --pictures aligned --model tuned=our-style-stylegan2 \\
      --id our-style-codes --out RUNS/destylize

OUT/sheets shows every picture with its face; where a face is far from a real one, a lower truncation helps
(--set recipe.truncation=0.5, in a new folder). A stopped run goes on with the next picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inference_server.models.store import ModelStore
from inference_server.train_commands import collection, needs, running

if TYPE_CHECKING:
    from inference_server.training.recipes.destylize import Destylize

ROLES = ("base", "tuned", "encoder", "identity", *collection.LPIPS)
HINTS = {"tuned": "Train it: faceplate train finetune --config stylegan_finetune --pictures FOLDER --out RUN."}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    collection.add_arguments(parser, "destylize")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        return collection.run_pictures(args, lambda own: work_from_store(own, ModelStore()))


def work_from_store(table: Mapping[str, Any], store: ModelStore) -> Destylize:
    """The work of a [recipe] table with its networks loaded. Raises TrainingError, ModelError."""
    from inference_server.models.loading import load_lpips
    from inference_server.networks.arcface import ArcFace
    from inference_server.networks.psp import PspEncoder
    from inference_server.networks.stylegan2 import Generator
    from inference_server.training.recipes.codes import FaceEncoder
    from inference_server.training.recipes.destylize import Destylize, DestylizeNetworks

    named = {**collection.LPIPS, **table.get("models", {})}
    needs.check_roles(named, ROLES, fixed=collection.LPIPS)
    found = needs.find_models(named, store, HINTS)
    encoder = found["encoder"]
    networks = DestylizeNetworks(
        base=needs.network(found["base"], Generator),
        tuned=needs.network(found["tuned"], Generator),
        encoder=FaceEncoder(needs.network(encoder, PspEncoder), needs.tensor(encoder, "latent_avg")),
        identity=needs.network(found["identity"], ArcFace),
        perceptual=load_lpips("vgg", store=store),
        licences=needs.licences_of(found),
    )
    return Destylize({**table, "models": needs.pinned(found)}, networks)
