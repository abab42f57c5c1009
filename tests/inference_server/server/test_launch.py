"""Starting, finding and stopping servers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq.auth

from host_bridge import launcher
from host_bridge.client import Client
from host_bridge.endpoint import from_certificates, read_connection
from host_bridge.errors import FaceplateError, ServerError
from inference_server.access import create_certificate
from tests.inference_server.server.conftest import ROOT, RUNNER, Place, alive, wait_until

SETTINGS = {
    "devices": ["cpu"],
    "runner": f"{RUNNER}:open_identity",
    "effects": "tests.inference_server.server.copy_effect:descriptors",
}


def test_two_clients_that_start_a_server_at_once_get_one(place: Place) -> None:
    script = """
import json, sys
from host_bridge import launcher
client = launcher.connect(settings=json.loads(sys.argv[1]))
print(client.welcome.pid, flush=True)
sys.stdin.readline()
client.close()
"""
    import json

    settings = json.dumps({**SETTINGS, "runtime": str(place.runtime), "state": str(place.root / "state")})
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    pids = set()
    for other in others:
        assert other.stdout is not None
        pids.add(int(other.stdout.readline()))
    for other in others:
        other.communicate("\n", timeout=10)
    assert pids == {place.server_pid}


def test_stop_ends_the_server_and_its_workers_and_status_tells(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPLATE_RUNTIME", str(place.runtime))
    assert launcher.stop() is False
    with pytest.raises(ServerError) as none:
        launcher.status()
    assert none.value.code == "server.not_running"
    connection = launcher.serve_detached(SETTINGS)
    with launcher.connect(start=False) as client:
        wait_until(lambda: client.ping().devices[0].state == "idle")
    told = launcher.status()
    assert told["endpoint"] == connection.endpoint
    assert told["pong"]["devices"][0]["device"] == "cpu"
    worker = told["pong"]["devices"][0]["pid"]
    assert launcher.stop() is True
    assert not alive(worker)
    wait_until(lambda: not alive(connection.pid))
    assert not (place.runtime / "connection.json").exists()


def test_a_stopped_job_goes_on_at_the_next_start(place: Place) -> None:
    place.control(step_s=0.1)
    client = place.connect()
    handle = client.submit(place.job(1, 10))
    wait_until(lambda: len(place.outputs()) >= 2)
    pid = place.server_pid
    with place.attach() as other:
        other.shutdown()
    wait_until(lambda: not alive(pid))
    assert not list(place.out.glob(".*"))
    place.control()
    place.connect()
    assert handle.wait(20).state == "finished"
    assert sorted(frame for _, frame in place.log()) == list(range(1, 11))


def test_starting_may_be_forbidden(place: Place) -> None:
    with pytest.raises(ServerError) as caught:
        launcher.connect(start=False, settings={"runtime": str(place.runtime)})
    assert caught.value.code == "server.not_running"
    assert int(caught.value.exit_code) == 5


def test_a_bad_setting_is_told_by_the_launcher(place: Place) -> None:
    with pytest.raises(ServerError, match="queue_lenght") as caught:
        place.connect(queue_lenght=3)
    assert "queue_length" in str(caught.value)


def test_a_private_server_leaves_nothing_behind(place: Place) -> None:
    with launcher.connect(private=True, settings=SETTINGS) as client:
        assert client.welcome is not None
        pid = client.welcome.pid
        folder = Path(client.welcome.log).parents[2]
        assert client.submit(place.job(1, 3)).wait(20).state == "finished"
    assert not alive(pid)
    assert not folder.exists()


@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_a_python_that_cannot_serve_is_named_early(version: tuple[int, int]) -> None:
    with pytest.raises(ServerError, match=f"3.{version[1]}") as caught:
        launcher.check_server_python(version, [])
    assert caught.value.code == "server.python"
    assert "3.10 to 3.12" in str(caught.value)


def test_missing_packages_are_named_early(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    with pytest.raises(ServerError, match="torch, cv2") as caught:
        launcher.check_server_python((3, 11), ["torch", "cv2"])
    assert caught.value.code == "server.missing_package"
    monkeypatch.setenv("FACEPLATE_PYTHON", str(place.root / "nuke"))
    with pytest.raises(ServerError, match="not a Python interpreter"):
        place.connect()
    monkeypatch.setenv("FACEPLATE_PYTHON", str(place.root / "python3"))
    with pytest.raises(ServerError, match="cannot be asked"):
        place.connect()


@pytest.mark.skipif(sys.platform == "win32", reason="the other Python is a shell script")
def test_what_a_host_sets_for_its_own_python_does_not_reach_another(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "python3"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv("FACEPLATE_PYTHON", str(other))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # any Python that sees it cannot even start
    with place.connect() as client:
        assert client.ping().running == 0


def test_a_client_without_server_is_quiet_and_its_requests_fail(
    place: Place, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = place.runtime / "connection.json"
    with Client(lambda: read_connection(file)) as client:
        began = time.monotonic()
        with pytest.raises(ServerError):
            client.ping(0.3)
        assert time.monotonic() - began < 1.0
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_client_finds_a_server_that_starts_later(place: Place) -> None:
    place.runtime.mkdir(mode=0o700)
    file = place.runtime / "connection.json"
    ready = threading.Event()
    with Client(
        lambda: read_connection(file), on_state=lambda s: ready.set() if s.value == "ready" else None
    ) as client:
        place.connect()
        assert ready.wait(6)
        assert client.ping().devices


def test_beyond_loopback_certificates_admit_clients_and_nobody_else_stops_the_server(place: Place) -> None:
    certificates = place.root / "certificates"
    create_certificate(certificates, "server")
    create_certificate(certificates / "clients", "alice")
    local = place.connect(bind="tcp://0.0.0.0:0", certificates=str(certificates), roots=[str(place.root)])
    connection = read_connection(place.runtime / "connection.json")
    assert connection.endpoint.startswith("tcp://127.0.0.1:")
    own = place.root / "alice"
    own.mkdir()
    (own / "server.key").write_bytes((certificates / "server.key").read_bytes())
    (own / "client.key_secret").write_bytes((certificates / "clients" / "alice.key_secret").read_bytes())
    (certificates / "clients" / "alice.key_secret").unlink()
    with Client(from_certificates(connection.endpoint, own)) as alice:
        alice.wait_ready(5)
        assert alice.submit(place.job(1, 2)).wait(10).state == "finished"
        with pytest.raises(FaceplateError) as caught:
            alice.shutdown()
        assert caught.value.code == "request.not_allowed"
        with pytest.raises(FaceplateError) as refused:
            alice.import_model(str(place.root / "model.pt"))
        assert refused.value.code == "request.not_allowed"
    # a certificate added while the server runs is admitted, one that is removed is not
    _, secret = create_certificate(place.root / "bob", "client")
    zmq.auth.create_certificates(place.root / "bob", "unused")
    (place.root / "bob" / "server.key").write_bytes((certificates / "server.key").read_bytes())
    with Client(from_certificates(connection.endpoint, place.root / "bob")) as bob, pytest.raises(ServerError):
        bob.wait_ready(2)
    (certificates / "clients" / "bob.key").write_bytes((place.root / "bob" / "client.key").read_bytes())
    with Client(from_certificates(connection.endpoint, place.root / "bob")) as bob:
        bob.wait_ready(5)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert local.ping().devices


def test_a_connection_file_that_others_may_read_is_refused(place: Place) -> None:
    place.connect()
    file = place.runtime / "connection.json"
    os.chmod(file, 0o644)
    with pytest.raises(ServerError, match="0644") as caught:
        read_connection(file)
    assert caught.value.code == "server.wrong_key"
    os.chmod(file, 0o600)


def test_the_server_refuses_a_state_folder_in_use(place: Place) -> None:
    place.connect()
    with pytest.raises(ServerError, match="another server uses this state folder"):
        launcher.connect(
            settings={**SETTINGS, "runtime": str(place.root / "other"), "state": str(place.root / "state")}
        )
