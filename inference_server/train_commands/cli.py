"""Train a model of your own; it ends in the model store, with a card, ready to use."""

from __future__ import annotations

import argparse
import importlib

# command, module, help. Each module offers add_arguments(parser) and run(args) -> exit status, and imports torch
# only when it runs.
_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("prepare", "inference_server.train_commands.prepare", "aligned pictures of one size from a folder of pictures"),
    ("finetune", "inference_server.train_commands.finetune", "a StyleGAN2 that draws in a style, from its pictures"),
    ("destylize", "inference_server.train_commands.destylize", "style codes of a collection's pictures"),
    ("dualstylegan", "inference_server.train_commands.dualstylegan", "a DualStyleGAN of a style collection"),
    ("refine-codes", "inference_server.train_commands.refine_codes", "style codes nearer to their pictures (optional)"),
    ("vtoonify", "inference_server.train_commands.vtoonify", "a VToonify from a style's generators, about an hour"),
    ("two_stage", "inference_server.train_commands.two_stage", "a video translator from clips and a teacher effect"),
    ("keyframe", "inference_server.train_commands.keyframe", "a network that carries your painted frames over a shot"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="train_command", required=True, metavar="COMMAND")
    for name, module, text in _COMMANDS:
        offered = importlib.import_module(module)
        own = commands.add_parser(
            name, help=text, description=offered.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        offered.add_arguments(own)
        own.set_defaults(module=offered)


def run(args: argparse.Namespace) -> int:
    return int(args.module.run(args))
