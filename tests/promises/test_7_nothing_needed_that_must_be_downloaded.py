"""Promise 7: the built-in effects run with every network connection forbidden and no model imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inference_server.config import ServerConfig
from inference_server.plates.reader import read_plate
from tests.portrait import write_shot
from tests.promises.jobs import job

_OFFLINE = """
import json, socket, sys

def forbidden(*_, **__):
    raise SystemExit("something asked for the network")

socket.socket.connect = forbidden
socket.create_connection = forbidden
socket.getaddrinfo = forbidden
from host_bridge.jobspec import job_from_json
from inference_server.config import config_from_json
from inference_server.pipeline import open_runner
from inference_server.runs import JobContext
runner = open_runner("cpu", config_from_json(json.loads(sys.argv[1])))
for spec in sys.argv[2:]:
    list(runner.run(job_from_json(json.loads(spec)), JobContext("offline")))
runner.close()
"""


@pytest.mark.parametrize("home", ["empty"])
def test_both_effects_on_a_machine_without_network_models_or_home(tmp_path: Path, home: str) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    settings = ServerConfig(shots=str(tmp_path / "shots")).to_json()
    specs = [job(pattern, str(tmp_path / effect / "o.%04d.exr"), effect) for effect in ("look", "retouch")]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / home)}
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, json.dumps(settings), *[json.dumps(s.to_json()) for s in specs]],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    plate = read_plate(pattern % 1001).parts[0].channels
    for effect in ("look", "retouch"):
        made = read_plate(str(tmp_path / effect / "o.1001.exr")).parts[0].channels
        assert any((made[c] != plate[c]).any() for c in "RGB")
