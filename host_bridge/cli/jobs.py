"""Commands that send work to a server: render, analyze, preview, effects, jobs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from host_bridge import launcher
from host_bridge.cli.progress import MODES, Reporter, open_reporter
from host_bridge.client import Client
from host_bridge.curves import Curve, Value, parse_curve
from host_bridge.effects import EffectDescriptor, Param, check_values, descriptor_from_json
from host_bridge.errors import ExitCode, FaceplateError, RequestError, unknown_name
from host_bridge.jobspec import (
    MASK_MODES,
    MATTE_NAMES,
    MISSING_POLICIES,
    PREMULT_MODES,
    JobSpec,
    MaskSpec,
    PlateSpec,
    PreviewSpec,
)
from host_bridge.messages import JobFailed, JobStarted

# A job's last words are waited for this long after a cancel; then the server is left to finish alone.
CANCEL_GRACE_S = 20.0


def add_parsers(commands: Any) -> None:
    render = commands.add_parser(
        "render",
        help="render frames of a plate",
        description="Render frames of a plate. Parameters of the effect are also flags: `--set degree=0.8` and "
        "`--degree 0.8` are the same; `faceplate effects EFFECT` lists them. A value is a constant or keyframes: "
        "`1001:0,1024:1`.",
    )
    _add_plate(render)
    _add_effect(render)
    render.add_argument("--frames", default="", help="1001-1100, 1001-1100x2, 1001,1005-1010 (default: all on disk)")
    render.add_argument("--out", required=True, metavar="PATTERN", help="output sequence, e.g. renders/sh010.%%04d.exr")
    _add_shot(render)
    render.add_argument(
        "--matte-channels", default="", metavar="NAMES", help=f"add mattes as channels: {_names(MATTE_NAMES)}"
    )
    render.add_argument("--matte-out", default="", metavar="PATTERN", help="write mattes as their own sequence")
    render.add_argument("--compression", default="", help="EXR compression (default: what was read)")
    render.add_argument("--skip-existing", action="store_true", help="keep frames that this very job has written")
    render.add_argument("--continue-on-error", action="store_true", help="render the other frames when one fails")
    _add_connection(render)
    render.set_defaults(run=_render, takes_rest=True)

    analyze = commands.add_parser("analyze", help="analyse a shot and print its id")
    _add_plate(analyze)
    _add_shot(analyze)
    _add_connection(analyze)
    analyze.set_defaults(run=_analyze)

    preview = commands.add_parser("preview", help="render one frame to a PNG picture")
    _add_plate(preview)
    _add_effect(preview)
    preview.add_argument("--frame", type=int, required=True)
    preview.add_argument("--out", required=True, metavar="FILE.png")
    preview.add_argument("--shot", default="", help="id of an analysed shot")
    preview.add_argument("--shot-range", default="", help=argparse.SUPPRESS)
    preview.add_argument("--size", type=int, default=512, help="longer side in pixels (default 512)")
    preview.add_argument("--crop", choices=("face", "frame"), default="face")
    preview.add_argument("--show", choices=("result", "plate", "matte"), default="result")
    preview.add_argument("--display", default="", help="OCIO display (default: plain sRGB)")
    preview.add_argument("--view-transform", default="", metavar="VIEW", help="OCIO view of the display")
    preview.add_argument("--exposure", type=float, default=0.0, help="viewer exposure in stops")
    preview.add_argument("--gamma", type=float, default=1.0, help="viewer gamma")
    _add_connection(preview)
    preview.set_defaults(run=_preview, takes_rest=True)

    effects = commands.add_parser("effects", help="list effects, or one effect's parameters")
    effects.add_argument("effect", nargs="?", default="")
    effects.add_argument("--json", action="store_true")
    _add_connection(effects)
    effects.set_defaults(run=_effects)

    jobs = commands.add_parser("jobs", help="list, show, cancel or resume jobs")
    actions = jobs.add_subparsers(dest="action", required=True)
    for action in ("list", "show", "cancel", "resume"):
        one = actions.add_parser(action)
        if action == "list":
            one.add_argument("--state", default="")
        else:
            one.add_argument("job", help="job id, or its first digits")
        one.add_argument("--json", action="store_true")
        _add_connection(one)
        one.set_defaults(run=_jobs)


def _add_plate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in", dest="plate", required=True, metavar="PATTERN", help="plate, e.g. shots/sh010.%%04d.exr"
    )
    parser.add_argument("--colorspace", default="", help="OCIO colourspace of the plate (default: scene_linear)")
    parser.add_argument("--ocio", default="", metavar="FILE", help="OCIO config (default: $OCIO, else ACES CG)")
    parser.add_argument("--premult", choices=PREMULT_MODES, default="auto")
    parser.add_argument("--layer", default="", help="layer to treat (default: R, G, B, A)")
    parser.add_argument("--part", default="", help="part to treat, by name or number")
    parser.add_argument("--view", default="", help="view to treat")
    parser.add_argument("--missing", choices=MISSING_POLICIES, default="error", help="what to do about missing frames")


def _add_effect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--effect", required=True, help="effect to apply; `faceplate effects` lists them")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--edit", action="append", default=[], metavar="NAME=VALUE", help="add an edit; order is kept")
    parser.add_argument("--mask", default="", metavar="PATTERN", help="an artist's matte")
    parser.add_argument("--mask-channel", default="A")
    parser.add_argument("--mask-mode", choices=MASK_MODES, default="intersect", help="subtract is a holdout")
    parser.add_argument("--style-image", default="", metavar="FILE", help="exemplar picture")
    parser.add_argument("--face", default="largest", help="largest, all, a face id, or x,y in plate pixels")


def _add_shot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shot", default="", help="id of an analysed shot")
    parser.add_argument("--shot-range", default="", metavar="RANGE", help="the frames that are the shot")


def _add_connection(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", default="", metavar="ENDPOINT", help="tcp://host:port of a running server")
    where.add_argument("--local", action="store_true", help="a private server for this command only (farm tasks)")
    parser.add_argument("--no-start", action="store_true", help="do not start a server when none runs")
    parser.add_argument("--progress", choices=MODES, default="auto")


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def connect(args: argparse.Namespace) -> Client:
    """The client a command talks through, starting a server where that is allowed."""
    return launcher.connect(args.server or None, start=not args.no_start, private=args.local)


# -- building jobs -----------------------------------------------------------------------------------------------------


def _plate(args: argparse.Namespace) -> PlateSpec:
    return PlateSpec(
        _absolute(args.plate), args.colorspace, args.premult, args.layer, args.part, args.view, args.missing
    )


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def _job(args: argparse.Namespace, descriptor: EffectDescriptor) -> JobSpec:
    params = {name: parse_for(descriptor.param(name), text) for name, text in _assignments(args.set, "--set")}
    params.update(_flags(args.rest, descriptor))
    edits = [(name, parse_for(descriptor.edit(name), text)) for name, text in _assignments(args.edit, "--edit")]
    as_json = {name: curve.to_json() for name, curve in params.items()}
    edits_json = [[name, curve.to_json()] for name, curve in edits]
    check_values(descriptor, as_json, [(str(name), value) for name, value in edits_json])
    mattes = [n.strip() for n in getattr(args, "matte_channels", "").split(",") if n.strip()]
    for name in mattes:
        if name not in MATTE_NAMES:
            raise unknown_name("request.unknown_name", "matte", name, list(MATTE_NAMES))
    return JobSpec(
        kind="render",
        plate=_plate(args),
        frames=getattr(args, "frames", ""),
        shot=args.shot,
        shot_range=args.shot_range,
        effect=descriptor.identifier,
        params=as_json,
        edits=edits_json,
        output=_absolute(args.out),
        matte_output=_absolute(getattr(args, "matte_out", "")),
        matte_channels=mattes,
        compression=getattr(args, "compression", ""),
        mask=MaskSpec(_absolute(args.mask), args.mask_channel, args.mask_mode) if args.mask else None,
        style_image=_absolute(args.style_image),
        face=args.face,
        ocio=_absolute(args.ocio),
        skip_existing=getattr(args, "skip_existing", False),
        continue_on_error=getattr(args, "continue_on_error", False),
    )


def parse_for(param: Param, text: str) -> Curve:
    """A parameter's value from the command line: strings are taken as they are, everything else as a curve."""
    if param.type == "string":
        return Curve.constant(text)
    return parse_curve(text)


