"""What the commands of a style collection do alike: pictures and models by option, and the run over single pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ExitCode, ModelError
from inference_server.models.store import ModelStore, StoredModel
from inference_server.train_commands import running
from inference_server.training.errors import TrainingError

if TYPE_CHECKING:
    from inference_server.networks.stylegan2 import Discriminator
    from inference_server.training.recipes.codes import CollectionCodes
    from inference_server.training.recipes.per_picture import PictureWork

LPIPS = {"perceptual": "lpips-vgg", "perceptual-trunk": "torchvision-vgg16"}  # the published distance, and no other
FEATURES = {"features": "torchvision-vgg19"}


def add_arguments(parser: argparse.ArgumentParser, configs: str) -> None:
    """The options of every command; `configs` as in `running.add_run_arguments`."""
    running.add_run_arguments(parser, configs)
    parser.add_argument("--pictures", type=Path, help="the folder of aligned pictures (`faceplate train prepare`)")
    parser.add_argument(
        "--model", action="append", default=[], metavar="ROLE=ID", help="use another model: base=stylegan2-ffhq-256"
    )
    parser.add_argument("--id", help="what the result is called in the model store")
    parser.add_argument("--title", help="its title in lists")


def table_of(args: argparse.Namespace) -> dict[str, Any]:
    """The run's document with the command's own options on top; TrainingError `training.config`."""
    table = running.document(args)
    recipe = table.setdefault("recipe", {})
    for assignment in args.model:
        running.assign(recipe, f"models.{assignment}")
    for name in ("id", "title"):
        if getattr(args, name) is not None:
            recipe[name] = getattr(args, name)
    for name in ("pictures", "codes"):
        if getattr(args, name, None) is not None:
            recipe[name] = str(getattr(args, name).resolve())
    return table


def run_pictures(args: argparse.Namespace, make: Callable[[Mapping[str, Any]], PictureWork]) -> int:
    """Works on every picture, or measures with --dry-run; the results go into the model store. The exit status."""
    from inference_server.training.distributed import group_from_environment
    from inference_server.training.events import Finished
    from inference_server.training.recipes.per_picture import dry_run_pictures, solve_pictures

    table = table_of(args)
    with group_from_environment(running.device_of(args.device)) as group:
        work = make(table["recipe"])
        strange = sorted(set(table) - {"work", "recipe"})
        if strange or table.get("work", work.name) != work.name:
            raise TrainingError(
                "training.config",
                f"this is no configuration of {work.name}: {', '.join(strange) or table['work']}",
                remedy=f"It has one table, [recipe]; `--config {work.name}` is one.",
            )
        if args.dry_run:
            lines = dry_run_pictures(work, group)
            if group.first:
                sys.stdout.write("\n".join(lines) + "\n")
            return ExitCode.OK
        if group.first and not args.no_import and not args.replace:
            for _, _, suffix in work.exports():
                ModelStore().check_free(f"{work.settings.id}{suffix}")  # before the hours, not after them
        _, whole = running.follow(args, solve_pictures(work, args.out, group), group)
        if not whole:
            if group.first:
                sys.stderr.write("stopped; finished pictures are kept. Give the command again to go on.\n")
            return ExitCode.CANCELLED
        if group.first and not args.no_import:
            for _, file, _ in work.exports():
                path = args.out / "model" / file
                running.import_result(Finished(0, 0, path, path.with_suffix(".toml")), args.replace)
    return ExitCode.OK


def has_part(model: StoredModel, part: str) -> bool:
    """Whether the stored file holds weights of that part; some are optional in their authors' files."""
    from safetensors import safe_open

    with safe_open(model.path, "pt") as file:
        return any(name.startswith(f"{part}/") for name in file.keys())  # noqa: SIM118 - not a dict


def discriminator_of(model: StoredModel) -> Discriminator:
    """The discriminator that was trained along with a generator; ModelError `model.mismatch` where there is none."""
    from inference_server.networks.stylegan2 import Discriminator
    from inference_server.train_commands import needs

    if not has_part(model, "discriminator"):
        raise ModelError(
            "model.mismatch",
            f"{model.id!r} holds no discriminator, which training starts from",
            value=model.id,
            path=str(model.path),
            remedy="Import the file that holds generator, discriminator and averages (for stylegan2-ffhq the one of "
            "381 MB), with --replace.",
        )
    return needs.network(model, Discriminator, "discriminator")


def config_of(model: StoredModel) -> dict[str, Any]:
    """The arguments that the model's main network is built with."""
    return dict(model.card.parts["main"].config)


def codes_of(table: Mapping[str, Any], size: int) -> CollectionCodes:
    """The codes of the pictures of a [recipe] table, from the folder that it names; TrainingError `training.data`."""
    from inference_server.training.recipes.folder import PictureFolder
    from inference_server.training.recipes.per_picture import read_collection

    pictures = PictureFolder(table.get("pictures", ""), size)
    folder = table.get("codes", "")
    if not folder:
        raise TrainingError(
            "training.config",
            "no codes are named",
            remedy="Say --codes FOLDER, where `faceplate train destylize --out FOLDER` has done these pictures.",
        )
    return read_collection(Path(folder), pictures)
