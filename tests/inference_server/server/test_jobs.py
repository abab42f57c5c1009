from __future__ import annotations

from host_bridge import messages as m
from tests.inference_server.server.conftest import Place


def test_a_job_runs_and_every_frame_is_told(place: Place) -> None:
    client = place.connect()
    handle = client.submit(place.job(1, 20))
    events = list(handle.events(20))
    assert handle.wait(1).state == "finished"
    assert [e.frame for e in events if isinstance(e, m.FrameDoneEvent)] == list(range(1, 21))
    assert [e.TYPE for e in events if e.TYPE not in ("job_progress", "frame_done")] == [
        "job_started",
        "job_warning",
        "job_finished",
    ]
    numbered = [e.seq for e in events if not isinstance(e, m.JobProgress)]
    assert numbered == list(range(1, len(numbered) + 1))
    assert place.outputs() == list(range(1, 21))
    assert (place.out / "o.0007.exr").read_bytes() == b"plate 7"
