"""Real servers on real sockets, each in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_bridge import launcher
from host_bridge.client import Client
from host_bridge.endpoint import read_connection
from host_bridge.jobspec import JobSpec, PlateSpec
from host_bridge.locks import FileLock

ROOT = Path(__file__).parents[3]
RUNNER = "tests.inference_server.server.identity_runner"


class Place:
    """A server's folders, a shot to work on, and everything that was started there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "run"
        self.shot = root / "shot"
        self.out = root / "out"
        self.client: Client
        self.shot.mkdir()
        self.out.mkdir()
        self._clients: list[Client] = []

    def connect(self, **settings: Any) -> Client:
        values = {
            "runtime": str(self.runtime),
            "state": str(self.root / "state"),
            "devices": ["cpu"],
            "runner": f"{RUNNER}:open_identity",
            "effects": "tests.inference_server.server.copy_effect:descriptors",
            **settings,
        }
        client = launcher.connect(settings=values)
        self._clients.append(client)
        return client

    def attach(self) -> Client:
        client = launcher.connect(str(self.runtime / "connection.json"), start=False)
        self._clients.append(client)
        return client

    @property
    def server_pid(self) -> int:
        return read_connection(self.runtime / "connection.json").pid

    def kill_server(self) -> int:
        pid = self.server_pid
        os.kill(pid, signal.SIGKILL)
        lock = FileLock(self.runtime / "server.lock")
        assert lock.acquire(5.0)  # free once the last thread of the process is gone
        lock.release()
        return pid

    def control(self, **values: Any) -> None:
        temporary = self.shot / "control.tmp"
        temporary.write_text(json.dumps(values))
        os.replace(temporary, self.shot / "control.json")

    def job(self, first: int = 1, last: int = 10, *, name: str = "o", **values: Any) -> JobSpec:
        for frame in range(first, last + 1):
            path = self.shot / f"p.{frame:04d}.exr"
            if not path.exists():
                path.write_bytes(b"plate %d" % frame)
        fields: dict[str, Any] = {
            "kind": "render",
            "plate": PlateSpec(str(self.shot / "p.%04d.exr")),
            "frames": f"{first}-{last}",
            "effect": "copy",
            "output": str(self.out / f"{name}.%04d.exr"),
        }
        return JobSpec(**{**fields, **values})

    def outputs(self, name: str = "o") -> list[int]:
        return sorted(int(p.name.split(".")[1]) for p in self.out.glob(f"{name}.*.exr"))

    def log(self) -> list[tuple[int, int]]:
        """(pid, frame) of every frame written, in order."""
        path = self.shot / "done.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(a), int(b)) for a, b in (line.split() for line in lines)]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        try:
            pid = self.server_pid
        except Exception:  # noqa: BLE001 - no server was left; nothing to end
            return
        if alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("FACEPLATE_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("FACEPLATE_SERVER", raising=False)
    monkeypatch.delenv("FACEPLATE_PYTHON", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert sys.platform != "win32"
    there = Place(tmp_path)
    yield there
    there.close()
