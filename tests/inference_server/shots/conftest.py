"""One pipeline for the tests that analyse real plates, on a store that `faceplate shots` sees too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.config import ServerConfig
from inference_server.pipeline import PipelineRunner
from inference_server.runs import JobContext, Planned, RunEvent
from inference_server.shots.store import ShotRecord, ShotStore
from tests.portrait import COLORSPACE


class Studio:
    """A pipeline and its shot store."""

    def __init__(self, root: Path, runner: PipelineRunner | None = None) -> None:
        self.root = root
        self.store = ShotStore(root)
        self._runner = runner or PipelineRunner("cpu", ServerConfig(shots=str(root), threads=2))

    def run(self, spec: JobSpec) -> list[RunEvent]:
        return list(self._runner.run(spec, JobContext("test")))

    def analyse(self, pattern: str, **changes: Any) -> ShotRecord:
        spec = JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))
        return self.store.get(planned(self.run(replace(spec, **changes))))

    def close(self) -> None:
        self._runner.close()


def planned(events: list[RunEvent]) -> str:
    """The shot a run used."""
    return next(e.shot for e in events if isinstance(e, Planned))


def retouch(pattern: str, folder: Path, **changes: Any) -> JobSpec:
    """A render with a strong edit, and its mattes."""
    spec = JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect="retouch",
        edits=[["smile", 0.8], ["skin_smoothing", 0.5]],
        output=str(folder / "out.%04d.exr"),
        matte_output=str(folder / "matte" / "out.%04d.exr"),
    )
    return replace(spec, **changes)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("shots"))
    yield made
    made.close()
