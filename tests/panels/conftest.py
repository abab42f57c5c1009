"""Real Qt offscreen, a real server and a small real plate; what a test leaves behind is looked for afterwards."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["QT_QPA_PLATFORM"] = "offscreen"

from host_bridge import launcher
from host_bridge.endpoint import read_connection
from host_bridge.hosts.base import Host
from host_bridge.locks import FileLock
from panels.bridge import Bridge, open_bridge
from panels.controller import PanelOptions
from panels.qt import QtCore, QtWidgets
from tests.portrait import COLORSPACE, write_shot

ROOT = Path(__file__).parents[2]
FRAMES = range(1001, 1007)
SIZE = 144


class Studio:
    """A machine of one's own: folders for server, shots and cache; a server that can be started and killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "run"
        self.environment = {
            "FACEPLATE_RUNTIME": str(self.runtime),
            "FACEPLATE_STATE": str(root / "state"),
            "FACEPLATE_SHOTS": str(root / "shots"),
            "FACEPLATE_CONFIG": str(root / "config"),
            "FACEPLATE_CACHE": str(root / "cache"),
            "FACEPLATE_DEVICES": "cpu",
            "FACEPLATE_THREADS": "1",  # the plates are small; torch's threads would only wait for each other
            "PYTHONPATH": str(ROOT),
        }

    def start(self) -> None:
        launcher.serve_detached({"runtime": str(self.runtime)})

    @property
    def pid(self) -> int:
        return read_connection(self.runtime / "connection.json").pid

    def kill(self) -> None:
        """End the server as a crash does, and wait until its folder is free."""
        os.kill(self.pid, signal.SIGKILL)
        lock = FileLock(self.runtime / "server.lock")
        assert lock.acquire(10.0)
        lock.release()

    def plate(self, name: str = "plate", seed: int = 0) -> str:
        """Six frames of the portrait; another seed is another shot."""
        return write_shot(self.root / name, FRAMES, size=SIZE, seed=seed)


class Desk:
    """The GUI's thread of a test: it handles events while it waits, and remembers the longest gap."""

    def __init__(self, app: QtWidgets.QApplication) -> None:
        self.app = app
        self.longest_s = 0.0

    def spin(self, seconds: float = 0.0) -> None:
        """Handle events for so long, at least once."""
        end = time.monotonic() + seconds
        while True:
            began = time.perf_counter()
            self.app.processEvents()
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
            if time.monotonic() >= end:
                return
            time.sleep(0.001)

    def wait(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Handle events until something is so."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            self.spin(0.002)


@pytest.fixture(scope="session")
def app() -> QtWidgets.QApplication:
    found = QtWidgets.QApplication.instance()
    application = found if isinstance(found, QtWidgets.QApplication) else QtWidgets.QApplication(["test"])
    application.setQuitOnLastWindowClosed(False)
    return application


@pytest.fixture
def desk(app: QtWidgets.QApplication) -> Iterator[Desk]:
    """The event loop; afterwards no thread, socket or window may be left that the test began."""
    before = _left(app)
    yield Desk(app)
    app.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    gc.collect()
    app.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    end = time.monotonic() + 5.0
    while (more := _left(app) - before) and time.monotonic() < end:
        app.processEvents()
        time.sleep(0.01)
    assert not more, "left behind"


def _left(app: QtWidgets.QApplication) -> frozenset[str]:
    """Threads, sockets and windows there are. The thread that collects a server process lives as long as that."""
    threads = {f"thread {t.name} {t.ident}" for t in threading.enumerate() if t.name != "faceplate-reaper"}
    windows = {f"window {type(w).__name__} {id(w)}" for w in app.topLevelWidgets()}
    return frozenset(threads | windows | _sockets())


def _sockets() -> set[str]:
    out = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:  # the folder's own, closed meanwhile
            continue
        if target.startswith("socket:"):
            out.add(target)
    return out


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The machine all tests share; its server is started by the first test that needs it."""
    there = Studio(tmp_path_factory.mktemp("studio"))
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, there)
        yield there
        launcher.stop()


@pytest.fixture
def own_studio(tmp_path: Path, studio: Studio) -> Iterator[Studio]:
    """A machine of the test's own, whose server may be killed."""
    there = Studio(tmp_path / "studio")
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, there)
        yield there
        launcher.stop()


def _enter(patch: pytest.MonkeyPatch, studio: Studio) -> None:
    for name, value in studio.environment.items():
        patch.setenv(name, value)
    for name in ("FACEPLATE_SERVER", "FACEPLATE_PYTHON", "FACEPLATE_PRESETS", "OCIO"):
        patch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def plate(studio: Studio) -> str:
    """The plate that nobody changes or analyses."""
    return studio.plate()


@pytest.fixture
def open_panel(desk: Desk, studio: Studio) -> Iterator[Callable[..., Bridge]]:
    """Opens bridges that are closed at the end; `connect` defaults to this machine's server, started if need be."""
    opened: list[Bridge] = []

    def open_one(host: Host | None = None, **options: object) -> Bridge:
        values = {"colorspace": COLORSPACE, "effect": "look", **options}
        bridge = open_bridge(host, PanelOptions(**values))  # type: ignore[arg-type]
        opened.append(bridge)
        bridge.controller.open()
        return bridge

    yield open_one
    for bridge in opened:
        bridge.close()
        bridge.deleteLater()
