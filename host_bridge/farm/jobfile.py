"""The job file of a submission: one render as JSON, and the path mapping it was submitted with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host_bridge.errors import FarmError
from host_bridge.files import write_whole
from host_bridge.framerange import format_frames, parse_frames
from host_bridge.jobspec import JobSpec, job_from_json
from host_bridge.paths import map_path

VERSION = 1
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class JobFile:
    """`path_maps` are (from, to) rules for workers that mount the plates elsewhere."""

    job: JobSpec
    path_maps: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        data = {"faceplate": VERSION, "path_maps": [list(rule) for rule in self.path_maps], "job": self.job.to_json()}
        # One value to a line: farms that fill in {{ }} must find none.
        return json.dumps(data, indent=1, sort_keys=True) + "\n"


def read_job(path: Path) -> JobFile:
    """Read `JobFile.text()` back. FarmError `farm.job_file` where it is something else or a newer version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["faceplate"] != VERSION:
            raise ValueError(f"version {data['faceplate']}, this Faceplate reads {VERSION}")
        rules = tuple((str(a), str(b)) for a, b in data["path_maps"])
        return JobFile(job_from_json(data["job"]), rules)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FarmError(
            "farm.job_file",
            f"the job file cannot be read: {error}",
            path=str(path),
            remedy="Give a job.json that `faceplate submit` wrote.",
        ) from error


def read_openjd_rules(path: Path) -> Rules:
    """The (from, to) rules of an Open Job Description path mapping file; () where the session has none.

    Raises FarmError `farm.job_file`.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        listed = data.get("path_mapping_rules", [])
        return tuple((str(r["source_path"]), str(r["destination_path"])) for r in listed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FarmError(
            "farm.job_file",
            f"the path mapping cannot be read: {error}",
            path=str(path),
            remedy="Leave --map-rules out.",
        ) from error


def mapped(job: JobSpec, rules: Rules) -> JobSpec:
    """The job with every path as this machine has it."""
    plate = replace(job.plate, pattern=map_path(job.plate.pattern, rules))
    mask = job.mask and replace(job.mask, pattern=map_path(job.mask.pattern, rules))
    return replace(
        job,
        plate=plate,
        mask=mask,
        output=map_path(job.output, rules),
        matte_output=map_path(job.matte_output, rules),
        style_image=map_path(job.style_image, rules),
        ocio=map_path(job.ocio, rules),
    )


def chunk_of(job: JobSpec, chunk: str) -> JobSpec:
    """The job for those of its frames that are in `chunk` (steps as x or :). FarmError `farm.chunk` where none is."""
    wanted = set(parse_frames(chunk, step="x:"))
    frames = [frame for frame in parse_frames(job.frames) if frame in wanted]
    if not frames:
        raise FarmError(
            "farm.chunk",
            f"none of the frames {chunk} is one of the job's, {job.frames}",
            value=chunk,
            remedy="Give the farm the frames that were submitted.",
        )
    return replace(job, frames=format_frames(frames))


def read_shot(path: Path) -> str:
    """The shot id that the analysis task left. FarmError `farm.no_shot`."""
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FarmError(
            "farm.no_shot",
            f"the analysis has left no shot id: {error}",
            path=str(path),
            remedy="Run the analysis task first; both must see this folder.",
        ) from error
    if not found:
        raise FarmError("farm.no_shot", "the shot file is empty", path=str(path), remedy="Run the analysis task again.")
    return found


def write_text(path: Path, text: str) -> None:
    """Put a file of a submission in place, whole or not at all. FarmError `farm.write`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise FarmError(
            "farm.write",
            f"the file cannot be written: {error.strerror or error}",
            path=str(path),
            remedy="Choose another folder with --bundle.",
        ) from error
