from __future__ import annotations

import re
from dataclasses import fields

import pytest

from host_bridge import messages as m
from host_bridge import protocol_doc
from host_bridge.errors import RequestError
from host_bridge.jobspec import JobSpec, PlateSpec


def test_protocol_md_says_what_the_code_does() -> None:
    written = protocol_doc.DOCUMENT.read_text(encoding="utf-8")
    assert written == protocol_doc.render(written), "run python -m host_bridge.protocol_doc"


def test_every_message_and_field_is_documented() -> None:
    tables = protocol_doc.tables()
    text = "\n".join(tables.values())
    for cls in m.BY_TYPE.values():
        assert f"#### `{cls.TYPE}`" in text
        for item in fields(cls):
            assert re.search(rf"\| `{item.name}` \|", text), f"{cls.TYPE}.{item.name}"
    for line in (tables["requests"] + tables["answers"] + tables["events"]).splitlines():
        if line.startswith("| `"):
            assert not line.rstrip().endswith("|  |"), f"no meaning: {line}"
    assert all(r.ANSWER in {a.TYPE for a in m.ANSWERS} for r in m.REQUESTS)


def test_types_are_unique() -> None:
    assert len(m.BY_TYPE) == len(m.REQUESTS) + len(m.ANSWERS) + len(m.EVENTS)


def test_unknown_fields_are_dropped_and_missing_ones_defaulted() -> None:
    event = m.from_body(m.FrameDoneEvent, {"job_id": "a", "frame": 3, "colour": "blue"})
    assert event == m.FrameDoneEvent("a", frame=3)
    pong = m.from_body(m.Pong, {"devices": [{"device": "cpu", "new": 1}]})
    assert pong.devices == [m.DeviceStatus("cpu")]


@pytest.mark.parametrize("body", [{}, {"job_id": 3}, {"job_id": "a", "frame": "3"}, {"job_id": "a", "frame": True}])
def test_wrong_types_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        m.from_body(m.FrameDoneEvent, body)


def test_events_of_a_newer_server_are_passed_over() -> None:
    assert m.event_from_body("job_mood", {"job_id": "a"}) is None
    assert m.event_from_body("welcome", {}) is None


def test_a_job_travels_as_plain_json() -> None:
    body = m.SubmitJob(JobSpec("render", PlateSpec("/a.%04d.exr")), 3).body()
    assert body["job"]["plate"]["pattern"] == "/a.%04d.exr"
    assert body["priority"] == 3
