"""Real processes: a run killed with SIGKILL, one stopped with SIGTERM, and two processes that train one model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inference_server.training import checkpoint
from inference_server.training.config import split_config
from inference_server.training.events import Started
from inference_server.training.loop import train
from inference_server.training.tables import read_toml
from tests.inference_server.training.test_loop import assert_same_state
from tests.inference_server.training.tiny_recipes import Tiny

ROOT = Path(__file__).parents[3]
RECIPES = "tests.inference_server.training.tiny_recipes"

CONFIG = """
steps = 30
batch = 4
micro_batch = 2
precision = "fp16"
validate_every = 7
pictures_every = 0
workers = 1
ema = { half_life = 20.0, ramp = 0.5 }
schedule = { kind = "linear", warmup = 3, horizon = 30 }
checkpoints = { every = 5, keep = 2 }
"""


def environment() -> dict[str, str]:
    """One thread as in this process' comparison runs: bits depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def _one_thread():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(config: Path, folder: Path, recipe: str = "Tiny") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "inference_server.training", f"{RECIPES}:{recipe}", str(config), str(folder)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "Progress" and event["step"] == step:
            return
    raise AssertionError(f"the run ended before step {step}")


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_killed_run_loses_only_the_steps_since_its_last_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(CONFIG + "\n[recipe]\nsleep = 0.02\n")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(file, killed)
    wait_for_step(process, 13)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert checkpoint.steps(killed / "checkpoints")[-1] >= 10
    config, recipe = split_config(read_toml(file))
    events = list(train(Tiny(recipe), config, killed))
    assert isinstance(events[0], Started)
    assert events[0].step >= 10
    list(train(Tiny(recipe), config, whole))
    assert_same_state(whole, killed, 30)
    assert (whole / "history.jsonl").read_text() == (killed / "history.jsonl").read_text()


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_sigterm_saves_before_the_process_ends(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(CONFIG + "\n[recipe]\nsleep = 0.02\n")
    process = start(file, tmp_path / "run")
    wait_for_step(process, 8)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 6
    last = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert 8 <= last < 30
    assert (tmp_path / "run" / "model" / "tiny.toml").exists()


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_equal_one_and_resume(tmp_path: Path) -> None:
    """Each process takes half of every batch. The run is made in two legs, the first cancelled by one process."""
    text = CONFIG.replace('"fp16"', '"fp32"').replace('"linear", warmup = 3, horizon = 30', '"constant"')
    text = text.replace("steps = 30", "steps = 12") + "\n[recipe]\nnorm = false\ndropout = 0.0\n"
    file = tmp_path / "run.toml"
    file.write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.inference_server.training.two_legs", str(file), str(tmp_path / "two"), "6"]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n"))[1:] == ["0: 0 to 6", "0: 6 to 12", "1: 0 to 6", "1: 6 to 12"]

    config, recipe = split_config(read_toml(file))
    list(train(Tiny(recipe), config, tmp_path / "one"))
    two, one = (checkpoint.read(tmp_path / name / "checkpoints", 12) for name in ("two", "one"))
    assert two.facts["sampler"] == one.facts["sampler"] == {"position": 48}
    assert two.facts["best"]["step"] == one.facts["best"]["step"] == 7
    for name, value in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], value, rtol=1e-4, atol=1e-6)
    histories = [
        [json.loads(line)["values"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    ]
    assert len(histories[0]) == len(histories[1]) == 12
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
