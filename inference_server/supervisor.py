"""Starts one worker process per device, watches it, starts it again when it dies.

Decides when a worker is given up: after three starts in a row that never became ready. A worker is started with a key
of its own, which is admitted for that process only, so nothing that an earlier one still says is heard.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from host_bridge.envelope import new_id
from host_bridge.errors import FaceplateError, ServerError, from_wire
from host_bridge.launcher import PATIENT_THREADS
from host_bridge.messages import DeviceStatus
from inference_server import worklink as w
from inference_server.access import Admission, KeyPair
from inference_server.config import ServerConfig

_log = logging.getLogger("faceplate.supervisor")
_STARTS = 3
_LOG_LIMIT = 4 << 20


@dataclass
class WorkerProcess:
    """One device's place: the process in it changes, the place stays. `state` as in DeviceStatus."""

    device: str
    asked_device: str
    environment: Mapping[str, str]
    log: Path
    state: str = "starting"
    session: str = ""
    keys: KeyPair | None = None
    process: subprocess.Popen[bytes] | None = None
    identity: bytes = b""
    started: float = 0.0
    restart_at: float = 0.0
    failed_starts: int = 0
    restarts: int = 0
    why: str = ""
    failure: FaceplateError | None = None
    job_id: str = ""
    warm_plate: str = ""
    name: str = ""
    memory: w.WorkerMemory = field(default_factory=lambda: w.WorkerMemory(0))
    activity: w.WorkerActivity = field(default_factory=w.WorkerActivity)

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    def status(self) -> DeviceStatus:
        """What ping shows."""
        state = self.state
        if state == "ready":
            state = "busy" if self.job_id else "idle"
        return DeviceStatus(
            device=self.device,
            state=state,
            pid=self.process.pid if self.process else 0,
            job_id=self.job_id,
            restarts=self.restarts,
            rss=self.memory.rss,
            memory_used=self.memory.used,
            memory_total=self.memory.total,
            name=self.name,
            activity=self.activity.text,
            activity_done=self.activity.done if self.activity.text else 0.0,
        )


