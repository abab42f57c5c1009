"""What a stored shot is known by: its frames' contents, the settings of its analysis, and its state in the store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from host_bridge.jobspec import PlateSpec
from inference_server.shots.types import ANALYSIS_VERSION

_SAMPLE = 16 * 1024
_SAMPLES = 8


@dataclass(frozen=True)
class AnalysisSettings:
    """Everything besides the frames that analysis depends on."""

    colorspace: str
    config_hash: str
    layer: str = ""
    part: str = ""
    view: str = ""
    premult: str = "auto"

    @classmethod
    def of(cls, plate: PlateSpec, colorspace: str, config_hash: str, pattern_view: str) -> AnalysisSettings:
        """Of a plate read in `colorspace`; `pattern_view` is the view its pattern's %V stands for, "" = none."""
        view = pattern_view or plate.view
        return cls(colorspace, config_hash, plate.layer, plate.part, view, plate.premult)


@dataclass(frozen=True)
class ShotRecord:
    """A stored shot. `frames` maps frame numbers to content digests; `narrowed` says that `--shot-range` chose them."""

    id: str
    frames: Mapping[int, str]
    settings: AnalysisSettings
    version: str = ANALYSIS_VERSION
    narrowed: bool = False
    revision: int = 0
    locked: bool = False
    pattern: str = ""
    created: float = 0.0
    repairs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str) -> ShotRecord:
        """Read `to_text()` back. ValueError, TypeError, KeyError or AttributeError where it is something else."""
        data = json.loads(text)
        data["frames"] = {int(f): str(d) for f, d in data["frames"].items()}
        data["settings"] = AnalysisSettings(**data["settings"])
        return cls(**data)

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @property
    def key(self) -> str:
        """What a render of this analysis is recognised by: frames, settings and repairs decide it, not how often or
        where it was repaired.
        """
        text = json.dumps(self.repairs, sort_keys=True)
        return f"{self.id}.{hashlib.sha256(text.encode()).hexdigest()[:8]}" if self.repairs else self.id


class FrameDigests:
    """Content digests of files, remembered while size and modification time stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: str) -> str:
        """16 hex digits over size, first and last bytes and samples between. OSError when it cannot be read."""
        status = os.stat(path)
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._known:
            self._known[key] = _digest(path, status.st_size)
        return self._known[key]


def _digest(path: str, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(4 * _SAMPLE))
        for i in range(_SAMPLES + 1):
            file.seek(max(0, (size - _SAMPLE) * i // _SAMPLES))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


def shot_identity(digests: Mapping[int, str], settings: AnalysisSettings) -> str:
    """12 hex digits: what the shot is, wherever it is stored."""
    text = json.dumps([sorted(digests.items()), asdict(settings), ANALYSIS_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
