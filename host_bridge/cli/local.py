"""Commands that work on this machine's files and need the server's packages, imported when they run."""

from __future__ import annotations

import argparse
import importlib
import os
from typing import Any

from host_bridge import launcher
from host_bridge.errors import ServerError

# command, module below inference_server, help. Each module offers add_arguments(parser) and run(args) -> exit status.
_COMMANDS = (
    ("models", "inference_server.models.cli", "list, show, pull, import, verify or remove models"),
    ("directions", "inference_server.directions.cli", "list, import or fit what faces are edited along"),
    ("shots", "inference_server.shots.cli", "list, show, edit, lock or remove analysed shots"),
    ("metrics", "inference_server.metrics.cli", "compare two sequences: error, similarity, steadiness, drift"),
    ("export", "inference_server.export.cli", "write a model for NukeX (Cattery) or Flame (ONNX)"),
    ("doctor", "inference_server.doctor", "what works here, what is missing, how to get it"),
    ("demo", "inference_server.demo.cli", "the main job on a portrait plate, with a contact sheet"),
    ("train", "inference_server.train_commands.cli", "train a model of your own style"),
    ("bench", "inference_server.bench.cli", "speed and memory, as ratios measured in one run"),
)


def add_parsers(commands: Any) -> None:
    for name, module, text in _COMMANDS:
        # The module's own arguments are parsed when the command is used, so that `faceplate --help` loads no torch.
        parser = commands.add_parser(name, help=text, add_help=False)
        parser.set_defaults(run=_run, module=module, name=name, takes_rest=True)


def _run(args: argparse.Namespace) -> int:
    if args.name != "doctor":
        launcher.check_server_python()
    for name, value in launcher.PATIENT_THREADS.items():
        os.environ.setdefault(name, value)
    try:
        module = importlib.import_module(args.module)
    except ImportError as error:
        raise _missing(error) from error
    parser = argparse.ArgumentParser(prog=f"faceplate {args.name}", description=module.__doc__)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.rest)))


def _missing(error: ImportError) -> Exception:
    """What to say where a package that a command needs is not there; a fault of our own is passed on."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "inference_server", "host_bridge"):
        return error
    return ServerError(
        "server.missing_package",
        f"this command needs the package {package!r}",
        value=package,
        remedy="Install it with Faceplate's extras: pip install 'faceplate[server,demo]' (Python 3.10 to 3.12).",
    )
