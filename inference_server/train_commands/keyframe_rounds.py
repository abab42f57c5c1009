"""A keyframe run's folder: one round for every set of painted frames, each going on from what the one before learned.

OUT/round-01/
  round.json       what it learns from (shot, painted files by content, options); the same again goes on with it
  card.json        the [two_stage] table of its model's card
  plan.json        how many steps each network is trained, settled when the round began
  data/            pictures, paint and motion
  translator/, refiner/    the runs of the training loop: sheets, curves, checkpoints, model
OUT/imported       hashes of the weights that this folder has put into the store
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inference_server.models.store import sha256_of
from inference_server.training.files import write_text

STAGES = ("translator", "refiner")
STARTER, NONE = "starter", "none"  # what --start may say beside a model of the store


@dataclass(frozen=True)
class Plan:
    """Steps of both networks (refiner 0: there is none), and what a step took when that was settled (0: unknown)."""

    translator: int
    refiner: int
    translator_seconds: float = 0.0
    refiner_seconds: float = 0.0

    def steps(self, stage: str) -> int:
        return self.translator if stage == "translator" else self.refiner

    def seconds(self, stage: str) -> float:
        return self.translator_seconds if stage == "translator" else self.refiner_seconds


@dataclass(frozen=True)
class Round:
    """One round's files."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def identity(self) -> dict[str, Any] | None:
        """What it learns from; None where packing has not come to its end."""
        return _read(self.folder / "round.json")

    def card(self) -> dict[str, Any]:
        return _read(self.folder / "card.json") or {}

    def begin(self, identity: Mapping[str, Any], card: Mapping[str, Any]) -> None:
        """Its data are there: from now on it exists."""
        write_text(self.folder / "card.json", json.dumps(card, indent=1))
        write_text(self.folder / "round.json", json.dumps(identity, indent=1))

    def plan(self) -> Plan | None:
        found = _read(self.folder / "plan.json")
        return None if found is None else Plan(**found)

    def write_plan(self, plan: Plan) -> None:
        write_text(self.folder / "plan.json", json.dumps(asdict(plan), indent=1))

    def model(self, stage: str) -> tuple[Path, Path] | None:
        """Weights and card that a stage has exported."""
        cards = sorted((self.folder / stage / "model").glob("*.toml"))
        return (cards[0].with_suffix(".safetensors"), cards[0]) if cards else None

    @property
    def refining(self) -> bool:
        """Whether stage two has begun: from then on stage one is what it is."""
        return any((self.folder / "refiner" / "checkpoints").glob("*.json"))

    def result(self) -> tuple[Path, Path] | None:
        """The furthest there is: both networks, or the first alone."""
        return self.model("refiner") or self.model("translator")


@dataclass(frozen=True)
class Rounds:
    folder: Path

    def all(self) -> list[Round]:
        """Those whose data are there, in order."""
        found = (Round(path) for path in sorted(self.folder.glob("round-*")))
        return [round_ for round_ in found if round_.identity() is not None]

    def last(self) -> Round:
        return self.all()[-1]

    def open(self, identity: Mapping[str, Any], more: bool = False) -> tuple[Round, bool]:
        """The last round where it learns from just that, or, also with `more`, a new one; whether it is new."""
        rounds = self.all()
        if not more and rounds and rounds[-1].identity() == json.loads(json.dumps(identity)):
            return rounds[-1], False
        return Round(self.folder / f"round-{len(rounds) + 1:02d}"), True

    def before(self, round_: Round) -> Round | None:
        """The newest earlier round that has a result."""
        earlier = [r for r in self.all() if r.folder.name < round_.folder.name and r.result() is not None]
        return earlier[-1] if earlier else None

    def imported(self) -> frozenset[str]:
        path = self.folder / "imported"
        return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()

    def note_imported(self, weights: Path) -> None:
        hashes = sorted({*self.imported(), sha256_of(weights)})
        write_text(self.folder / "imported", "".join(f"{digest}\n" for digest in hashes))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
