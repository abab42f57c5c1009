"""Cancel, previews in between, priorities, several devices, bounds."""

from __future__ import annotations

import time

import pytest

from host_bridge import messages as m
from host_bridge.errors import EffectError, JobError, ServerError
from host_bridge.jobspec import PreviewSpec
from tests.inference_server.server.conftest import RUNNER, Place, wait_until


def test_cancel_takes_effect_before_the_next_frame(place: Place) -> None:
    place.control(step_s=0.3)
    client = place.connect()
    handle = client.submit(place.job(1, 50))
    wait_until(lambda: len(place.outputs()) >= 2)
    before = len(place.outputs())
    assert handle.cancel().job_id == handle.job_id
    result = handle.wait(5)
    assert result.state == "cancelled"
    assert before <= result.done <= before + 1
    assert len(place.outputs()) == result.done
    assert not list(place.out.glob(".*"))
    status = client.query(handle.job_id)
    assert (status.state, status.cancelling) == ("cancelled", False)
    # resumed, it keeps what is there
    place.control(step_s=0.0)
    client.resume(handle.job_id)
    resumed = client.follow(handle.job_id)
    assert resumed.wait(10).state == "finished"
    events = list(resumed.events(1))
    assert sum(e.TYPE in m.TERMINAL_EVENTS for e in events) == 1
    assert sorted(e.frame for e in events if isinstance(e, m.FrameDoneEvent)) == list(range(1, 51))
    frames = [frame for _, frame in place.log()]
    assert sorted(frames) == list(range(1, 51)), "a finished frame was rendered again"


def test_a_worker_that_does_not_heed_a_cancel_is_ended(place: Place) -> None:
    place.control(hang={"2": 1})
    client = place.connect(cancel_grace_s=0.5)
    handle = client.submit(place.job(1, 5))
    wait_until(lambda: (place.shot / "hang.2").exists())
    handle.cancel()
    assert handle.wait(5).state == "cancelled"
    place.control()
    assert client.submit(place.job(1, 2, name="after")).wait(10).state == "finished"


