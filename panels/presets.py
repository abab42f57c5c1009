"""Presets as files: an effect's values and edits in readable JSON that can be mailed, versioned and put in a folder.

{"faceplate_preset": 1, "name": "Soft cartoon", "effect": "look", "effect_version": "1.0", "note": "",
 "params": {"style": "cartoon", "degree": {"keys": [[1001, 0.0], [1024, 1.0]]}}, "edits": [["smile", 0.6]]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_bridge.errors import FaceplateError

SUFFIX = ".faceplate.json"


@dataclass(frozen=True)
class Preset:
    """Values of one effect in the form jobs have them."""

    name: str
    effect: str
    effect_version: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[tuple[str, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class PresetFile:
    """A preset file that was found; `preset` None and `error` set where it cannot be used."""

    path: Path
    shared: bool
    preset: Preset | None
    error: FaceplateError | None = None
