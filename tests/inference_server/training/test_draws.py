"""Draws, orders and loaded batches depend on (seed, step, index) and on nothing else."""

from __future__ import annotations

import pytest
import torch

from inference_server.training.config import TrainConfig
from inference_server.training.data import batches
from inference_server.training.distributed import Group
from inference_server.training.draws import Draw, derive, item_at, seeded
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Batch
from tests.inference_server.training.tiny_recipes import Tiny


def test_a_draw_is_a_function_of_its_place_and_name() -> None:
    draw = Draw(1, 2, 3)
    assert torch.equal(draw.normal("a", (4,)), Draw(1, 2, 3).normal("a", (4,)))
    others = [Draw(2, 2, 3), Draw(1, 3, 3), Draw(1, 2, 4), Draw(12, 3, 3)]
    drawn = [d.normal("a", (4,)) for d in (draw, *others)] + [draw.normal("b", (4,))]
    assert len({tuple(x.tolist()) for x in drawn}) == len(drawn)
    assert derive(1, 23) != derive(12, 3)
    values = draw.uniform("u", -1, 3, (1000,))
    assert -1 <= float(values.min()) < -0.9
    assert 2.9 < float(values.max()) <= 3
    assert {Draw(0, 0, i).integer("n", 3) for i in range(40)} == {0, 1, 2}


def test_every_epoch_is_another_order_of_all_items() -> None:
    epochs = [[item_at(5, epoch * 7 + i, 7) for i in range(7)] for epoch in range(3)]
    assert all(sorted(order) == list(range(7)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3
    assert item_at(5, 12, 0) == 12


def test_seeded_puts_the_global_generator_back() -> None:
    before = torch.random.get_rng_state()
    with seeded(torch.device("cpu"), 1, "x"):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded(torch.device("cpu"), 1, "x"):
        assert torch.equal(torch.rand(3), first)


def collect(workers: int, rank: int = 0, size: int = 1, prefetch: int = 2, first: int = 0) -> list[list[Batch]]:
    config = TrainConfig(steps=6, batch=8, micro_batch=2, workers=workers, prefetch=prefetch)
    with batches(Tiny(), config, Group(rank, size), first) as loaded:
        return [next(loaded) for _ in range(first, 6)]


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (3, 1), (5, 9)])
def test_any_number_of_loaders_gives_the_same_draws(workers: int, prefetch: int) -> None:
    for ours, reference in zip(collect(workers, prefetch=prefetch), collect(0), strict=True):
        assert [b.draws for b in ours] == [b.draws for b in reference]
        assert all(torch.equal(a["source"], b["source"]) for a, b in zip(ours, reference, strict=True))


def test_starting_later_and_sharing_give_the_same_samples() -> None:
    reference = collect(0)
    for ours, whole in zip(collect(2, first=4), reference[4:], strict=True):
        assert all(torch.equal(a["source"], b["source"]) for a, b in zip(ours, whole, strict=True))
    shares = [collect(2, rank, 2) for rank in range(2)]
    for step, whole in enumerate(reference):
        merged = [shares[i % 2][step][i // 2] for i in range(4)]
        assert all(torch.equal(a["source"], b["source"]) for a, b in zip(merged, whole, strict=True))


def test_an_item_that_cannot_be_loaded_is_named() -> None:
    config = TrainConfig(steps=4, batch=4, workers=2)
    said = r"item 2 \(step 0, sample \d\) could not be loaded: no such picture"
    with (
        batches(Tiny({"items": 3, "bad_item": 2}), config, Group(), 0) as loaded,
        pytest.raises(TrainingError, match=said),
    ):
        next(loaded)
