"""Jobs the promise tests run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from host_bridge.jobspec import JobSpec, PlateSpec
from tests.portrait import COLORSPACE

LOOK: dict[str, Any] = {"effect": "look", "params": {"style": "cartoon"}}
RETOUCH: dict[str, Any] = {"effect": "retouch", "edits": [["smile", 0.8], ["age", 0.6], ["skin_smoothing", 0.5]]}
EFFECTS = {"look": LOOK, "retouch": RETOUCH}


def job(
    pattern: str, output: str, effect: str | dict[str, Any] = "retouch", *, plate: Any = None, **changes: Any
) -> JobSpec:
    """A render of one of `EFFECTS`; `plate` changes the plate's fields."""
    values = EFFECTS[effect] if isinstance(effect, str) else effect
    spec = JobSpec(kind="render", plate=PlateSpec(pattern, colorspace=COLORSPACE), output=output, **values)
    return replace(spec, plate=replace(spec.plate, **(plate or {})), **changes)
