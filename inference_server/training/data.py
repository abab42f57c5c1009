"""The samples of each step, loaded ahead by threads; which samples they are depends on the step alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from inference_server.training.config import TrainConfig
from inference_server.training.distributed import Group
from inference_server.training.draws import Draw, item_at
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch, Recipe

Sample = Mapping[str, Tensor]


def _load(recipe: Recipe, item: int, draw: Draw) -> Sample:
    try:
        return recipe.load(item, draw)
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            "training.data",
            f"item {item} (step {draw.step}, sample {draw.index}) could not be loaded: {error}",
            remedy="Repair or remove the item.",
            value=item,
        ) from error


def _indices(config: TrainConfig, group: Group) -> list[list[int]]:
    """Sample numbers of each of this process' micro-batches."""
    pieces = [list(range(i * config.piece, (i + 1) * config.piece)) for i in range(config.pieces)]
    return list(group.mine(pieces))


def _stack(samples: list[Sample], draws: list[Draw], device: torch.device) -> Batch:
    tensors = {}
    for name in samples[0]:
        shapes = {tuple(sample[name].shape) for sample in samples}
        if len(shapes) > 1:
            raise TrainingError(
                "training.data",
                f"samples of one micro-batch differ in the shape of {name!r}: {sorted(shapes)}",
                remedy="Make the recipe load samples of one size.",
            )
        stacked = torch.stack([sample[name] for sample in samples])
        tensors[name] = stacked.pin_memory() if device.type == "cuda" else stacked
    return Batch(
        {name: value.to(device, non_blocking=True) for name, value in tensors.items()},
        tuple(draws),
        draws[0].step,
        device,
    )


@contextmanager
def batches(recipe: Recipe, config: TrainConfig, group: Group, first: int) -> Iterator[Iterator[list[Batch]]]:
    """For each step from `first` on, this process' micro-batches on its device.

    `workers` 0 loads in the calling thread. The number of threads changes nothing but the time.
    """
    size = recipe.size()
    layout = _indices(config, group)

    def draws_of(step: int) -> list[list[Draw]]:
        return [[Draw(config.seed, step, index) for index in piece] for piece in layout]

    def item(draw: Draw) -> int:
        return item_at(config.seed, draw.step * config.batch + draw.index, size)

    def inline() -> Iterator[list[Batch]]:
        step = first
        while True:
            yield [_stack([_load(recipe, item(d), d) for d in piece], piece, group.device) for piece in draws_of(step)]
            step += 1

    def threaded(pool: ThreadPoolExecutor) -> Iterator[list[Batch]]:
        waiting: deque[list[tuple[list[Draw], list[Future[Sample]]]]] = deque()
        step = first
        while True:
            while len(waiting) <= config.prefetch and step < config.steps:
                pieces = draws_of(step)
                waiting.append([(piece, [pool.submit(_load, recipe, item(d), d) for d in piece]) for piece in pieces])
                step += 1
            if not waiting:
                return
            yield [
                _stack([future.result() for future in futures], piece, group.device)
                for piece, futures in waiting.popleft()
            ]

    if config.workers == 0:
        yield inline()
        return
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="training-data")
    try:
        yield threaded(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
