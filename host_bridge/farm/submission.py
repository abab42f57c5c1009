"""What a submission is, and handing it to a farm: write the folder, then call the farm's own command.

The command belongs to the farm, so it is never guessed at: where it is not installed, the folder is written all the
same and the error says what to run on a machine that has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from host_bridge.errors import RequestError
from host_bridge.farm import deadline, opencue, openjd
from host_bridge.farm.jobfile import JobFile, write_text
from host_bridge.farm.options import FarmOptions
from host_bridge.framerange import format_frames, parse_frames
from host_bridge.jobspec import JobSpec

JOB_FILE = "job.json"
SHOT_FILE = "shot.txt"


@dataclass(frozen=True)
class Bundle:
    """A submission's folder and what it holds. `frames` are sorted."""

    folder: Path
    name: str
    job: JobSpec
    frames: tuple[int, ...]
    options: FarmOptions

    @property
    def job_file(self) -> Path:
        return self.folder / JOB_FILE

    @property
    def shot_file(self) -> Path:
        return self.folder / SHOT_FILE


@dataclass(frozen=True)
class Submission:
    """What was written, and what the farm said; `said` is "" where the folder was only written."""

    folder: Path
    files: tuple[Path, ...]
    said: str = ""


@dataclass(frozen=True)
class Dialect:
    """A farm: `files` gives name -> text of what lies beside the job file; `hand_over` submits the folder and returns
    what the farm answered, or raises FarmError.
    """

    files: Callable[[Bundle], Mapping[str, str]]
    hand_over: Callable[[Bundle], str]
    title: str


FARMS: Mapping[str, Dialect] = {
    "openjd": Dialect(openjd.files, openjd.hand_over, "Open Job Description (openjd, Deadline Cloud)"),
    "opencue": Dialect(opencue.files, opencue.hand_over, "OpenCue"),
    "deadline": Dialect(deadline.files, deadline.hand_over, "Deadline 10"),
}


def submit(job: JobSpec, farm: str, options: FarmOptions | None = None) -> Submission:
    """Write a render's submission for `farm` (openjd, opencue, deadline) and hand it over unless `write_only`.

    Raises RequestError where the job names no frames, and FarmError.
    """
    options = options or FarmOptions()
    if not job.frames:
        raise RequestError(
            "request.frame_range",
            "a farm has to know the frames",
            value="",
            remedy="Say which, as in --frames 1001-1100.",
        )
    frames = parse_frames(job.frames)
    name = options.name or f"Faceplate {job.effect} {Path(job.output).name}"
    folder = Path(options.bundle) if options.bundle else _default_folder(job)
    job = replace(job, kind="render", frames=format_frames(frames), shot="")
    bundle = Bundle(folder.absolute(), name, job, frames, options)
    texts = {JOB_FILE: JobFile(job, options.path_maps).text(), **FARMS[farm].files(bundle)}
    for file, text in texts.items():
        write_text(bundle.folder / file, text)
    said = "" if options.write_only else FARMS[farm].hand_over(bundle)
    return Submission(bundle.folder, tuple(bundle.folder / file for file in texts), said)


def _default_folder(job: JobSpec) -> Path:
    """Beside the frames, which the workers write and so must see."""
    output = Path(job.output)
    return output.parent / ".faceplate" / (re.sub(r"[^A-Za-z0-9_-]+", "_", output.stem).strip("_") or "job")
