"""Promise 6, nothing silent: whatever arrives on the socket is answered, and the server goes on."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from host_bridge import messages as m
from host_bridge.client import Client, Link
from host_bridge.endpoint import Connection, read_connection, secure
from host_bridge.envelope import MAGIC, REPLY_LIMITS, Pen, new_id, unpack
from host_bridge.errors import EffectError, FaceplateError, JobError, RequestError, ServerError
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec, PreviewSpec
from tests.inference_server.server.conftest import Place


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for this module's requests, allowed to touch its own folder only."""
    root = tmp_path_factory.mktemp("wire")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEPLATE_CONFIG", str(root / "config"))
        patch.delenv("FACEPLATE_SERVER", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        there = Place(root)
        outside = root / "outside"
        outside.mkdir()
        (there.shot / "link").symlink_to(outside)
        there.client = there.connect(
            roots=[str(there.shot), str(there.out)],
            path_maps=[["Z:/shot", str(there.shot)], ["Z:/out", str(there.out)]],
            max_body_bytes=1 << 18,
            max_preview=256,
        )
        yield there
        there.close()


class Raw:
    """A DEALER without a client around it."""

    def __init__(self, connection: Connection) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        secure(self.socket, connection)
        self.socket.connect(connection.endpoint)
        self.pen = Pen()

    def header(self, type_: str, **changes: Any) -> bytes:
        return json.dumps({**self.pen.header(type_).to_json(), **changes}).encode()

    def ask(self, *frames: bytes) -> tuple[str, dict[str, Any], Any]:
        """Type, body and parent of the answer."""
        self.socket.send_multipart(frames)
        # A worker's first answer about colours or plates comes after it has loaded torch.
        assert self.socket.poll(30_000), f"no answer to {frames!r:.200}"
        answer = unpack(self.socket.recv_multipart(), REPLY_LIMITS)
        return answer.header.type, answer.body, answer.parent

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@pytest.fixture
def raw(served: Place) -> Iterator[Raw]:
    there = Raw(read_connection(served.runtime / "connection.json"))
    yield there
    there.close()


def code(answer: tuple[str, dict[str, Any], Any]) -> str:
    assert answer[0] == "error"
    return str(answer[1]["error"]["code"])


def test_the_gateway_process_never_loads_torch_or_numpy(served: Place) -> None:
    client: Client = served.client
    assert client.list_effects()
    assert client.welcome is not None
    loaded = Path(f"/proc/{client.welcome.pid}/maps").read_text()
    assert "zmq" in loaded
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_version_mismatch_names_both_versions_and_the_side_to_upgrade(raw: Raw) -> None:
    newer = raw.ask(MAGIC, raw.header("ping", protocol="2.1"), b"null", b"{}")
    assert code(newer) == "request.version"
    assert "2.1" in newer[1]["error"]["message"]
    assert "1.0" in newer[1]["error"]["message"]
    assert newer[1]["error"]["remedy"] == "Upgrade the server."
    older = raw.ask(b"FP0", raw.header("ping"), b"null", b"{}")
    assert code(older) == "request.version"
    assert older[1]["error"]["remedy"] == "Upgrade the client."
    assert raw.ask(MAGIC, raw.header("ping", protocol="1.9"), b"null", b'{"new": 1}')[0] == "pong"


def test_unknown_types_are_answered_and_unknown_fields_tolerated(raw: Raw) -> None:
    answer = raw.ask(MAGIC, raw.header("list_effect"), b"null", b"{}")
    assert code(answer) == "request.unknown_type"
    assert "list_effects" in answer[1]["error"]["remedy"]
    assert raw.ask(MAGIC, raw.header("hello", extra=[1]), b"null", b'{"client": "x", "mood": "fine"}')[0] == "welcome"
    assert code(raw.ask(MAGIC, raw.header("pong"), b"null", b"{}")) == "request.unknown_type"


def test_a_request_too_large_is_refused_before_it_is_parsed(raw: Raw) -> None:
    answer = raw.ask(MAGIC, raw.header("ping"), b"null", b"{" + b" " * (1 << 18) + b"}")
    assert code(answer) == "request.too_large"
    assert answer[2] is not None
    assert code(raw.ask(MAGIC, b"[" * 5000, b"null", b"{}")) == "request.too_large"
    assert code(raw.ask(MAGIC, raw.header("ping"), b"null", b"{}", b"buffer")) == "request.too_large"
    raw.socket.send_multipart([MAGIC, raw.header("ping"), b"null", b" " * (4 << 20)])  # cut off by the transport
    time.sleep(0.2)


def test_a_thousand_hostile_messages_and_the_server_still_answers(served: Place, raw: Raw) -> None:
    seeds = random.Random(20)
    good_job = served.job(1, 2).to_json()
    sent = 0
    for _ in range(1000):
        frames = hostile(seeds, raw, good_job, served)
        answer = raw.ask(*frames)
        sent += 1
        if answer[0] == "error":
            assert answer[1]["error"]["remedy"]
            assert answer[1]["error"]["code"] != "server.internal", (frames, answer)
            assert len(json.dumps(answer[1])) < 20_000
    assert sent == 1000
    began = time.perf_counter()
    served.client.ping()
    assert time.perf_counter() - began < 1.0
    outside = list((served.root / "outside").iterdir())
    assert outside == []
    assert {p.name for p in served.root.iterdir()} <= {"run", "state", "shot", "out", "outside", "config"}


def hostile(seeds: random.Random, raw: Raw, job: dict[str, Any], place: Place) -> list[bytes]:
    """One bad message; most kinds are refused, a few (unknown fields) are merely strange."""
    kind = seeds.randrange(10)
    types = [r.TYPE for r in m.REQUESTS if r is not m.Shutdown]
    good = {"job": job, "job_id": "ab" * 16, "plate": job["plate"], "frame": 1, "path": "/etc/passwd"}
    frames = [MAGIC, raw.header(seeds.choice(types)), b"null", json.dumps(good).encode()]
    if kind == 0:  # truncated
        which = seeds.randrange(4)
        frames[which] = frames[which][: seeds.randrange(len(frames[which]))]
        return frames
    if kind == 1:  # frames missing, or too many
        return frames[: seeds.randrange(1, 4)] if seeds.random() < 0.5 else [*frames, *[b"x"] * seeds.randrange(1, 40)]
    if kind == 2:  # bytes flipped
        which = seeds.randrange(1, 4)
        data = bytearray(frames[which])
        for _ in range(seeds.randrange(1, 20)):
            data[seeds.randrange(len(data))] = seeds.randrange(256)
        frames[which] = bytes(data)
        return frames
    if kind == 3:  # JSON that is none, or deep, or huge numbers
        frames[seeds.randrange(1, 4)] = seeds.choice(
            [b"[" * 3000, b'{"a":' * 500, b"9" * 3000, b"NaN", b"1e999", b'"\\ud800"', b"\xff\xfe", b"[]", b"{}", b"{"]
        )
        return frames
    if kind == 4:  # wrong types in the body
        body = {**good, "job": dict(job), "plate": dict(job["plate"]), "preview": {"job": job, "frame": 1}}
        where = seeds.choice([body, body["job"], body["plate"]])
        assert isinstance(where, dict)
        where[seeds.choice(sorted(where))] = seeds.choice([None, 1, -1.5, True, "x", [], {}, [[]], {"keys": 3}])
        frames[3] = json.dumps(body).encode()
        return frames
    if kind == 5:  # a header of the wrong kind
        change: dict[str, Any] = {
            seeds.choice(["id", "session", "seq", "type", "protocol", "time"]): seeds.choice([None, -1, "", "x/y", []])
        }
        frames[1] = raw.header("ping", **change)
        return frames
    if kind == 6:  # paths that lead elsewhere
        evil = seeds.choice(
            [
                f"{place.shot}/../outside/o.%04d.exr",
                f"{place.shot}/link/o.%04d.exr",
                f"{place.shot}/link/../../outside/%V/o.####.exr",
                "/etc/passwd",
                "/etc/%04d",
                "relative/o.%04d.exr",
                "Z:/shot/../outside/o.%04d.exr",
                "Z:/elsewhere/o.%04d.exr",
                "C:\\windows\\o.%04d.exr",
                f"{place.shot}/o\0.exr",
                "/" + "a/" * 3000,
                "",
            ]
        )
        field = seeds.choice(["plate", "output", "matte_output", "style_image", "mask", "ocio"])
        changed = dict(job)
        changed[field] = {"pattern": evil} if field in ("plate", "mask") else evil
        if evil == "" and field in ("matte_output", "style_image", "ocio"):
            changed["output"] = "/etc/o.%04d.exr"
        return [MAGIC, raw.header("submit_job"), b"null", json.dumps({"job": changed}).encode()]
    if kind == 7:  # values that are not allowed
        changed = dict(job)
        name, value = seeds.choice(
            [
                ("kind", "format"),
                ("effect", "x" * 5000),
                ("params", {"amount": 1e308}),
                ("params", {"amount": {"keys": [[1, "a"]]}}),
                ("params", {"no": 1}),
                ("edits", [["smile"]]),
                ("edits", [["smile", 0.5, 1]]),
                ("edits", [[1, 2]]),
                ("frames", "1-99999999999"),
                ("frames", "1-999999999"),
                ("frames", "1-10x0"),
                ("frames", "; rm -rf"),
                ("shot", "../../etc"),
                ("matte_channels", ["face"] * 100),
                ("output", job["plate"]["pattern"]),
                ("repairs", {"version": 1}),
                ("kind", "repair"),
            ]
        )
        changed[name] = value
        return [MAGIC, raw.header("submit_job"), b"null", json.dumps({"job": changed}).encode()]
    if kind == 8:  # questions about what is not there, or not allowed, and repairs that are none
        evil = seeds.choice(
            ["/etc/%04d", f"{place.shot}/link/%V/o.####.exr", "o.exr", "", "/" + "a/" * 3000, "/\ud800"]
        )
        repairs = seeds.choice(
            [
                {"version": 9},
                {"version": 1, "split": [[]]},
                {"version": 1, "boxes": [{"track": 1, "keys": {"9" * 5000: [0, 0, 1, 1]}}]},
                {"version": 1, "points": [{"track": 1, "landmark": -1, "keys": {}}]},
                {"version": 1, "points": [{"track": 10**19, "landmark": 1, "reach": -1, "keys": {"1": [1e308, 2]}}]},
                {"version": 1, "tracks": [{"track": True}], "x" * 3000: []},
            ]
        )
        type_, asked = seeds.choice(
            [
                ("describe_plate", {"plate": {"pattern": evil}}),
                ("describe_plate", {"plate": {**job["plate"], "view": "../up"}}),
                ("describe_plate", {"plate": {**job["plate"], "colorspace": "x" * 5000}}),
                ("describe_plate", {"plate": job["plate"], "ocio": evil or "relative"}),
                ("list_faces", {"job": {**job, "plate": {"pattern": evil}}, "frame": 1}),
                ("list_faces", {"job": job, "frame": 10**15}),
                ("list_faces", {"job": {**job, "params": {"amount": "much"}}, "frame": 1}),
                ("import_model", {"path": evil}),
                ("import_model", {"path": f"{place.shot}/age.npy", "model": "../up"}),
                ("import_model", {"path": f"{place.shot}/age.npy", "template": "a b"}),
                ("submit_job", {"job": {**job, "kind": "repair", "shot": "abc", "repairs": repairs}}),
            ]
        )
        return [MAGIC, raw.header(type_), b"null", json.dumps(asked).encode()]
    body = {"job_id": seeds.choice(["", "zz", "ab" * 16, "' OR 1=1", "a" * 31, "*" * 8]), "after": -5, "limit": -1}
    return [
        MAGIC,
        raw.header(seeds.choice(["query_job", "cancel_job", "resume_job", "list_jobs"])),
        b"null",
        json.dumps(body).encode(),
    ]


@pytest.mark.parametrize(
    "path",
    ["{shot}/../outside/o.%04d.exr", "{shot}/link/o.%04d.exr", "{shot}/link/%V/o.####.exr", "/etc/o.%04d.exr"],
)
def test_paths_outside_the_roots_are_refused(served: Place, path: str) -> None:
    evil = path.format(shot=served.shot)
    for changes in ({"output": evil}, {"plate": PlateSpec(evil)}, {"mask": MaskSpec(evil)}, {"style_image": evil}):
        with pytest.raises(ServerError) as caught:
            served.client.submit(served.job(1, 2, **changes)).accepted.result(5)
        assert caught.value.code == "server.not_allowed"


def test_a_frame_that_is_a_link_out_of_the_roots_is_refused(served: Place) -> None:
    job = served.job(1, 2, plate=PlateSpec(str(served.shot / "l.%04d.exr")))
    (served.root / "outside" / "secret").write_text("secret")
    (served.shot / "l.0001.exr").symlink_to(served.root / "outside" / "secret")
    with pytest.raises(ServerError) as caught:
        served.client.submit(job).accepted.result(5)
    assert caught.value.code == "server.not_allowed"
    (served.root / "outside" / "secret").unlink()


def test_paths_of_another_host_are_mapped(served: Place) -> None:
    served.job(1, 3)
    job = JobSpec("render", PlateSpec("z:\\shot\\p.%04d.exr"), "1-3", effect="copy", output="Z:/out/mapped.%04d.exr")
    assert served.client.submit(job).wait(10).state == "finished"
    assert served.outputs("mapped") == [1, 2, 3]


def test_the_output_may_not_be_the_input(served: Place) -> None:
    (served.out / "same").symlink_to(served.shot)
    for output in (f"{served.shot}/p.####.exr", f"{served.shot}/../shot/p.%04d.exr", f"{served.out}/same/p.%04d.exr"):
        with pytest.raises(JobError) as caught:
            served.client.submit(served.job(1, 2, output=output)).accepted.result(5)
        assert caught.value.code == "job.output_is_input"
    (served.out / "same").unlink()


def test_parameters_are_checked_against_the_descriptor(served: Place) -> None:
    with pytest.raises(EffectError, match="amount") as caught:
        served.client.submit(served.job(1, 2, params={"amont": 1})).accepted.result(5)
    assert "Did you mean 'amount'?" in caught.value.remedy
    with pytest.raises(EffectError):
        served.client.submit(served.job(1, 2, edits=[["smile", 3.0]])).accepted.result(5)
    with pytest.raises(EffectError) as unknown:
        served.client.submit(served.job(1, 2, effect="copi")).accepted.result(5)
    assert unknown.value.code == "effect.unknown"


def test_submitting_twice_with_one_message_id_makes_one_job(served: Place) -> None:
    job_id = new_id()
    job = served.job(1, 3, name="twice")
    first = served.client.submit(job, job_id=job_id)
    assert first.wait(10).state == "finished"
    with served.attach() as other:
        second = other.submit(job, job_id=job_id)
        assert second.accepted.result(5).duplicate
        events = list(second.events(5))
        assert isinstance(events[-1], m.JobFinished)
        with pytest.raises(JobError):
            other.submit(served.job(1, 4, name="twice"), job_id=job_id).accepted.result(5)
    assert sum(job.job_id == job_id for job in served.client.list_jobs()) == 1
    assert len([f for _, f in served.log() if f]) == len(served.log())
    assert served.outputs("twice") == [1, 2, 3]


def test_unadmitted_keys_and_wrong_server_keys_are_errors_within_two_seconds(served: Place) -> None:
    right = read_connection(served.runtime / "connection.json")
    public, secret = (k.decode() for k in zmq.curve_keypair())
    stranger = Connection(right.endpoint, right.server_key, public, secret)
    other_server = Connection(right.endpoint, public, right.public_key, right.secret_key)
    for connection, named in ((stranger, right.server_key), (other_server, public)):
        began = time.monotonic()
        with Client(connection) as client:
            with pytest.raises(ServerError) as caught:
                client.wait_ready(2.0)
            assert time.monotonic() - began < 2.0
            assert caught.value.code == "server.wrong_key"
            assert named in str(caught.value)
            assert client.state is Link.REFUSED
            with pytest.raises(ServerError) as again:
                client.ping(0.5)
            assert again.value.code == "server.wrong_key"


def test_a_preview_brings_pixels_and_is_bounded(served: Place) -> None:
    spec = PreviewSpec(served.job(1, 2), 7, max_size=64)
    answer = served.client.preview(spec, stamp=41).result(10)
    assert (answer.result.stamp, answer.result.frame, answer.result.shape) == (41, 7, [64, 64, 3])
    assert answer.pixels == bytes([7]) * (64 * 64 * 3)
    with pytest.raises(RequestError) as caught:
        served.client.preview(PreviewSpec(served.job(1, 2), 7, max_size=512)).result(10)
    assert caught.value.code == "request.bad_value"


def test_a_crash_in_a_preview_is_answered(served: Place) -> None:
    served.control(crash={"-1": 1})
    with pytest.raises(FaceplateError) as caught:
        served.client.preview(PreviewSpec(served.job(1, 2), 1, max_size=64)).result(10)
    assert caught.value.code == "job.worker_died"
    assert served.client.preview(PreviewSpec(served.job(1, 2), 1, max_size=64)).result(20).pixels


def test_jobs_are_listed_and_found_by_the_start_of_their_id(served: Place) -> None:
    handle = served.client.submit(served.job(1, 2, name="found"))
    handle.wait(10)
    status = served.client.query(handle.job_id[:10], after=0)
    assert status.job_id == handle.job_id
    assert (status.state, status.done, status.total) == ("finished", 2, 2)
    assert [e["type"] for e in status.events][-1] == "job_finished"
    assert status.last_seq == len(status.events)
    assert handle.job_id in [j.job_id for j in served.client.list_jobs("finished", 5)]
    with pytest.raises(JobError) as caught:
        served.client.query("abcdefabcdef")
    assert caught.value.code == "job.unknown"
    with pytest.raises(JobError) as state:
        served.client.resume(handle.job_id)
    assert state.value.code == "job.state"


def test_models_and_colours_are_listed(served: Place) -> None:
    color = served.client.list_color("ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3")
    assert "ACEScg" in color.colorspaces
    assert len(color.hash) >= 8
    assert color.displays
    models = served.client.list_models()
    assert any("present" in card and card["id"] for card in models)


def test_a_ping_is_quick(served: Place) -> None:
    """The goal is 1 ms; the test allows for a busy machine."""
    served.client.ping()
    times = []
    for _ in range(200):
        began = time.perf_counter()
        served.client.ping()
        times.append(time.perf_counter() - began)
    assert sorted(times)[100] < 0.010


def test_the_connection_file_is_private(served: Place) -> None:
    assert (served.runtime / "connection.json").stat().st_mode & 0o777 == 0o600
    assert served.runtime.stat().st_mode & 0o777 == 0o700
    assert os.access(served.runtime / "connection.json", os.R_OK)


def test_a_client_that_floods_and_never_reads_holds_nobody_up(served: Place, raw: Raw) -> None:
    body = json.dumps({"preview": {"job": served.job(1, 2).to_json(), "frame": 1, "max_size": 64}}).encode()
    for _ in range(700):
        raw.socket.send_multipart([MAGIC, raw.header("preview"), b"null", body])
    began = time.perf_counter()
    served.client.ping()
    assert time.perf_counter() - began < 2.0
    assert served.client.submit(served.job(1, 2, name="meanwhile")).wait(20).state == "finished"
    answers = {"made": 0, "replaced": 0, "server.busy": 0}
    for _ in range(700):
        assert raw.socket.poll(5000), f"a request was not answered: {answers}"
        answer = unpack(raw.socket.recv_multipart(), REPLY_LIMITS)
        answers[answer.body["state"] if answer.header.type == "preview_result" else answer.body["error"]["code"]] += 1
    assert answers["made"] >= 1
    assert sum(answers.values()) == 700
