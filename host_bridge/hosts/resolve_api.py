"""The way to Resolve's scripting objects: straight from here (Studio), or through the menu script that started us.

Both give the same objects to the rest of Faceplate, so there is one implementation for both editions. In the free
edition only scripts from Resolve's own menu get `resolve`; they lend it over their child's standard streams
(`resolve_scripts/relay.py`).
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from host_bridge.errors import HostError

if TYPE_CHECKING:
    from fusionscript import Resolve

OLDEST = 19  # GetMarkInOut, GetTrackTypeAndIndex, AddTrack at an index
Connect = Callable[[], "Resolve"]


def script_paths(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> tuple[Path, Path]:
    """Resolve's scripting folder and library: RESOLVE_SCRIPT_API and RESOLVE_SCRIPT_LIB, or where it installs them."""
    if platform == "win32":
        data = environ.get("PROGRAMDATA") or "C:/ProgramData"
        api = f"{data}/Blackmagic Design/DaVinci Resolve/Support/Developer/Scripting"
        programs = environ.get("PROGRAMFILES") or "C:/Program Files"
        lib = f"{programs}/Blackmagic Design/DaVinci Resolve/fusionscript.dll"
    elif platform == "darwin":
        api = "/Library/Application Support/Blackmagic Design/DaVinci Resolve/Developer/Scripting"
        lib = "/Applications/DaVinci Resolve/DaVinci Resolve.app/Contents/Libraries/Fusion/fusionscript.so"
    else:
        api, lib = "/opt/resolve/Developer/Scripting", "/opt/resolve/libs/Fusion/fusionscript.so"
    return Path(environ.get("RESOLVE_SCRIPT_API") or api), Path(environ.get("RESOLVE_SCRIPT_LIB") or lib)


def external() -> Resolve:
    """The Resolve that runs on this machine, asked from outside: Studio only.

    Raises HostError: `host.missing` (not installed, or not answering), `host.unsupported` (too old).
    """
    api, lib = script_paths()
    modules = api / "Modules"
    if not (modules / "DaVinciResolveScript.py").is_file():
        raise HostError(
            "host.missing",
            "DaVinci Resolve's scripting modules are not here",
            path=str(modules),
            remedy="Install DaVinci Resolve, or set RESOLVE_SCRIPT_API (and RESOLVE_SCRIPT_LIB) to where it is.",
        )
    os.environ.setdefault("RESOLVE_SCRIPT_API", str(api))
    os.environ.setdefault("RESOLVE_SCRIPT_LIB", str(lib))
    if str(modules) not in sys.path:
        sys.path.append(str(modules))
    try:
        found = importlib.import_module("DaVinciResolveScript").scriptapp("Resolve")
    except (ImportError, OSError) as error:
        raise HostError(
            "host.missing",
            f"DaVinci Resolve's scripting library cannot be loaded: {error}",
            path=str(lib),
            remedy="Set RESOLVE_SCRIPT_LIB to fusionscript of the Resolve that runs, and use a 64-bit Python.",
        ) from error
    if found is None:
        raise HostError(
            "host.missing",
            "DaVinci Resolve does not answer from outside",
            remedy="Start it, and in DaVinci Resolve Studio set Preferences > System > General > External scripting "
            "using to Local. The free edition never answers: use Workspace > Scripts > Faceplate Panel there.",
        )
    return checked(cast("Resolve", found))


def checked(resolve: Resolve) -> Resolve:
    """The same; HostError (`host.unsupported`) if it is older than what is used of it."""
    version = resolve.GetVersion()
    if version and int(version[0]) < OLDEST:
        raise HostError(
            "host.unsupported",
            f"this is {resolve.GetProductName()} {resolve.GetVersionString()}",
            value=resolve.GetVersionString(),
            remedy=f"Faceplate needs version {OLDEST} or newer.",
        )
    return resolve


class Relay:
    """The child's end of `resolve_scripts/relay.py`. Calls may come from any thread."""

    def __init__(self, calls: IO[str], answers: IO[str]) -> None:
        self._calls, self._answers = calls, answers
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def root(self) -> Resolve:
        """Resolve itself; every object handed out before is let go."""
        self.ask({"forget": True})
        return checked(cast("Resolve", Remote(self, 0)))

    def ask(self, request: Mapping[str, Any]) -> Any:
        """One call and its answer. Raises HostError (`host.missing` when Resolve has gone, `host.failed`)."""
        with self._lock:
            number = next(self._numbers)
            answer: dict[str, Any] = {}
            try:
                self._calls.write(json.dumps({**request, "id": number}) + "\n")
                self._calls.flush()
                while answer.get("id") != number:  # an interrupted call has left its answer unread
                    line = self._answers.readline()
                    if not line:
                        raise _gone()
                    answer = json.loads(line)
            except (OSError, ValueError) as error:
                raise _gone() from error
        if "error" in answer:
            raise HostError(
                "host.failed",
                f"Resolve refused a call: {answer['error']}",
                value=dict(request),
                remedy="Try again; if it stays, report it with the version of Resolve.",
            )
        return answer["value"]


class Remote:
    """One of Resolve's objects on the other side: every method is a call over there."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay, self._number = relay, number

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*arguments: Any) -> Any:
            return _unpack(self._relay, self._relay.ask({"call": [self._number, method, _pack(arguments)]}))

        return call

    def to_json(self) -> dict[str, int]:
        return {"$object": self._number}


def over_standard_streams() -> Relay:
    """The relay of the menu script that started this process; whatever is printed from now on goes to its console."""
    calls = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Relay(calls, sys.stdin)


def _gone() -> HostError:
    return HostError(
        "host.missing",
        "Resolve, or the script that started this, has ended",
        remedy="Start it again from Workspace > Scripts; finished frames stay on disk.",
    )


def _pack(value: Any) -> Any:
    if isinstance(value, Remote):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_pack(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _pack(v) for k, v in value.items()}
    return value


def _unpack(relay: Relay, value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(relay, v) for v in value]
    if isinstance(value, dict):
        if set(value) == {"$object"}:
            return Remote(relay, value["$object"])
        return {k: _unpack(relay, v) for k, v in value.items()}
    return value
