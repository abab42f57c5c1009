"""Run by torchrun: two processes optimise the expression of one small shot together."""

from __future__ import annotations

import sys
from pathlib import Path

from inference_server.training.distributed import group_from_environment
from inference_server.training.loop import train
from tests.inference_server.training.recipes import tiny_portrait as tiny
from tests.inference_server.training.recipes.runs import config


def main(folder: str) -> None:
    with group_from_environment() as group:
        own = tiny.expression({"rate": 3e-3}, tiny.shot(5), micro_batch=1, processes=group.size)
        settings = config(3, batch=group.size, micro_batch=1, half_life=0.0)
        for _ in train(own, settings, Path(folder), group):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
