"""The worker process: opens the pipeline on one device, runs jobs, answers previews in between.

Decides how an orphan is kept from harm. The end of standard input, a new parent process, or (Linux) the parent-death
signal mean that the server is gone: from then on `may_write` says no, the run is closed at its next yield so that
nothing half-written stays, and after five seconds the process ends wherever it is. Independently of all that,
`may_write` compares the job's lease file with the number this run was given, so that even a worker that was
frozen and thawed cannot write over its successor's frames.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import FaceplateError, JobError, ServerError
from inference_server import worklink as w
from inference_server.config import ServerConfig, config_from_json
from inference_server.link import Link
from inference_server.runs import (
    FrameDone,
    FrameFailed,
    FrameStarted,
    JobContext,
    Planned,
    Progress,
    RunEvent,
    Runner,
    Warned,
)

if TYPE_CHECKING:
    from inference_server.describing import Describer

_log = logging.getLogger("faceplate.worker")
_ORPHAN_GRACE_S = 5.0
_MEMORY_S = 1.0
_ACTIVITY_S = 0.1
_IDLE_S = 0.2
_PR_SET_PDEATHSIG = 1


class Parent:
    """Whether the server that started this process still lives."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._gone = threading.Event()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the server's to handle
        signal.signal(signal.SIGTERM, lambda *_: self._lost())
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        threading.Thread(target=self._watch, name="faceplate-parent", daemon=True).start()

    @property
    def gone(self) -> bool:
        if not self._gone.is_set() and sys.platform != "win32" and os.getppid() != self._pid:
            self._lost()
        return self._gone.is_set()

    def _watch(self) -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        self._lost()

    def _lost(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            faulthandler.dump_traceback_later(_ORPHAN_GRACE_S, exit=True)


@dataclass(frozen=True)
class Lease:
    """The right to write a job's frames: the number in `path` is this run's as long as nobody took the job over."""

    path: Path
    attempt: int

    def note_frame(self, frame: int) -> None:
        """Leave on disk which frame is begun: a message could still be unsent when the frame kills this process."""
        self.path.with_name(f"{self.path.name}.frame").write_text(f"{self.attempt} {frame}", encoding="ascii")

    def held(self) -> bool:
        try:
            return self.path.read_text(encoding="ascii") == str(self.attempt)
        except (OSError, UnicodeDecodeError):
            return False


class Activity:
    """Tells the gateway of a long step, at most ten times a second."""

    def __init__(self, send: Callable[[w.LinkMessage], None]) -> None:
        self._send = send
        self._told = w.WorkerActivity()
        self._when = 0.0

    def report(self, text: str, done: float) -> None:
        """See runs.Runner; any thread."""
        step = w.WorkerActivity(text[:200], min(1.0, max(0.0, float(done))))
        now = time.monotonic()
        if step.text != self._told.text or step.done >= 1 or now - self._when >= _ACTIVITY_S:
            self._told, self._when = step, now
            self._send(step)

    def over(self) -> None:
        """What was asked for has ended; a step that failed half-way is not under way any more."""
        if self._told.done < 1:
            self.report("", 1.0)


class Worker:
    """One process's state and its link to the gateway."""

    def __init__(self, hello: dict[str, Any], parent: Parent) -> None:
        self._parent = parent
        self._config = config_from_json(hello["config"])
        self._device = str(hello["device"])
        self._runner: Runner | None = None
        self._job_id = ""
        self._stop_job = False
        self._quit = False
        self._next_job: w.RunJob | None = None
        self._memory_told = 0.0
        self._describer: Describer | None = None
        self._describing = threading.Lock()
        self._link = Link(hello, self._tell)
        self._activity = Activity(self._link.send)

    def main(self) -> int:
        """Serve until told to quit or orphaned; the exit status."""
        try:
            self._runner = open_runner(self._config, self._device)
            self._runner.report = self._activity.report
        except Exception as error:  # noqa: BLE001 - answered: every job is refused with it
            _log.exception("the pipeline cannot be opened on %s", self._device)
            known = error if isinstance(error, FaceplateError) else _unexpected(error)
            self._link.send(w.WorkerFailed(known.to_wire()))
            self._close()
            return 1
        self._link.send(w.WorkerReady(self._device))
        try:
            while not self._over:
                self._receive(_IDLE_S)
                job, self._next_job = self._next_job, None
                if job is not None:
                    self._run(job, self._runner)
                self._tell_memory()
        finally:
            self._runner.close()
            self._close()
        return 0

    @property
    def _over(self) -> bool:
        return self._quit or self._parent.gone or self._link.broken

    def _close(self) -> None:
        self._link.close(orphaned=self._parent.gone)

    # jobs

    def _run(self, job: w.RunJob, runner: Runner) -> None:
        self._job_id, self._stop_job = job.job_id, False
        state, error = "finished", None
        lease = Lease(Path(job.lease), job.attempt)
        context = JobContext(
            job_id=job.job_id,
            done=frozenset(job.done),
            attempt=job.attempt,
            banned={int(frame): wire for frame, wire in job.banned.items()},
            may_write=lambda: not self._parent.gone and lease.held(),
        )
        try:
            events = runner.run(job.spec, context)
            try:
                for event in events:
                    if isinstance(event, FrameStarted):
                        lease.note_frame(event.frame)
                    self._report(job, event)
                    self._receive(0)
                    self._tell_memory()
                    if self._stop_job or self._over:
                        state = "cancelled"
                        break
            finally:
                close = getattr(events, "close", None)
                if close is not None:
                    close()
        except FaceplateError as raised:
            state, error = "failed", raised
        except MemoryError as raised:
            state, error = "failed", _out_of_memory(raised)
        except Exception as raised:  # noqa: BLE001 - answered: the job fails with it
            _log.exception("job %s", job.job_id)
            state, error = "failed", _unexpected(raised)
        self._job_id = ""
        self._activity.over()
        if not self._over:
            self._link.send(w.RunEnded(job.job_id, job.attempt, state, error.to_wire() if error else None))

    def _report(self, job: w.RunJob, event: RunEvent) -> None:
        here = (job.job_id, job.attempt)
        if isinstance(event, Planned):
            self._link.send(w.RunPlanned(*here, event.shot, len(event.frames), dict(event.plan)))
        elif isinstance(event, Progress):
            self._link.send(w.RunProgress(*here, event.stage, event.done, event.total, event.note[:200], event.picture))
        elif isinstance(event, FrameStarted):
            self._link.send(w.RunFrameStarted(*here, event.frame))
        elif isinstance(event, FrameDone):
            self._link.send(w.RunFrameDone(*here, event.frame, event.path, event.status, float(event.seconds)))
        elif isinstance(event, FrameFailed):
            self._link.send(w.RunFrameFailed(*here, event.frame, dict(event.error)))
        elif isinstance(event, Warned):
            self._link.send(w.RunWarned(*here, event.code, event.message, event.frame))

    # questions

    def _preview(self, asked: w.MakePreview) -> None:
        if self._runner is None:
            return

        def make(runner: Runner = self._runner) -> tuple[dict[str, Any], tuple[bytes, ...]]:
            picture = runner.preview(asked.spec)
            fields = {
                "dtype": str(picture.pixels.dtype),
                "shape": [int(n) for n in picture.pixels.shape],
                "region": [int(n) for n in picture.region],
                "final": bool(picture.final),
                "note": picture.note,
                "seconds": float(picture.seconds),
            }
            return fields, (picture.pixels.tobytes(),)

        self._answer(asked.ask_id, make)
        self._activity.over()

    def _faces(self, asked: w.TellFaces) -> None:
        if self._runner is None:
            return

        def tell(runner: Runner = self._runner) -> tuple[dict[str, Any], tuple[bytes, ...]]:
            return runner.faces(asked.job, asked.frame).body(), ()

        self._answer(asked.ask_id, tell)
        self._activity.over()

    def _tell(self, asked: w.Aside) -> None:
        """Answer what needs neither device nor pipeline; on the link's side threads."""

        def tell() -> tuple[dict[str, Any], tuple[bytes, ...]]:
            with self._describing:
                if self._describer is None:
                    from inference_server.describing import Describer

                    self._describer = Describer(self._config)
            if isinstance(asked, w.TellPlate):
                return self._describer.plate(asked.plate, asked.ocio).body(), ()
            return self._describer.color(asked.ocio).body(), ()

        self._answer(asked.ask_id, tell)

    def _answer(self, ask_id: str, make: Callable[[], tuple[dict[str, Any], tuple[bytes, ...]]]) -> None:
        try:
            fields, buffers = make()
        except FaceplateError as error:
            self._link.send(w.Answer(ask_id, error=error.to_wire()))
        except MemoryError as error:
            self._link.send(w.Answer(ask_id, error=_out_of_memory(error).to_wire()))
        except Exception as error:  # noqa: BLE001 - answered: the request fails with it
            _log.exception("request %s", ask_id)
            self._link.send(w.Answer(ask_id, error=_unexpected(error).to_wire()))
        else:
            self._link.send(w.Answer(ask_id, fields), buffers)

    # the link

    def _receive(self, wait_s: float) -> None:
        """Take what the gateway says; a question is answered on the spot."""
        while (message := self._link.next(wait_s)) is not None:
            wait_s = 0
            if isinstance(message, w.RunJob):
                self._next_job = message
                return
            elif isinstance(message, w.StopJob):
                self._stop_job = self._stop_job or message.job_id == self._job_id
            elif isinstance(message, w.MakePreview):
                self._preview(message)
            elif isinstance(message, w.TellFaces):
                self._faces(message)
            elif isinstance(message, w.Quit):
                self._quit = True

    def _tell_memory(self) -> None:
        now = time.monotonic()
        if now - self._memory_told < _MEMORY_S:
            return
        self._memory_told = now
        self._link.send(w.WorkerMemory(resident_bytes(), *_device_memory()))


def open_runner(config: ServerConfig, device: str) -> Runner:
    """The pipeline that `config.runner` names; ServerError (`server.missing_package`, `server.config`) otherwise."""
    module, _, name = config.runner.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ServerError(
            "server.missing_package",
            f"the package {error.name} is not installed",
            value=error.name,
            remedy="Install the server: pip install 'faceplate[server]'.",
        ) from error
    except (ImportError, AttributeError) as error:
        raise ServerError(
            "server.start_failed",
            f"the pipeline {config.runner} cannot be opened: {error}",
            value=config.runner,
            remedy="Run `faceplate doctor`.",
        ) from error
    runner: Runner = factory(device, config)
    return runner


def resident_bytes() -> int:
    """Memory of this process in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _device_memory() -> tuple[int, int]:
    """Used and total bytes of the GPU, if torch has been loaded and uses one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0, 0
    free, total = torch.cuda.mem_get_info()
    return total - free, total


def _out_of_memory(error: BaseException) -> JobError:
    return JobError(
        "job.out_of_memory",
        f"out of memory: {error}",
        remedy="Lower memory_gb in server.toml, render smaller plates, or use another device.",
    )


def _unexpected(error: BaseException) -> ServerError:
    return ServerError(
        "server.internal",
        f"{type(error).__name__}: {error}",
        remedy="See the worker's log, and report it with the plate and the parameters.",
    )


def _read_hello() -> dict[str, Any]:
    """The first line of standard input; read byte-wise so that nothing after it is buffered away."""
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 4096)
        if not block:
            raise SystemExit("a worker is started by the server, with its keys on standard input")
        line += block
    hello = json.loads(line)
    if not isinstance(hello, dict):
        raise SystemExit("the server's greeting is not an object")
    return hello


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    faulthandler.enable()
    hello = _read_hello()
    threads = hello["config"]["threads"]
    if threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(threads))
    return Worker(hello, Parent(int(hello["parent"]))).main()


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # a side thread may still wait for storage that does not answer
