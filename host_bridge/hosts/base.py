"""What a host offers the panel: the plate at hand, a place for the values, and a way to bring the result back.

Every method may be called from any thread: the host gets onto its own main thread by itself, and blocks until that is
done. None of them touches the network. What cannot be done is a FaceplateError with a remedy.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from host_bridge import __version__
from host_bridge.effects import EffectDescriptor, descriptor_from_json
from host_bridge.errors import FaceplateError
from host_bridge.files import write_whole
from host_bridge.jobspec import JobSpec

_log = logging.getLogger("faceplate.hosts")


@dataclass(frozen=True)
class HostShot:
    """What the artist works on. `job` is complete: plate, frames, output, and the effect and values the host keeps.

    `job.effect` is "" where the host keeps none (a clip in Resolve). `name` is the node or clip as the artist knows it.
    `frame` is the host's current frame in the plate's own numbering; `offset` + a plate frame is the host's frame.
    `note` says what the artist should know (a plate that has to be written first, a trimmed range).
    """

    name: str
    job: JobSpec
    frame: int
    offset: int = 0
    note: str = ""


@runtime_checkable
class Host(Protocol):
    """A program that Faceplate works inside of, or beside."""

    @property
    def name(self) -> str:
        """The host and its version, as in "Nuke 15.1v3"."""

    def shot(self) -> HostShot:
        """What is selected or open now. Raises HostError (`host.no_source`) that says what to select."""

    def go_to(self, frame: int) -> None:
        """Show a frame (the plate's numbering) in the host."""

    def keep(self, job: JobSpec) -> None:
        """Store effect, parameters, edits, face and mask where the host keeps them, keyframes included.

        A host that keeps no values does nothing.
        """

    def prepare(self, job: JobSpec) -> JobSpec:
        """Make the plate exist on disk and return the job to submit. May take long; blocks the host if it must."""

    def import_result(self, job: JobSpec) -> str:
        """Bring the finished frames into the host; the name of the node or clip that shows them."""


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis. `state` is ok, missing (it cannot work) or note."""

    topic: str
    state: str
    detail: str
    remedy: str = ""


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what hosts remember between sessions: $FACEPLATE_CACHE, or the user's own."""
    if environ.get("FACEPLATE_CACHE"):
        return Path(environ["FACEPLATE_CACHE"])
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "faceplate"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home()) / "faceplate" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "faceplate"
    return Path.home() / ".cache" / "faceplate"


def remember_effects(effects: Iterable[Mapping[str, Any]], folder: Path | None = None) -> tuple[EffectDescriptor, ...]:
    """Write down the server's descriptors, so that controls can be built without a server; returns them.

    A folder that cannot be written only costs the next session a question to the server.
    """
    data = [dict(item) for item in effects]
    folder = folder or cache_dir()
    try:
        write_whole(folder / "effects.json", json.dumps({"version": __version__, "effects": data}).encode())
    except OSError as error:
        _log.warning("the list of effects is not kept for sessions without a server: %s", error)
    return tuple(descriptor_from_json(item) for item in data)


def remembered_effects(folder: Path | None = None) -> tuple[EffectDescriptor, ...]:
    """The descriptors of the last session; () if there are none that can be read."""
    try:
        data = json.loads(((folder or cache_dir()) / "effects.json").read_text(encoding="utf-8"))
        return tuple(descriptor_from_json(item) for item in data["effects"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ()


def one_line(error: FaceplateError) -> str:
    """An error on one line, as nodes and clips show it: what happened, where, what to do."""
    return " ".join(str(error).split())
