"""Find a server or start one.

Decides that two clients that start a server at once get one (a lock held from looking to having it), that a server
that cannot run here is refused before anything is started, and what a private server is: one process's own, with
keys and job store in a temporary folder, gone with that process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from host_bridge.client import Client, Link
from host_bridge.endpoint import (
    CONNECTION_FILE,
    Connection,
    config_dir,
    from_certificates,
    private_folder,
    read_connection,
    runtime_dir,
)
from host_bridge.errors import FaceplateError, ServerError, from_wire
from host_bridge.locks import FileLock

SERVER_PYTHONS = ((3, 10), (3, 12))
SERVER_PACKAGES = (
    "msgspec",
    "numpy",
    "torch",
    "cv2",
    "mediapipe",
    "OpenImageIO",
    "PyOpenColorIO",
    "OpenEXR",
    "fileseq",
    "safetensors",
)
START_S = 30.0
# Idle OpenMP threads sleep: reader and writer threads share the cores with them, and spinning cost a factor of three.
# OpenMP reads them when torch is imported.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
_CHECK = """
import importlib.util, json, sys
missing = [n for n in json.loads(sys.argv[1]) if importlib.util.find_spec(n) is None]
print(json.dumps([list(sys.version_info[:2]), missing]))
"""


def connect(
    endpoint: str | None = None,
    *,
    start: bool = True,
    private: bool = False,
    settings: Mapping[str, Any] | None = None,
    name: str = "faceplate",
    timeout_s: float = START_S,
    on_state: Callable[[Link], None] | None = None,
) -> Client:
    """A client whose server has said welcome.

    `endpoint` is None for this user's local server ($FACEPLATE_SERVER may name another), the path of a connection
    file, or tcp://host:port with certificates in the configuration folder. Without a local server one is started,
    unless `start` is False. `private` starts one for this process only. `settings` are keys of server.toml for a
    server that is started here. Raises ServerError: `server.not_running`, `server.unreachable`,
    `server.wrong_key`, `server.start_failed`, `server.python`, `server.missing_package`, `server.config`.
    """
    if private:
        return _private(dict(settings or {}), name, timeout_s, on_state)
    endpoint = endpoint or os.environ.get("FACEPLATE_SERVER")
    if endpoint:
        return _attach(source(endpoint), name, min(timeout_s, 5.0), on_state)
    folder = Path(str((settings or {}).get("runtime") or runtime_dir()))
    file = folder / CONNECTION_FILE
    deadline = time.monotonic() + timeout_s
    while True:
        found = _running(file)
        if found is None:
            if not start:
                raise _not_running(file)
            found = _start_detached(folder, dict(settings or {}), timeout_s)
        try:
            return _attach(lambda: read_connection(file), name, min(timeout_s, 3.0), on_state)
        except ServerError as error:
            # It may have ended, or another taken its place, between being found and being spoken to.
            over = time.monotonic() > deadline
            if over or error.code not in ("server.unreachable", "server.wrong_key", "server.not_running"):
                raise
            if error.code == "server.wrong_key" and _running(file) == found:
                raise


def serve_foreground(settings: Mapping[str, Any] | None = None, *, config: Path | None = None) -> int:
    """Run a server in this process until it is stopped; the exit status. Raises ServerError before it serves."""
    check_server_python()
    loaded = importlib.import_module("inference_server.config").load_config(dict(settings or {}), path=config)
    status: int = importlib.import_module("inference_server.server").run(loaded, foreground=True)
    return status


def serve_detached(settings: Mapping[str, Any] | None = None, *, timeout_s: float = START_S) -> Connection:
    """Start a server in the background if none runs; where it is."""
    folder = Path(str((settings or {}).get("runtime") or runtime_dir()))
    return _start_detached(folder, dict(settings or {}), timeout_s)


def stop(endpoint: str | None = None, *, timeout_s: float = 15.0) -> bool:
    """Stop the server and wait until its workers are gone and its folders free; False if none was running."""
    if not endpoint:
        file = runtime_dir() / CONNECTION_FILE
        connection = _running(file)
        if connection is None:
            return False
        endpoint = str(file)
    with connect(endpoint, start=False, timeout_s=5.0) as client:
        pid = client.welcome.pid if client.welcome else 0
        client.shutdown(timeout_s=timeout_s)
    if Path(endpoint).is_absolute():
        lock = FileLock(Path(endpoint).parent / "server.lock")
        if not lock.acquire(timeout_s):
            raise ServerError(
                "server.internal",
                f"the server (pid {pid}) did not end within {timeout_s:g} s",
                value=pid,
                remedy="See its log; end the process by hand.",
            )
        lock.release()
    return True


def status(endpoint: str | None = None) -> dict[str, Any]:
    """What a running server says of itself: `endpoint`, `welcome` and `pong` fields, `ping_s`. ServerError if none."""
    with connect(endpoint, start=False, timeout_s=5.0) as client:
        began = time.perf_counter()
        pong = client.ping()
        elapsed = time.perf_counter() - began
        welcome = client.welcome.body() if client.welcome else {}
        return {"endpoint": client.endpoint, "welcome": welcome, "pong": pong.body(), "ping_s": elapsed}


def check_server_python(
    version: tuple[int, int] | None = None, missing: Sequence[str] | None = None, python: str = sys.executable
) -> None:
    """ServerError (`server.python`, `server.missing_package`) if this Python, or the one described, cannot serve."""
    version = version or (sys.version_info[0], sys.version_info[1])
    low, high = SERVER_PYTHONS
    if not low <= version <= high:
        raise ServerError(
            "server.python",
            f"the server runs on Python {low[0]}.{low[1]} to {high[0]}.{high[1]}, "
            f"and {python} is {version[0]}.{version[1]}",
            value=f"{version[0]}.{version[1]}",
            remedy="Install Faceplate's server in a supported Python and set FACEPLATE_PYTHON to its interpreter.",
        )
    if missing is None:
        missing = [n for n in SERVER_PACKAGES if importlib.util.find_spec(n) is None]
    if missing:
        raise ServerError(
            "server.missing_package",
            f"{python} lacks {', '.join(missing)}",
            value=list(missing),
            remedy="Run: pip install 'faceplate[server]', or set FACEPLATE_PYTHON to a Python that has it.",
        )


def source(endpoint: str) -> Callable[[], Connection]:
    """Where to connect, asked again for every fresh socket: `endpoint` as for `connect`. ServerError for certificates
    or an address that cannot be used; a connection file is read when the source is asked."""
    if not endpoint.startswith("tcp://"):
        path = Path(endpoint).absolute()
        return lambda: read_connection(path)
    folder = Path(os.environ.get("FACEPLATE_CERTIFICATES") or config_dir() / "certificates")
    connection = from_certificates(endpoint, folder)
    return lambda: connection


def _attach(
    source: Callable[[], Connection],
    name: str,
    timeout_s: float,
    on_state: Callable[[Link], None] | None,
    on_close: Callable[[], None] | None = None,
) -> Client:
    source()  # what is wrong with the file or the certificates is raised here, on the caller's thread
    client = Client(source, name=name, on_state=on_state, on_close=on_close)
    try:
        client.wait_ready(timeout_s)
    except BaseException:
        client.close()
        raise
    return client


def _running(file: Path, wait_s: float = START_S) -> Connection | None:
    """The server of a runtime folder, waited for if it is just starting; None if no process holds the folder."""
    deadline = time.monotonic() + wait_s
    while file.parent.is_dir():
        lock = FileLock(file.parent / "server.lock")
        if lock.acquire():
            lock.release()
            return None
        try:
            return read_connection(file)
        except ServerError as error:
            if error.code != "server.not_running":
                raise
        if time.monotonic() > deadline:
            raise _start_failed(f"another process has been starting one for {wait_s:g} s", file.parent)
        time.sleep(0.02)
    return None


def _start_detached(folder: Path, settings: dict[str, Any], timeout_s: float) -> Connection:
    private_folder(folder)
    file = folder / CONNECTION_FILE
    lock = FileLock(folder / "start.lock")
    if not lock.acquire(timeout_s):
        raise _start_failed(f"another client has been starting one for {timeout_s:g} s", folder)
    with lock:
        connection = _running(file)
        if connection is not None:
            return connection
        log = folder / "start.log"
        with log.open("wb") as output:
            process = _popen({**settings, "runtime": str(folder)}, subprocess.DEVNULL, output)
        connection = _wait_for(file, process, log, timeout_s)
        # Collected when it ends, however long the client lives; no zombie, no warning.
        threading.Thread(target=process.wait, name="faceplate-reaper", daemon=True).start()
        return connection


def _private(settings: dict[str, Any], name: str, timeout_s: float, on_state: Callable[[Link], None] | None) -> Client:
    folder = Path(tempfile.mkdtemp(prefix="faceplate-"))
    process: subprocess.Popen[bytes] | None = None

    def end() -> None:
        if process is not None:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        log = folder / "start.log"
        own = {"state": str(folder / "state"), **settings, "runtime": str(folder), "private": True}
        with log.open("wb") as output:
            process = _popen(own, subprocess.PIPE, output)
        file = folder / CONNECTION_FILE
        _wait_for(file, process, log, timeout_s)
        connection = read_connection(file)
        return _attach(lambda: connection, name, timeout_s, on_state, end)
    except BaseException:
        end()
        raise


def _popen(settings: dict[str, Any], stdin: int, output: Any) -> subprocess.Popen[bytes]:
    python = os.environ.get("FACEPLATE_PYTHON") or sys.executable
    environment = dict(os.environ)
    if os.path.realpath(python) == os.path.realpath(sys.executable) and _is_python(python):
        check_server_python()
        package = importlib.util.find_spec("inference_server")
        where = Path(package.origin).parent.parent if package and package.origin else None
    else:
        _check_other_python(python)
        where, environment = None, _own_environment()
    detach: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        detach = {"creationflags": flags}
    return subprocess.Popen(
        [python, "-m", "inference_server", json.dumps(settings)],
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd=where or Path(python).parent,
        env=environment,
        **detach,
    )


def _own_environment() -> dict[str, str]:
    """This process's environment without what a host sets for the Python inside it, which would break another."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}


