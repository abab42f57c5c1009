"""Expression dynamics optimisation in a closed loop: the video is the generator's own, its codes are known."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from inference_server.train_commands.running import CONFIGS
from inference_server.training import checkpoint
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.events import Finished, Progress, Started
from inference_server.training.recipe import Batch
from inference_server.training.recipes.expression import (
    OFFSETS,
    Expression,
    ExpressionSettings,
    Offsets,
    expression_config,
)
from inference_server.training.recipes.expression_terms import lip_maps
from inference_server.training.tables import read_toml, to_table
from tests.inference_server.training.recipes import tiny_portrait as tiny
from tests.inference_server.training.recipes.runs import assert_resume_equals_uninterrupted, config, losses_of, run

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 3e-3  # ten times the published one: 40 steps instead of 200 and more
STEPS = 40
ONE = torch.device("cpu")


def steps(count: int) -> Any:
    return config(count, batch=1, half_life=0.0)


def offsets_of(events: list[Any]) -> Tensor:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return load_file(finished.weights)[OFFSETS]


def lips_apart(codes: Tensor) -> float:
    """Mean squared difference of the inner lip's heat maps from those of the performance."""
    g = tiny.generator()
    with torch.no_grad():
        maps = [
            lip_maps(tiny.hrnet(), tiny.draw(g, c), tiny.SQUARE, 0, tiny.LIP_SIDE, (88, 95))
            for c in (codes, tiny.walk(g))
        ]
    return float((maps[0] - maps[1]).square().mean())


def eyes_apart(codes: Tensor, others: Tensor) -> float:
    g, mask = tiny.generator(), tiny.eye_mask()
    with torch.no_grad():
        return float(tiny.lpips()(tiny.draw(g, codes) * mask, tiny.draw(g, others) * mask).mean())


def test_lips_come_back_and_the_eyes_keep_the_edit(tmp_path: Path) -> None:
    """Lips to less than half of the way the edit took them, eyes nearer to the edit than to the performance."""
    performance = tiny.walk(tiny.generator())
    edited = performance + tiny.edit()
    events = run(tiny.expression({"rate": RATE, "eyes": 2000.0}, micro_batch=6), steps(STEPS), tmp_path)
    offsets = offsets_of(events)
    assert offsets.shape == edited.shape
    assert lips_apart(edited + offsets) < 0.5 * lips_apart(edited)
    assert eyes_apart(edited + offsets, edited) < 0.3 * eyes_apart(performance, edited)
    lips = losses_of(events, "lips")
    assert lips[0] == pytest.approx(5000 * 8 * tiny.FRAMES * lips_apart(edited), rel=1e-3)
    assert [losses_of(events, name)[0] for name in ("eyes", "regularisation", "temporal")] == [0, 0, 0]
    assert min(losses_of(events, name)[-1] for name in ("eyes", "regularisation", "temporal")) > 0
    watched = [e.watched["offset"] for e in events if isinstance(e, Progress)]
    assert watched[-1] == pytest.approx(float(offsets.square().mean().sqrt()), rel=0.1)


def test_each_weight_does_what_it_is_for(tmp_path: Path) -> None:
    """Ten steps, with one weight raised: eyes stay nearer, offsets smaller, offsets of neighbours nearer."""
    shot = tiny.shot(3)

    def solved(name: str, **table: float) -> Tensor:
        own = tiny.expression({"rate": RATE, **table}, shot, micro_batch=3)
        return offsets_of(run(own, steps(10), tmp_path / name))

    def eyes(x: Tensor) -> float:
        return eyes_apart(shot.codes + x, shot.codes)

    def unrest(x: Tensor) -> float:
        return float((x[1:] - x[:-1]).square().mean() / x.square().mean())

    published = solved("published")
    assert published.abs().max() > 5 * RATE
    assert eyes(solved("eyes", eyes=20000.0)) < 0.5 * eyes(published)
    assert solved("regularisation", regularisation=8e5).square().mean() < 0.5 * published.square().mean()
    assert unrest(solved("temporal", temporal=5e6)) < 0.5 * unrest(published)


