"""Promise 6 with real effects: whoever is interrupted or killed, no frame on disk is half written and none is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.host_bridge.cli.conftest import FRAMES, Desk, alive, frames_in, names, render_words, wait_until

WORDS = ("--effect", "look", "--style", "cartoon", "--degree", "1001:0.2,1010:1")


@pytest.fixture(scope="module")
def expected(desk: Desk, shot: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The frames of an uninterrupted render."""
    folder = tmp_path_factory.mktemp("whole")
    said = desk.render(shot, str(folder / "r.%04d.exr"), *WORDS)
    assert said.status == 0, said.err
    return _contents(folder)


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def _begin(desk: Desk, shot: str, out: Path, *words: str) -> subprocess.Popen[str]:
    """A render that has just put its second frame on disk."""
    process = desk.start(*render_words(shot, str(out / "r.%04d.exr"), *WORDS, *words))
    wait_until(lambda: len(frames_in(out)) >= 2 or process.poll() is not None)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_render_leaves_whole_frames_only(
    desk: Desk, shot: str, out: Path, expected: dict[str, bytes], number: signal.Signals
) -> None:
    process = _begin(desk, shot, out)
    process.send_signal(number)
    said = desk.end(process)
    assert said.status == 6, said.err
    assert "Traceback" not in said.err
    done = _contents(out)
    assert 2 <= len(done) < len(FRAMES)
    assert {name: expected[name] for name in done} == done
    told = re.search(r"^cancelled: (\d+) frames", said.err, re.MULTILINE)
    assert told is not None
    assert 0 <= len(done) - int(told[1]) <= 2  # a write that had begun was finished, and nobody was left to tell
    again = desk.render(shot, str(out / "r.%04d.exr"), *WORDS, "--skip-existing")
    assert again.status == 0, again.err
    assert len(re.findall(r"^frame \d+ kept ", again.err, re.MULTILINE)) == len(done)
    assert _contents(out) == expected


def test_a_killed_client_loses_nothing(desk: Desk, shot: str, out: Path, expected: dict[str, bytes]) -> None:
    process = _begin(desk, shot, out)
    process.kill()
    assert desk.end(process).status == -signal.SIGKILL
    wait_until(lambda: len(frames_in(out)) == len(FRAMES))
    wait_until(lambda: not desk.server()["pong"]["running"])
    assert _contents(out) == expected


def test_a_killed_worker_loses_nothing(desk: Desk, shot: str, out: Path, expected: dict[str, bytes]) -> None:
    worker = desk.server()["pong"]["devices"][0]["pid"]
    process = _begin(desk, shot, out)
    os.kill(worker, signal.SIGKILL)
    said = desk.end(process)
    assert said.status == 0, said.err
    assert "(job.worker_died)" in said.err
    assert desk.server()["pong"]["devices"][0]["pid"] != worker
    assert _contents(out) == expected


def test_a_killed_server_resumes_at_the_first_unfinished_frame(
    desk: Desk, shot: str, out: Path, expected: dict[str, bytes]
) -> None:
    before = desk.server()
    process = _begin(desk, shot, out)
    os.kill(before["welcome"]["pid"], signal.SIGKILL)
    wait_until(lambda: not any(alive(d["pid"]) for d in before["pong"]["devices"]))
    done = _contents(out)
    assert 2 <= len(done) < len(FRAMES)
    stamps = {name: (out / name).stat().st_mtime_ns for name in done}
    assert desk.run("serve", "--detach").status == 0
    said = desk.end(process)  # the client, which never noticed more than a pause
    assert said.status == 0, said.err
    assert _contents(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in done} == stamps, "a finished frame was rendered again"
    assert desk.server()["welcome"]["pid"] != before["welcome"]["pid"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_private_server_is_gone_with_its_command(
    desk: Desk, tmp_path: Path, shot: str, number: signal.Signals
) -> None:
    """Interrupted while it starts, or killed when it is there: nothing of it stays."""
    private = tmp_path / "private"
    private.mkdir()
    words = render_words(shot, str(tmp_path / "out" / "r.%04d.exr"), *WORDS, "--local")
    process = desk.start(*words, TMPDIR=str(private))
    sign = "start.log" if number == signal.SIGTERM else "connection.json"
    wait_until(lambda: any(private.glob(f"faceplate-*/{sign}")))
    process.send_signal(number)
    said = desk.end(process)
    assert said.status == (6 if number == signal.SIGTERM else -signal.SIGKILL), said.err
    assert "Traceback" not in said.err
    wait_until(lambda: names(private) == [], 20.0)
    assert names(tmp_path / "out") == []
