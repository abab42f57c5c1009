"""What a training run is told: one TOML file for the loop, with the recipe's own settings under [recipe].

Decides the keys, their defaults and their limits, and which of them may change when a run is taken up again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inference_server.training.tables import from_table, to_table

# What changes neither the weights of a step nor the order of the data.
FREE_ON_RESUME = ("steps", "workers", "prefetch", "pictures_every", "validate_every", "checkpoints")


@dataclass(frozen=True)
class EmaConfig:
    """The averaged copy of the weights. `half_life` is in samples: a sample's influence has halved after so many
    more (0: no averaging). `ramp` > 0 shortens it at the start to that share of the samples seen so far.
    """

    half_life: float = 10_000.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if self.half_life < 0 or self.ramp < 0:
            raise ValueError(f"half_life {self.half_life} and ramp {self.ramp} must not be negative")

    def decay(self, step: int, batch: int) -> float:
        """The share of the old average that stays after `step` (counted from 0)."""
        half_life = self.half_life
        if self.ramp > 0:
            half_life = min(half_life, (step + 1) * batch * self.ramp)
        return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """The factor on every optimiser's learning rate, a function of the step alone.

    It rises linearly over `warmup` steps; then it stays, or falls to `final` at step `horizon` (0: the run's end).
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    horizon: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.horizon < 0 or self.final < 0:
            raise ValueError("warmup, horizon and final must not be negative")

    def factor(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup > 0 else 1.0
        if self.kind == "constant":
            return rise
        done = min(1.0, max(0, step - self.warmup) / max(1, self.horizon - self.warmup))
        fall = 1 - done if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return rise * (self.final + (1 - self.final) * fall)


@dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint every so many steps; the newest `keep` and the best one stay on disk."""

    every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep < 1:
            raise ValueError(f"every {self.every} and keep {self.keep} must be 1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """The loop's settings.

    `batch` is the number of samples of one optimiser step over all processes and accumulated micro-batches; it is
    worked off in pieces of `micro_batch` (0: the whole batch). The pieces are the same whatever the number of
    processes, so the same file trains the same model on one GPU or on several. `clip_norm` 0 does not clip.
    `workers` threads load samples, `prefetch` steps ahead. `validate_every` and `pictures_every` 0: never.
    """

    steps: int = 1000
    seed: int = 0
    batch: int = 4
    micro_batch: int = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    clip_norm: float = 0.0
    workers: int = 2
    prefetch: int = 2
    validate_every: int = 500
    pictures_every: int = 500
    ema: EmaConfig = field(default_factory=EmaConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps {self.steps} and batch {self.batch} must be 1 or more")
        if min(self.micro_batch, self.workers, self.prefetch, self.validate_every, self.pictures_every) < 0:
            raise ValueError("micro_batch, workers, prefetch, validate_every and pictures_every must not be negative")
        if self.clip_norm < 0:
            raise ValueError(f"clip_norm {self.clip_norm} must not be negative")
        if self.batch % self.piece:
            raise ValueError(f"batch {self.batch} must be a multiple of micro_batch {self.micro_batch}")

    @property
    def piece(self) -> int:
        """Samples of one micro-batch."""
        return self.micro_batch or self.batch

    @property
    def pieces(self) -> int:
        """Micro-batches of one step, over all processes."""
        return self.batch // self.piece

    def resolved(self) -> TrainConfig:
        """The same with every 0 that stands for another value filled in; this is what a run writes down."""
        horizon = self.schedule.horizon or self.steps
        return replace(self, micro_batch=self.piece, schedule=replace(self.schedule, horizon=horizon))


def split_config(document: Mapping[str, Any]) -> tuple[TrainConfig, dict[str, Any]]:
    """The loop's configuration and the untouched [recipe] table of a TOML document."""
    document = dict(document)
    recipe = document.pop("recipe", {})
    return from_table(TrainConfig, document), dict(recipe)


def run_table(config: TrainConfig, settings: Any) -> dict[str, Any]:
    """Everything a run is determined by, defaults included: what config.toml and checkpoints hold."""
    return {**to_table(config), "recipe": to_table(settings)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What has changed between two run tables and may not, as text; [recipe] counts like the rest."""
    changed = []
    for key in sorted({*before, *now}):
        if not prefix and key in FREE_ON_RESUME:
            continue
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changed += differences(a, b, f"{prefix}{key}.")
        elif key == "horizon" and before.get("kind") == now.get("kind") == "constant":
            continue  # a constant rate has no horizon
        elif a != b:
            changed.append(f"{prefix}{key}: {a!r} -> {b!r}")
    return changed
