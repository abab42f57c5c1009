"""Puts a server together: folders, locks, keys, log, gateway, signals.

Decides that there is one server per runtime folder and one per state folder, and announces itself (connection file)
only when it answers.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path

from host_bridge import __version__
from host_bridge.endpoint import CONNECTION_FILE, Connection, private_folder, write_connection
from host_bridge.errors import FaceplateError, ServerError
from host_bridge.locks import FileLock
from inference_server.access import Admission, KeyPair, server_keys
from inference_server.config import ServerConfig
from inference_server.devices import settle
from inference_server.gateway import Gateway

_log = logging.getLogger("faceplate.server")


def serve(config: ServerConfig, *, foreground: bool = True) -> None:
    """Run a server in this process until it is told to stop. Raises ServerError when it cannot start."""
    runtime, state = private_folder(config.runtime_path), private_folder(config.state_path)
    private_folder(config.logs_path)
    file = runtime / CONNECTION_FILE
    with _lock(runtime / "server.lock", "runtime"), _lock(state / "store.lock", "state"):
        file.unlink(missing_ok=True)  # a killed server's
        _set_up_log(config.logs_path / "server.log", foreground)
        local = KeyPair.fresh()
        if config.certificates:
            folder = Path(config.certificates)
            keys, admission = server_keys(folder), Admission(folder / "clients")
        else:
            keys, admission = KeyPair.fresh(), Admission()
        admission.admit(local.public)
        gateway = Gateway(replace(config, devices=settle(config.devices)), keys, local, admission)
        try:
            for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), lambda *_: gateway.stop())
            if config.private:
                threading.Thread(target=_watch_parent, args=(gateway,), daemon=True).start()
            gateway.start()
            write_connection(
                file,
                Connection(
                    gateway.endpoint,
                    keys.public.decode(),
                    local.public.decode(),
                    local.secret.decode(),
                    os.getpid(),
                    gateway.session,
                    __version__,
                ),
            )
            _log.info("serving at %s, pid %d, state in %s", gateway.endpoint, os.getpid(), state)
            gateway.run()
        finally:
            file.unlink(missing_ok=True)
            gateway.close()
            _log.info("stopped")
    if config.private:  # its command may have been killed, and nobody else knows this folder
        logging.shutdown()
        shutil.rmtree(runtime, ignore_errors=True)


def _lock(path: Path, what: str) -> FileLock:
    lock = FileLock(path)
    if not lock.acquire(0.2):
        raise ServerError(
            "server.start_failed",
            f"another server uses this {what} folder",
            path=str(path.parent),
            remedy="Use that server (`faceplate status`), or give this one folders of its own.",
        )
    return lock


def _set_up_log(path: Path, foreground: bool) -> None:
    handlers: list[logging.Handler] = [RotatingFileHandler(path, maxBytes=4 << 20, backupCount=2, encoding="utf-8")]
    if foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.getLogger("faceplate.zap").setLevel(logging.ERROR)  # admission is logged by faceplate.access


def _watch_parent(gateway: Gateway) -> None:
    """A private server ends when the process that holds the other end of its standard input does."""
    try:
        while os.read(0, 4096):
            pass
    except OSError as error:
        _log.error("standard input cannot be read: %s", error)
    gateway.stop()


def run(config: ServerConfig, *, foreground: bool) -> int:
    """`serve`, with an error on standard error and its exit status."""
    try:
        serve(config, foreground=foreground)
    except FaceplateError as error:
        sys.stderr.write(f"faceplate: {error}\n")
        return int(error.exit_code)
    return 0
