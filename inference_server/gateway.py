"""The server's front: one ROUTER loop that decodes, checks, answers, and never waits.

Decides who is heard (CURVE keys only), what is answered (everything that arrives), and where an answer goes: to the
socket a session was last heard on, so that a client that comes back on a fresh socket gets its events. Whatever may
block, a disk above all, happens on other threads, which post their results back here. No torch and no numpy
is loaded in this process.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from host_bridge import __version__
from host_bridge import messages as m
from host_bridge.endpoint import parse_endpoint
from host_bridge.envelope import (
    REPLY_LIMITS,
    Envelope,
    Header,
    Limits,
    Pen,
    header_of,
    malformed,
    pack,
    unpack,
)
from host_bridge.errors import FaceplateError, RequestError, ServerError, unknown_name
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from host_bridge.mailbox import Mailbox
from inference_server import worklink as w
from inference_server.access import Admission, KeyPair, Roots
from inference_server.catalog import Catalog
from inference_server.config import ServerConfig
from inference_server.importing import Imports
from inference_server.jobs import JobStore
from inference_server.questions import busy, replaced_preview
from inference_server.scheduler import Scheduler
from inference_server.supervisor import Supervisor
from inference_server.validation import (
    check_faces,
    check_import,
    check_job,
    check_ocio,
    check_paths,
    check_plate,
    check_preview,
    clip_error,
    decode,
)

T = TypeVar("T")

_log = logging.getLogger("faceplate.gateway")
_TICK_MS = 50
_BURST = 64
_SESSIONS = 4096
_MAX_CHECKS = 500
_CLIENTS, _WORKERS = "clients", "workers"


class Gateway:
    """The server's sockets and its loop. Construct, `run`, `close`."""

    def __init__(self, config: ServerConfig, keys: KeyPair, local: KeyPair, admission: Admission) -> None:
        """Bind. ServerError (`server.start_failed`) if the address is taken."""
        self._config = config
        self._limits = Limits(body=config.max_body_bytes, buffer=0, buffers=0)
        self._local_key = local.public
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._auth = ThreadAuthenticator(self._context, log=logging.getLogger("faceplate.zap"))
        self._auth.start()
        worker_admission = Admission()
        self._auth.configure_curve_callback(_CLIENTS, admission)
        self._auth.configure_curve_callback(_WORKERS, worker_admission)
        self._pen = Pen()
        self._routes: OrderedDict[str, bytes] = OrderedDict()
        self._checks = 0
        self._measured, self._rss = 0.0, 0
        self._newest_preview: dict[str, str] = {}
        self._stopping = False
        self._mailbox: Mailbox[Callable[[], None]] = Mailbox(self._context)
        self._pool = ThreadPoolExecutor(2, "faceplate-checks")
        try:
            self._front = self._router(keys, _CLIENTS, config.bind)
            # Twice the polite limit: what is larger still is cut off by the transport itself.
            self._front.maxmsgsize = 2 * config.max_body_bytes
            worker_keys = KeyPair.fresh()
            self._back = self._router(worker_keys, _WORKERS, "tcp://127.0.0.1:0")
        except zmq.ZMQError as error:
            self._auth.stop()
            raise ServerError(
                "server.start_failed",
                f"cannot listen on {config.bind}: {error}",
                value=config.bind,
                remedy="Choose another port in `bind`, or stop what uses it.",
            ) from error
        self._roots = Roots(config.roots)
        self._catalog = Catalog(config)
        self._imports = Imports(config.models, config.logs_path / "imports.log", self._catalog.forget)
        self._store = JobStore(config.state_path, config.keep_jobs, self._mailbox.put)
        self._supervisor = Supervisor(
            config,
            _bound(self._back),
            worker_keys.public,
            worker_admission,
            config.logs_path,
            self._to_worker,
            self._worker_died,
        )
        self._scheduler = Scheduler(
            self._store,
            self._supervisor,
            self._to_client,
            queue_length=config.queue_length,
            cancel_grace_s=config.cancel_grace_s,
            hang_s=config.hang_s,
        )

    @property
    def session(self) -> str:
        return self._pen.session

    @property
    def endpoint(self) -> str:
        """Where local clients connect."""
        bound = _bound(self._front)
        host, port = parse_endpoint(bound)
        return f"tcp://127.0.0.1:{port}" if host in ("0.0.0.0", "::") else bound

    def stop(self) -> None:
        """Leave `run` soon; any thread, and signal handlers."""
        self._stopping = True

    def start(self) -> None:
        """Take up unfinished jobs and start the workers; then the server may be announced."""
        self._scheduler.recover(self._store.recover())
        self._store.start()
        self._supervisor.start()

    def run(self) -> None:
        """Serve until `stop` or a shutdown request."""
        poller = zmq.Poller()
        for sock in (self._front, self._back, self._mailbox.socket):
            poller.register(sock, zmq.POLLIN)
        while not self._stopping:
            ready = dict(poller.poll(_TICK_MS))
            if self._mailbox.socket in ready:
                for call in self._mailbox.drain():
                    call()
            if self._back in ready:
                self._drain(self._back, self._from_worker)
            if self._front in ready:
                self._drain(self._front, self._from_client)
            if self._supervisor.tick():
                self._scheduler.assign()
            self._scheduler.tick()

    def close(self) -> None:
        """End the workers (unfinished jobs stay in the store), then everything else."""
        self._imports.close()
        self._supervisor.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.close()
        self._mailbox.close()
        self._front.close(linger=500)
        self._back.close(linger=0)
        self._auth.stop()
        self._context.term()

    # clients

    def _from_client(self, frames: list[zmq.Frame]) -> None:
        identity, parts = frames[0].bytes, [f.bytes for f in frames[1:]]
        header: Header | None = None
        try:
            envelope = unpack(parts, self._limits)
            header = envelope.header
            self._remember(header.session, identity)
            self._dispatch(envelope, frames[-1])
        except FaceplateError as error:
            header = header or header_of(parts, self._limits)
            self._write(identity, m.Error(clip_error(error)), header, ())
        except Exception as error:  # noqa: BLE001 - answered: every request gets one answer
            _log.exception("request")
            problem = ServerError(
                "server.internal", f"{type(error).__name__}: {error}", remedy="See the server's log, and report it."
            )
            self._write(identity, m.Error(clip_error(problem)), header, ())

    def _dispatch(self, envelope: Envelope, last: zmq.Frame) -> None:
        header, body, session = envelope.header, envelope.body, envelope.header.session
        kind = m.BY_TYPE.get(header.type)
        if kind is None or kind not in m.REQUESTS:
            raise unknown_name("request.unknown_type", "message type", header.type, [r.TYPE for r in m.REQUESTS])
        message = decode(kind, body)
        if isinstance(message, m.Hello):
            self._to_client(session, self._welcome(), header, ())
        elif isinstance(message, m.Ping):
            self._to_client(session, self._pong(session), header, ())
        elif isinstance(message, m.ListEffects):
            self._list_effects(session, header)
        elif isinstance(message, m.ListModels):
            self._list_models(session, header)
        elif isinstance(message, m.ImportModel):
            self._local_only(last, "import models", self._config.remote_imports)
            self._import_model(session, header, message)
        elif isinstance(message, m.ListColor):
            self._list_color(session, header, message.ocio)
        elif isinstance(message, m.DescribePlate):
            self._describe_plate(session, header, message)
        elif isinstance(message, m.ListFaces):
            self._list_faces(session, header, message)
        elif isinstance(message, m.SubmitJob):
            self._scheduler.submit(session, header, message, self._check)
        elif isinstance(message, m.CancelJob):
            self._scheduler.cancel(session, header, _job_id(message.job_id))
        elif isinstance(message, m.ResumeJob):
            self._scheduler.resume(session, header, _job_id(message.job_id))
        elif isinstance(message, m.QueryJob):
            _job_id(message.job_id)
            if not -1 <= message.after < 1 << 62:
                raise _bad("after", message.after, "a sequence number, or -1")
            self._scheduler.query(session, header, message)
        elif isinstance(message, m.ListJobs):
            if message.state not in ("", *m.JOB_STATES):
                raise unknown_name("request.unknown_name", "job state", message.state[:80], list(m.JOB_STATES))
            if not 1 <= message.limit <= 1000:
                raise _bad("limit", message.limit, "1 to 1000")
            self._scheduler.listing(session, header, message)
        elif isinstance(message, m.Preview):
            self._preview(session, header, message)
        elif isinstance(message, m.Shutdown):
            self._local_only(last, "stop it")
            self._shutdown(session, header)

    def _welcome(self) -> m.Welcome:
        return m.Welcome(
            server=f"faceplate {__version__}",
            pid=os.getpid(),
            capabilities=[r.TYPE for r in m.REQUESTS],
            devices=[worker.device for worker in self._supervisor.workers],
            max_body=self._config.max_body_bytes,
            max_preview=self._config.max_preview,
            log=str(self._config.logs_path / "server.log"),
        )

    def _pong(self, session: str) -> m.Pong:
        return m.Pong(
            queued=self._scheduler.queued,
            running=self._scheduler.running,
            devices=[worker.status() for worker in self._supervisor.workers],
            rss=self._memory(),
            jobs=self._scheduler.sequence(session),
        )

    def _memory(self) -> int:
        """Memory of this process in bytes, measured at most once a second."""
        now = time.monotonic()
        if now - self._measured > 1.0:
            self._checks = 0
        self._measured, self._rss = now, _resident_bytes()
        return self._rss

    def _check(self, spec: JobSpec, then: Callable[[JobSpec | FaceplateError], None]) -> None:
        def check() -> JobSpec:
            checked = check_job(spec, self._config, self._catalog.descriptors)
            check_paths(checked, self._roots)
            return checked

        self._later(check, then)

    def _preview(self, session: str, header: Header, message: m.Preview) -> None:
        def check() -> PreviewSpec:
            spec = check_preview(message.preview, self._config, self._catalog.descriptors)
            check_paths(spec.job, self._roots)
            return spec

        def ask(spec: PreviewSpec) -> None:
            if self._newest_preview.get(session) != header.id:
                self._to_client(session, replaced_preview(message.stamp, spec.frame), header, ())
            else:
                self._scheduler.questions.preview(session, header, spec, message.stamp)

        if self._checked(session, header, check, ask):  # one that is refused as too many takes nobody's place
            self._newest_preview[session] = header.id

    def _list_effects(self, session: str, header: Header) -> None:
        def answer(effects: list[dict[str, Any]]) -> None:
            self._to_client(session, m.Effects(effects), header, ())

        self._checked(session, header, self._catalog.effects, answer)

    def _list_models(self, session: str, header: Header) -> None:
        def answer(models: list[dict[str, Any]]) -> None:
            self._to_client(session, m.Models(models, self._imports.listing()), header, ())

        self._checked(session, header, self._catalog.models, answer)

    def _import_model(self, session: str, header: Header, message: m.ImportModel) -> None:
        def start() -> None:
            asked = check_import(message, self._config)
            path = self._roots.check(asked.path)
            self._imports.start(header.id, path, asked.model, asked.template, asked.accept_licence)

        self._checked(session, header, start, lambda _: self._list_models(session, header))

    def _local_only(self, last: zmq.Frame, what: str, allowed: bool = False) -> None:
        """Raise RequestError `request.not_allowed` unless a local client, or any where that is `allowed`, asks."""
        if not allowed and last.get("User-Id") != self._local_key.decode():
            raise RequestError(
                "request.not_allowed",
                f"only the account that started the server may {what}",
                remedy="Do it on the server's own host.",
            )

    def _list_color(self, session: str, header: Header, ocio: str) -> None:
        def check() -> str:
            mapped = check_ocio(ocio, self._config)
            if mapped and not mapped.startswith("ocio://"):
                self._roots.check(mapped)
            return mapped

        self._checked(session, header, check, lambda path: self._scheduler.questions.color(session, header, path))

    def _describe_plate(self, session: str, header: Header, message: m.DescribePlate) -> None:
        def check() -> tuple[PlateSpec, str]:
            plate, ocio = check_plate(message.plate, message.ocio, self._config)
            check_paths(JobSpec("analyse", plate, ocio=ocio), self._roots)
            return plate, ocio

        self._checked(session, header, check, lambda found: self._scheduler.questions.plate(session, header, *found))

    def _list_faces(self, session: str, header: Header, message: m.ListFaces) -> None:
        def check() -> JobSpec:
            job = check_faces(message, self._config, self._catalog.descriptors)
            check_paths(job, self._roots)
            return job

        def ask(job: JobSpec) -> None:
            self._scheduler.questions.faces(session, header, job, message.frame)

        self._checked(session, header, check, ask)

    def _checked(self, session: str, header: Header, check: Callable[[], T], then: Callable[[T], None]) -> bool:
        """Do `check` on another thread; answer with its error, or go on here with its result.

        False where too many checks wait already, which has been answered.
        """

        def checked(outcome: T | FaceplateError) -> None:
            if isinstance(outcome, FaceplateError):
                self._to_client(session, m.Error(clip_error(outcome)), header, ())
            else:
                then(outcome)

        return self._later(check, checked)

    def _shutdown(self, session: str, header: Header) -> None:
        self._to_client(session, m.Bye(), header, ())
        _log.info("shutdown asked for by session %s", session)
        self.stop()

    def _remember(self, session: str, identity: bytes) -> None:
        self._routes[session] = identity
        self._routes.move_to_end(session)
        while len(self._routes) > _SESSIONS:
            forgotten, _ = self._routes.popitem(last=False)
            self._newest_preview.pop(forgotten, None)

    def _to_client(self, session: str, message: m.Message, parent: Header | None, buffers: tuple[bytes, ...]) -> None:
        identity = self._routes.get(session)
        if identity is not None:
            self._write(identity, message, parent, buffers)

    def _write(self, identity: bytes, message: m.Message, parent: Header | None, buffers: tuple[bytes, ...]) -> None:
        try:
            frames = pack(Envelope(self._pen.header(message.TYPE), parent, message.body(), buffers), REPLY_LIMITS)
        except (FaceplateError, ValueError, TypeError) as error:
            _log.error("%s cannot be sent: %s", message.TYPE, error)
            if parent is None or isinstance(message, m.Error):
                return
            problem = ServerError(
                "server.internal", f"the answer {message.TYPE} cannot be sent: {error}", remedy="See the server's log."
            )
            self._write(identity, m.Error(clip_error(problem)), parent, ())
            return
        try:
            self._front.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # The client is gone or does not read; what it missed is in the store.
            _log.debug("%s not delivered: %s", message.TYPE, error)

    # workers

    def _from_worker(self, frames: list[zmq.Frame]) -> None:
        identity, parts = frames[0].bytes, [f.bytes for f in frames[1:]]
        try:
            envelope = unpack(parts, w.LINK_LIMITS)
            message = msgspec.convert(envelope.body, w.FROM_WORKER[envelope.header.type])
        except (FaceplateError, KeyError, msgspec.ValidationError) as error:
            _log.error("a worker's message cannot be read: %s", error)
            return
        worker = self._supervisor.heard(envelope.header.session, identity, message)
        if worker is None:
            return
        if isinstance(message, w.WorkerReady):
            self._scheduler.assign()
        else:
            self._scheduler.heard(worker, message, envelope.buffers)

    def _to_worker(self, identity: bytes, message: w.LinkMessage) -> None:
        frames = pack(Envelope(self._pen.header(message.TYPE), None, message.body()), w.LINK_LIMITS)
        try:
            self._back.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            _log.error("%s did not reach its worker: %s", message.TYPE, error)

    def _worker_died(self, worker: Any, why: str) -> None:
        self._scheduler.died(worker, why)

    # plumbing

    def _router(self, keys: KeyPair, domain: str, address: str) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.ROUTER)
        sock.linger = 0
        sock.router_mandatory = 1
        sock.zap_domain = domain.encode()
        sock.curve_server = True
        sock.curve_publickey = keys.public
        sock.curve_secretkey = keys.secret
        sock.ipv6 = "[" in address
        sock.bind(address)
        return sock

    def _drain(self, sock: zmq.Socket[bytes], take: Callable[[list[zmq.Frame]], None]) -> None:
        for _ in range(_BURST):
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            take(frames)

    def _later(self, work: Callable[[], T], then: Callable[[T | FaceplateError], None]) -> bool:
        """Do `work` on another thread and call `then` here with its result or error; False: too many wait already."""
        if self._checks >= _MAX_CHECKS:
            then(busy(_MAX_CHECKS))
            return False
        self._checks += 1

        def finish(outcome: T | FaceplateError) -> None:
            self._checks -= 1
            then(outcome)

        def done(future: Future[T]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            outcome: T | FaceplateError
            if error is None:
                outcome = future.result()
            elif isinstance(error, FaceplateError):
                outcome = error
            else:
                _log.error("a check failed", exc_info=error)
                outcome = ServerError(
                    "server.internal",
                    f"{type(error).__name__}: {error}",
                    remedy="See the server's log, and report it.",
                )
            self._mailbox.put(lambda: finish(outcome))

        self._pool.submit(work).add_done_callback(done)
        return True


def _job_id(text: str) -> str:
    if not 6 <= len(text) <= 32 or not all(c in "0123456789abcdef" for c in text):
        raise malformed("job_id must be 6 to 32 lower-case hex digits")
    return text


def _bad(name: str, value: Any, wanted: str) -> RequestError:
    return RequestError(
        "request.bad_value", f"{name} cannot be {value!r:.120}", value=str(value)[:200], remedy=f"Give {wanted}."
    )


def _bound(sock: zmq.Socket[bytes]) -> str:
    address = sock.get(zmq.LAST_ENDPOINT)
    return address.decode().rstrip("\0") if isinstance(address, bytes) else str(address)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
