"""Running a recipe in a test, whole or in legs, and comparing what is left on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from inference_server.training import checkpoint
from inference_server.training.config import CheckpointConfig, EmaConfig, TrainConfig
from inference_server.training.events import Event, Progress
from inference_server.training.loop import train
from inference_server.training.recipe import Recipe


def config(steps: int, batch: int = 4, micro_batch: int = 0, half_life: float = 20.0) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        workers=0,
        validate_every=0,
        pictures_every=0,
        ema=EmaConfig(half_life),
        checkpoints=CheckpointConfig(every=1000, keep=2),
    )


def run(recipe: Recipe, settings: TrainConfig, folder: Path, until: int | None = None) -> list[Event]:
    """All events; closed after step `until`."""
    loop = train(recipe, settings, folder)
    events = []
    for event in loop:
        events.append(event)
        if isinstance(event, Progress) and event.step == until:
            loop.close()
            break
    return events


def losses_of(events: list[Event], name: str) -> list[float]:
    return [e.losses[name] for e in events if isinstance(e, Progress) and name in e.losses]


def assert_resume_equals_uninterrupted(
    make: Callable[[], Recipe], settings: TrainConfig, folder: Path, at: int
) -> None:
    """Stopped after step `at` and taken up by a recipe of its own: every tensor and fact is that of the whole run."""
    run(make(), settings, folder / "whole")
    run(make(), settings, folder / "parts", until=at)
    run(make(), settings, folder / "parts")
    whole, parts = (checkpoint.read(folder / name / "checkpoints", settings.steps) for name in ("whole", "parts"))
    assert whole.facts == parts.facts
    assert whole.tensors.keys() == parts.tensors.keys()
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