def test_a_preview_goes_in_between_two_frames(place: Place) -> None:
    place.control(step_s=0.05)
    client = place.connect()
    handle = client.submit(place.job(1, 60))
    wait_until(lambda: len(place.outputs()) >= 2)
    spec = PreviewSpec(place.job(1, 1), 9, max_size=32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert client.preview(spec).result(5).pixels
        times.append(time.perf_counter() - began)
    assert max(times) < 2.0
    assert client.ping().running == 1, "the previews waited for the job's end"
    handle.cancel()
    assert handle.wait(5).state == "cancelled"


def test_a_newer_preview_replaces_an_older_one_of_the_same_client_only(place: Place) -> None:
    place.control(preview_s=0.3)
    client = place.connect()
    with place.attach() as other:
        wait_until(lambda: client.ping().devices[0].state == "idle")
        spec = PreviewSpec(place.job(1, 1), 1, max_size=32)
        futures = [client.preview(spec, stamp=0)]
        time.sleep(0.15)  # the worker has it in hand
        futures += [client.preview(spec, stamp=n) for n in range(1, 5)]
        theirs = other.preview(spec, stamp=100)
        answers = [f.result(10).result for f in futures]
        assert [a.stamp for a in answers] == list(range(5))
        assert answers[0].state == "made"
        assert [a.state for a in answers[1:4]] == ["replaced"] * 3
        assert answers[4].state == "made"
        assert theirs.result(10).result.state == "made"


def test_different_jobs_run_in_parallel_on_two_workers(place: Place) -> None:
    place.control(step_s=0.05)
    # Both places run on the CPU here; what a device is called does not matter to the scheduler.
    client = place.connect(devices=["cpu", "mps"])
    first, second = client.submit(place.job(1, 30)), client.submit(place.job(1, 30, name="second"))
    wait_until(lambda: client.ping().running == 2, 15)
    assert first.wait(20).state == second.wait(20).state == "finished"
    assert len({pid for pid, _ in place.log()}) == 2
    devices = {e.device for h in (first, second) for e in h.events(1) if isinstance(e, m.JobStarted)}
    assert devices == {"cpu", "mps"}


def test_higher_priority_runs_first_and_the_queue_is_bounded(place: Place) -> None:
    place.control(step_s=0.2)
    client = place.connect(queue_length=2)
    running = client.submit(place.job(1, 4))
    wait_until(lambda: client.ping().running == 1)
    low = client.submit(place.job(5, 5, name="low"))
    assert low.accepted.result(5).ahead == 0
    high = client.submit(place.job(6, 6, name="high"), priority=10)
    assert high.accepted.result(5).ahead == 0  # the one that waits has a lower priority
    with pytest.raises(ServerError) as caught:
        client.submit(place.job(7, 7, name="full")).accepted.result(5)
    assert caught.value.code == "server.busy"
    for handle in (running, low, high):
        assert handle.wait(20).state == "finished"
    assert [frame for _, frame in place.log()][-2:] == [6, 5]


def test_a_long_step_is_seen_while_it_lasts(place: Place) -> None:
    place.control(activity="loading tiny", step_s=0.5)
    client = place.connect()
    handle = client.submit(place.job(1, 1))
    wait_until(lambda: client.ping().devices[0].activity == "loading tiny")
    assert client.ping().devices[0].activity_done == 0.25
    assert handle.wait(5).state == "finished"
    assert client.ping().devices[0].activity == ""  # the step never said that it had ended


def test_progress_is_at_most_ten_a_second_and_frames_are_all_told(place: Place) -> None:
    client = place.connect()
    handle = client.submit(place.job(1, 150))
    events = list(handle.events(20))
    result = handle.wait(1)
    progress = [e for e in events if isinstance(e, m.JobProgress)]
    assert len(progress) <= 10 * result.seconds + 3
    assert progress[-1].done == 150
    assert [e.frame for e in events if isinstance(e, m.FrameDoneEvent)] == list(range(1, 151))


def test_failed_frames_make_the_job_fail_with_the_first_of_them(place: Place) -> None:
    client = place.connect()
    job = place.job(1, 5)
    (place.shot / "p.0003.exr").unlink()
    result = client.submit(job).wait(10)
    assert (result.state, result.done, result.failed) == ("failed", 4, 1)
    assert isinstance(result.error, JobError)
    assert (result.error.code, result.error.frame, result.error.value) == ("job.frames_failed", 3, [3])
    assert result.error.remedy == "Make it."


def test_a_worker_that_cannot_start_says_why(place: Place) -> None:
    client = place.connect(runner=f"{RUNNER}:open_broken")
    early = client.submit(place.job(1, 2, name="early"))
    wait_until(lambda: client.ping().devices[0].state == "failed")
    with pytest.raises(EffectError) as caught:
        client.submit(place.job(1, 2)).wait(15)
    assert caught.value.code == "effect.needs_model"
    result = early.wait(5)
    assert result.error is not None
    assert (result.state, result.error.code) == ("failed", "effect.needs_model")


def test_a_worker_that_dies_at_its_start_is_given_up_with_its_exit_status(place: Place) -> None:
    client = place.connect(runner=f"{RUNNER}:open_dying")
    handle = client.submit(place.job(1, 2))
    handle.accepted.result(5)
    result = handle.wait(25)
    assert result.state == "failed"
    assert result.error is not None
    assert result.error.code == "server.start_failed"
    assert "exit status 7" in result.error.message


def test_two_clients_follow_one_job_and_both_hear_everything(place: Place) -> None:
    place.control(step_s=0.03)
    client = place.connect()
    handle = client.submit(place.job(1, 30))
    wait_until(lambda: len(place.outputs()) >= 3)
    with place.attach() as other:
        for follower in (other.follow(handle.job_id), handle):
            events = [e for e in follower.events(20) if not isinstance(e, m.JobProgress)]
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            assert [e.frame for e in events if isinstance(e, m.FrameDoneEvent)] == list(range(1, 31))
