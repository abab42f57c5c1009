"""One pipeline for all promise tests: the real one, with its own shot store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host_bridge.jobspec import JobSpec
from inference_server.config import ServerConfig
from inference_server.pipeline import PipelineRunner
from inference_server.runs import JobContext, Planned, RunEvent
from inference_server.shots.store import ShotStore
from inference_server.shots.types import ShotAnalysis


class Bench:
    """Runs jobs in this process and keeps what they said."""

    def __init__(self, runner: PipelineRunner, store: ShotStore) -> None:
        self.runner = runner
        self._store = store
        self._shot = ""

    def run(self, spec: JobSpec, **context: object) -> list[RunEvent]:
        events = list(self.runner.run(spec, JobContext("test", **context)))  # type: ignore[arg-type]
        self._shot = next(e.shot for e in events if isinstance(e, Planned))
        return events

    def analysis(self) -> ShotAnalysis:
        """The stored analysis that the last run used."""
        return self._store.load(self._store.get(self._shot))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServerConfig:
    return ServerConfig(shots=str(tmp_path_factory.mktemp("shots")), threads=2)


@pytest.fixture(scope="session")
def bench(settings: ServerConfig) -> Iterator[Bench]:
    runner = PipelineRunner("cpu", settings)
    yield Bench(runner, ShotStore(settings.shots_path))
    runner.close()


@pytest.fixture(scope="session")
def plain_shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four frames of the portrait, half RGB, nothing special."""
    from tests.portrait import write_shot

    return write_shot(tmp_path_factory.mktemp("plain"), range(1001, 1005))


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out" / "result.%04d.exr")
