"""`faceplate resolve ...`: DaVinci Resolve from a shell (Studio) or from its own menu (`--relay`, both editions)."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from host_bridge.cli.options import (
    absolute,
    add_command,
    add_connection,
    add_effect,
    add_faces,
    add_shot,
    keep_rest,
    render_job,
)
from host_bridge.cli.panel import add_where, open_panel
from host_bridge.cli.progress import open_reporter
from host_bridge.cli.render import add_output, connect, find_effect, run_job
from host_bridge.errors import ExitCode, RequestError
from host_bridge.framerange import format_frames
from host_bridge.hosts.resolve import ResolveHost, Source, describe, result_pattern
from host_bridge.hosts.resolve_api import Connect, external, over_standard_streams
from host_bridge.jobspec import PREMULT_MODES

_RENDER = """\
Render the clip under Resolve's playhead, or the part of it between the in and out points, and place the result on a
track above it at the same frame.

  faceplate resolve render --effect look --style cartoon --degree 0.8

The clip's own EXR or DPX files are used where they can be; anything else is rendered by Resolve first, without its
grade and linear. Needs Resolve Studio, running, with external scripting allowed; the free edition has the panel in
its own menu. Takes the options of `faceplate render`.
"""


def add_parsers(commands: Any) -> None:
    resolve = add_command(
        commands,
        "resolve",
        help="work on the clip under DaVinci Resolve's playhead",
        description="Work on the clip under DaVinci Resolve's playhead.",
    )
    acts = resolve.add_subparsers(dest="act", required=True, metavar="ACT")

    render = add_command(acts, "render", help="render the clip and place the result above it", description=_RENDER)
    group = render.add_argument_group("clip")
    _add_clip(group)
    group.add_argument("--handles", type=int, default=0, metavar="FRAMES", help="frames to add before and after it")
    group.add_argument(
        "--colorspace",
        default="",
        metavar="NAME",
        help="the OCIO name of its colourspace, where Resolve's is not known",
    )
    group.add_argument("--ocio", default="", metavar="FILE", help="OCIO config (default: $OCIO, else ACES CG)")
    group.add_argument("--premult", choices=PREMULT_MODES, default="auto", metavar="MODE", help="how alpha is stored")
    group.add_argument("--no-place", action="store_true", help="render only, leave the timeline as it is")
    add_effect(render)
    add_faces(render)
    add_output(render, required=False)
    add_shot(render)
    add_connection(render, runs_jobs=True)
    render.set_defaults(run=_render, layer="", part="", view="", missing="error")
    keep_rest(render)

    panel = add_command(
        acts,
        "panel",
        help="open the panel on the clip",
        description="Open the panel on the clip under the playhead; what it renders is placed above it.",
    )
    _add_clip(panel)
    panel.add_argument("--effect", default="", metavar="NAME", help="effect to begin with; see `faceplate effects`")
    add_where(panel)
    panel.set_defaults(run=_panel, plate="", colorspace="", out="")

    status = add_command(
        acts,
        "status",
        help="say what Faceplate sees in Resolve",
        description="Say which Resolve answers, which clip is under the playhead, and what would be its plate.",
    )
    _add_clip(status)
    status.set_defaults(run=_status)


def _add_clip(group: Any) -> None:
    group.add_argument("--whole-clip", action="store_true", help="leave in and out points aside")
    group.add_argument("--relay", action="store_true", help=argparse.SUPPRESS)


def _connect(args: argparse.Namespace) -> Connect:
    return over_standard_streams().root if args.relay else external


def _status(args: argparse.Namespace) -> int:
    found = describe(_connect(args), marked=not args.whole_clip)
    for finding in found:
        print(f"{finding.state:<8} {finding.topic:<8} {finding.detail}")
        if finding.remedy:
            print(f"{'':<17} -> {finding.remedy}")
    return int(ExitCode.MISSING_INPUT if any(f.state == "missing" for f in found) else ExitCode.OK)


def _panel(args: argparse.Namespace) -> int:
    host = ResolveHost(_connect(args), marked=not args.whole_clip)
    print(f"Faceplate's panel for {host.name}", file=sys.stderr)  # a Resolve that does not answer is said here
    return open_panel(args, host)


def _render(args: argparse.Namespace) -> int:
    host = ResolveHost(_connect(args), marked=not args.whole_clip)
    found = host.source()
    if found.note:
        print(f"note: {found.note}", file=sys.stderr)
    with connect(args) as client:
        descriptor = find_effect(client, args.effect)
        args.plate, args.colorspace = found.pattern, args.colorspace or found.colorspace or ""
        args.frames = format_frames(with_handles(found, args.handles))
        args.out = args.out or result_pattern(found)
        job = host.prepare(render_job(args, descriptor), _say_percent)
        job = replace(job, shot_range=args.shot_range or args.frames)
        reporter = open_reporter(args.progress)
        status = run_job(client, job, reporter)
    if status != ExitCode.OK or args.no_place:
        return status
    placed = host.place(job)
    out = sys.stderr if args.progress == "json" else sys.stdout
    print(
        f"{placed.name}: V{placed.track} at {placed.timecode} ({placed.record}), {placed.count} frames, "
        f"{absolute(args.out)}",
        file=out,
    )
    for note in placed.notes:
        print(f"note: {note}", file=sys.stderr)
    return status


def with_handles(found: Source, handles: int) -> range:
    """The clip's frames and so many before and after, as far as its media goes. Raises RequestError."""
    if handles < 0:
        raise RequestError(
            "request.bad_value", "handles cannot be negative", value=handles, remedy="Write --handles 8."
        )
    if found.renders and handles:
        raise RequestError(
            "request.bad_value",
            "a clip that Resolve has to render first has no handles",
            value=handles,
            remedy="Leave out --handles, or lengthen the clip on the timeline.",
        )
    if found.renders:
        return found.frames
    low, high = found.clip.media
    return range(max(low, found.frames[0] - handles), min(high, found.frames[-1] + handles) + 1)


def _say_percent(percent: int) -> None:
    print(f"Resolve renders the clip: {percent} %", file=sys.stderr, flush=True)
