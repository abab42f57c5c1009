"""OpenCue: a PyOutline script of two layers, run by a Python that has OpenCue's own packages.

Frames are counted as Faceplate does. A frame of the render layer is a chunk, and is told its frames by `#FRAMESPEC#`
(the end that `#FRAME_END#` names is not the chunk's where a range does not divide evenly).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from host_bridge.farm.commands import analyse_command, render_command, run_command
from host_bridge.framerange import format_frames

if TYPE_CHECKING:
    from host_bridge.farm.submission import Bundle

SCRIPT = "outline_script.py"

_SCRIPT = '''\
"""Submits a Faceplate render to OpenCue: python {script} (with OpenCue's packages)."""

import outline
import outline.cuerun
from outline.modules.shell import Shell

NAME = {name!r}
FRAMES = {frames!r}
CHUNK = {chunk!r}
ANALYSE = {analyse!r}
RENDER = {render!r}
TAGS = {tags!r}
LAUNCH = {launch!r}


def build():
    """The outline: an analysis of the whole shot, then the frames in chunks."""
    ol = outline.Outline(NAME, frame_range=FRAMES, show=LAUNCH.get("show"), shot=LAUNCH.get("shot"))
    analyse = Shell("analyse", command=ANALYSE, range={first!r}, tags=TAGS)
    render = Shell("render", command=RENDER, range=FRAMES, chunk=CHUNK, tags=TAGS)
    render.depend_all(analyse)
    ol.add_layer(analyse)
    ol.add_layer(render)
    return ol


if __name__ == "__main__":
    for job in outline.cuerun.launch(build(), use_pycuerun=False, **LAUNCH):
        print(job.data.name)
'''


def files(bundle: Bundle) -> Mapping[str, str]:
    options = bundle.options
    more = ("--local", "--progress", "farm")
    names = (str(bundle.job_file), str(bundle.shot_file))
    launch = {
        name: value
        for name, value in (
            ("show", options.show),
            ("shot", options.shot),
            ("priority", options.priority if options.priority >= 0 else None),
        )
        if value
    }
    script = _SCRIPT.format(
        script=SCRIPT,
        name=re.sub(r"[^A-Za-z0-9_]+", "_", bundle.name).strip("_").lower(),
        frames=format_frames(bundle.frames),
        first=str(bundle.frames[0]),
        chunk=options.chunk,
        analyse=_line((options.command, *analyse_command(*names), *more)),
        render=_line((options.command, *render_command(*names, "#FRAMESPEC#"), *more)),
        tags=[options.pool] if options.pool else [],
        launch=launch,
    )
    return {SCRIPT: script}


def _line(command: tuple[str, ...]) -> str:
    return " ".join(word if word == "#FRAMESPEC#" else shlex.quote(word) for word in command)


def hand_over(bundle: Bundle) -> str:
    """Run the script with $FACEPLATE_OPENCUE_PYTHON, or this Python."""
    return run_command([os.environ.get("FACEPLATE_OPENCUE_PYTHON") or sys.executable, str(bundle.folder / SCRIPT)])
