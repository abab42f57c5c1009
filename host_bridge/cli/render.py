"""Commands that make pictures: render, analyze, preview."""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from host_bridge import launcher
from host_bridge.cli.options import (
    absolute,
    add_command,
    add_connection,
    add_effect,
    add_face,
    add_faces,
    add_plate,
    add_shot,
    keep_rest,
    ocio_of,
    plate_of,
    refuse_effect_options,
    render_job,
)
from host_bridge.cli.progress import Reporter, open_reporter
from host_bridge.client import Client, JobHandle, JobResult
from host_bridge.effects import EffectDescriptor, descriptor_from_json
from host_bridge.errors import ExitCode, FaceplateError, JobError, PlateError, unknown_name
from host_bridge.files import write_whole
from host_bridge.jobspec import MATTE_NAMES, JobSpec, PreviewSpec
from host_bridge.messages import JobStarted

# The end of a cancelled job is waited for this long; then the server is left to finish alone.
CANCEL_GRACE_S = 20.0
STOP_GRACE_S = 60.0  # a generator is checkpointed and exported
CANCELLING = "cancelling: the frame in hand is finished or dropped, frames on disk stay"
STOPPING = "stopping: what has been learned is kept; the same command goes on, with --accept it takes the best so far"

_RENDER = """\
Render frames of a plate: only pixels inside the face's matte change, everything else is written as it was read.

  faceplate render --effect look --style cartoon --degree 0.8 \\
      --in shots/sh010.%04d.exr --frames 1001-1048 --out renders/sh010_toon.%04d.exr

A value is a constant (0.8) or keyframes (1001:0,1024:1), linear in between and held before and after. Sequences are
written as %04d, #### or $F4. `faceplate effects EFFECT` lists an effect's parameters and edits.
"""


def add_parsers(commands: Any) -> None:
    exits = "exit status: " + ", ".join(f"{int(c)} {c.name.lower().replace('_', ' ')}" for c in ExitCode)
    render = add_command(commands, "render", help="render frames of a plate", description=_RENDER, epilog=exits)
    add_plate(render)
    frames = render.add_argument_group("frames")
    frames.add_argument(
        "--frames",
        default="",
        metavar="RANGE",
        help="frames to render: 1001-1100, 1001-1100x2 (every other), 1001,1005-1010 (default: all on disk)",
    )
    add_retime(frames)
    add_effect(render)
    add_faces(render)
    add_output(render)
    add_shot(render)
    add_connection(render, runs_jobs=True)
    render.set_defaults(run=_render)
    keep_rest(render)

    analyze = add_command(
        commands,
        "analyze",
        help="analyse a shot and print its id",
        description="Find and track the faces of a shot, store that, and print the shot's id on standard output.\n"
        "With --effect, what that effect has to know of the shot (a style code, say) is made and stored, too.\n"
        "Renders do this by themselves; on a farm, do it once before the tasks start.",
        epilog=exits,
    )
    add_plate(analyze)
    add_effect(analyze, required=False)
    add_face(analyze.add_argument_group("faces"))
    add_shot(analyze)
    add_connection(analyze, runs_jobs=True)
    analyze.set_defaults(run=_analyze)
    keep_rest(analyze)

    preview = add_command(
        commands,
        "preview",
        help="render one frame to a PNG picture",
        description="Render one frame as a viewer shows it, to a PNG. Takes the options of `render`.",
        epilog=exits,
    )
    add_plate(preview)
    add_effect(preview)
    add_faces(preview)
    group = preview.add_argument_group("picture")
    group.add_argument("--frame", type=int, required=True, metavar="NUMBER", help="frame to show")
    group.add_argument("--out", required=True, metavar="FILE.png", help="where to write the picture")
    group.add_argument(
        "--size", type=int, default=512, metavar="PIXELS", help="longest side at most so long (default: 512)"
    )
    group.add_argument(
        "--crop",
        choices=("face", "frame"),
        default="face",
        metavar="WHAT",
        help="face: what the effect looks at (default); frame: the whole frame",
    )
    group.add_argument(
        "--show",
        choices=("result", "plate", "matte"),
        default="result",
        metavar="WHAT",
        help="result (default), plate or matte",
    )
    group.add_argument("--display", default="", metavar="NAME", help="OCIO display (default: plain sRGB)")
    group.add_argument("--view-transform", default="", metavar="NAME", help="OCIO view of that display")
    group.add_argument("--exposure", type=float, default=0.0, metavar="STOPS", help="viewer exposure (default: 0)")
    group.add_argument("--gamma", type=float, default=1.0, metavar="GAMMA", help="viewer gamma (default: 1)")
    add_shot(preview)
    add_connection(preview)
    preview.set_defaults(run=_preview)
    keep_rest(preview)


def add_retime(group: Any) -> None:
    group.add_argument(
        "--retime",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="2 makes it twice as long: the shot's first frame keeps its number F, frame F+n becomes F+2n, and what "
        "lies between is interpolated, plate and performance, and marked in the metadata (faceplate:between). --frames "
        "are the plate's",
    )


