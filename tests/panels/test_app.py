"""`faceplate panel` as a program of its own: it opens, connects, and ends as it is asked to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panels.qt import PYSIDE2
from tests.panels.conftest import Studio

PANEL = [sys.executable, "-m", "host_bridge.cli", "panel"]


def _environment(studio: Studio, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    return {**kept, **studio.environment, **more}


def test_without_a_screen_it_says_so(studio: Studio) -> None:
    said = subprocess.run(PANEL, env=_environment(studio), capture_output=True, text=True)
    assert said.returncode == 5
    assert "no screen" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.skipif(PYSIDE2, reason="the subprocess would choose PySide6")
def test_it_connects_and_sigterm_closes_it(studio: Studio, plate: str, tmp_path: Path) -> None:
    studio.start()
    cache = tmp_path / "cache"
    panel = subprocess.Popen(
        [*PANEL, "--in", plate, "--effect", "look", "--no-start"],
        env=_environment(studio, QT_QPA_PLATFORM="offscreen", FACEPLATE_CACHE=str(cache)),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (cache / "effects.json").exists():  # written once the server has said what it has
        assert panel.poll() is None, panel.stderr.read() if panel.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    effects = json.loads((cache / "effects.json").read_text())["effects"]
    assert "look" in [effect["identifier"] for effect in effects]
    panel.send_signal(signal.SIGTERM)
    _, errors = panel.communicate(timeout=20)
    assert panel.returncode == 0, errors
    assert "Traceback" not in errors