def _assignments(items: list[str], flag: str) -> list[tuple[str, str]]:
    out = []
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise RequestError(
                "request.bad_value",
                f"cannot read {flag} {item}",
                value=item,
                remedy=f"Write {flag} NAME=VALUE, such as {flag} degree=0.8 or {flag} degree=1001:0,1024:1.",
            )
        out.append((name.strip(), value.strip()))
    return out


def _flags(rest: list[str], descriptor: EffectDescriptor) -> dict[str, Curve]:
    """`--eye-size 0.3` and `--eye-size=0.3` for every parameter of the effect."""
    out: dict[str, Curve] = {}
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise RequestError(
                "request.bad_value",
                f"unexpected argument {word!r}",
                value=word,
                remedy="See `faceplate render --help`.",
            )
        param = descriptor.param(name[2:].replace("-", "_"))
        if not equals:
            value = next(words, "true" if param.type == "boolean" else "")
        if not value:
            raise RequestError("request.bad_value", f"{name} needs a value", value=name, remedy=f"Write {name} VALUE.")
        out[param.name] = parse_for(param, value)
    return out


def _descriptor(client: Client, name: str) -> EffectDescriptor:
    descriptors = {d["identifier"]: d for d in client.list_effects()}
    if name not in descriptors:
        raise unknown_name("effect.unknown", "effect", name, list(descriptors))
    return descriptor_from_json(descriptors[name])


