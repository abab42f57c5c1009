"""Train a VToonify (arXiv 2209.11224): first its encoder, then the whole, each from models in the store.

  faceplate train vtoonify --config vtoonify_d_pretrain --out RUNS/encoder
  faceplate train vtoonify --config vtoonify_d --style Cartoons_00038_07 --id our-cartoon --out RUNS/cartoon

The encoder is trained once for each style collection. Models that are missing are named before anything begins, and
so are time and memory with --dry-run. Given again, a command goes on where its run in the folder was stopped; what a
run makes is in the model store at its end.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from host_bridge.errors import unknown_name
from inference_server.models.store import ModelStore, StoredModel
from inference_server.train_commands import needs, running

if TYPE_CHECKING:
    from inference_server.models.loading import StyleCodes
    from inference_server.training.recipe import Recipe
    from inference_server.training.recipes.vtoonify_pairs import Teachers
    from inference_server.training.recipes.vtoonify_settings import CommonSettings

LPIPS = {"perceptual": "lpips-vgg", "perceptual-trunk": "torchvision-vgg16"}  # the published distance, and no other
ROLES = {
    ("dualstylegan", "encoder"): ("style", "codes", "colours", "parser", "directions"),
    ("dualstylegan", "translator"): ("style", "codes", "colours", "parser", "directions", "encoder", *LPIPS),
    ("toonify", "encoder"): ("base", "style", "parser", "directions"),
    ("toonify", "translator"): ("base", "style", "colours", "parser", "directions", "encoder", *LPIPS),
}
HINTS = {
    "encoder": "Train it: faceplate train vtoonify --config vtoonify_d_pretrain (or vtoonify_t_pretrain) --out FOLDER; "
    "or begin with the encoder of an imported VToonify, as its authors advise: --model encoder=vtoonify-d-cartoon-s-d."
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    running.add_run_arguments(parser, "vtoonify")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ROLE=ID",
        help="learn from another model: style=dualstylegan-arcane",
    )
    parser.add_argument("--style", metavar="NAME", help="the exemplar, by the name of its picture or by number from 0")
    parser.add_argument("--degree", type=float, help="the style degree of a model that has one only")
    parser.add_argument("--steps", type=int, help="another length, schedules included")
    parser.add_argument("--id", help="what the trained model is called in the store")
    parser.add_argument("--title", help="its title in lists")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        table = running.document(args)
        recipe = table.setdefault("recipe", {})
        _apply(args, table, recipe)

        def make(own: Mapping[str, Any]) -> Recipe:
            return recipe_from_store(own, ModelStore(), args.style)

        return running.run(args, table, make)


def _apply(args: argparse.Namespace, table: dict[str, Any], recipe: dict[str, Any]) -> None:
    """The command's own options on top of the configuration."""
    for assignment in args.model:
        running.assign(recipe, f"models.{assignment}")
    if args.steps is not None:
        table["steps"] = recipe["iterations"] = args.steps
    if args.degree is not None:
        running.assign(recipe, f"style.degree={args.degree}")
    for name in ("id", "title"):
        if getattr(args, name) is not None:
            recipe[name] = getattr(args, name)


def recipe_from_store(table: Mapping[str, Any], store: ModelStore, style: str | None = None) -> Recipe:
    """The recipe of a [recipe] table with its models loaded; `style` is the exemplar's name or number.

    Raises TrainingError, and ModelError for models that are missing or of the wrong kind.
    """
    from inference_server.models.loading import load_style_codes
    from inference_server.training.recipes.vtoonify import vtoonify_recipe
    from inference_server.training.recipes.vtoonify_settings import vtoonify_settings

    settings = vtoonify_settings(table)
    roles = ROLES[settings.backbone, settings.stage]
    named = {**{role: name for role, name in LPIPS.items() if role in roles}, **settings.models}
    needs.check_roles(named, roles, optional=("encoder",), fixed=LPIPS)
    found = needs.find_models(named, store, HINTS)
    own = {**table, "models": needs.pinned(found)}
    if style is not None and "codes" in found:
        number = exemplar_number(style, load_style_codes(found["codes"]))
        own["style"] = {**own.get("style", {}), "exemplar": number}
    return vtoonify_recipe(own, load_teachers(settings, found, store))


def exemplar_number(style: str, codes: StyleCodes) -> int:
    """The number of a style by its picture's name, with or without suffix, or by the number itself."""
    try:
        return codes.index(style)
    except KeyError as error:
        if style.isdecimal() and int(style) < len(codes.names):
            return int(style)
        raise unknown_name("request.unknown_name", "style", style, list(codes.names)) from error


def load_teachers(settings: CommonSettings, found: Mapping[str, StoredModel], store: ModelStore) -> Teachers:
    """Everything by its role, on the CPU."""
    from inference_server.models.loading import load_lpips, load_style_codes
    from inference_server.networks.bisenet import BiSeNet
    from inference_server.networks.dualstylegan import DualStyleGAN
    from inference_server.networks.psp import PspEncoder
    from inference_server.networks.stylegan2 import Generator
    from inference_server.networks.vtoonify import VToonify
    from inference_server.training.recipes.vtoonify_pairs import Teachers

    style: DualStyleGAN | Generator
    if settings.backbone == "dualstylegan":
        style = needs.network(found["style"], DualStyleGAN)
        base = style.generator
    else:
        style, base = needs.network(found["style"], Generator), needs.network(found["base"], Generator)
    codes = load_style_codes(found["codes"]) if "codes" in found else None
    colours = found.get("colours")
    return Teachers(
        base=base,
        style=style,
        parser=needs.network(found["parser"], BiSeNet),
        directions=needs.tensor(found["directions"], "directions"),
        licences=needs.licences_of(found),
        colours=None if colours is None else needs.network(colours, PspEncoder),
        colour_average=None if colours is None else needs.tensor(colours, "latent_avg"),
        exemplars=None if codes is None else codes.codes,
        names=() if codes is None else codes.names,
        perceptual=load_lpips("vgg", store=store) if "perceptual" in found else None,
        encoder=needs.network(found["encoder"], VToonify).encoder.state_dict() if "encoder" in found else None,
    )
