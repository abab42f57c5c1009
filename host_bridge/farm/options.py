"""What a wrangler chooses about a submission."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FarmOptions:
    """`chunk` frames to a task; `priority` on the farm's own scale, -1 = its default; `pool`, `secondary_pool`,
    `group` for Deadline; `show`, `shot` and `pool` (a tag of the hosts) for OpenCue. `command` is Faceplate as
    the workers call it. `bundle` is the submission's folder, "" = beside the output. `path_maps` are (from, to) rules
    for workers that mount the plates elsewhere. `write_only` writes the folder and submits nothing.
    """

    chunk: int = 10
    priority: int = -1
    pool: str = ""
    secondary_pool: str = ""
    group: str = ""
    show: str = ""
    shot: str = ""
    name: str = ""
    command: str = "faceplate"
    bundle: str = ""
    path_maps: tuple[tuple[str, str], ...] = ()
    write_only: bool = False
