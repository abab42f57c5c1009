"""Run by torchrun: trains the tiny recipe up to a step, cancels from the last process, and goes on to the end."""

from __future__ import annotations

import sys
from pathlib import Path

from inference_server.training.config import split_config
from inference_server.training.distributed import group_from_environment
from inference_server.training.events import Progress, Started
from inference_server.training.loop import train
from inference_server.training.tables import read_toml
from tests.inference_server.training.tiny_recipes import Tiny


def main(config_file: str, folder: str, until: str) -> None:
    config, recipe = split_config(read_toml(Path(config_file)))
    with group_from_environment() as group:
        for stop_at in (int(until), None):
            run = train(Tiny(recipe), config, Path(folder), group)
            first = last = -1
            for event in run:
                if isinstance(event, Started):
                    first = event.step
                if isinstance(event, Progress):
                    last = event.step
                    if last == stop_at and group.rank == group.size - 1:
                        run.close()  # the others learn of it
            sys.stdout.write(f"{group.rank}: {first} to {last}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