def gradient(own: Expression, offsets: Tensor) -> Tensor:
    """What the recipe's losses say, all parts and terms together."""
    module = Offsets(*offsets.shape).to(offsets.dtype)
    with torch.no_grad():
        module.offsets.copy_(offsets)
    frozen = {name: part.to(offsets.dtype) for name, part in own.build().frozen.items()}
    for part in range(own.processes):
        batch = Batch({}, (Draw(0, 0, part),), 0, ONE)
        terms = own.losses({**frozen, "offsets": module}, "optimise", batch).terms
        (torch.stack(list(terms.values())).sum() / own.processes).backward()
    assert module.offsets.grad is not None
    return module.offsets.grad


def test_the_gradient_of_all_terms_is_the_numerical_one() -> None:
    """In float64, along random directions, of frames worked off two at a time."""
    own = tiny.expression({"eyes": 50.0}, tiny.shot(3), micro_batch=2)
    shape = own.shot.codes.shape
    chance = torch.Generator().manual_seed(1)
    offsets = 0.05 * torch.randn(shape, generator=chance, dtype=torch.float64)
    slope = gradient(own, offsets)
    frozen = own.build().frozen
    s, module = own.settings, Offsets(*shape).double()

    def total(x: Tensor) -> float:
        with torch.no_grad():
            module.offsets.copy_(x)
            lip, eye = own.measure({**frozen, "offsets": module}, slice(0, 3), x)
            quiet = s.regularisation * x.square().mean(dim=(1, 2)).sum()
            return float(
                s.lips * lip + s.eyes * eye + quiet + s.temporal * (x[1:] - x[:-1]).square().mean(dim=(1, 2)).sum()
            )

    for _ in range(3):
        way = torch.randn(shape, generator=chance, dtype=torch.float64)
        numerical = (total(offsets + 1e-6 * way) - total(offsets - 1e-6 * way)) / 2e-6
        assert numerical == pytest.approx(float((slope * way).sum()), rel=1e-5)


def test_micro_batches_processes_and_shortcuts_change_nothing_but_rounding() -> None:
    """In float64 rounding is far below the tolerance: 1, 4, 6 frames at once, parts of two processes, the plain way."""
    offsets = 0.05 * torch.randn(tiny.FRAMES, tiny.ROWS, tiny.DIM, generator=torch.Generator().manual_seed(1))
    expected = gradient(tiny.expression({"eyes": 50.0}, micro_batch=1), offsets.double())
    assert expected.abs().min() > 0
    for more in ({"micro_batch": 4}, {"micro_batch": 6}, {"micro_batch": 2, "processes": 2}, {"plain": True}):
        other = gradient(tiny.expression({"eyes": 50.0}, **more), offsets.double())
        torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-9, msg=str(more))


def test_a_resumed_run_equals_an_uninterrupted_one_and_may_go_on_with_smaller_micro_batches(tmp_path: Path) -> None:
    shot = tiny.shot(3)
    table = {"rate": RATE}
    assert_resume_equals_uninterrupted(lambda: tiny.expression(table, shot), steps(4), tmp_path, at=2)
    run(tiny.expression(table, shot, micro_batch=3), steps(4), tmp_path / "smaller", until=2)
    events = run(tiny.expression(table, shot, micro_batch=1), steps(4), tmp_path / "smaller")
    assert isinstance(events[0], Started)
    assert events[0].step == 2
    whole = checkpoint.read(tmp_path / "whole" / "checkpoints", 4).tensors["module/offsets/offsets"]
    # Adam divides by the gradient's own size: where a gradient is rounding, an offset may differ by some of a step.
    assert (offsets_of(events) - whole).abs().mean() < 1e-3 * RATE
    for changed in (replace(shot, codes=shot.codes + 0.1), replace(shot, eye_mask=shot.eye_mask.flip(0))):
        with pytest.raises(TrainingError, match="shot") as caught:
            run(tiny.expression(table, changed), steps(4), tmp_path / "smaller")
        assert caught.value.code == "training.resume"


def test_what_does_not_change_is_measured_once_unless_plain(tmp_path: Path) -> None:
    for plain, times in ((False, 1), (True, 3)):
        own = tiny.expression({"sheet_frames": 1}, tiny.shot(2), micro_batch=1, plain=plain)
        frames = own.shot.reference
        assert isinstance(frames, tiny.Pictures)
        frames.asked.clear()
        run(own, steps(3), tmp_path / str(plain))
        measured = frames.asked[:-1]  # the last one is the sheet's
        assert sorted(measured) == sorted([0, 1] * times)