class Supervisor:
    """See the module. `transmit` sends a message to a worker's identity; `died` tells the scheduler."""

    def __init__(
        self,
        config: ServerConfig,
        endpoint: str,
        server_key: bytes,
        admission: Admission,
        logs: Path,
        transmit: Callable[[bytes, w.LinkMessage], None],
        died: Callable[[WorkerProcess, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._endpoint = endpoint
        self._server_key = server_key
        self._admission = admission
        self._transmit = transmit
        self._died = died
        self._clock = clock
        self.workers = [
            WorkerProcess(name, device, environment, logs / f"worker-{name.replace(':', '')}.log")
            for name, device, environment in place(config.devices, os.environ)
        ]

    def start(self) -> None:
        for worker in self.workers:
            self._spawn(worker)

    # what the scheduler needs

    def ready(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.ready]

    def send(self, worker: WorkerProcess, message: w.LinkMessage) -> None:
        self._transmit(worker.identity, message)

    def kill(self, worker: WorkerProcess, why: str) -> None:
        """End a worker's process; it is noticed and replaced at the next `tick`."""
        if worker.process and worker.process.poll() is None and not worker.why:
            _log.warning("killing the worker for %s: %s", worker.device, why)
            worker.why = why
            worker.process.kill()

    def failure(self) -> FaceplateError | None:
        if all(worker.state == "failed" for worker in self.workers):
            return self.workers[0].failure
        return None

    # the processes

    def heard(self, session: str, identity: bytes, message: w.LinkMessage) -> WorkerProcess | None:
        """Who sent a message; None for a process that is no longer the one in its place."""
        worker = next((v for v in self.workers if v.session == session and v.process), None)
        if worker is None:
            return None
        worker.identity = identity
        if isinstance(message, w.WorkerReady):
            worker.state, worker.failed_starts = "ready", 0
            worker.device, worker.name = message.device, message.name
            _log.info("worker for %s is ready after %.2f s", worker.device, self._clock() - worker.started)
        elif isinstance(message, w.WorkerFailed):
            worker.failure = from_wire(message.error)
        elif isinstance(message, w.WorkerMemory):
            worker.memory = message
        elif isinstance(message, w.WorkerActivity):
            worker.activity = message if message.done < 1 else w.WorkerActivity()
        return worker

    def tick(self) -> bool:
        """Notice deaths, start what is due; whether anything changed."""
        now = self._clock()
        changed = False
        for worker in self.workers:
            if worker.process is None:
                if worker.state != "failed" and now >= worker.restart_at:
                    self._spawn(worker)
                continue
            code = worker.process.poll()
            if code is None:
                if worker.state == "starting" and now - worker.started > self._config.start_s:
                    self.kill(worker, f"was not ready within {self._config.start_s:g} s")
                continue
            changed = True
            self._bury(worker, code, now)
        return changed

    def stop(self, grace_s: float = 5.0) -> None:
        """End every worker: politely, then not."""
        for worker in self.workers:
            if worker.process and worker.process.poll() is None and worker.identity:
                self._transmit(worker.identity, w.Quit())
        deadline = time.monotonic() + grace_s
        for worker in self.workers:
            process = worker.process
            if process is None:
                continue
            _close(process.stdin)
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            worker.process = None

    def _spawn(self, worker: WorkerProcess) -> None:
        keys = KeyPair.fresh()
        self._admission.admit(keys.public)
        worker.keys, worker.session, worker.identity = keys, new_id(), b""
        worker.state = "starting" if worker.restarts == 0 else "restarting"
        worker.started, worker.why, worker.memory = self._clock(), "", w.WorkerMemory(0)
        worker.activity = w.WorkerActivity()
        hello = {
            "endpoint": self._endpoint,
            "server_key": self._server_key.decode(),
            "public_key": keys.public.decode(),
            "secret_key": keys.secret.decode(),
            "session": worker.session,
            "device": worker.asked_device,
            "parent": os.getpid(),
            "config": self._config.to_json(),
        }
        if worker.log.exists() and worker.log.stat().st_size > _LOG_LIMIT:
            worker.log.replace(worker.log.with_suffix(".log.1"))
        with worker.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "inference_server.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(worker.environment),
                cwd=Path(__file__).parent.parent,  # where `-m` finds the package, and no user's folder is held open
            )
        worker.process = process
        try:
            if process.stdin:
                process.stdin.write(json.dumps(hello).encode() + b"\n")
                process.stdin.flush()
        except BrokenPipeError:
            _log.error("the worker for %s died at its start", worker.device)

    def _bury(self, worker: WorkerProcess, code: int, now: float) -> None:
        process, worker.process = worker.process, None
        if process:
            _close(process.stdin)
        if worker.keys:
            self._admission.dismiss(worker.keys.public)
        why = worker.why or exit_text(code)
        _log.error("the worker for %s is gone: %s", worker.device, why)
        if not worker.ready:
            worker.failed_starts += 1
        worker.restarts += 1
        worker.state = "restarting"
        worker.restart_at = now + (0.0 if worker.failed_starts == 0 else 0.2 * 2**worker.failed_starts)
        known = worker.failure is not None and worker.failed_starts > 0
        if known or worker.failed_starts >= _STARTS:
            worker.state = "failed"
            worker.failure = worker.failure or ServerError(
                "server.start_failed",
                f"the worker for {worker.device} does not start ({why}): {_tail(worker.log)}",
                value=worker.device,
                path=str(worker.log),
                remedy="See its log; run `faceplate doctor`.",
            )
        self._died(worker, why)


def place(devices: tuple[str, ...], environ: Mapping[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """(name, device inside the process, environment) per device.

    A worker for cuda:N sees that one GPU only, counted in $CUDA_VISIBLE_DEVICES where that is set. ServerError
    (`server.config`) for a GPU it hides.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    listed = None if visible is None else [v for v in visible.replace(" ", "").split(",") if v]
    places: list[tuple[str, str, dict[str, str]]] = []
    for device in devices:
        environment = {**PATIENT_THREADS, **environ}
        if not device.startswith("cuda"):
            if device == "cpu":
                environment["CUDA_VISIBLE_DEVICES"] = ""
            places.append((device, device, environment))
            continue
        index = int(device.partition(":")[2] or 0)
        if listed is not None and index >= len(listed):
            raise ServerError(
                "server.config",
                f"{device} is not among CUDA_VISIBLE_DEVICES={visible}",
                value=device,
                remedy=f"Use cuda:0 to cuda:{len(listed) - 1}."
                if listed
                else "Use cpu, or unset CUDA_VISIBLE_DEVICES.",
            )
        environment["CUDA_VISIBLE_DEVICES"] = listed[index] if listed is not None else str(index)
        places.append((f"cuda:{index}", "cuda:0", environment))
    return places


def exit_text(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _tail(log: Path, limit: int = 400) -> str:
    try:
        return log.read_bytes()[-limit:].decode(errors="replace").strip() or "its log is empty"
    except OSError as error:
        return f"its log cannot be read: {error}"


def _close(stream: IO[Any] | None) -> None:
    if stream is not None:
        try:
            stream.close()
        except BrokenPipeError:
            _log.debug("the worker was gone before its pipe was closed")
