"""Promise 4: any frame rendered alone, in any order, by any process, is byte-equal to the whole render's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge.jobspec import JobSpec
from inference_server.config import ServerConfig
from inference_server.runs import Planned
from tests.portrait import write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job

_WORKER = """
import json, sys
from host_bridge.jobspec import job_from_json
from inference_server.config import config_from_json
from inference_server.pipeline import open_runner
from inference_server.runs import JobContext
runner = open_runner("cpu", config_from_json(json.loads(sys.argv[1])))
for spec in sys.argv[2:]:
    list(runner.run(job_from_json(json.loads(spec)), JobContext("farm")))
runner.close()
"""


def _bytes(pattern: str, frames: range) -> dict[int, bytes]:
    return {f: Path(pattern % f).read_bytes() for f in frames}


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_chunks_shuffled_singles_and_other_processes_give_the_same_bytes(
    bench: Bench, settings: ServerConfig, tmp_path: Path, effect: str
) -> None:
    frames = range(1001, 1006)
    pattern = write_shot(tmp_path / "in", frames, seed=41)
    keys = {"keys": [[1001, 0.1], [1005, 0.9]]}
    changes = {"params": {"style": "cartoon", "degree": keys}} if effect == "look" else {"edits": [["smile", keys]]}

    def spec(name: str, chunk: str) -> JobSpec:
        return replace(job(pattern, str(tmp_path / name / "o.%04d.exr"), effect), frames=chunk, **changes)

    whole = bench.run(spec("whole", ""))
    plans = [e.plan for e in whole if isinstance(e, Planned)]
    assert {"device", "precision", "threads", "torch"} <= set(plans[0])
    expected = _bytes(str(tmp_path / "whole" / "o.%04d.exr"), frames)
    assert len(set(expected.values())) == len(frames)
    for frame in (1004, 1001, 1005):
        bench.run(spec("single", str(frame)))
    bench.run(spec("single", "1002-1003"))
    assert _bytes(str(tmp_path / "single" / "o.%04d.exr"), frames) == expected
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                _WORKER,
                json.dumps(settings.to_json()),
                *[json.dumps(spec("two", c).to_json()) for c in chunks],
            ]
        )
        for chunks in (["1005", "1001"], ["1003-1004", "1002"])
    ]
    assert [w.wait(120) for w in workers] == [0, 0]
    assert _bytes(str(tmp_path / "two" / "o.%04d.exr"), frames) == expected
