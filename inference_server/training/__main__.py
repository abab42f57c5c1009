"""`python -m inference_server.training RECIPE CONFIG FOLDER`, alone or under torchrun.

RECIPE is `module:factory`; the factory is called with the [recipe] table of the configuration. Events go to standard
output as JSON lines, from the first process only. SIGINT and SIGTERM cancel: the run is checkpointed, the best
model exported, and the exit status is 6.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from inference_server.training.config import split_config
from inference_server.training.distributed import group_from_environment
from inference_server.training.dry_run import dry_run
from inference_server.training.errors import TrainingError
from inference_server.training.events import Event
from inference_server.training.loop import train
from inference_server.training.recipe import Recipe
from inference_server.training.tables import read_toml

CANCELLED = 6


def load_recipe(name: str, table: Mapping[str, Any]) -> Recipe:
    """The recipe that the factory `module:attribute` makes of a [recipe] table."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise TrainingError(
            "training.recipe",
            f"there is no recipe {name!r}: {error}",
            remedy="Give it as module:factory.",
            value=name,
        ) from error
    return cast(Recipe, factory(table))


def event_line(event: Event) -> str:
    """An event as one JSON object with its kind under "event"."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    return json.dumps({"event": type(event).__name__, **fields}, default=str)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference_server.training", description=__doc__)
    parser.add_argument("recipe", help="module:factory")
    parser.add_argument("config", type=Path, help="TOML file")
    parser.add_argument("folder", type=Path, help="where the run is kept; an unfinished run there goes on")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="measure a step, print steps, memory and time")
    options = parser.parse_args(argv)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    try:
        with group_from_environment(options.device) as group:
            config, table = split_config(read_toml(options.config))
            recipe = load_recipe(options.recipe, table)
            if options.dry_run:
                result = dry_run(recipe, config, group)
                if group.first:
                    sys.stdout.write("\n".join(result.lines()) + "\n")
                return 0
            signal.signal(signal.SIGINT, stop)
            signal.signal(signal.SIGTERM, stop)
            run = train(recipe, config, options.folder, group)
            for event in run:
                if group.first:
                    sys.stdout.write(event_line(event) + "\n")
                    sys.stdout.flush()
                if stopping:
                    run.close()
                    return CANCELLED
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
