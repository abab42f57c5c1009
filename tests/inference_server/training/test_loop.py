"""The training loop on tiny recipes: it learns, resumes exactly, cancels without loss, and says what goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from inference_server.models.cards import read_cards
from inference_server.training import checkpoint
from inference_server.training.config import CheckpointConfig, EmaConfig, ScheduleConfig, TrainConfig
from inference_server.training.distributed import Group
from inference_server.training.dry_run import dry_run
from inference_server.training.errors import TrainingError
from inference_server.training.events import (
    Event,
    Finished,
    Pictured,
    Progress,
    Saved,
    Started,
    Validated,
    Warned,
)
from inference_server.training.files import sha256
from inference_server.training.loop import train
from inference_server.training.recipe import Recipe
from inference_server.training.state import TrainingState
from inference_server.training.tables import read_toml
from tests.inference_server.training.tiny_recipes import Tiny, TinyGan

CONFIG = TrainConfig(
    steps=12,
    batch=4,
    micro_batch=2,
    workers=0,
    validate_every=5,
    pictures_every=0,
    ema=EmaConfig(20, ramp=0.5),
    schedule=ScheduleConfig("cosine", warmup=2, horizon=12, final=0.1),
    checkpoints=CheckpointConfig(every=4, keep=2),
)


def run(recipe: Recipe, config: TrainConfig, folder: Path, until: int | None = None) -> list[Event]:
    """All events; closed at the first progress of step `until`."""
    loop = train(recipe, config, folder)
    events = []
    for event in loop:
        events.append(event)
        if isinstance(event, Progress) and event.step == until:
            loop.close()
            break
    return events


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def assert_same_state(a: Path, b: Path, step: int) -> None:
    """Every tensor and every fact of two runs' checkpoints, bit for bit."""
    first, second = (checkpoint.read(folder / "checkpoints", step) for folder in (a, b))
    assert first.facts == second.facts
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        assert torch.equal(value, second.tensors[name]), name


def test_losses_fall_and_everything_is_written(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=60, batch=8, micro_batch=4, validate_every=20, pictures_every=30)
    config = replace(config, schedule=ScheduleConfig())
    events = run(Tiny(), config, tmp_path)
    assert events[0] == Started(0, 60, 345, 1)
    progress = of(Progress, events)
    assert [p.step for p in progress] == list(range(1, 61))
    first, last = (sum(p.losses["l2"] for p in part) / 5 for part in (progress[:5], progress[-5:]))
    assert last < 0.3 * first
    assert progress[0].watched.keys() == {"mean"}
    assert progress[-1].seconds_left == 0
    assert next(v.best for v in of(Validated, events))
    saved = of(Saved, events)
    assert {s.step for s in saved} >= {4, 20, 60}
    assert all(isinstance(e, Event) for e in events)

    finished = events[-1]
    assert isinstance(finished, Finished)
    sheets = [p for p in of(Pictured, events) if p.kind == "sheet"]
    assert [p.step for p in sheets] == [30, 60]
    sheet = cv2.imread(str(sheets[-1].path))
    assert sheet.shape == (18 + 4 * 100 + 4, 3 * 100 + 4, 3)  # 8 px pictures, enlarged
    curves = cv2.imread(str(tmp_path / "curves.png"))
    assert curves.shape == (4 * 200, 960, 3)  # two losses, one watched, the score
    assert len(torch.unique(torch.from_numpy(curves))) > 3
    written = read_toml(tmp_path / "config.toml")
    assert written["recipe"]["dropout"] == 0.2
    assert written["schedule"]["horizon"] == 60
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [h["step"] for h in history] == list(range(1, 61))


