"""Speed and memory, as ratios measured in one run on one machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from inference_server.bench import networks, plate, style_portrait, two_stage, vtoonify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per bench."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    for module in (plate, networks, vtoonify, style_portrait, two_stage):
        module.add_parser(benches)


def run(args: argparse.Namespace) -> int:
    """Run the chosen bench; its parser says which."""
    bench: Callable[[argparse.Namespace], int] = args.run
    return bench(args)
