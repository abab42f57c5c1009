"""Both stages learn on the CPU in tens of steps, resume exactly, and what they export is what they showed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from inference_server.models.cards import read_cards
from inference_server.models.importer import import_file
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.vtoonify import VToonify
from inference_server.training import checkpoint
from inference_server.training.config import CheckpointConfig, EmaConfig, TrainConfig
from inference_server.training.distributed import Group
from inference_server.training.events import Finished, Progress, Validated
from inference_server.training.loop import Run, train
from inference_server.training.recipes.vtoonify import vtoonify_recipe
from inference_server.training.recipes.vtoonify_losses import flicker
from inference_server.training.recipes.vtoonify_pairs import cropped_input, reduced_input
from tests.inference_server.training.recipes import tiny_vtoonify as tiny
from tests.inference_server.training.test_loop import assert_same_state, of, run

CONFIG = TrainConfig(
    steps=40,
    batch=2,
    micro_batch=2,
    workers=0,
    validate_every=20,
    pictures_every=0,
    ema=EmaConfig(8),
    checkpoints=CheckpointConfig(every=10, keep=2),
)
FREE = {"any_style": True, "any_degree": True}


def mean(progress: list[Progress], *names: str) -> float:
    return sum(p.losses[name] for p in progress for name in names) / len(progress)


@pytest.mark.parametrize("backbone", ["dualstylegan", "toonify"])
def test_the_first_stage_learns(tmp_path: Path, backbone: str) -> None:
    table = tiny.encoder_table(backbone, rate=5e-3, iterations=40, style={"any_degree": False})
    events = run(vtoonify_recipe(table, tiny.teachers(backbone)), CONFIG, tmp_path)
    progress = of(Progress, events)
    terms = ("feature", "picture at 32 px")
    assert mean(progress[-6:], *terms) < 0.55 * mean(progress[:3], *terms)
    first, last = of(Validated, events)
    assert last.score < first.score


@pytest.mark.parametrize("backbone", ["dualstylegan", "toonify"])
def test_the_second_stage_learns_and_the_model_is_ready_to_use(tmp_path: Path, backbone: str) -> None:
    style = {"degree": 0.8} if backbone == "dualstylegan" else {}
    recipe = vtoonify_recipe(
        tiny.translator_table(backbone, rate=4e-3, iterations=24, style=style), tiny.teachers(backbone)
    )
    events = run(recipe, replace(CONFIG, steps=24, validate_every=12), tmp_path / "run")
    progress = of(Progress, events)
    assert mean(progress[-6:], "mse") < 0.6 * mean(progress[:3], "mse")
    assert mean(progress[-6:], "perceptual") < 0.95 * mean(progress[:3], "perceptual")
    assert ["flicker" in p.losses for p in progress] == [False] * 13 + [True] * 11
    assert ("mask" in progress[0].losses) == (backbone == "dualstylegan")
    assert {"adversarial", "discriminator"} < progress[0].losses.keys()

    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    expected = (
        "style style_0.jpg, style degree 0.8, keeping the frame's" if backbone == "dualstylegan" else "VToonify-T."
    )
    assert expected in card.notes
    store = ModelStore((Folder(tmp_path / "store", True),))
    import_file(finished.weights, store, card)
    loaded = load_network("tiny-vtoonify", store=store)
    assert isinstance(loaded, VToonify)
    snapshot = checkpoint.read(tmp_path / "run" / "checkpoints", finished.exported_step)
    averaged = {k.removeprefix("ema/translator/"): v for k, v in snapshot.tensors.items() if k.startswith("ema/")}
    state = recipe.build()
    shown = state.trained["translator"]
    shown.load_state_dict(averaged)
    modules = {**state.frozen, **state.trained}
    with torch.inference_mode():
        batch = recipe._paired(modules, recipe._held_out(modules, 0), 0.8, augmented=False)
        x, code = reduced_input(batch["face"], batch["parsing"]), batch["style"]
        picture = loaded(x, code, 0.8)
        torch.testing.assert_close(picture, shown(x, code, 0.8), rtol=0, atol=1e-5)
        assert picture.shape == (1, 3, 64, 64)
        wide = torch.cat([x, x[..., :16]], dim=3)  # any frame size, as in the effect
        assert loaded(wide, code, 0.8).shape == (1, 3, 64, 96)
    validated = of(Validated, events)
    begun = recipe.build()
    with torch.inference_mode():  # the pairs kept aside, before training and by the model that was kept
        assert min(v.score for v in validated) < 0.8 * recipe.score({**begun.frozen, **begun.trained})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_has_the_same_losses(precision: Literal["bf16", "fp16"]) -> None:
    table = tiny.translator_table(iterations=8, style=FREE, affine={"probability": 0.9})
    found = []
    for chosen in ("fp32", precision):
        with ExitStack() as stack:
            config = replace(CONFIG, steps=8, precision=chosen)
            step = Run(vtoonify_recipe(table, tiny.teachers()), config, None, Group(), stack)
            step.open()
            step.seek(7)
            found.append(step.step()[0])
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=0.05, abs=1e-4), name


@pytest.mark.parametrize("stage", ["encoder", "translator"])
def test_resumed_equals_uninterrupted(tmp_path: Path, stage: str) -> None:
    """With everything that is drawn: styles, degrees, jitter, affine changes, crops, micro-batches."""
    style = {**FREE, "colour_transfer": True}
    config = replace(CONFIG, steps=6, micro_batch=1, validate_every=3, checkpoints=CheckpointConfig(every=2, keep=2))
    table = (tiny.encoder_table if stage == "encoder" else tiny.translator_table)(iterations=6, style=style)

    def recipe() -> Any:
        return vtoonify_recipe(table, tiny.teachers())

    run(recipe(), config, tmp_path / "whole")
    run(recipe(), config, tmp_path / "legs", until=5)
    assert checkpoint.steps(tmp_path / "legs" / "checkpoints")[-1] == 5
    run(recipe(), config, tmp_path / "legs")
    assert_same_state(tmp_path / "whole", tmp_path / "legs", 6)
    histories = [(tmp_path / name / "history.jsonl").read_text() for name in ("whole", "legs")]
    assert histories[0] == histories[1]


def test_a_cancelled_run_keeps_the_best(tmp_path: Path) -> None:
    recipe = vtoonify_recipe(tiny.encoder_table(iterations=8), tiny.teachers())
    config = replace(CONFIG, steps=8, validate_every=2)
    loop = train(recipe, config, tmp_path)
    best = -1
    for event in loop:
        if isinstance(event, Validated) and event.best:
            best = event.step
        if isinstance(event, Progress) and event.step == 5:
            loop.close()
            break
    (card,) = read_cards(tmp_path / "model" / "tiny-encoder.toml")
    assert best in (2, 4)
    assert f"step {best} of 8, the best" in card.notes
    assert "a start for the second stage" in card.notes


def first_step(table: Mapping[str, Any], step: int, degree_of: Any = None) -> tuple[Any, dict[str, torch.Tensor], Any]:
    """A recipe's translator terms at a step, outside the loop; the recipe, the terms, the batch."""
    recipe: Any = vtoonify_recipe(table, tiny.teachers())
    with ExitStack() as stack:
        state = Run(recipe, replace(CONFIG, steps=8), None, Group(), stack).state
    modules = state.modules
    batch = replace(recipe._held_out(modules, 0), step=step)
    with torch.no_grad():
        batch = recipe.prepare(modules, batch)
        terms = dict(recipe.losses(modules, "translator", batch).terms)
    return (recipe, modules), terms, batch


