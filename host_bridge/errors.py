"""Every error Faceplate shows: one root, a leaf per area, stable dotted codes, and always a remedy.

A code is added here and nowhere else; PROTOCOL.md's table of codes is generated from `CODES`. The same
object travels over the wire as `to_wire()` and is rebuilt by `from_wire()`, so that a client raises what the
server raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What the shell sees. Farms key their retry rules on these, so they never change meaning."""

    OK = 0
    INTERNAL = 1
    BAD_ARGUMENTS = 2
    MISSING_INPUT = 3
    FRAMES_FAILED = 4
    NO_SERVER = 5
    CANCELLED = 6
    NOT_ALLOWED = 7
    NO_RESOURCES = 8


@dataclass(frozen=True)
class CodeSpec:
    """What a code means and which exit status it leads to."""

    summary: str
    exit_code: ExitCode


_A, _M, _F, _S, _C, _N, _R, _I = (
    ExitCode.BAD_ARGUMENTS,
    ExitCode.MISSING_INPUT,
    ExitCode.FRAMES_FAILED,
    ExitCode.NO_SERVER,
    ExitCode.CANCELLED,
    ExitCode.NOT_ALLOWED,
    ExitCode.NO_RESOURCES,
    ExitCode.INTERNAL,
)

CODES: dict[str, CodeSpec] = {
    # the request
    "request.malformed": CodeSpec("The message could not be decoded", _A),
    "request.too_large": CodeSpec("A frame of the message is larger than allowed", _A),
    "request.unknown_type": CodeSpec("The message type is not known to this server", _A),
    "request.version": CodeSpec("Client and server speak different major versions", _S),
    "request.bad_value": CodeSpec("An argument has a value that is not allowed", _A),
    "request.unknown_name": CodeSpec("A name is not one of those allowed", _A),
    "request.not_allowed": CodeSpec("This client may not ask for that", _N),
    "request.frame_range": CodeSpec("A frame range cannot be read or is empty", _A),
    # the server
    "server.unreachable": CodeSpec("No server answers", _S),
    "server.wrong_key": CodeSpec("The server refused this client's key", _S),
    "server.not_running": CodeSpec("No server is running and starting one was forbidden", _S),
    "server.start_failed": CodeSpec("The server process did not come up", _S),
    "server.python": CodeSpec("This Python cannot run the server", _S),
    "server.missing_package": CodeSpec("A package the server needs is not installed", _S),
    "server.config": CodeSpec("The server's configuration is not valid", _A),
    "server.busy": CodeSpec("The queue is full", _R),
    "server.internal": CodeSpec("The server met an error it did not expect", _I),
    "server.not_allowed": CodeSpec("The server may not touch this path", _N),
    # jobs
    "job.unknown": CodeSpec("There is no job of that id", _A),
    "job.state": CodeSpec("The job's state does not allow this", _A),
    "job.cancelled": CodeSpec("The job was cancelled", _C),
    "job.frames_failed": CodeSpec("Some frames could not be rendered", _F),
    "job.worker_died": CodeSpec("The worker process died while rendering the frame, twice", _F),
    "job.lease_lost": CodeSpec("Another worker took this job over", _F),
    "job.out_of_memory": CodeSpec("The device has too little memory for this job's plan", _R),
    "job.output_is_input": CodeSpec("The output would overwrite the input", _A),
    # plates
    "plate.no_frames": CodeSpec("No frame on disk matches the pattern", _M),
    "plate.missing_frame": CodeSpec("A frame of the range is not on disk", _M),
    "plate.unreadable": CodeSpec("A file could not be decoded", _M),
    "plate.truncated": CodeSpec("A file ends before its pixels do", _M),
    "plate.empty_file": CodeSpec("A file has no bytes", _M),
    "plate.deep": CodeSpec("Deep images cannot be composited", _A),
    "plate.subsampled": CodeSpec("Channels stored at a lower resolution cannot be treated", _A),
    "plate.size_changed": CodeSpec("A frame's display window differs from the shot's", _F),
    "plate.pattern": CodeSpec("A sequence pattern cannot be read", _A),
    "plate.layer": CodeSpec("The plate has no such layer, part or view", _A),
    "plate.permission": CodeSpec("A file or folder may not be read or written", _M),
    "plate.write_failed": CodeSpec("A frame could not be written", _F),
    "plate.disk_full": CodeSpec("The disk is full", _R),
    "plate.format": CodeSpec("The file format cannot hold what was asked", _A),
    "plate.matte": CodeSpec("The input mask cannot be used", _M),
    # colour
    "color.unknown_space": CodeSpec("The colourspace is not in the OCIO config", _A),
    "color.config": CodeSpec("The OCIO config cannot be read", _A),
    "color.config_mismatch": CodeSpec("Client and server use different OCIO configs", _A),
    # faces and shots
    "face.none": CodeSpec("No face was found", _F),
    "face.unknown": CodeSpec("The chosen face is not in the shot", _A),
    "face.detector": CodeSpec("The face detector cannot run here", _S),
    "shot.unknown": CodeSpec("There is no analysed shot of that id", _M),
    "shot.stale": CodeSpec("The shot on disk differs from its analysis", _M),
    "shot.locked": CodeSpec("The shot is locked", _N),
    "shot.busy": CodeSpec("Another process is writing this shot", _R),
    "shot.store": CodeSpec("The shot store cannot be written", _N),
    "shot.corrupt": CodeSpec("Stored analysis cannot be read", _M),
    "shot.not_adapted": CodeSpec("A long step of the effect has not been taken with these values", _M),
    "shot.edit": CodeSpec("A repair file cannot be applied", _A),
    # effects
    "effect.unknown": CodeSpec("There is no such effect", _A),
    "effect.parameter": CodeSpec("A parameter's name or value is not allowed", _A),
    "effect.needs_model": CodeSpec("The effect needs a model that is not imported", _M),
    "effect.failed": CodeSpec("The effect could not process a frame", _F),
    # models
    "model.unknown": CodeSpec("There is no model card of that id", _A),
    "model.not_imported": CodeSpec("The model is known but has not been imported", _M),
    "model.unsupported": CodeSpec("Faceplate has no use for this file", _A),
    "model.ambiguous": CodeSpec("The file fits several model cards or none", _A),
    "model.unsafe": CodeSpec("The file holds objects that only running code could rebuild", _N),
    "model.damaged": CodeSpec("The file is incomplete or damaged", _M),
    "model.wrong_file": CodeSpec("The file is not of the kind the card describes", _M),
    "model.mismatch": CodeSpec("Names, shapes or types differ from what the network needs", _M),
    "model.hash": CodeSpec("The file's hash is not the one the card records", _M),
    "model.too_large": CodeSpec("The file asks for more memory or disk than it may", _R),
    "model.licence": CodeSpec("The model's licence has not been accepted", _N),
    "model.card": CodeSpec("A model card is not valid", _A),
    "model.exists": CodeSpec("A model of that id is already there", _A),
    "model.folder": CodeSpec("The model folder cannot be written", _N),
    "model.stored": CodeSpec("A stored model is missing, damaged or unreadable", _M),
    "model.manual": CodeSpec("The authors publish this file where it must be fetched by hand", _M),
    "model.download": CodeSpec("The download did not finish", _M),
    # hosts: Nuke, Resolve
    "host.no_source": CodeSpec("Nothing that could be worked on is connected, selected or open in the host", _M),
    "host.stale": CodeSpec("A result is missing or out of date", _M),
    "host.missing": CodeSpec("The host, or a part of its installation, is not there", _S),
    "host.unsupported": CodeSpec("The host, its edition or this clip does not allow that", _A),
    "host.failed": CodeSpec("The host refused or failed", _F),
    "host.install": CodeSpec("An installation cannot be written or removed", _N),
    # farms
    "farm.job_file": CodeSpec("A job file of a submission cannot be read", _M),
    "farm.chunk": CodeSpec("The chunk holds no frame of the job", _A),
    "farm.no_shot": CodeSpec("The analysis task has left no shot id", _M),
    "farm.missing": CodeSpec("The farm's own command or package is not there", _S),
    "farm.refused": CodeSpec("The farm refused the submission", _F),
    "farm.write": CodeSpec("A submission cannot be written", _F),
    # models into other hosts
    "export.host": CodeSpec("The host's version is not known", _A),
    "export.torch": CodeSpec("The host cannot read what this torch writes", _A),
    "export.model": CodeSpec("The model holds nothing that can be exported", _A),
    "export.style": CodeSpec("The model has no such style, or styles cannot be mixed like this", _A),
    "export.package": CodeSpec("A package that the export needs is missing", _S),
    "export.failed": CodeSpec("The exported file does not do what the network does", _F),
    # the panel
    "panel.qt": CodeSpec("No usable Qt binding", _S),
    "panel.preset": CodeSpec("A preset cannot be read, applied or written", _A),
    "panel.input": CodeSpec("Something is not filled in yet", _A),
    "panel.cache": CodeSpec("Something cannot be kept for later", _M),
    # training
    "training.config": CodeSpec("A training configuration is not valid", _A),
    "training.recipe": CodeSpec("A training recipe contradicts itself", _A),
    "training.data": CodeSpec("A picture or sample to train on cannot be used", _M),
    "training.group": CodeSpec("The processes of a run cannot work together", _A),
    "training.busy": CodeSpec("Another process is training in this folder", _R),
    "training.resume": CodeSpec("The folder holds another run", _A),
    "training.checkpoint": CodeSpec("A checkpoint is damaged", _M),
    "training.diverged": CodeSpec("The losses are no longer finite", _F),
}


