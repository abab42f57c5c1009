"""Deadline 10: two CommandLine jobs, the second depending on the first, as pairs of info files.

Deadline counts frames as Faceplate does (`1001-1100x2`). A task is told its first and last frame; which of the frames
between belong to it, `faceplate run --chunk` knows from the job.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from host_bridge.errors import FarmError
from host_bridge.farm.commands import analyse_command, render_command, run_command
from host_bridge.farm.jobfile import write_text
from host_bridge.framerange import format_frames

if TYPE_CHECKING:
    from host_bridge.farm.submission import Bundle

_JOB_ID = re.compile(r"^JobID=(\S+)\s*$", re.MULTILINE)


def files(bundle: Bundle) -> Mapping[str, str]:
    more = ("--local", "--progress", "farm")
    names = (str(bundle.job_file), str(bundle.shot_file))
    return {
        "analyse_job_info.txt": _job_info(bundle, "analyse", "0", 1),
        "analyse_plugin_info.txt": _plugin_info(bundle, (*analyse_command(*names), *more)),
        "render_job_info.txt": _job_info(bundle, "render", format_frames(bundle.frames), bundle.options.chunk),
        "render_plugin_info.txt": _plugin_info(bundle, (*render_command(*names, "<STARTFRAME>-<ENDFRAME>"), *more)),
    }


def _job_info(bundle: Bundle, part: str, frames: str, chunk: int) -> str:
    options = bundle.options
    lines = {
        "Plugin": "CommandLine",
        "Name": f"{bundle.name} ({part})",
        "BatchName": bundle.name,
        "Comment": f"{bundle.job.effect}: {bundle.job.plate.pattern}",
        "Frames": frames,
        "ChunkSize": str(chunk),
        "Pool": options.pool,
        "SecondaryPool": options.secondary_pool,
        "Group": options.group,
        "Priority": str(options.priority) if options.priority >= 0 else "",
    }
    if part == "render":
        output = Path(bundle.job.output)
        lines["OutputDirectory0"] = str(output.parent)
        lines["OutputFilename0"] = re.sub(r"%0(\d)d", lambda m: "#" * int(m.group(1)), output.name)
    return "".join(f"{key}={value}\n" for key, value in lines.items() if value)


def _plugin_info(bundle: Bundle, arguments: tuple[str, ...]) -> str:
    quoted = " ".join(f"<QUOTE>{a}<QUOTE>" if " " in a else a for a in arguments)
    return (
        f"Executable={bundle.options.command}\nArguments={quoted}\nShellExecute=False\nShell=default\n"
        "SingleFramesOnly=False\n"
    )


def hand_over(bundle: Bundle) -> str:
    """Submit the analysis, then the render depending on it."""
    command = shutil.which("deadlinecommand") or shutil.which(
        "deadlinecommand", path=os.environ.get("DEADLINE_PATH") or ""
    )
    if command is None:
        raise FarmError(
            "farm.missing",
            "the info files are written, but there is no deadlinecommand here to submit them",
            path=str(bundle.folder),
            remedy="Set DEADLINE_PATH to the client's bin folder, or submit on a machine that has Deadline's client.",
        )
    folder = bundle.folder
    analyse = _submitted(command, folder, "analyse")
    info = folder / "render_job_info.txt"
    text = "".join(line for line in info.read_text("utf-8").splitlines(True) if not line.startswith("JobDependencies="))
    write_text(info, text + f"JobDependencies={analyse}\n")
    return f"analysis {analyse}, render {_submitted(command, folder, 'render')}"


def _submitted(command: str, folder: Path, part: str) -> str:
    said = run_command([command, str(folder / f"{part}_job_info.txt"), str(folder / f"{part}_plugin_info.txt")])
    found = _JOB_ID.search(said)
    if found is None:
        raise FarmError(
            "farm.refused",
            f"Deadline gave the {part} job no id: {said[-600:]}",
            remedy="What it says comes from the farm; the written files can be submitted by hand.",
        )
    return found.group(1)