def test_card_is_one_the_model_store_reads(tmp_path: Path) -> None:
    events = run(Tiny(), replace(CONFIG, validate_every=0), tmp_path)
    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    assert card.file == finished.weights.name
    assert card.bytes == finished.weights.stat().st_size
    assert card.sha256 == sha256(finished.weights)
    assert card.parts["net"].network == "stylegan2"
    assert card.parts["net"].config == {"size": 8}
    assert "step 12 of 12" in card.notes
    weights = load_file(finished.weights)
    averaged = checkpoint.read(tmp_path / "checkpoints", 12).tensors
    assert weights.keys() == {f"net.{k.removeprefix('ema/net/')}" for k in averaged if k.startswith("ema/net/")}
    assert all(torch.equal(v, averaged[f"ema/net/{k.removeprefix('net.')}"]) for k, v in weights.items())
    assert not torch.equal(weights["net.0.weight"], averaged["module/net/0.weight"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", [Tiny, TinyGan])
def test_resume_equals_uninterrupted(tmp_path: Path, kind: type[Any], precision: Any) -> None:
    config = replace(CONFIG, precision=precision)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(kind(), config, whole)
    for until in (3, 7):  # neither is a multiple of the checkpoints' 4
        run(kind(), replace(config, workers=until % 3), parts, until)
    events = run(kind(), config, parts)
    assert isinstance(events[0], Started)
    assert events[0].step == 7
    assert_same_state(whole, parts, 12)
    if precision == "fp16":
        assert (
            checkpoint.read(parts / "checkpoints", 12).facts["scalers"]["g" if kind is TinyGan else "net"]["scale"] > 1
        )
    lines = [(folder / "history.jsonl").read_text() for folder in (whole, parts)]
    assert lines[0] == lines[1]
    model = "tiny-gan.safetensors" if kind is TinyGan else "tiny.safetensors"
    assert (whole / "model" / model).read_bytes() == (parts / "model" / model).read_bytes()


def test_gan_comes_to_the_circle_and_to_balance(tmp_path: Path) -> None:
    config = TrainConfig(steps=120, batch=16, workers=0, validate_every=120, pictures_every=0, ema=EmaConfig(100))
    state = TrainingState(TinyGan(), config, Group())
    with state.evaluating() as modules:
        untrained = TinyGan().score(modules)
    events = run(TinyGan(), config, tmp_path)
    (validated,) = of(Validated, events)
    assert untrained is not None
    assert validated.score < 0.4 * untrained
    last = of(Progress, events)[-5:]
    assert sum(p.losses["generator"] for p in last) / 5 == pytest.approx(math.log(2), abs=0.1)
    assert sum(p.losses["discriminator"] for p in last) / 5 == pytest.approx(2 * math.log(2), abs=0.15)
    assert {p.step % 3 for p in of(Progress, events) if "penalty" in p.losses} == {1}


def test_accumulated_pieces_are_one_batch(tmp_path: Path) -> None:
    """Without batch statistics and dropout, 1, 2 and 4 pieces train the same weights up to rounding."""
    results = []
    for piece in (0, 4, 2):
        folder = tmp_path / str(piece)
        config = replace(CONFIG, batch=8, micro_batch=piece, clip_norm=0.05)
        run(Tiny({"norm": False, "dropout": 0.0}), config, folder)
        results.append(checkpoint.read(folder / "checkpoints", 12).tensors)
    for other in results[1:]:
        for name, value in results[0].items():
            if name.startswith("module/"):
                torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)


def test_cancel_keeps_the_best_and_the_last(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=40, validate_every=3, checkpoints=CheckpointConfig(every=2, keep=2))
    recipe = Tiny({"worsen_after": 2})  # the second score, at step 6, stays the best
    run(recipe, config, tmp_path, until=17)
    assert checkpoint.steps(tmp_path / "checkpoints") == [6, 16, 17]
    weights = load_file(tmp_path / "model" / "tiny.safetensors")
    best = checkpoint.read(tmp_path / "checkpoints", 6).tensors
    assert torch.equal(weights["net.0.weight"], best["ema/net/0.weight"])
    (card,) = read_cards(tmp_path / "model" / "tiny.toml")
    assert "step 6 of 40, the best of its run" in card.notes
    events = run(recipe, config, tmp_path, until=18)
    assert events[0] == Started(17, 40, 345, 1)


def test_cancel_before_the_first_step_writes_no_model(tmp_path: Path) -> None:
    loop = train(Tiny(), CONFIG, tmp_path)
    assert isinstance(next(loop), Started)
    loop.close()
    assert not (tmp_path / "model").exists()
    assert isinstance(run(Tiny(), CONFIG, tmp_path)[-1], Finished)


def test_damaged_checkpoint_falls_back_with_a_warning(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    run(Tiny(), CONFIG, whole)
    run(Tiny(), CONFIG, damaged, until=9)
    newest = damaged / "checkpoints" / "step-00000009.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    events = run(Tiny(), CONFIG, damaged)
    (warning,) = of(Warned, events)
    assert warning.code == "training.checkpoint"
    assert "step-00000009" in warning.message
    assert events[0] == Started(8, 12, 345, 1)
    assert_same_state(whole, damaged, 12)
    assert 9 not in checkpoint.steps(damaged / "checkpoints")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = train(Tiny(), CONFIG, tmp_path)
    next(first)
    with pytest.raises(TrainingError, match="another process is training") as caught:
        run(Tiny(), CONFIG, tmp_path)
    assert caught.value.code == "training.busy"
    first.close()
    assert isinstance(run(Tiny(), CONFIG, tmp_path)[-1], Finished)


def test_finished_run_can_be_extended_and_is_otherwise_idle(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=4, schedule=ScheduleConfig())
    run(Tiny(), config, tmp_path / "a")
    assert [type(e) for e in run(Tiny(), config, tmp_path / "a")] == [Started, Pictured, Pictured, Finished]
    run(Tiny(), replace(config, steps=8), tmp_path / "a")
    run(Tiny(), replace(config, steps=8), tmp_path / "b")
    a, b = (checkpoint.read(tmp_path / name / "checkpoints", 8).tensors for name in "ab")
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_another_configuration_or_recipe_is_refused(tmp_path: Path) -> None:
    run(Tiny(), CONFIG, tmp_path, until=4)
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    for recipe, config, says in (
        (Tiny({"rate": 0.5}), CONFIG, r"recipe\.rate: 0\.02 -> 0\.5"),
        (Tiny(), replace(CONFIG, batch=8), "batch: 4 -> 8"),
        (Tiny({"name": "other"}), CONFIG, "recipe is 'tiny', not 'other'"),
        (Tiny(), replace(CONFIG, steps=2), "has done 4 steps, more than the 2"),
    ):
        with pytest.raises(TrainingError, match=says) as caught:
            run(recipe, config, tmp_path)
        assert caught.value.code == "training.resume"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before


def test_non_finite_gradients_leave_the_weights_alone_and_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_server.training.loop.MAX_SKIPPED", 3)
    recipe = Tiny({"explode_at": 5, "norm": False})
    events: list[Event] = []
    loop = train(recipe, replace(CONFIG, checkpoints=CheckpointConfig(every=1, keep=9)), tmp_path)
    with pytest.raises(TrainingError, match="not been finite for 4 steps") as caught:
        events.extend(loop)
    assert caught.value.code == "training.diverged"
    assert [w.code for w in of(Warned, events)] == ["training.diverged"] * 3
    five, eight = (checkpoint.read(tmp_path / "checkpoints", step).tensors for step in (5, 8))
    assert torch.equal(five["module/net/0.weight"], eight["module/net/0.weight"])


class Weighty(Tiny):
    """Breaks the protocol in the way given."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def build(self) -> Any:
        parts = super().build()
        if self.fault == "stray":
            stray = torch.nn.Linear(2, 2)
            return replace(parts, optimisers={"net": torch.optim.Adam(stray.parameters())})
        if self.fault == "ema":
            return replace(parts, ema=("nett",))
        return parts

    def losses(self, modules: Mapping[str, Any], phase: str, batch: Any) -> Any:
        losses = super().losses(modules, phase, batch)
        if self.fault == "shape":
            return replace(losses, terms={"l2": losses.terms["l2"].expand(3)})
        return losses

    def card(self) -> Any:
        facts = super().card()
        if self.fault == "part":
            return replace(facts, parts={"net": replace(facts.parts["net"], module="blur")})
        return facts


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("stray", "in none of the trained modules"),
        ("ema", "ema names .*nett"),
        ("shape", r"loss 'l2' of phase 'fit' has shape \(3,\)"),
        ("part", "module 'blur', which is none of the trained"),
    ],
)
def test_a_faulty_recipe_is_named(tmp_path: Path, fault: str, says: str) -> None:
    with pytest.raises(TrainingError, match=says) as caught:
        run(Weighty(fault), CONFIG, tmp_path)
    assert caught.value.code == "training.recipe"


def test_dry_run_measures_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = Tiny({"sleep": 0.01})
    result = dry_run(tiny, replace(CONFIG, steps=500, workers=0))
    assert {step for step, _, _ in tiny.loaded} == {0, 1, 499}  # schedules may make the last step the largest
    assert list(tmp_path.iterdir()) == []
    assert (result.steps, result.batch, result.micro_batches) == (500, 4, 2)
    assert result.trained_parameters == result.all_parameters == 345
    assert 0.001 < result.first_seconds < 5
    assert result.seconds == pytest.approx(250 * (result.first_seconds + result.last_seconds))
    tensors: dict[str, Tensor] = {}
    run(Tiny(), CONFIG, tmp_path / "run")
    tensors.update(checkpoint.read(tmp_path / "run" / "checkpoints", 12).tensors)
    assert result.checkpoint_bytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert result.disk_bytes == 4 * result.checkpoint_bytes
    assert result.memory is None or result.memory > 2**24
    assert any(line.startswith("time") and "s a step" in line for line in result.lines())
    assert math.isfinite(result.seconds)
