"""`faceplate submit` and `faceplate run`, and a real Open Job Description session on a small plate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.host_bridge.cli.conftest import Desk, frames_in, names
from tests.portrait import COLORSPACE

OPENJD = Path(sys.executable).with_name("openjd")
FACEPLATE = Path(sys.executable).with_name("faceplate")


def look(shot: str, out: Path, *words: str) -> tuple[str, ...]:
    plate = ("--in", shot, "--colorspace", COLORSPACE, "--frames", "1001-1009x2", "--out", str(out / "r.%04d.exr"))
    return (*words, "--effect", "look", "--degree", "1001:0.2,1009:1", *plate)


def test_openjd_checks_and_runs_both_steps_and_chunks_equal_the_whole(
    desk: Desk, shot: str, out: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    chunked = ("--chunk-size", "3", "--bundle", str(bundle), "--command", str(FACEPLATE), "--write-only")
    said = desk.run(*look(shot, out, "submit", "--to", "openjd", *chunked))
    assert said.status == 0, said.err
    assert said.out.splitlines() == [str(bundle / "job.json"), str(bundle / "template.json")]
    template = str(bundle / "template.json")
    # The session's own server, not the desk's.
    environment = {**desk.environment, "FACEPLATE_RUNTIME": str(tmp_path / "nobody")}
    checked = subprocess.run([OPENJD, "check", template], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    command = [OPENJD, "run", template, "--step", "Render", "--run-dependencies"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    log = ran.stdout + ran.stderr
    assert ran.returncode == 0, log
    assert "Chunks run: 3" in log  # the analysis and two chunks
    assert "Frame(CHUNK[INT]) = 1001-1005:2" in log
    assert "openjd_progress: 100" in log
    shot_id = (bundle / "shot.txt").read_text().strip()
    assert f"3 frames on cpu, shot {shot_id}" in log
    assert log.count("openjd_env: FACEPLATE_SERVER=") == 2
    assert log.count("\tstopped") == 2
    assert not (tmp_path / "nobody").exists()
    assert frames_in(out) == [1001, 1003, 1005, 1007, 1009]
    whole = tmp_path / "whole"
    said = desk.run(*look(shot, whole, "render"))
    assert said.status == 0, said.err
    for name in names(out):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_task_by_hand_analysis_first(desk: Desk, shot: str, out: Path, tmp_path: Path) -> None:
    bundle, moved = tmp_path / "bundle", tmp_path / "elsewhere"
    rule = f"{Path(shot).parent}={moved}"
    said = desk.run(
        *look(shot, out, "submit", "--to", "deadline", "--bundle", str(bundle), "--write-only", "--path-map", rule)
    )
    assert said.status == 0, said.err
    shutil.copytree(Path(shot).parent, moved)
    job, shot_file = str(bundle / "job.json"), str(bundle / "shot.txt")
    early = desk.run("run", job, "--chunk", "1007-1010", "--shot-file", shot_file)
    assert (early.status, "(farm.no_shot)" in early.err) == (3, True), early.err
    said = desk.run("run", job, "--analyse", "--shot-file", shot_file)
    assert said.status == 0, said.err
    said = desk.run("run", job, "--chunk", "1007-1010", "--shot-file", shot_file)
    assert said.status == 0, said.err
    assert frames_in(out) == [1007, 1009]
    assert json.loads((bundle / "job.json").read_text())["path_maps"] == [[str(Path(shot).parent), str(moved)]]


def test_what_submit_cannot_do_is_said(desk: Desk, shot: str, out: Path) -> None:
    said = desk.run(*look(shot, out, "submit", "--to", "deadline", "--chunk-size", "0", "--write-only"))
    assert (said.status, "a frame or more" in said.err) == (2, True)
    said = desk.run(*look(shot, out, "submit", "--to", "deadline", "--path-map", "nonsense", "--write-only"))
    assert (said.status, "FROM=TO" in said.err) == (2, True)
    said = desk.run("serve", "--announce", "openjd")
    assert (said.status, "--runtime FOLDER" in said.err) == (2, True)
