"""Long steps through a real server with the real pipeline, and from the command line."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge.cli import main as faceplate
from host_bridge.cli.progress import FarmReporter
from host_bridge.client import Client
from host_bridge.errors import ShotError
from host_bridge.farm.jobfile import JobFile
from host_bridge.jobspec import JobSpec, PlateSpec
from host_bridge.messages import JobProgress
from tests.inference_server.server.conftest import Place, wait_until
from tests.inference_server.staged_effect import LOG, PACE
from tests.portrait import COLORSPACE, write_shot


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that knows the staged effect; an iteration takes a moment."""
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEPLATE_CONFIG", str(root / "config"))
        patch.setenv("FACEPLATE_RUNTIME", str(root / "run"))
        patch.delenv("FACEPLATE_SERVER", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        patch.setenv(LOG, str(root / "staged.log"))
        patch.setenv(PACE, "0.05")
        there = Place(root)
        there.client = start(there)
        yield there
        there.close()


def start(there: Place) -> Client:
    return there.connect(
        runner="tests.inference_server.staged_effect:open_staged",
        effects="tests.inference_server.staged:descriptors",
        shots=str(there.root / "shots"),
        threads=1,
    )


def job(pattern: str, kind: str = "adapt", iterations: int = 8, **changes: object) -> JobSpec:
    spec = JobSpec(kind, PlateSpec(pattern, COLORSPACE), effect="staged", params={"iterations": iterations})
    return replace(spec, **changes)  # type: ignore[arg-type]


def said(there: Place) -> list[str]:
    return (there.root / "staged.log").read_text().splitlines()


def test_refused_then_run_as_told_then_rendered(
    studio: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=91)
    words = ["--effect", "staged", "--in", pattern, "--colorspace", COLORSPACE, "--edit", "smile=1001:0,1002:1"]
    render = ["render", *words, "--out", str(tmp_path / "out" / "o.%04d.exr"), "--progress", "farm"]
    assert faceplate(render) == 3
    told = capsys.readouterr().err
    assert "shot.not_adapted" in told
    command = shlex.split(next(line for line in told.splitlines() if "faceplate adapt" in line).split("Run: ")[1])
    assert faceplate([*command[1:], "--progress", "farm"]) == 0
    spoken = capsys.readouterr()
    assert "openjd_status: expression 8/8, finished" in spoken.err
    shot = spoken.out.strip()
    assert studio.client.describe_plate(PlateSpec(pattern, COLORSPACE)).shots == [shot]
    assert faceplate(render) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("o.*")) == ["o.1001.exr", "o.1002.exr"]
    capsys.readouterr()
    assert faceplate(["adapt", "--effect", "staged", "--in", pattern, "--step", "adopt"]) == 2
    assert "adopt" in capsys.readouterr().err


def test_progress_with_loss_and_picture_cancelled_and_resumed(studio: Place, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=92)
    handle = studio.client.submit(job(pattern, iterations=60))
    for event in handle.events():
        if isinstance(event, JobProgress) and event.stage == "adapt" and event.done >= 4:
            break
    assert isinstance(event, JobProgress)
    assert event.total == 60
    assert event.note.startswith("loss 0.")
    assert Path(event.picture).read_bytes().startswith(b"\x89PNG")
    text = io.StringIO()
    FarmReporter(text).show(replace(event, done=10))
    assert "adapt 10/60, loss" in text.getvalue()
    handle.cancel(60.0)
    assert handle.wait(60.0).state == "cancelled"
    before = [line for line in said(studio) if line.endswith("done")]
    assert studio.client.resume(handle.job_id).state in ("queued", "running")
    wait_until(lambda: studio.client.query(handle.job_id).state == "finished", 150)
    begun = [line for line in said(studio) if line.startswith("adapt 1 from")]
    assert int(begun[-1].split()[-1]) >= 4
    assert len([line for line in said(studio) if line.endswith("done")]) == len(before) + 1


def test_a_killed_server_goes_on_where_it_was(studio: Place, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=93)
    handle = studio.client.submit(job(pattern, iterations=61))
    for event in handle.events():
        if isinstance(event, JobProgress) and event.stage == "adapt" and event.done >= 6:
            break
    worker = studio.client.ping().devices[0].pid
    studio.kill_server()
    wait_until(lambda: gone(worker), 60)
    client = start(studio)
    wait_until(lambda: client.query(handle.job_id).state == "finished", 150)
    assert int([line for line in said(studio) if line.startswith("adapt 1 from")][-1].split()[-1]) >= 6
    done = client.submit(job(pattern, "render", 61, output=str(tmp_path / "out" / "o.%04d.exr"))).wait(150)
    assert (done.state, done.done) == ("finished", 2)
    studio.client = client


def test_a_farm_s_first_task_adapts(studio: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=94)
    spec = job(pattern, "render", output=str(tmp_path / "out" / "o.%04d.exr"), frames="1001-1002")
    refused = studio.client.submit(spec).wait(150)
    assert isinstance(refused.error, ShotError)
    (tmp_path / "job.json").write_text(JobFile(spec).text())
    task = ["run", str(tmp_path / "job.json"), "--shot-file", str(tmp_path / "shot.txt"), "--progress", "farm"]
    assert faceplate([*task, "--analyse"]) == 0
    assert "adapt 8/8" in capsys.readouterr().err
    assert faceplate([*task, "--chunk", "1002"]) == 0
    assert [p.name for p in (tmp_path / "out").glob("o.*")] == ["o.1002.exr"]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
