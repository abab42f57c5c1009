"""The whole way: the clip under a (fake) Resolve's playhead through a real server and back onto the timeline.

The menu script's relay lends the fake in this process to a real `faceplate resolve render`, as in the free edition.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.hosts.resolve_scripts import relay
from tests.fakes import resolve as fake
from tests.host_bridge.cli.conftest import FRAMES, Desk, rgb
from tests.host_bridge.hosts.resolve_desk import COUNT, FIRST, LAST, RECORD, Suite, open_suite

LOOK = ["resolve", "render", "--effect", "look", "--style", "cartoon", "--colorspace", "lin_rec709"]


@pytest.fixture
def suite(desk: Desk, shot: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Suite:
    assert (FRAMES[0], FRAMES[-1]) == (FIRST, LAST)
    for name, value in desk.environment.items():
        if name.startswith("FACEPLATE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("FACEPLATE_CACHE", str(tmp_path / "cache"))
    return open_suite(shot, input_space="Rec.709 Linear")


def run(suite: Suite, *words: str) -> int:
    return relay.run(suite.resolve, sys.executable, [*LOOK, *words])


def test_the_clip_comes_back_above_itself(
    suite: Suite, out: Path, shot: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pattern = str(out / "toon.%04d.exr")
    assert run(suite, "--out", pattern, "--handles", "1") == 0, capfd.readouterr().out
    assert "V2 at 01:00:00:20 (86420), 5 frames" in capfd.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [f"toon.{n}.exr" for n in range(1003, 1010)]
    (item,) = suite.timeline._tracks[1]
    assert (item._start, item._duration, item._left) == (RECORD, COUNT, 1)
    assert item._media is not None
    assert item._media._properties["Input Color Space"] == "Rec.709 Linear"
    # The file at the clip's first record frame is the source's frame 1004, with the face changed and the rest not.
    made, source = rgb(item._media._pictures[item._left]), rgb(shot % 1004)
    assert np.array_equal(made[:4], source[:4])
    assert not np.array_equal(made, source)


def test_a_movie_is_rendered_by_resolve_first(suite: Suite, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    movie = suite.movie()
    suite.project._known = {**suite.project._known, "colorSpaceOutput": ("Rec.709",)}
    try:
        status = run(suite, "--out", str(out / "toon.%04d.exr"))
    finally:
        Path(movie._properties["File Path"]).unlink()
    said = capfd.readouterr().out
    assert status == 0, said
    assert "Resolve renders the clip" in said
    (item,) = suite.timeline._tracks[1]
    assert (item._start, item._duration, item._left) == (RECORD, COUNT, 0)
    assert [t._name for t in suite.project._timelines] == ["Edit v1"]


def test_what_goes_wrong_leaves_the_timeline_as_it_was(
    suite: Suite, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = fake.snapshot(suite.project)
    assert run(suite, "--out", str(out / "toon.%04d.exr"), "--face", "3,3", "--style", "cartoons") == 2
    assert "cartoon" in capfd.readouterr().out
    monkeypatch.setenv("FACEPLATE_RUNTIME", str(tmp_path / "nobody"))
    assert run(suite, "--no-start") == 5
    said = capfd.readouterr().out
    assert "no server is running" in said
    assert "faceplate serve" in said
    assert fake.snapshot(suite.project) == before


def test_cancel_leaves_the_timeline_as_it_was(suite: Suite, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fake.snapshot(suite.project)
    children: list[subprocess.Popen[str]] = []
    said: list[str] = []
    sent: list[int] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            children.append(self)

    def interrupt_at_the_first_progress(stream: Any) -> None:
        for line in stream:
            said.append(line)
            if "rogress" in line and not sent:
                sent.append(children[0].pid)
                children[0].send_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(relay, "_print", interrupt_at_the_first_progress)
    assert run(suite, "--out", str(out / "toon.%04d.exr"), "--set", "degree=0.4", "--handles", "9") == 6, said
    assert sent
    assert fake.snapshot(suite.project) == before


def test_from_outside(desk: Desk, suite: Suite, tmp_path: Path) -> None:
    """Studio: no menu script, the scripting module of the environment."""
    (tmp_path / "Modules").mkdir()
    (tmp_path / "Modules" / "DaVinciResolveScript.py").write_text(
        "from tests.host_bridge.hosts.resolve_desk import open_suite\n"
        f"suite = open_suite({suite.media._pictures[0].replace('1001', '%04d')!r})\n"
        "def scriptapp(name):\n    return suite.resolve\n"
    )
    said = desk.run("resolve", "status", RESOLVE_SCRIPT_API=str(tmp_path))
    assert said.status == 0, said.err
    assert "frames 1004-1008" in said.out
    nothing = desk.run("resolve", "status", RESOLVE_SCRIPT_API=str(tmp_path / "nowhere"))
    assert (nothing.status, "RESOLVE_SCRIPT_API" in nothing.out) == (3, True)
