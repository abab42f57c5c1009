"""Rendering without windows, as explicit passes: pre-comps, `faceplate render`, the final render.

A Write cannot be executed while another one renders, and a Nuke without windows has nothing that waits. So one command
writes the passes of a script, to be run here or on a farm one after the other:

    nuke -t passes.py write SCRIPT.nk --frames 1001-1100 --final Write1 --out passes.sh

It saves `SCRIPT_faceplate.nk`, a copy whose nodes point to the results they are going to have; under `nuke -x` the
nodes only read, and a result that is missing or out of date is an error. The script itself is not changed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run by `nuke -t`: init.py has run where Faceplate is installed, and not elsewhere
    sys.path.append(str(Path(__file__).resolve().parents[1]))

import nuke

from host_bridge.cli.words import render_words
from host_bridge.errors import ExitCode, FaceplateError, HostError, RequestError
from host_bridge.farm.jobfile import JobFile, write_text
from host_bridge.hosts.base import one_line
from host_bridge.hosts.nuke_actions import settled
from host_bridge.hosts.nuke_job import plan
from host_bridge.hosts.nuke_node import DONE, set_state, take_result
from host_bridge.hosts.nuke_read import faceplate_nodes, is_faceplate, read_node, value
from host_bridge.jobspec import JobSpec

ARGUMENTS = "--local"  # a farm task runs a server of its own


def main(argv: Sequence[str]) -> int:
    """`write` or `precomp`; the exit status (`host_bridge.errors.ExitCode`)."""
    parser = argparse.ArgumentParser(prog="passes.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the passes of a script")
    write.add_argument("script")
    write.add_argument("--frames", default="", help="of the final render, 1001-1100 (default: the script's)")
    write.add_argument("--final", default="", help="the Write to render (default: all of them)")
    write.add_argument("--out", default="", help="file to write, .sh or .bat (default: beside the script)")
    write.add_argument("--nuke", default=nuke.EXE_PATH, help="Nuke's program on the machines that run the passes")
    write.add_argument("--faceplate", default="faceplate", help="the faceplate command there")
    precomp = commands.add_parser("precomp", help="write the pre-comps of one node")
    precomp.add_argument("script")
    precomp.add_argument("node")
    args = parser.parse_args(argv)
    try:
        nuke.scriptOpen(args.script)
        if args.command == "precomp":
            written = settled(_node(args.node))[1].precomps
            for name, pattern in written.items():
                nuke.tprint(f"{args.node}: {name} -> {pattern}")
        else:
            nuke.tprint(write_passes(args.script, args.frames, args.final, args.out, args.nuke, args.faceplate))
    except FaceplateError as error:
        nuke.tprint(f"error: {one_line(error)}", file=sys.stderr)
        return int(error.exit_code)
    return int(ExitCode.OK)


def write_beside(script: str) -> str:
    """The passes of the script that is open, written beside it. Raises FaceplateErrors."""
    if not os.path.isfile(script):
        raise HostError("host.no_source", "the script has not been saved", remedy="Save it, then write the passes.")
    nuke.scriptSave()
    try:
        return write_passes(script, "", "", "", nuke.EXE_PATH, "faceplate")
    finally:
        nuke.scriptClear()
        nuke.scriptOpen(script)


def write_passes(script: str, frames: str, final: str, out: str, program: str, faceplate: str) -> str:
    """Write the passes of the open script and the copy they render; the path of the passes. Raises FaceplateErrors."""
    nodes = [group for group in faceplate_nodes() if not value(group, "disable")]
    if not nodes:
        raise HostError("host.no_source", "the script has no Faceplate node", path=script, remedy="Render it as it is.")
    stem, extension = os.path.splitext(script)
    copy = f"{stem}_faceplate{extension}"
    lines: list[list[str]] = []
    for group in nodes:
        facts = read_node(group)
        now = plan(facts)
        if now.precomps:
            lines.append([program, "-t", os.path.abspath(__file__), "precomp", copy, group.fullName()])
        lines += [[faceplate, *_render(job), ARGUMENTS] for job in now.jobs]
        take_result(group, facts, now)
        set_state(group, DONE, "rendered by passes")
    root = nuke.root()
    frames = frames or f"{root.firstFrame()}-{root.lastFrame()}"
    lines.append([program, "-x", *(["-X", final] if final else []), "-F", frames, copy])
    nuke.scriptSaveAs(copy, 1)
    windows = (out or sys.platform).lower().endswith((".bat", "win32"))
    path = Path(out or f"{stem}_passes{'.bat' if windows else '.sh'}")
    path.write_text(batch(lines) if windows else shell(lines), encoding="utf-8")
    if not windows:
        path.chmod(0o755)
    return str(path)


def _render(job: JobSpec) -> list[str]:
    """`faceplate render` with everything said, or a job file where a command line cannot say it (a keyed colour)."""
    try:
        return render_words(job)
    except RequestError:
        file = Path(job.output).parent / "job.json"
        write_text(file, JobFile(job).text())
        return ["run", str(file)]


def shell(lines: Sequence[Sequence[str]]) -> str:
    """Commands as a shell script that ends with the first one that fails, with its exit status."""
    return "\n".join(["#!/bin/sh", "set -e", *(shlex.join(line) for line in lines), ""])


def batch(lines: Sequence[Sequence[str]]) -> str:
    """The same for Windows; a percent sign is doubled, or the shell would take it for a variable."""
    words = [subprocess.list2cmdline(line).replace("%", "%%") for line in lines]
    return "\r\n".join(["@echo off", *(f"{line} || exit /b" for line in words), ""])


def _node(name: str) -> nuke.Group:
    found = nuke.toNode(name)
    if not isinstance(found, nuke.Group) or not is_faceplate(found):
        names = ", ".join(group.fullName() for group in faceplate_nodes()) or "none"
        raise HostError(
            "host.no_source", f"there is no Faceplate node {name}", value=name, remedy=f"The script has: {names}."
        )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