class FaceplateError(Exception):
    """Root of all errors Faceplate raises on purpose.

    `code` is one of `CODES`; `value` is what offended (JSON-representable); `remedy` says what to do about it;
    `frame` and `path` name where. Constructing one with an unknown code is a programming error (KeyError).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        remedy: str,
        value: Any = None,
        frame: int | None = None,
        path: str | None = None,
    ) -> None:
        CODES[code]
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.value = value
        self.frame = frame
        self.path = path

    @property
    def exit_code(self) -> ExitCode:
        return CODES[self.code].exit_code

    def __str__(self) -> str:
        where = "".join(
            [
                f" [frame {self.frame}]" if self.frame is not None else "",
                f" [{self.path}]" if self.path else "",
            ]
        )
        return f"{self.message}{where} ({self.code}). {self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_wire, (self.to_wire(),))

    def to_wire(self) -> dict[str, Any]:
        """The error as JSON-representable fields."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "value": self.value,
            "frame": self.frame,
            "path": self.path,
        }

    def at(self, *, frame: int | None = None, path: str | None = None) -> FaceplateError:
        """The same error with its place filled in where it was not known yet."""
        wire = self.to_wire()
        wire["frame"] = self.frame if self.frame is not None else frame
        wire["path"] = self.path or path
        return from_wire(wire)


