"""The pipeline without a server, in this process or in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from host_bridge.jobspec import JobSpec
from inference_server.config import ServerConfig
from inference_server.pipeline import PipelineRunner
from inference_server.runs import JobContext, Planned, RunEvent
from inference_server.shots.store import ShotStore

_WORKER = """
import importlib, json, sys
from host_bridge.jobspec import job_from_json
from inference_server.config import config_from_json
from inference_server.pipeline import open_runner
from inference_server.runs import JobContext, Warned
importlib.import_module(sys.argv[3]).register()
runner = open_runner("cpu", config_from_json(json.loads(sys.argv[1])))
for event in runner.run(job_from_json(json.loads(sys.argv[2])), JobContext("farm")):
    if isinstance(event, Warned):
        print(event.code, flush=True)
runner.close()
"""


class Desk:
    """A pipeline on a shot store of its own; `effect` is the module of the test effect it is to know elsewhere."""

    def __init__(self, root: Path, effect: str, **settings: Any) -> None:
        self.effect = effect
        self.config = ServerConfig(shots=str(root / "shots"), threads=2, **settings)
        self.store = ShotStore(self.config.shots_path)
        self.runner = PipelineRunner("cpu", self.config)

    def run(self, spec: JobSpec) -> list[RunEvent]:
        return list(self.runner.run(spec, JobContext("test")))

    def kept(self, shot: str) -> list[str]:
        """Names of what effects stored with a shot, half-made things too."""
        folder = self.store.root / shot / "effects"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def start(self, spec: JobSpec) -> subprocess.Popen[str]:
        """The same job in a process of its own."""
        arguments = [json.dumps(self.config.to_json()), json.dumps(spec.to_json())]
        command = [sys.executable, "-c", _WORKER, *arguments, self.effect]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def shot_of(events: list[RunEvent]) -> str:
    return next(e.shot for e in events if isinstance(e, Planned))
