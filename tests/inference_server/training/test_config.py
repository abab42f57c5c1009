"""The configuration file: strict reading, full writing, and the functions of the step it stands for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inference_server.training.config import (
    EmaConfig,
    ScheduleConfig,
    TrainConfig,
    differences,
    run_table,
    split_config,
)
from inference_server.training.errors import TrainingError
from inference_server.training.tables import dump_toml, from_table, read_toml
from tests.inference_server.training.tiny_recipes import TinySettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_written_configuration_reads_back_with_every_default() -> None:
    table = run_table(TrainConfig(steps=7, batch=6, micro_batch=2).resolved(), TinySettings(rate=0.5))
    text = dump_toml(table)
    for key in ("seed = 0", "half_life = 10000.0", "horizon = 7", "keep = 3", "dropout = 0.2"):
        assert key in text
    config, recipe = split_config(tomllib.loads(text))
    assert config == TrainConfig(steps=7, batch=6, micro_batch=2, schedule=ScheduleConfig(horizon=7))
    assert from_table(TinySettings, recipe) == TinySettings(rate=0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("setps = 3", r"setps is not a known key .* Did you mean 'steps'\?"),
        ("[ema]\nhalflife = 3", r"ema\.halflife is not a known key .* Did you mean 'half_life'\?"),
        ("steps = 3.5", r"steps is 3\.5 .* Expected a value of type int"),
        ("steps = true", r"steps is True"),
        ('precision = "fp8"', r"precision is 'fp8' .* Allowed: 'fp32', 'fp16', 'bf16'"),
        ("batch = 4\nmicro_batch = 3", r"batch 4 must be a multiple of micro_batch 3"),
        ("[checkpoints]\nkeep = 0", r"checkpoints is not valid.*keep 0"),
        ("[schedule]\nwarmup = -1", r"schedule is not valid"),
        ("clip_norm = -1", r"clip_norm -1\.0 must not be negative"),
    ],
)
def test_wrong_configuration_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(TrainingError, match=says) as caught:
        split_config(tomllib.loads(text))
    assert caught.value.code == "training.config"


def test_unknown_key_of_the_recipe_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"recipe\.ratte is not a known key .* 'rate'"):
        from_table(TinySettings, {"ratte": 1.0}, "recipe.")


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(TrainingError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")


def test_schedules() -> None:
    rising = ScheduleConfig(warmup=4)
    assert [rising.factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    linear = ScheduleConfig("linear", horizon=10, final=0.1)
    assert linear.factor(0) == 1
    assert linear.factor(5) == pytest.approx(0.55)
    assert linear.factor(99) == pytest.approx(0.1)
    cosine = ScheduleConfig("cosine", warmup=2, horizon=12)
    assert cosine.factor(7) == pytest.approx(0.5)
    assert cosine.factor(12) == pytest.approx(0.0)


def test_half_life_of_the_average() -> None:
    assert EmaConfig(10_000).decay(0, 32) == pytest.approx(0.99778, abs=1e-5)  # VToonify's published decay
    assert EmaConfig(10).decay(0, 10) == 0.5
    assert EmaConfig(10_000, ramp=0.05).decay(0, 20) == pytest.approx(0.5**20)
    assert EmaConfig(0).decay(3, 4) == 0


def test_what_may_change_when_a_run_is_taken_up() -> None:
    before = run_table(TrainConfig(steps=10).resolved(), TinySettings())
    longer = run_table(TrainConfig(steps=20, workers=5).resolved(), TinySettings())
    assert differences(before, longer) == []
    other = run_table(TrainConfig(steps=10, seed=1, ema=EmaConfig(3.0)).resolved(), TinySettings(rate=1.0))
    assert differences(before, other) == [
        "ema.half_life: 10000.0 -> 3.0",
        "recipe.rate: 0.02 -> 1.0",
        "seed: 0 -> 1",
    ]
    linear = [
        run_table(TrainConfig(steps=steps, schedule=ScheduleConfig("linear")).resolved(), TinySettings())
        for steps in (10, 20)
    ]
    assert differences(linear[0], linear[1]) == ["schedule.horizon: 10 -> 20"]