class RequestError(FaceplateError):
    """What was asked cannot be understood or is not allowed."""


class ServerError(FaceplateError):
    """The server cannot be reached, started or used."""


class JobError(FaceplateError):
    """A job cannot go on."""


class PlateError(FaceplateError):
    """A plate, matte or output file."""


class ColorError(FaceplateError):
    """OCIO configs and colourspaces."""


class FaceError(FaceplateError):
    """Faces of a shot."""


class ShotError(FaceplateError):
    """The shot store."""


class EffectError(FaceplateError):
    """Effects and their parameters."""


class ModelError(FaceplateError):
    """Model files and cards."""


class HostError(FaceplateError):
    """Nuke and Resolve, and what is installed into them."""


class FarmError(FaceplateError):
    """Render farms: submissions and their job files."""


class ExportError(FaceplateError):
    """Models written for other hosts."""


class PanelError(FaceplateError):
    """The panel: its Qt, its presets, what is not filled in."""


class TrainError(FaceplateError):
    """Training runs: `inference_server.training` raises its own, this is what leaves the server."""


_LEAVES: dict[str, type[FaceplateError]] = {
    "request": RequestError,
    "server": ServerError,
    "job": JobError,
    "plate": PlateError,
    "color": ColorError,
    "face": FaceError,
    "shot": ShotError,
    "effect": EffectError,
    "model": ModelError,
    "host": HostError,
    "farm": FarmError,
    "export": ExportError,
    "panel": PanelError,
    "training": TrainError,
}


def from_wire(fields: Mapping[str, Any]) -> FaceplateError:
    """Rebuild an error from `to_wire()`; a code this version does not know becomes `server.internal`."""
    code = str(fields.get("code", ""))
    message = str(fields.get("message", ""))
    if code not in CODES:
        code, message = "server.internal", f"{message} (unknown code {code!r})"
    frame, path = fields.get("frame"), fields.get("path")
    return _LEAVES[code.partition(".")[0]](
        code,
        message,
        remedy=str(fields.get("remedy", "")),
        value=fields.get("value"),
        frame=frame if isinstance(frame, int) else None,
        path=path if isinstance(path, str) else None,
    )


def unknown_name(code: str, what: str, name: str, allowed: list[str], *, limit: int = 40) -> FaceplateError:
    """An error for a name that is not one of `allowed`: offers the nearest and lists what there is."""
    near = get_close_matches(name, allowed, n=1, cutoff=0.5)
    listed = ", ".join(sorted(allowed)[:limit]) + (" ..." if len(allowed) > limit else "")
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return _LEAVES[code.partition(".")[0]](
        code, f"unknown {what} {name!r}", value=name, remedy=f"{hint}Allowed: {listed or 'none'}."
    )
