"""The command line as its users have it: subprocesses, one real server for all tests, small real plates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.plates.attributes import decode
from inference_server.plates.reader import read_plate
from tests.portrait import COLORSPACE, write_shot

ROOT = Path(__file__).parents[3]
FACEPLATE = (sys.executable, "-W", "error", "-m", "host_bridge.cli")
FRAMES = range(1001, 1011)
SMALL = 144
TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str


class Desk:
    """An artist's shell: folders of its own for the server, the shot store and the results."""

    def __init__(self, root: Path, shots: Path | None = None, **environment: str) -> None:
        self.root = root
        self.runtime = root / "run"
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith("FACEPLATE_") and k not in ("OCIO", "TMPDIR")
        }
        self.environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "FACEPLATE_RUNTIME": str(self.runtime),
            "FACEPLATE_STATE": str(root / "state"),
            "FACEPLATE_SHOTS": str(shots or root / "shots"),
            "FACEPLATE_CONFIG": str(root / "config"),
            "FACEPLATE_DEVICES": "cpu",
            "FACEPLATE_THREADS": "1",  # the plates are small; torch's threads would only wait for each other
            **environment,
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command. Its few lines fit into the pipes."""
        return subprocess.Popen(
            [*FACEPLATE, *words],
            env={**self.environment, **environment},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> Said:
        """Wait for a command."""
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the command did not end within {TIMEOUT_S:g} s:\n{out}\n{err}")
        return Said(process.returncode, out, err)

    def run(self, *words: str, **environment: str) -> Said:
        """Do a command."""
        return self.end(self.start(*words, **environment))

    def render(self, plate: str, out: str, *words: str) -> Said:
        """`faceplate render`, in the portrait's colourspace."""
        return self.run(*render_words(plate, out, *words))

    def server(self) -> dict[str, Any]:
        """`faceplate status --json`."""
        said = self.run("status", "--json")
        assert said.status == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        return found


def render_words(plate: str, out: str, *words: str) -> tuple[str, ...]:
    colour = () if "--colorspace" in words else ("--colorspace", COLORSPACE)
    return ("render", "--in", plate, "--out", out, *colour, *words)


def names(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones included; [] where there is no folder."""
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def channels_of(path: Path | str) -> dict[str, NDArray[Any]]:
    """The samples of a file's first part."""
    return dict(read_plate(str(path)).parts[0].channels)


def rgb(path: Path | str) -> NDArray[np.float32]:
    """[H, W, 3]"""
    found = channels_of(path)
    return np.stack([found[c].astype(np.float32) for c in "RGB"], axis=-1)


def provenance(path: Path | str) -> dict[str, Any]:
    """The `faceplate:...` attributes of a file's first part."""
    header = read_plate(str(path)).parts[0].header
    return {k.partition(":")[2]: decode(v) for k, v in header.items() if k.startswith("faceplate:")}


def frames_in(folder: Path) -> list[int]:
    """Frame numbers of the finished files in a folder."""
    return [int(n.split(".")[1]) for n in names(folder) if not n.startswith(".")]


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The desk whose first command starts the server; `faceplate stop` ends it."""
    there = Desk(tmp_path_factory.mktemp("desk"))
    yield there
    pids = [d["pid"] for d in there.server()["pong"]["devices"]]
    said = there.run("stop")
    assert (said.status, said.out) == (0, "stopped\n"), said.err
    assert not [pid for pid in pids if alive(pid)]
    again = there.run("stop")
    assert (again.status, again.out) == (0, "no server was running\n"), again.err


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten frames of the portrait."""
    return write_shot(tmp_path_factory.mktemp("plate"), FRAMES, size=SMALL)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for results, not made yet."""
    return tmp_path / "out"
