"""What changes in a run: put back exactly, and refused where it belongs to another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from inference_server.training.checkpoint import Snapshot
from inference_server.training.config import EmaConfig, ScheduleConfig, TrainConfig, run_table
from inference_server.training.distributed import Group
from inference_server.training.errors import TrainingError
from inference_server.training.state import TrainingState
from tests.inference_server.training.tiny_recipes import Tiny, TinyGan

CONFIG = TrainConfig(
    steps=8, batch=4, precision="fp16", ema=EmaConfig(8.0), schedule=ScheduleConfig("linear", horizon=8)
)


def state(recipe: Any = None, config: TrainConfig = CONFIG) -> TrainingState:
    return TrainingState(recipe or Tiny(), config, Group())


def snapshot(of: TrainingState) -> Snapshot:
    return of.snapshot(run_table(CONFIG, Tiny().settings), "tiny")


def test_the_scaler_and_the_best_score_are_put_back() -> None:
    first, second = state(), state()
    first.scalers["net"].load_state_dict({**first.scalers["net"].state_dict(), "scale": 128.0, "_growth_tracker": 7})
    first.step, first.score, first.best_step = 3, 0.1 + 0.2, 2
    second.restore(snapshot(first))
    assert second.scalers["net"].state_dict() == first.scalers["net"].state_dict()
    assert second.scalers["net"].get_scale() == 128.0
    assert (second.step, second.score, second.best_step) == (3, 0.1 + 0.2, 2)


def test_building_is_seeded() -> None:
    a, b, c = state(), state(), state(config=replace(CONFIG, seed=1))
    weights = [s.parts.trained["net"].state_dict()["0.weight"] for s in (a, b, c)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_average_moves_by_its_decay() -> None:
    one = state()
    before = one.averages["net"].state_dict()["0.weight"].clone()
    with torch.no_grad():
        one.parts.trained["net"].get_parameter("0.weight").add_(1.0)
        one.parts.trained["net"].get_buffer("1.running_mean").fill_(5.0)
    one.average()
    after = one.averages["net"].state_dict()
    torch.testing.assert_close(after["0.weight"], before + (1 - 0.5 ** (4 / 8)))
    assert float(after["1.running_mean"].min()) == 5.0


def test_evaluating_leaves_modes_as_they_were() -> None:
    one = state()
    one.parts.trained["net"].get_submodule("3").eval()
    with one.evaluating() as modules:
        assert modules["net"] is one.averages["net"]
        assert not any(m.training for module in modules.values() for m in module.modules())
        assert not torch.is_grad_enabled()
    assert one.parts.trained["net"].training
    assert not one.parts.trained["net"].get_submodule("3").training


def test_only_the_phase_s_parameters_ask_for_gradients() -> None:
    gan = state(TinyGan())
    gan.set_trainable("d")
    assert [p.requires_grad for name in ("g", "d") for p in gan.parts.trained[name].parameters()] == [False] * 4 + [
        True
    ] * 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: {**f, "schedule": {"factor": 0.5}}, "the schedule's factor at step 0 was 0.5, now it is 1.0"),
        (lambda f: {**f, "sampler": {"position": 3}}, "the sampler stood at 3, expected 0"),
        (
            lambda f: {**f, "optimisers": {"g": {}}},
            r"optimisers of the checkpoint are \['g'\], of the recipe \['net'\]",
        ),
    ],
)
def test_facts_of_another_run_are_refused(change: Any, says: str) -> None:
    one = state()
    taken = snapshot(one)
    facts: Mapping[str, Any] = change(taken.facts)
    with pytest.raises(TrainingError, match=says) as caught:
        one.restore(replace(taken, facts=facts))
    assert caught.value.code == "training.resume"


def test_tensors_of_another_network_are_refused() -> None:
    taken = snapshot(state())
    tensors = {**taken.tensors, "module/net/0.weight": torch.zeros(7, 3, 3, 3)}
    with pytest.raises(TrainingError, match=r"(?s)module/net does not fit.*0\.weight"):
        state().restore(replace(taken, tensors=tensors))
    fewer = {name: value for name, value in taken.tensors.items() if not name.startswith("ema/")}
    with pytest.raises(TrainingError, match=r"modules of the checkpoint are \['module/net'\]"):
        state().restore(replace(taken, tensors=fewer))
