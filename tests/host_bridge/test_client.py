"""The client against a ROUTER of this test's own, where a real server would not misbehave on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from host_bridge import messages as m
from host_bridge.client import Client
from host_bridge.endpoint import Connection
from host_bridge.envelope import REPLY_LIMITS, Envelope, Header, Pen, pack, unpack
from host_bridge.errors import RequestError, ServerError
from host_bridge.jobspec import JobSpec, PlateSpec
from host_bridge.liveness import Schedule

JOB = JobSpec("render", PlateSpec("/p.%04d.exr"), output="/o.%04d.exr")


class Scripted:
    """A server that welcomes, accepts jobs, and otherwise does what the test tells it."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        public, secret = zmq.curve_keypair()
        self.socket.curve_server = True
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        own, own_secret = zmq.curve_keypair()
        self.connection = Connection(f"tcp://127.0.0.1:{port}", public.decode(), own.decode(), own_secret.decode())
        self.pen = Pen()
        self.heard: list[tuple[str, dict[str, Any], str]] = []
        self.protocol = "1.0"
        self.mute: set[str] = set()
        self.stored: list[m.Message] = []
        self.identity = b""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def tell(self, message: m.Message, parent: Header | None = None) -> None:
        header = self.pen.header(message.TYPE)
        frames = pack(Envelope(Header(**{**header.to_json(), "protocol": self.protocol}), parent, message.body()))
        with self._lock:
            self.socket.send_multipart([self.identity, *frames])

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                if not self.socket.poll(5):
                    continue
                identity, *frames = self.socket.recv_multipart()
            envelope = unpack(frames, REPLY_LIMITS)
            kind, header = envelope.header.type, envelope.header
            self.identity = identity
            self.heard.append((kind, envelope.body, header.id))
            if kind in self.mute:
                self.mute.discard(kind)
                continue
            if kind == "hello":
                self.tell(m.Welcome("scripted"), header)
            elif kind == "ping":
                self.tell(m.Pong(), header)
            elif kind == "submit_job":
                self.tell(m.JobAccepted(header.id), header)
            elif kind == "query_job":
                after = envelope.body["after"]
                events = [{"type": e.TYPE, **e.body()} for e in self.stored if e.body()["seq"] > after]
                status = m.JobStatus(envelope.body["job_id"], "running", last_seq=len(self.stored), events=events)
                self.tell(status, header)

    def count(self, kind: str) -> int:
        return sum(k == kind for k, _, _ in self.heard)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close()
        self._context.term()


@pytest.fixture
def server() -> Iterator[Scripted]:
    there = Scripted()
    yield there
    there.close()


def test_a_gap_in_the_events_is_filled_in_order(server: Scripted) -> None:
    with Client(server.connection) as client:
        client.wait_ready(5)
        handle = client.submit(JOB)
        job_id = handle.accepted.result(5).job_id
        server.stored = [m.JobStarted(job_id, 1), *(m.FrameDoneEvent(job_id, n, n) for n in range(2, 7))]
        last = m.JobFinished(job_id, 7, 5)
        for message in (server.stored[0], server.stored[1], server.stored[4], server.stored[5]):  # 3 and 4 are lost
            server.tell(message)
        server.stored.append(last)
        server.tell(last)
        events = list(handle.events(5))
        assert [e.seq for e in events] == [1, 2, 3, 4, 5, 6, 7]
        assert server.count("query_job") >= 1


def test_progress_tells_of_a_gap_too_and_nothing_comes_twice(server: Scripted) -> None:
    with Client(server.connection) as client:
        client.wait_ready(5)
        handle = client.submit(JOB)
        job_id = handle.accepted.result(5).job_id
        server.stored = [m.JobStarted(job_id, 1), m.FrameDoneEvent(job_id, 2, 1), m.JobFinished(job_id, 3, 1)]
        server.tell(m.JobProgress(job_id, 2, "render", 1, 1))
        for message in server.stored:
            server.tell(message)
        assert [e.seq for e in handle.events(5) if not isinstance(e, m.JobProgress)] == [1, 2, 3]


def test_a_request_is_repeated_with_its_id_on_a_fresh_socket(server: Scripted) -> None:
    server.mute = {"submit_job", "ping"}
    schedule = Schedule(idle_s=0.1, patience_s=0.1, misses=1, backoff_s=0.05)
    with Client(server.connection, schedule=schedule) as client:
        client.wait_ready(5)
        first = server.identity
        handle = client.submit(JOB)
        assert handle.accepted.result(10).job_id == handle.job_id
        assert server.identity != first
        assert [i for k, _, i in server.heard if k == "submit_job"] == [handle.job_id] * 2


def test_a_server_of_another_major_version_is_named(server: Scripted) -> None:
    server.protocol = "2.0"
    with Client(server.connection) as client:
        with pytest.raises(RequestError, match=r"2\.0") as caught:
            client.wait_ready(5)
        assert caught.value.code == "request.version"
        assert caught.value.remedy == "Upgrade the client."


def test_a_body_too_large_is_refused_before_it_is_sent(server: Scripted) -> None:
    with Client(server.connection) as client:
        client.wait_ready(5)
        with pytest.raises(RequestError) as caught:
            client.submit(JobSpec("render", PlateSpec("/p"), output="x" * (5 << 20))).accepted.result(5)
        assert caught.value.code == "request.too_large"
        assert server.count("submit_job") == 0


def test_requests_of_a_closed_client_fail(server: Scripted) -> None:
    client = Client(server.connection)
    client.wait_ready(5)
    client.close()
    client.close()
    with pytest.raises(ServerError):
        client.ping()
    with pytest.raises(ServerError):
        client.submit(JOB).wait(1)


def test_many_threads_may_ask_at_once(server: Scripted) -> None:
    with Client(server.connection) as client:
        client.wait_ready(5)
        failures: list[Exception] = []

        def ask() -> None:
            try:
                for _ in range(20):
                    client.ping()
            except ServerError as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert server.count("ping") >= 120
