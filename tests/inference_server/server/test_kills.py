"""Promise 6, nothing lost: kill -9 of server, worker and client in the middle of a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from host_bridge import messages as m
from host_bridge.client import Client
from tests.inference_server.server.conftest import ROOT, Place, alive, wait_until


def worker_pid(client: Client) -> int:
    return client.ping().devices[0].pid


def test_nothing_lost_when_the_server_is_killed(place: Place) -> None:
    place.control(step_s=0.05)
    client = place.connect()
    handle = client.submit(place.job(1, 30))
    handle.accepted.result(5)
    wait_until(lambda: len(place.outputs()) >= 5)
    worker = worker_pid(client)
    place.kill_server()
    wait_until(lambda: not alive(worker))
    before = place.log()
    assert 5 <= len(before) < 30
    place.control(step_s=0.0)
    place.connect()
    result = handle.wait(20)  # the first client finds the new server through its connection file
    assert (result.state, result.done) == ("finished", 30)
    assert place.outputs() == list(range(1, 31))
    frames = [frame for _, frame in place.log()]
    assert sorted(frames) == list(range(1, 31)), "a finished frame was rendered again"
    assert not list(place.out.glob(".*"))
    events = [e for e in handle.events(1) if not isinstance(e, m.JobProgress)]
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert sorted(e.frame for e in events if isinstance(e, m.FrameDoneEvent)) == list(range(1, 31))
    assert [e.attempt for e in events if isinstance(e, m.JobStarted)] == [1, 2]


def test_a_job_that_waits_survives_the_server(place: Place) -> None:
    place.control(step_s=0.1)
    client = place.connect()
    first = client.submit(place.job(1, 100))
    second = client.submit(place.job(1, 3, name="second"))
    second.accepted.result(5)
    client.cancel(first.job_id)
    assert first.wait(5).state == "cancelled"
    place.kill_server()
    place.connect()
    assert second.wait(20).state == "finished"
    assert place.outputs("second") == [1, 2, 3]


def test_a_worker_killed_once_is_replaced_and_the_frame_tried_again(place: Place) -> None:
    place.control(crash={"4": 1})
    client = place.connect()
    handle = client.submit(place.job(1, 8))
    result = handle.wait(20)
    assert (result.state, result.done, result.failed) == ("finished", 8, 0)
    warnings = [e for e in handle.events(1) if isinstance(e, m.JobWarning) and e.code == "job.worker_died"]
    assert [w.frame for w in warnings] == [4]
    assert "SIGKILL" in warnings[0].message
    assert len({pid for pid, _ in place.log()}) == 2
    assert not list(place.out.glob(".*"))


def test_a_frame_that_kills_its_worker_twice_fails_and_the_rest_is_done(place: Place) -> None:
    place.control(crash={"4": 99})
    client = place.connect()
    handle = client.submit(place.job(1, 8, continue_on_error=True))
    result = handle.wait(20)
    assert (result.state, result.done, result.failed) == ("failed", 7, 1)
    assert result.error is not None
    assert result.error.code == "job.frames_failed"
    failures = [e for e in handle.events(1) if isinstance(e, m.FrameFailedEvent)]
    assert [(f.frame, f.error["code"]) for f in failures] == [(4, "job.worker_died")]
    assert place.outputs() == [1, 2, 3, 5, 6, 7, 8]
    assert (place.shot / "crash.4").read_text() == "xx"
    assert client.query(handle.job_id).failed == 1


def test_a_worker_that_hangs_is_taken_for_dead(place: Place) -> None:
    place.control(hang={"2": 1})
    client = place.connect(hang_s=2.0)
    handle = client.submit(place.job(1, 3))
    assert handle.wait(20).state == "finished"
    assert place.outputs() == [1, 2, 3]


def test_an_orphaned_worker_writes_nothing_more(place: Place) -> None:
    """A worker frozen while its server is killed wakes up, may not replace a file, and tidies up after itself."""
    place.control(pause_s=0.4)
    client = place.connect()
    job = place.job(1, 50)
    client.submit(job)
    wait_until(lambda: len(place.outputs()) >= 1)
    worker = worker_pid(client)
    os.kill(worker, signal.SIGSTOP)
    place.kill_server()
    frozen_at = place.outputs()
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: not alive(worker))
    assert place.outputs() == frozen_at
    assert [pid for pid, _ in place.log()].count(worker) == len(frozen_at)
    assert not list(place.out.glob(".*")), "the orphan left its temporary file"


def test_a_worker_whose_lease_was_taken_writes_nothing_more(place: Place) -> None:
    place.control(pause_s=0.3)
    client = place.connect()
    handle = client.submit(place.job(1, 50))
    wait_until(lambda: len(place.outputs()) >= 1)
    (place.root / "state" / "leases" / handle.job_id).write_text("99")
    result = handle.wait(10)
    assert result.state == "failed"
    assert result.error is not None
    assert result.error.code == "job.lease_lost"
    assert len(place.outputs()) == len(place.log()) <= 3
    assert not list(place.out.glob(".*"))


def test_a_killed_client_does_not_end_its_job(place: Place) -> None:
    place.control(step_s=0.05)
    client = place.connect()
    script = f"""
import sys, time
from host_bridge import launcher
from host_bridge.jobspec import job_from_json
import json
client = launcher.connect({str(place.runtime / "connection.json")!r}, start=False)
handle = client.submit(job_from_json(json.loads(sys.argv[1])))
print(handle.accepted.result(5).job_id, flush=True)
time.sleep(60)
"""
    job = json.dumps(place.job(1, 20).to_json())
    with subprocess.Popen([sys.executable, "-c", script, job], stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        job_id = other.stdout.readline().strip()
        wait_until(lambda: len(place.outputs()) >= 2)
        other.kill()
    follower = client.follow(job_id)
    events = list(follower.events(20))
    assert isinstance(events[-1], m.JobFinished)
    assert [e.frame for e in events if isinstance(e, m.FrameDoneEvent)] == list(range(1, 21))
    assert place.outputs() == list(range(1, 21))


def test_a_private_server_ends_with_the_process_that_started_it(place: Place) -> None:
    script = """
import json, sys, time
from host_bridge import launcher
from host_bridge.jobspec import job_from_json
client = launcher.connect(private=True, settings=json.loads(sys.argv[2]))
handle = client.submit(job_from_json(json.loads(sys.argv[1])))
handle.accepted.result(5)
device = client.ping().devices[0]
print(client.welcome.pid, device.pid, client.endpoint, flush=True)
time.sleep(60)
"""
    place.control(step_s=0.1)
    job = json.dumps(place.job(1, 100).to_json())
    settings = json.dumps(
        {
            "devices": ["cpu"],
            "runner": "tests.inference_server.server.identity_runner:open_identity",
            "effects": "tests.inference_server.server.copy_effect:descriptors",
        }
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, job, settings], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        server, worker = (int(t) for t in other.stdout.readline().split()[:2])
        wait_until(lambda: len(place.outputs()) >= 1)
        other.kill()
    wait_until(lambda: not alive(server) and not alive(worker), 15)
    assert not list(place.out.glob(".*"))
    assert not Path(place.runtime).exists()