def add_output(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", required=required, default="", metavar="PATTERN", help="frames to write, e.g. renders/sh010.%%04d.exr"
    )
    group.add_argument(
        "--matte-channels",
        default="",
        metavar="NAMES",
        help=f"comma-separated mattes to add to the frames as channels faceplate.NAME: {', '.join(MATTE_NAMES)} "
        "(composite is the matte that was used)",
    )
    group.add_argument(
        "--matte-out",
        default="",
        metavar="PATTERN",
        help="write these mattes, or the composite one, as a sequence of their own",
    )
    group.add_argument(
        "--compression",
        default="",
        metavar="CODEC",
        help="EXR compression: zip, zips, piz, rle, none, dwaa, ... (default: what was read, if it loses nothing); "
        "keep: what was read, even if it does",
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="keep frames on disk that are whole and made by this very job: same plate, parameters and mask",
    )
    group.add_argument(
        "--continue-on-error", action="store_true", help="render the other frames when one fails (exit status 4)"
    )


def connect(args: argparse.Namespace) -> Client:
    """The client a command talks through, starting a server where that is allowed."""
    return launcher.connect(args.server or None, start=not args.no_start, private=args.local)


def find_effect(client: Client, name: str) -> EffectDescriptor:
    """An effect's descriptor; EffectError (`effect.unknown`) naming the nearest otherwise."""
    descriptors = {d["identifier"]: d for d in client.list_effects()}
    if name not in descriptors:
        raise unknown_name("effect.unknown", "effect", name, list(descriptors))
    return descriptor_from_json(descriptors[name])


def _render(args: argparse.Namespace) -> int:
    with connect(args) as client:
        return run_job(client, render_job(args, find_effect(client, args.effect)), open_reporter(args.progress))


def _analyze(args: argparse.Namespace) -> int:
    if not args.effect:
        refuse_effect_options(args)
    with connect(args) as client:
        if args.effect:
            spec = replace(render_job(args, find_effect(client, args.effect)), kind="analyse")
        else:
            spec = JobSpec("analyse", plate_of(args), shot=args.shot, shot_range=args.shot_range, ocio=ocio_of(args))
        reporter = open_reporter(args.progress)
        status = run_job(client, spec, reporter)
    if status == ExitCode.OK and args.progress != "json":
        print(reporter.shot)
    return status


def run_job(client: Client, spec: JobSpec, reporter: Reporter) -> int:
    """Submit, report, and return the exit status. SIGTERM and Ctrl-C cancel the job and wait for its frame in hand."""
    handle = client.submit(spec)
    try:
        result = _follow(handle, reporter)
    except KeyboardInterrupt:
        result = _cancel(handle, *((STOPPING, STOP_GRACE_S) if spec.kind == "adapt" else (CANCELLING, CANCEL_GRACE_S)))
    reporter.close(result, result.error)
    if result.state == "cancelled":
        return int(ExitCode.CANCELLED)
    if result.error is not None:
        raise result.error
    return int(ExitCode.OK)


def _follow(handle: JobHandle, reporter: Reporter) -> JobResult:
    for event in handle.events():
        reporter.show(event)
        if isinstance(event, JobStarted):
            reporter.shot = event.shot or reporter.shot
    return handle.wait(1.0)


def _cancel(handle: JobHandle, text: str, grace_s: float) -> JobResult:
    print(text, file=sys.stderr, flush=True)
    try:
        handle.cancel(grace_s)
        return handle.wait(grace_s)
    except (FaceplateError, TimeoutError) as error:
        raise JobError(
            "job.cancelled",
            "interrupted, and the server has not confirmed that the job has ended",
            value=handle.job_id,
            remedy=f"Look again with `faceplate jobs show {handle.job_id[:12]}`.",
        ) from error


def _preview(args: argparse.Namespace) -> int:
    with connect(args) as client:
        job = render_job(args, find_effect(client, args.effect))
        spec = PreviewSpec(
            job,
            args.frame,
            args.size,
            args.crop,
            args.show,
            args.display,
            args.view_transform,
            args.exposure,
            args.gamma,
        )
        made = client.preview(spec).result()
    height, width, _ = made.result.shape
    write_png(Path(absolute(args.out)), made.pixels, width, height)
    note = f"  ({made.result.note})" if made.result.note else ""
    print(f"{args.out}  {width}x{height}  {made.result.seconds:.2f} s{note}")
    return int(ExitCode.OK)


def write_png(path: Path, pixels: bytes, width: int, height: int) -> None:
    """8-bit RGB rows as a PNG file, whole or not at all (the thin client has no imaging library).

    Raises PlateError `plate.write_failed` or `plate.permission`.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = width * 3
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
    try:
        write_whole(path, data)
    except OSError as error:
        code = "plate.permission" if isinstance(error, PermissionError) else "plate.write_failed"
        raise PlateError(
            code,
            f"the picture cannot be written: {error.strerror or error}",
            path=str(path),
            remedy="Choose another --out.",
        ) from error