def _is_python(path: str) -> bool:
    return Path(path).name.lower().startswith("python")


def _check_other_python(python: str) -> None:
    if not _is_python(python):
        raise ServerError(
            "server.python",
            f"{python} is not a Python interpreter that could run the server",
            value=python,
            remedy="Set FACEPLATE_PYTHON to the interpreter Faceplate's server is installed in.",
        )
    try:
        answer = subprocess.run(
            [python, "-c", _CHECK, json.dumps([*SERVER_PACKAGES, "inference_server"])],
            capture_output=True,
            timeout=30,
            check=True,
            cwd=Path(python).parent,
            env=_own_environment(),
        )
        version, missing = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServerError(
            "server.python",
            f"{python} cannot be asked for its version: {error}",
            value=python,
            remedy="Set FACEPLATE_PYTHON to a working Python interpreter.",
        ) from error
    check_server_python((version[0], version[1]), missing, python)


def _wait_for(file: Path, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> Connection:
    """The connection a server that was just started announces."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection = read_connection(file)
            if connection.pid == process.pid:
                return connection
        except FaceplateError:
            connection = None  # not there yet
        if process.poll() is not None:
            raise _start_failed(_last_words(log) or f"exit status {process.returncode}", file.parent)
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise _start_failed(f"it did not answer within {timeout_s:g} s; {_last_words(log)}", file.parent)
        time.sleep(0.01)


def _last_words(log: Path) -> str:
    try:
        return log.read_bytes()[-1000:].decode(errors="replace").strip()
    except OSError as error:
        return f"its log cannot be read: {error}"


def _start_failed(why: str, folder: Path) -> FaceplateError:
    return from_wire(
        {
            "code": "server.start_failed",
            "message": f"the server did not start: {why}",
            "remedy": "Run `faceplate serve` to see more, and `faceplate doctor`.",
            "path": str(folder),
        }
    )


def _not_running(file: Path) -> ServerError:
    return ServerError(
        "server.not_running",
        "no server is running, and starting one was forbidden",
        path=str(file),
        remedy="Start one with `faceplate serve --detach`, or leave out --no-start.",
    )
