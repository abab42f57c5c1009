"""What a training run reports while it goes on: frozen values, yielded by `loop.train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Started:
    """The run is set up; `step` steps are already done when it was taken up from a checkpoint."""

    step: int
    steps: int
    parameters: int
    processes: int


@dataclass(frozen=True)
class Progress:
    """A step is done. `losses` are the weighted terms that were minimised, `watched` what is only looked at."""

    step: int
    steps: int
    losses: Mapping[str, float]
    watched: Mapping[str, float]
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Validated:
    """The recipe's score (lower is better) after `step`; `best` when none before was lower."""

    step: int
    score: float
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Pictured:
    """A picture for people to look at is on disk: the loss curves or a sample sheet."""

    step: int
    kind: str
    path: Path


@dataclass(frozen=True)
class Warned:
    """Something went wrong that did not end the run."""

    code: str
    message: str
    remedy: str
    value: Any = None


@dataclass(frozen=True)
class Finished:
    """The run is complete: weights and card of the best step, or of the last one where nothing was validated."""

    step: int
    exported_step: int
    weights: Path
    card: Path


Event: TypeAlias = Started | Progress | Validated | Saved | Pictured | Warned | Finished
