"""Which server, and what becomes of the panel when it goes away and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_bridge.locks import FileLock
from panels.bridge import Bridge
from tests.panels.conftest import Desk, Studio


def test_without_a_server_it_waits_and_finds_one_that_is_started(
    desk: Desk, own_studio: Studio, open_panel: Callable[..., Bridge]
) -> None:
    control = open_panel(connect="attach").controller
    desk.wait(lambda: control.connection.state.link == "unreachable")
    error = control.connection.state.error
    assert error is not None
    assert error.code == "server.not_running"
    assert error.remedy
    assert control.preview.state.blocked
    control.connection.start()
    assert control.connection.state.link == "starting"
    desk.wait(lambda: control.connection.ready)
    assert control.connection.state.server.startswith("faceplate")
    assert control.connection.state.error is None
    desk.wait(lambda: control.effects.descriptors)
    said: list[object] = []
    control.connection.stop_server(said.append)
    desk.wait(lambda: said)
    assert control.connection.state.link == "offline"
    lock = FileLock(own_studio.runtime / "server.lock")
    assert lock.acquire(15.0)  # it has ended
    lock.release()


def test_a_server_that_is_killed_and_comes_back_is_survived(
    desk: Desk, own_studio: Studio, open_panel: Callable[..., Bridge], plate: str
) -> None:
    control = open_panel(plate=plate).controller
    restarts: list[bool] = []
    control.connection.welcomed.connect(restarts.append)
    control.preview.set_viewer(size=128)
    desk.wait(lambda: control.preview.state.result is not None)
    control.render.set(output=str(own_studio.root / "out" / "o.%04d.exr"))
    control.values.set("degree", 0.9)
    control.render.render()
    desk.wait(lambda: control.jobs.rows and control.jobs.rows[0].state == "running")
    job_id = control.jobs.rows[0].job_id
    own_studio.kill()
    desk.wait(lambda: control.connection.state.link == "unreachable", 10.0)
    assert control.connection.state.error is not None
    desk.wait(lambda: bool(control.preview.state.blocked))  # in the event loop's next turn
    assert control.preview.state.result is not None  # what was seen is still seen, and marked
    control.values.set("degree", 0.4)  # the artist goes on meanwhile
    own_studio.start()
    desk.wait(lambda: control.connection.ready, 30.0)
    assert restarts == [False, True]
    desk.wait(lambda: not control.preview.state.behind and control.preview.idle)
    desk.wait(lambda: not control.jobs.find(job_id).live)  # type: ignore[union-attr]
    row = control.jobs.find(job_id)
    assert row is not None
    assert (row.state, row.done, row.error) == ("finished", 6, None)
    assert len(list((own_studio.root / "out").glob("o.*.exr"))) == 6


@pytest.mark.parametrize("endpoint", ["tcp://nowhere", "tcp://127.0.0.1:9"])
def test_a_server_elsewhere_that_cannot_be_used(
    desk: Desk, open_panel: Callable[..., Bridge], endpoint: str, studio: Studio
) -> None:
    control = open_panel(connect=endpoint).controller
    desk.wait(lambda: control.connection.state.error)
    state = control.connection.state
    assert (state.link, state.wanted) == ("refused", endpoint)
    assert state.error is not None
    assert state.error.code in ("server.unreachable", "server.wrong_key")
    assert state.error.remedy


def test_another_machine_by_its_connection_file(
    desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    studio.start()
    file = tmp_path / "theirs.json"
    file.write_bytes((studio.runtime / "connection.json").read_bytes())
    file.chmod(0o644)
    control = open_panel(connect=str(file)).controller
    desk.wait(lambda: control.connection.state.error)
    assert control.connection.state.error is not None
    assert "mode 0644" in control.connection.state.error.message
    file.chmod(0o600)
    control.connection.connect_to(str(file))
    desk.wait(lambda: control.connection.ready)
    assert control.connection.state.wanted == str(file)


def test_what_is_asked_without_a_server_is_answered_with_an_error(
    desk: Desk, open_panel: Callable[..., Bridge], studio: Studio
) -> None:
    control = open_panel(connect="none").controller
    control.effects.refresh()
    desk.wait(lambda: control.effects.error)
    assert control.effects.error is not None
    assert control.effects.error.code == "server.not_running"
    assert not control.effects.loading
    control.plate.open("/nowhere/p.%04d.exr")
    control.faces.watch(True)
    control.jobs.refresh()
    control.models.refresh()
    control.render.set(output="/nowhere/out.%04d.exr")
    control.render.analyse()
    assert control.notices.kept[0].error is not None
    assert control.notices.kept[0].error.code == "server.not_running"


def test_switching_servers_never_waits(desk: Desk, studio: Studio, open_panel: Callable[..., Bridge]) -> None:
    studio.start()
    control = open_panel(connect="attach").controller
    for _ in range(5):
        began = time.perf_counter()
        control.connection.attach()
        control.connection.connect_to("tcp://nowhere")
        control.connection.attach()
        assert time.perf_counter() - began < 0.05
        desk.spin(0.02)
    desk.wait(lambda: control.connection.ready)
