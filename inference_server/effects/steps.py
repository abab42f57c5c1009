"""How a long step says what lies in its folder (see base.StagedEffect).

result.json   how far the result is, and facts about it; there only while the folder can be used as it is
preview.png   a picture of how it looks, for people
run/          what only going on needs: checkpoints, histories; dropped when the result is published
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from host_bridge.files import write_whole

RUN = "run"
PREVIEW = "preview.png"
_RESULT = "result.json"


@dataclass(frozen=True)
class StepResult:
    """How far a result is: `done` of `wanted` iterations. `facts`: what else is to be known of it, as JSON."""

    done: int
    wanted: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def note_result(folder: Path, result: StepResult) -> None:
    """Say that what is in the folder can be used as it is. After the files it speaks of are in place."""
    write_whole(folder / _RESULT, json.dumps(asdict(result), indent=1, sort_keys=True).encode())


def read_result(folder: Path) -> StepResult | None:
    """What `note_result` said last, or None where there is nothing of the kind that can be read."""
    try:
        data = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        return StepResult(int(data["done"]), int(data["wanted"]), dict(data["facts"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