# -- running jobs ------------------------------------------------------------------------------------------------------


def _render(args: argparse.Namespace) -> int:
    with connect(args) as client:
        return run_job(client, _job(args, _descriptor(client, args.effect)), open_reporter(args.progress))


def _analyze(args: argparse.Namespace) -> int:
    spec = JobSpec(
        kind="analyse", plate=_plate(args), shot=args.shot, shot_range=args.shot_range, ocio=_absolute(args.ocio)
    )
    with connect(args) as client:
        reporter = open_reporter(args.progress)
        status = run_job(client, spec, reporter)
    if status == ExitCode.OK:
        print(reporter.shot)
    return status


def run_job(client: Client, spec: JobSpec, reporter: Reporter) -> int:
    """Submit, report, and return the exit status. SIGTERM and Ctrl-C cancel the job and wait for its frame in hand."""
    handle = client.submit(spec)
    with _terminated_as_interrupt():
        try:
            error: FaceplateError | None = None
            for event in handle.events():
                reporter.show(event)
                if isinstance(event, JobStarted):
                    reporter.shot = event.shot or reporter.shot
                if isinstance(event, JobFailed):
                    error = handle.wait(1.0).error
            result = handle.wait(1.0)
        except KeyboardInterrupt:
            client.cancel(handle.job_id)
            for event in handle.events(CANCEL_GRACE_S):
                reporter.show(event)
            result = handle.wait(1.0)
            error = None
    reporter.close(result, error)
    if result.state == "cancelled":
        return int(ExitCode.CANCELLED)
    if error is not None:
        raise error
    return int(ExitCode.OK)


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """A farm's SIGTERM takes the same way as Ctrl-C; a second one kills."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _preview(args: argparse.Namespace) -> int:
    with connect(args) as client:
        job = _job(args, _descriptor(client, args.effect))
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
    write_png(Path(args.out), made.pixels, width, height)
    print(
        f"{args.out}  {width}x{height}  {made.result.seconds:.2f} s"
        + (f"  ({made.result.note})" if made.result.note else "")
    )
    return int(ExitCode.OK)


def write_png(path: Path, pixels: bytes, width: int, height: int) -> None:
    """8-bit RGB rows as a PNG file (the thin client has no imaging library)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = width * 3
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
    )


# -- listing -----------------------------------------------------------------------------------------------------------


def _effects(args: argparse.Namespace) -> int:
    with connect(args) as client:
        found = client.list_effects()
        one = _descriptor(client, args.effect) if args.effect else None
    if args.json:
        print(json.dumps(one.to_json() if one else found, indent=1))
    elif one is None:
        for data in found:
            print(f"{data['identifier']:<16} {data['kind']:<9} {data['summary']}")
    else:
        print(f"{one.label} ({one.identifier} {one.version}, {one.kind}): {one.summary}")
        for title, params in (
            ("parameters (--set NAME=VALUE or --name VALUE)", one.params),
            ("edits (--edit NAME=VALUE)", one.edits),
        ):
            if params:
                print(f"\n{title}")
            for param in params:
                print(f"  {param.name:<18} {_allowed(param):<28} {param.hint}")
    return int(ExitCode.OK)


def _allowed(param: Param) -> str:
    default = _shown(param.default)
    if param.choices:
        return f"{'|'.join(param.choices)} = {default}"
    if param.minimum is not None or param.maximum is not None:
        return f"{_shown(param.minimum)}..{_shown(param.maximum)} = {default}"
    return f"{param.type} = {default}"


def _shown(value: Value | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _jobs(args: argparse.Namespace) -> int:
    with connect(args) as client:
        if args.action == "list":
            found = client.list_jobs(args.state)
        elif args.action == "show":
            found = [client.query(args.job, after=0)]
        else:
            found = [client.cancel(args.job) if args.action == "cancel" else client.resume(args.job)]
    if args.json:
        print(json.dumps([job.body() for job in found], indent=1))
        return int(ExitCode.OK)
    for job in found:
        line = f"{job.job_id[:12]}  {job.state:<10} {job.kind:<8} {job.effect:<12} {job.done}/{job.total} frames"
        print(line + (f", {job.failed} failed" if job.failed else ""))
        if args.action == "show":
            for event in job.events:
                print(f"    {json.dumps(event)}")
        if job.error:
            print(f"    {job.error['message']} ({job.error['code']}). {job.error['remedy']}", file=sys.stderr)
    return int(ExitCode.OK)