def test_sequential_editing_follows_the_frames_as_edited_before(tmp_path: Path) -> None:
    """The reference may be codes; where those are the edited ones, there is nothing to bring back."""
    same = tiny.shot(2)
    same = replace(same, reference=same.codes)
    events = run(tiny.expression({"rate": RATE}, same), steps(2), tmp_path / "same")
    assert losses_of(events, "lips") == [0, 0]
    assert torch.equal(offsets_of(events), torch.zeros_like(same.codes))
    before = replace(same, reference=tiny.walk(tiny.generator())[:2] + 0.5 * tiny.edit())
    events = run(tiny.expression({"rate": RATE}, before), steps(2), tmp_path / "before")
    assert losses_of(events, "lips")[1] < losses_of(events, "lips")[0]


def test_a_shot_of_one_frame_and_the_sheet(tmp_path: Path) -> None:
    own = tiny.expression({"rate": RATE}, tiny.shot(1))
    events = run(own, steps(2), tmp_path)
    assert losses_of(events, "temporal") == [0, 0]
    assert losses_of(events, "lips")[1] < losses_of(events, "lips")[0]
    module = Offsets(*own.shot.codes.shape)
    with torch.no_grad():
        module.offsets.copy_(-tiny.edit())
        sheet = own.sheet({"g": own.networks.generator, "offsets": module})
    assert sheet.columns == ("performance", "edited", "now")
    torch.testing.assert_close(sheet.pictures[0, 2], sheet.pictures[0, 0], rtol=0, atol=1e-4)
    assert (sheet.pictures[0, 1] - sheet.pictures[0, 0]).abs().max() > 0.1


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Five frames: two for one, three for the other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.inference_server.training.recipes.two_expressions", str(tmp_path / "two")]
    root = Path(__file__).parents[4]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    events = run(tiny.expression({"rate": RATE}, tiny.shot(5), micro_batch=1), steps(3), tmp_path / "one")
    one = checkpoint.read(tmp_path / "one" / "checkpoints", 3)
    two = checkpoint.read(tmp_path / "two" / "checkpoints", 3)
    assert one.facts["config"]["recipe"] == two.facts["config"]["recipe"]
    for name, value in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], value, rtol=1e-4, atol=1e-6)
    assert offsets_of(events).abs().max() > RATE


def test_what_does_not_go_together_is_refused() -> None:
    shot = tiny.shot()
    wrong = {
        "6 pictures for 5 codes": {"codes": shot.codes[:5]},
        r"codes of shape \[6, 10, 7\]": {"codes": shot.codes[..., :7]},
        "5 codes of the reference for 6": {"reference": shot.codes[:5]},
        r"squares of \[6, 2\] and \[5\]": {"square": tiny.SQUARE._replace(side=tiny.SQUARE.side[:5])},
        "squares that are not finite": {"square": tiny.SQUARE._replace(side=tiny.SQUARE.side * 0)},
        r"an eye mask of \[32, 64\]": {"eye_mask": shot.eye_mask[:32]},
        r"joined of shape \[6\]": {"joined": torch.ones(6, dtype=torch.bool)},
    }
    for words, changed in wrong.items():
        with pytest.raises(TrainingError, match=words) as caught:
            tiny.expression({}, replace(shot, **changed))  # type: ignore[arg-type]
        assert caught.value.code == "training.config"
    with pytest.raises(TrainingError, match="lips and eyes not both 0"):
        tiny.expression({"lips": 0.0, "eyes": 0.0})
    with pytest.raises(TrainingError, match="0 points"):
        tiny.expression({}, networks=tiny.networks(landmarks=torch.nn.Identity()))
    with pytest.raises(TrainingError, match="fp16"):
        expression_config({"precision": "fp16"})


def test_the_shipped_configuration_is_the_published_one() -> None:
    """And states every number there is, but for the batch, which is the number of processes."""
    document = read_toml(CONFIGS / "expression.toml")
    settings, table = expression_config(document, processes=2)
    assert (settings.steps, settings.batch, settings.piece, settings.precision) == (200, 2, 1, "fp32")
    assert [table[k] for k in ("lips", "eyes", "regularisation", "temporal", "rate")] == [5000, 0.5, 8000, 5000, 3e-4]
    assert {**table, "models": {}} == to_table(ExpressionSettings())
    assert {*document, "batch", "micro_batch"} == {*to_table(settings), "recipe"}
