"""Write models for other hosts: TorchScript for Nuke's Cattery, ONNX for Flame."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from host_bridge.errors import ExitCode, ExportError
from inference_server.effects.two_stage.variants import style_names
from inference_server.export.cattery import NUKE_TORCH, Export, export_cattery, make_environment
from inference_server.export.onnx import export_onnx
from inference_server.export.styles import chosen, every
from inference_server.models.loading import load_network
from inference_server.models.store import ModelStore, StoredModel
from inference_server.networks.two_stage import TRANSLATOR_WIDTHS, Translator

NETWORK = "two-stage-translator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`cattery` and `onnx`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    cattery = kinds.add_parser("cattery", help="TorchScript, gizmo and cat.json for NukeX")
    cattery.add_argument("--nuke", required=True, metavar="VERSION", help=f"one of {', '.join(NUKE_TORCH)}")
    cattery.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the Cattery folder to write")
    where = cattery.add_mutually_exclusive_group()
    where.add_argument("--python", default="", metavar="PATH", help="an interpreter that has that Nuke's torch")
    where.add_argument(
        "--make-environment", type=Path, metavar="FOLDER", help="make an environment with that torch there (gigabytes)"
    )
    onnx = kinds.add_parser("onnx", help="ONNX and Flame's JSON")
    onnx.add_argument("--out", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    for kind in (cattery, onnx):
        kind.add_argument("--model", required=True, metavar="ID", help="a stored two-stage model")
        default = "all, on a slider from the card's first" if kind is cattery else "the card's first"
        kind.add_argument(
            "--style",
            default="",
            metavar="NAME",
            help="the style of a model of several, or a mix of them: NAME:0.7,NAME:0.3; it is fixed in the file "
            f"(default: {default})",
        )
        kind.add_argument("--part", default="", metavar="NAME", help="the translator's part of it, if it has several")


def run(args: argparse.Namespace) -> int:
    """Export, and say what was and was not tried."""
    model = ModelStore().get(args.model)
    part = translator_part(model, args.part)
    state, widths = translator_of(model, part)
    styles = style_names(model.card, part)
    if args.style:
        drawn = chosen(styles, args.style)
    elif args.kind == "onnx":
        drawn = chosen(styles, styles[0])
    else:
        drawn = every(styles)
    if args.kind == "onnx":
        done = export_onnx(model, state, widths, args.out.absolute(), drawn)
    else:
        python = make_environment(args.nuke, args.make_environment.absolute()) if args.make_environment else args.python
        done = export_cattery(model, state, widths, args.nuke, args.out.absolute(), python, drawn)
    if len(styles) > 1:
        how = "fixed in the file" if len(drawn.names) == 1 else "the style control starts with the first"
        print(f"style: {', '.join(drawn.names)} ({how}; the model has {', '.join(styles)})")
    _show(done)
    return int(ExitCode.OK)


def translator_of(model: StoredModel, part: str = "") -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Weights and widths of a stored model's translator. Raises what `translator_part` raises."""
    name = translator_part(model, part)
    network = load_network(model, part=name)
    assert isinstance(network, Translator)
    return dict(network.state_dict()), tuple(model.card.parts[name].config.get("widths", TRANSLATOR_WIDTHS))


def translator_part(model: StoredModel, part: str = "") -> str:
    """The name of a model's translator in its card. ExportError `export.model` where it has none, or several."""
    parts = {name: p for name, p in model.card.parts.items() if p.network == NETWORK and (not part or name == part)}
    if len(parts) != 1:
        raise ExportError(
            "export.model",
            f"{model.id!r} holds {len(parts) or 'no'} translator" + ("s" if len(parts) > 1 else ""),
            value=model.id,
            remedy=f"Name one with --part: {', '.join(parts)}." if parts else "Only two-stage models can be exported.",
        )
    return next(iter(parts))


def _show(done: Export) -> None:
    for file in done.files:
        print(file)
    for text in done.tried:
        print(f"tried: {text}")
    for text in done.untried:
        print(f"NOT tried: {text}")
