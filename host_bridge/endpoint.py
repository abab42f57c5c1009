"""Where a server is and which keys open it: runtime folder, connection file, certificates.

The connection file carries the server's address and public key and the local client's key pair, so whoever may
read it may use the server: mode 0600 inside a folder of mode 0700, and refused when it is wider. Clients on other
machines use certificates (pyzmq's format) instead.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.auth

from host_bridge.errors import ServerError

CONNECTION_FILE = "connection.json"
_TCP = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\s]+):(?P<port>\d{1,5})\Z")


@dataclass(frozen=True)
class Connection:
    """All a client needs: keys are Z85 text. `pid`, `session` and `version` are the server's, 0 or "" if unknown."""

    endpoint: str
    server_key: str
    public_key: str
    secret_key: str
    pid: int = 0
    session: str = ""
    version: str = ""

    def __repr__(self) -> str:
        return f"Connection({self.endpoint!r}, server_key={self.server_key!r}, pid={self.pid})"


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the running server's connection file, locks and logs: $FACEPLATE_RUNTIME, or the user's own."""
    if environ.get("FACEPLATE_RUNTIME"):
        return Path(environ["FACEPLATE_RUNTIME"])
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "faceplate"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "faceplate" / "run"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "faceplate" / "run"
    return Path(tempfile.gettempdir()) / f"faceplate-{os.getuid()}"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the job store: $FACEPLATE_STATE, `state` in $FACEPLATE_RUNTIME, or the user's own. Local disk."""
    if environ.get("FACEPLATE_STATE"):
        return Path(environ["FACEPLATE_STATE"])
    if environ.get("FACEPLATE_RUNTIME"):
        return Path(environ["FACEPLATE_RUNTIME"]) / "state"
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "faceplate"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "faceplate" / "state"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "faceplate"
    return Path.home() / ".local" / "state" / "faceplate"


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of server.toml and certificates: $FACEPLATE_CONFIG, or the user's own."""
    if environ.get("FACEPLATE_CONFIG"):
        return Path(environ["FACEPLATE_CONFIG"])
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "faceplate"
    if sys.platform == "win32":
        return Path(environ.get("APPDATA") or Path.home()) / "faceplate"
    return Path.home() / ".config" / "faceplate"


def private_folder(path: Path) -> Path:
    """Make `path` with mode 0700 and make sure that it is ours and closed to others; ServerError otherwise."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if sys.platform != "win32":
            if info.st_uid != os.getuid():
                raise _unsafe(path, "belongs to another user")
            if info.st_mode & 0o077:
                path.chmod(0o700)
    except OSError as error:
        raise ServerError(
            "server.start_failed",
            f"cannot use the folder {path}: {error.strerror}",
            path=str(path),
            remedy="Set FACEPLATE_RUNTIME and FACEPLATE_STATE to folders of your own.",
        ) from error
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 at once (readers see the old one or the new one)."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_connection(path: Path, connection: Connection) -> None:
    """Write the connection file, mode 0600."""
    write_private(path, json.dumps(asdict(connection), indent=1))


def read_connection(path: Path) -> Connection:
    """Read a connection file.

    Raises ServerError: `server.not_running` if there is none, `server.wrong_key` if others may read it,
    `server.unreachable` if it cannot be understood.
    """
    try:
        with path.open(encoding="utf-8") as file:
            info = os.fstat(file.fileno())
            text = file.read(1 << 16)
    except FileNotFoundError as error:
        raise ServerError(
            "server.not_running",
            "no server is running",
            path=str(path),
            remedy="Start one with `faceplate serve --detach`, or leave out --no-start.",
        ) from error
    except OSError as error:
        raise ServerError(
            "server.unreachable",
            f"cannot read the connection file: {error.strerror}",
            path=str(path),
            remedy="Use the account that runs the server.",
        ) from error
    if sys.platform != "win32" and stat.S_IMODE(info.st_mode) & 0o077:
        raise ServerError(
            "server.wrong_key",
            f"the connection file may be read by others (mode {stat.S_IMODE(info.st_mode):04o}, expected 0600)",
            path=str(path),
            remedy="Run `chmod 600` on it, and restart the server if others may have read it.",
        )
    try:
        data = json.loads(text)
        values = {k: data[k] for k in Connection.__dataclass_fields__ if k in data}
        if not all(isinstance(values[k], str) for k in ("endpoint", "server_key", "public_key", "secret_key")):
            raise TypeError("endpoint and keys must be text")
        return Connection(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise ServerError(
            "server.unreachable",
            f"the connection file cannot be understood: {error}",
            path=str(path),
            remedy="Stop the server and remove the file.",
        ) from error


def from_certificates(endpoint: str, folder: Path) -> Connection:
    """A connection to a server elsewhere: `folder` holds `server.key` and this client's `client.key_secret`.

    Raises ServerError (`server.wrong_key`) when one is missing or unreadable, (`server.unreachable`) for a bad address.
    """
    parse_endpoint(endpoint)
    try:
        server_key, _ = zmq.auth.load_certificate(folder / "server.key")
        public, secret = zmq.auth.load_certificate(folder / "client.key_secret")
    except (OSError, ValueError) as error:
        raise ServerError(
            "server.wrong_key",
            f"no usable certificates: {error}",
            path=str(folder),
            remedy="Put server.key and client.key_secret there; the server's administrator makes them.",
        ) from error
    if secret is None:
        raise ServerError(
            "server.wrong_key",
            "client.key_secret has no secret key",
            path=str(folder),
            remedy="Copy the secret certificate.",
        )
    return Connection(endpoint, server_key.decode(), public.decode(), secret.decode())


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of `tcp://host:port`; ServerError (`server.unreachable`) otherwise."""
    match = _TCP.match(endpoint)
    if not match or int(match["port"]) > 65535:
        raise ServerError(
            "server.unreachable",
            f"cannot read the address {endpoint!r}",
            value=endpoint,
            remedy="Write tcp://host:port, or the path of a connection file.",
        )
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    return host in ("localhost", "::1") or bool(re.match(r"127(\.\d{1,3}){3}\Z", host))


def secure(sock: zmq.Socket[Any], connection: Connection) -> None:
    """Give a client's socket its keys."""
    sock.curve_serverkey = connection.server_key.encode()
    sock.curve_publickey = connection.public_key.encode()
    sock.curve_secretkey = connection.secret_key.encode()


def _unsafe(path: Path, why: str) -> ServerError:
    return ServerError(
        "server.start_failed",
        f"the folder {path} {why}",
        path=str(path),
        remedy="Set FACEPLATE_RUNTIME to a folder of your own.",
    )
