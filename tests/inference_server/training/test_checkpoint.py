"""Checkpoints: whole or not there, exact when read, noticed when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from inference_server.training import checkpoint
from inference_server.training.checkpoint import Snapshot, flat_optimiser, load_optimiser
from inference_server.training.errors import TrainingError


def snapshot(step: int) -> Snapshot:
    tensors = {"module/a/w": torch.randn(3, 2), "module/a/n": torch.tensor(step), "module/a/tied": torch.zeros(2)}
    tensors["module/a/tied2"] = tensors["module/a/tied"]
    return Snapshot(step, tensors, {"x": 0.1 + 0.2, "list": [1, None, "é"]})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = snapshot(12)
    path = checkpoint.write(tmp_path, written)
    assert path.name == "step-00000012.json"
    read = checkpoint.read(tmp_path, 12)
    assert read.facts == written.facts
    assert read.tensors.keys() == written.tensors.keys()
    assert all(torch.equal(read.tensors[k], v) and read.tensors[k].dtype == v.dtype for k, v in written.tensors.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000012.json", "step-00000012.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "record", "empty", "other step"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    record = checkpoint.write(tmp_path, snapshot(3))
    tensors = record.with_suffix(".safetensors")
    data = bytearray(tensors.read_bytes())
    if damage == "truncated":
        tensors.write_bytes(data[:-5])
    elif damage == "flipped":
        data[-3] ^= 16
        tensors.write_bytes(data)
    elif damage == "missing":
        tensors.unlink()
    elif damage == "record":
        record.write_text(record.read_text()[:-20])
    elif damage == "empty":
        record.write_text("")
    else:
        record.write_text(record.read_text().replace('"step": 3', '"step": 4'))
    with pytest.raises(TrainingError, match="cannot be used") as caught:
        checkpoint.read(tmp_path, 3)
    assert caught.value.code == "training.checkpoint"


def test_prune_keeps_the_newest_and_the_pinned_and_clears_rubbish(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        checkpoint.write(tmp_path, snapshot(step))
    (tmp_path / "step-00000009.safetensors").write_bytes(b"a killed writer's")
    (tmp_path / ".77-step-00000009.json").write_text("{")
    (tmp_path / "notes.txt").write_text("the artist's")
    checkpoint.prune(tmp_path, 2, [1])
    assert checkpoint.steps(tmp_path) == [1, 4, 5]
    assert len(list(tmp_path.iterdir())) == 7
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.3, 0.9), amsgrad=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, 0.1, centered=True),
        lambda p: torch.optim.Adam([{"params": p[:1], "lr": 0.3}, {"params": p[1:]}], 0.1),
    ],
)
def test_optimisers_go_on_exactly(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    def step(net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        net(torch.ones(2, 3)).square().sum().backward()
        optimiser.step()

    torch.manual_seed(0)
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimiser, restored = (make(list(n.parameters())) for n in (net, other))
    step(net, optimiser)
    tensors, facts = flat_optimiser(optimiser)
    other.load_state_dict(net.state_dict())
    checkpoint.write(tmp_path, Snapshot(1, tensors, facts))
    read = checkpoint.read(tmp_path, 1)
    load_optimiser(restored, read.tensors, read.facts)
    assert restored.param_groups[0].keys() == optimiser.param_groups[0].keys()
    for a, b in zip(restored.param_groups, optimiser.param_groups, strict=True):
        assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}
    for _ in range(3):
        step(net, optimiser)
        step(other, restored)
    assert torch.equal(net.weight, other.weight)


def test_an_optimiser_that_json_cannot_hold_is_refused() -> None:
    optimiser = torch.optim.Adam(nn.Linear(2, 2).parameters(), torch.tensor(0.1))
    with pytest.raises(TrainingError, match="not made of tensors and plain values"):
        flat_optimiser(optimiser)