def test_weights_of_the_losses(tmp_path: Path) -> None:
    """Each term is its equation times its published weight; of the flicker loss, growing in the second half."""
    (recipe, modules), terms, batch = first_step(tiny.translator_table(iterations=100), 75)
    network, w = modules["translator"], recipe.settings.losses
    with torch.no_grad():
        result, masks = network.forward_with_masks(reduced_input(batch["face"], batch["parsing"]), batch["style"], 0.5)
        mse = (result - batch["target"]).square().mean()
        pool = torch.nn.functional.adaptive_avg_pool2d
        distance = modules["perceptual"](pool(result, 32), pool(batch["target"], 32)).sum()
        score = modules["discriminator"].score(pool(result, 32), torch.tensor([0.5]), torch.tensor([0]))
        top, left = recipe.crop_place(batch)
        crop = network(cropped_input(batch["face"], batch["parsing"], 56, (top, left)), batch["style"], 0.5)
        difference = (crop - result[..., top : top + 56, left : left + 56]).square().mean()
    assert 0 <= top <= 8
    assert 0 <= left <= 8
    expected = {
        "mse": 0.1 * mse,
        "perceptual": 0.01 * 4 * distance,  # one picture here stands for the four of a GPU
        "adversarial": 0.01 * torch.nn.functional.softplus(-score).mean(),
        "mask": 0.0005 * sum(max(float(m.mean()) - 0.325, 0.0) for m in masks),
        "flicker": 0.5 * difference,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-9), name
    assert w.mse == 0.1


def test_gradients_flow_through_both_sides_of_the_flicker_loss() -> None:
    result = torch.randn(1, 3, 8, 8, requires_grad=True)
    crop = torch.randn(1, 3, 4, 4, requires_grad=True)
    flicker(result, crop, (2, 3)).backward()  # type: ignore[no-untyped-call]
    assert crop.grad is not None
    assert result.grad is not None
    assert bool(crop.grad.any())
    assert torch.equal(result.grad[..., 2:6, 3:7], -crop.grad)
    assert float(result.grad.abs().sum()) == pytest.approx(float(crop.grad.abs().sum()))
