"""Write models for other hosts: TorchScript for Nuke's Cattery, ONNX for Flame."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from host_bridge.errors import ExitCode, ExportError
from inference_server.export.cattery import NUKE_TORCH, Export, export_cattery, make_environment
from inference_server.export.onnx import export_onnx
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
        kind.add_argument("--part", default="", metavar="NAME", help="the translator's part of it, if it has several")


def run(args: argparse.Namespace) -> int:
    """Export, and say what was and was not tried."""
    model = ModelStore().get(args.model)
    state, widths = translator_of(model, args.part)
    if args.kind == "onnx":
        done = export_onnx(model, state, widths, args.out.absolute())
    else:
        python = make_environment(args.nuke, args.make_environment.absolute()) if args.make_environment else args.python
        done = export_cattery(model, state, widths, args.nuke, args.out.absolute(), python)
    _show(done)
    return int(ExitCode.OK)


def translator_of(model: StoredModel, part: str = "") -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Weights and widths of a stored model's translator. ExportError `export.model` where it has none, or several."""
    parts = {name: p for name, p in model.card.parts.items() if p.network == NETWORK and (not part or name == part)}
    if len(parts) != 1:
        raise ExportError(
            "export.model",
            f"{model.id!r} holds {len(parts) or 'no'} translator" + ("s" if len(parts) > 1 else ""),
            value=model.id,
            remedy=f"Name one with --part: {', '.join(parts)}." if parts else "Only two-stage models can be exported.",
        )
    name, found = next(iter(parts.items()))
    network = load_network(model, part=name)
    assert isinstance(network, Translator)
    return dict(network.state_dict()), tuple(found.config.get("widths", TRANSLATOR_WIDTHS))


def _show(done: Export) -> None:
    for file in done.files:
        print(file)
    for text in done.tried:
        print(f"tried: {text}")
    for text in done.untried:
        print(f"NOT tried: {text}")
