"""The server's settings: server.toml, then FACEPLATE_* variables, then the command line; unknown keys are errors.

Every bound of the server lives here: memory, queue, message and preview sizes, threads, which folders may be touched.
A frozen dataclass of plain types, so that workers receive it as JSON.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from host_bridge.endpoint import config_dir, is_loopback, parse_endpoint, runtime_dir, state_dir
from host_bridge.errors import FaceplateError, ServerError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEVICE = re.compile(r"(auto|cpu|mps|cuda(:\d{1,3})?)\Z")


@dataclass(frozen=True)
class ServerConfig:
    """All settings; "" for a folder means the user's own (host_bridge/endpoint.py).

    bind            address to listen on; port 0 picks a free one
    devices         one worker process each: auto, cpu, mps, cuda, cuda:N (N counts in $CUDA_VISIBLE_DEVICES)
    runtime, state  folders of the connection file and of the job store (local disk)
    shots           folder of the shot store, "" = `shots` in the user's state folder, also for private servers
    shots_quota_gb  size at which least recently used shots are removed, 0 = no limit
    models          folders searched for models
    certificates    folder with server.key_secret and clients/*.key; compulsory beyond loopback
    roots           folders that jobs may read and write; compulsory beyond loopback, empty = all of the user's
    remote_imports  clients of other machines may import model files, too
    path_maps       [from, to] pairs applied to every path of a job, in order, first match wins
    queue_length    jobs that may wait
    max_frames      frames one job may name
    max_body_bytes  largest message body accepted
    max_preview     largest longer side of a preview, pixels
    memory_gb       memory the pipeline may use for frames in flight, per worker
    threads         CPU threads per worker, 0 = the library's choice
    ocio            OCIO config, "" = $OCIO or the built-in one
    precision       auto, float32 or float16
    hang_s          a worker silent for so long in a job is taken for dead, 0 = never
    cancel_grace_s  a worker that does not stop a cancelled job within this time is ended
    start_s         a worker that is not ready within this time is taken for dead
    keep_jobs       ended jobs kept in the store
    private         die with the parent process, whose end is seen on standard input
    runner          `module:function` that opens the worker's pipeline
    effects         `module:function` that lists the effects' descriptors
    """

    bind: str = "tcp://127.0.0.1:0"
    devices: tuple[str, ...] = ("auto",)
    runtime: str = ""
    state: str = ""
    shots: str = ""
    shots_quota_gb: float = 100.0
    models: tuple[str, ...] = ()
    certificates: str = ""
    roots: tuple[str, ...] = ()
    remote_imports: bool = False
    path_maps: tuple[tuple[str, str], ...] = ()
    queue_length: int = 1000
    max_frames: int = 200_000
    max_body_bytes: int = 4 << 20
    max_preview: int = 2048
    memory_gb: float = 8.0
    threads: int = 0
    ocio: str = ""
    precision: str = "auto"
    hang_s: float = 900.0
    cancel_grace_s: float = 60.0
    start_s: float = 180.0
    keep_jobs: int = 1000
    private: bool = False
    runner: str = "inference_server.pipeline:open_runner"
    effects: str = "inference_server.effects.registry:descriptors"

    @property
    def runtime_path(self) -> Path:
        return Path(self.runtime) if self.runtime else runtime_dir()

    @property
    def state_path(self) -> Path:
        return Path(self.state) if self.state else state_dir()

    @property
    def logs_path(self) -> Path:
        return self.state_path / "logs"

    @property
    def shots_path(self) -> Path:
        return Path(self.shots) if self.shots else state_dir() / "shots"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `config_from_json` reads them back."""
        return asdict(self)


@dataclass(frozen=True)
class _Rule:
    """Smallest and largest value of a number."""

    low: float
    high: float = field(default=float("inf"))


_RULES: dict[str, _Rule] = {
    "queue_length": _Rule(1, 1_000_000),
    "max_frames": _Rule(1, 10_000_000),
    "max_body_bytes": _Rule(4096, 64 << 20),
    "max_preview": _Rule(16, 8192),
    "memory_gb": _Rule(0.25),
    "shots_quota_gb": _Rule(0),
    "threads": _Rule(0, 1024),
    "hang_s": _Rule(0),
    "cancel_grace_s": _Rule(0.1),
    "start_s": _Rule(1),
    "keep_jobs": _Rule(0, 1_000_000),
}


def load_config(
    overrides: Mapping[str, Any] | None = None,
    *,
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ServerConfig:
    """Read `path` (default: server.toml in the configuration folder, if there), the environment, then `overrides`.

    Environment: FACEPLATE_ + the key in capitals; lists are separated by the platform's path separator, path
    maps written from=to. Raises ServerError (`server.config`) naming the key, what is allowed and the nearest name.
    """
    values: dict[str, Any] = {}
    file = path or config_dir(environ) / "server.toml"
    if path is not None or file.exists():
        try:
            values.update(tomllib.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise _bad(f"cannot read {file}: {error}", str(file), "Correct the file (TOML).") from error
    for key in _keys():
        text = environ.get(f"FACEPLATE_{key.upper()}")
        if text:
            values[key] = _from_text(key, text)
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    return config_from_json(values)


def config_from_json(values: Mapping[str, Any]) -> ServerConfig:
    """A checked config from plain types; ServerError (`server.config`) otherwise."""
    for key in values:
        if key not in _keys():
            raise unknown_name("server.config", "key of server.toml", str(key), _keys())
    config = ServerConfig(**{key: _typed(key, value) for key, value in values.items()})
    for key, rule in _RULES.items():
        value = getattr(config, key)
        if not rule.low <= value <= rule.high:
            raise _bad(f"{key} is {value}", value, f"Give a number between {rule.low:g} and {rule.high:g}.")
    if not config.devices or len(set(config.devices)) != len(config.devices):
        raise _bad(f"devices are {list(config.devices)}", list(config.devices), "Name each device once.")
    for device in config.devices:
        if not _DEVICE.match(device):
            raise _bad(f"unknown device {device!r}", device, "Use auto, cpu, mps, cuda or cuda:N.")
    for key in ("runtime", "state", "shots", "certificates", "ocio"):
        value = getattr(config, key)
        if value and not os.path.isabs(value):
            raise _bad(f"{key} is {value!r}", value, "Give an absolute path.")
    for root in config.roots:
        if not os.path.isabs(root):
            raise _bad(f"roots holds {root!r}", root, "Give absolute folders.")
    if config.precision not in ("auto", "float32", "float16"):
        raise _bad(f"precision is {config.precision!r}", config.precision, "Use auto, float32 or float16.")
    _check_bind(config)
    return config


def _check_bind(config: ServerConfig) -> None:
    try:
        host, _ = parse_endpoint(config.bind)
    except FaceplateError as error:
        raise _bad(f"bind is {config.bind!r}", config.bind, "Write tcp://host:port.") from error
    if is_loopback(host):
        return
    if not config.certificates:
        raise _bad(
            f"{config.bind} is reachable from other machines and `certificates` is not set",
            config.bind,
            "Set certificates to a folder with server.key_secret and clients/*.key, or bind to 127.0.0.1.",
        )
    if not config.roots:
        raise _bad(
            f"{config.bind} is reachable from other machines and `roots` is not set",
            config.bind,
            "Set roots to the folders that jobs may read and write, or bind to 127.0.0.1.",
        )


def _keys() -> list[str]:
    return [f.name for f in fields(ServerConfig)]


def _from_text(key: str, text: str) -> Any:
    kind = type(getattr(ServerConfig(), key))
    if key == "path_maps":
        return [part.split("=", 1) for part in text.split(os.pathsep)]
    if key == "devices":
        return text.split(",")
    if kind is tuple:
        return text.split(os.pathsep)
    if kind is bool:
        return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _typed(key: str, value: Any) -> Any:
    default = getattr(ServerConfig(), key)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return float(value)
    elif isinstance(default, str):
        if isinstance(value, str):
            return value
    elif key == "path_maps":
        if isinstance(value, list | tuple) and all(
            isinstance(p, list | tuple) and len(p) == 2 and all(isinstance(s, str) and s for s in p) for p in value
        ):
            return tuple((p[0], p[1]) for p in value)
    elif isinstance(value, list | tuple) and all(isinstance(v, str) and v for v in value):
        return tuple(value)
    expected = "a list of [from, to]" if key == "path_maps" else f"a {type(default).__name__}"
    raise _bad(f"{key} is {value!r:.80}", str(value)[:200], f"Give {expected}, such as {default!r}.")


def _bad(message: str, value: Any, remedy: str) -> ServerError:
    return ServerError("server.config", message, value=value, remedy=remedy)
