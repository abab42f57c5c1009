"""The options of commands that send work: their help, and the job they describe.

Parameters of the effect are options, too, and only the server knows the effect: what argparse does not know is
kept in `rest` and read here against the effect's descriptor. Abbreviations are off, or `--style` would be taken for
`--style-image`.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from host_bridge.cli.progress import MODES
from host_bridge.curves import Curve, parse_curve
from host_bridge.effects import EffectDescriptor, Param, check_values
from host_bridge.errors import EffectError, FaceplateError, RequestError, unknown_name
from host_bridge.jobspec import (
    MASK_MODES,
    MATTE_NAMES,
    MISSING_POLICIES,
    PREMULT_MODES,
    JobSpec,
    MaskSpec,
    PlateSpec,
)


def add_command(commands: Any, name: str, **texts: Any) -> argparse.ArgumentParser:
    """A command whose options are taken by their whole names."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **texts
    )
    return parser


def add_plate(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("plate")
    group.add_argument("--in", dest="plate", required=True, metavar="PATTERN", help="plate, e.g. shots/sh010.%%04d.exr")
    group.add_argument(
        "--colorspace", default="", metavar="NAME", help="its OCIO colourspace (default: the scene_linear role)"
    )
    group.add_argument("--ocio", default="", metavar="FILE", help="OCIO config (default: $OCIO, else ACES CG)")
    group.add_argument(
        "--premult",
        choices=PREMULT_MODES,
        default="auto",
        metavar="MODE",
        help="how alpha is stored: auto (as the format says), premultiplied, straight, or ignore it",
    )
    group.add_argument("--layer", default="", metavar="NAME", help="layer to treat (default: R, G, B, A)")
    group.add_argument("--part", default="", metavar="NAME", help="EXR part to treat, by name or number from 0")
    group.add_argument("--view", default="", metavar="NAME", help="stereo view to treat; also what %%V stands for")
    group.add_argument(
        "--missing",
        choices=MISSING_POLICIES,
        default="error",
        metavar="POLICY",
        help="frames that are not on disk: error (default), hold the nearest earlier frame, skip them, or interpolate "
        "them from their neighbours (a render marks them in the metadata)",
    )


def add_effect(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("effect")
    text = "effect to apply; see `faceplate effects`" if required else "prepare the shot for this effect, too"
    group.add_argument("--effect", required=required, default="", metavar="NAME", help=text)
    group.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter; `--NAME VALUE` is the same"
    )
    group.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="NAME=STRENGTH",
        help="apply an edit, -1..1; repeat it for more, they are applied in this order",
    )
    group.add_argument(
        "--style-image", default="", metavar="FILE", help="picture whose colours the effect takes (look: the palette)"
    )


def add_face(group: Any) -> None:
    group.add_argument(
        "--face",
        default="largest",
        metavar="WHICH",
        help="largest (default), all, x,y for the face nearest to that pixel, or a face id from `faceplate shots`",
    )


def add_faces(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("faces and masks")
    add_face(group)
    group.add_argument("--mask", default="", metavar="PATTERN", help="your own matte: a sequence, or one picture")
    group.add_argument("--mask-channel", default="A", metavar="NAME", help="its channel (default: A)")
    group.add_argument(
        "--mask-mode",
        choices=MASK_MODES,
        default="intersect",
        metavar="MODE",
        help="intersect: treat only inside it (default); subtract: a holdout, never treat inside it; "
        "union: treat inside it as well; replace: use it instead of the effect's own matte",
    )


def add_shot(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("shot")
    group.add_argument("--shot", default="", metavar="ID", help="use this analysis (`faceplate analyze` prints its id)")
    group.add_argument(
        "--shot-range", default="", metavar="RANGE", help="frames that belong to the shot (default: all on disk)"
    )


def add_connection(parser: argparse.ArgumentParser, *, runs_jobs: bool = False) -> None:
    group = parser.add_argument_group("server")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--server", default="", metavar="ENDPOINT", help="tcp://host:port, or the path of a connection file"
    )
    where.add_argument(
        "--local", action="store_true", help="a private server for this command only, gone afterwards (farm tasks)"
    )
    group.add_argument("--no-start", action="store_true", help="fail if no server runs, instead of starting one")
    if runs_jobs:
        group.add_argument(
            "--progress",
            choices=MODES,
            default="auto",
            metavar="MODE",
            help="bar, farm (lines for Deadline and Open Job Description), json (one object per line on standard "
            "output), or auto: a bar on a terminal, farm elsewhere (default)",
        )


def keep_rest(parser: argparse.ArgumentParser) -> None:
    """Let the command take options that argparse does not know: the effect's parameters."""
    names = sorted(name for name in parser._option_string_actions if name.startswith("--"))
    parser.set_defaults(takes_rest=True, options=names)


# -- what they describe ------------------------------------------------------------------------------------------------


def plate_of(args: argparse.Namespace) -> PlateSpec:
    return PlateSpec(
        absolute(args.plate), args.colorspace, args.premult, args.layer, args.part, args.view, args.missing
    )


def absolute(path: str) -> str:
    """An absolute path: the server's working folder is another one."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def ocio_of(args: argparse.Namespace) -> str:
    text = str(args.ocio)
    return text if text.startswith("ocio://") else absolute(text)


def render_job(args: argparse.Namespace, descriptor: EffectDescriptor) -> JobSpec:
    """The job of `render`, `preview` or `analyze --effect`, its values checked. Raises RequestError, EffectError."""
    params = {
        name: parse_for(_param(descriptor, name), text) for name, text in _assignments(args.set, "--set", "degree")
    }
    params.update(_flags(args.rest, descriptor, args.options))
    edits = [
        (name, parse_for(_edit(descriptor, name), text)) for name, text in _assignments(args.edit, "--edit", "smile")
    ]
    as_json = {name: curve.to_json() for name, curve in params.items()}
    edits_json = [(name, curve.to_json()) for name, curve in edits]
    check_values(descriptor, as_json, edits_json)
    mattes = [n.strip() for n in getattr(args, "matte_channels", "").split(",") if n.strip()]
    for name in mattes:
        if name not in MATTE_NAMES:
            raise unknown_name("request.unknown_name", "matte", name, list(MATTE_NAMES))
    return JobSpec(
        kind="render",
        plate=plate_of(args),
        frames=getattr(args, "frames", ""),
        shot=args.shot,
        shot_range=args.shot_range,
        effect=descriptor.identifier,
        params=as_json,
        edits=[[name, value] for name, value in edits_json],
        output=absolute(getattr(args, "out", "")),
        matte_output=absolute(getattr(args, "matte_out", "")),
        matte_channels=mattes,
        compression=getattr(args, "compression", ""),
        mask=MaskSpec(absolute(args.mask), args.mask_channel, args.mask_mode) if getattr(args, "mask", "") else None,
        style_image=absolute(args.style_image),
        face=args.face,
        ocio=ocio_of(args),
        skip_existing=getattr(args, "skip_existing", False),
        continue_on_error=getattr(args, "continue_on_error", False),
        retime=getattr(args, "retime", 1.0),
    )


def refuse_effect_options(args: argparse.Namespace) -> None:
    """RequestError where options of an effect are given without the effect."""
    given = [*args.rest, *args.set, *args.edit, *([args.style_image] if args.style_image else [])]
    if given:
        raise RequestError(
            "request.bad_value",
            f"{given[0]} means nothing without an effect",
            value=given[0],
            remedy="Add --effect NAME, or leave it out.",
        )


def parse_for(param: Param, text: str) -> Curve:
    """A parameter's value from the command line: strings are taken as they are, everything else as a curve.

    Raises EffectError (`effect.parameter`) naming the parameter where keyframes cannot be read.
    """
    if param.type == "string":
        return Curve.constant(text)
    try:
        return parse_curve(text)
    except RequestError as error:
        raise EffectError(
            "effect.parameter", f"{param.name}: {error.message}", value=text, remedy=error.remedy
        ) from error


def _assignments(items: Sequence[str], flag: str, example: str) -> list[tuple[str, str]]:
    out = []
    for item in items:
        name, equals, value = item.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise RequestError(
                "request.bad_value",
                f"cannot read {flag} {item}",
                value=item,
                remedy=f"Write {flag} NAME=VALUE, such as {flag} {example}=0.8 or {flag} {example}=1001:0,1024:1.",
            )
        out.append((name.strip(), value.strip()))
    return out


def _flags(rest: Sequence[str], descriptor: EffectDescriptor, options: Sequence[str]) -> dict[str, Curve]:
    """`--line-weight 0.3` and `--line-weight=0.3` for every parameter of the effect."""
    out: dict[str, Curve] = {}
    words = deque(rest)
    while words:
        word = words.popleft()
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            raise RequestError(
                "request.bad_value",
                f"unexpected argument {word!r}",
                value=word,
                remedy="Put quotes around patterns and values with spaces, * or $; see `faceplate render --help`.",
            )
        param = _flagged(flag, descriptor, options)
        if not equals:
            if words and not words[0].startswith("--"):
                value = words.popleft()
            elif param.type == "boolean":
                value = "true"
        if not value:
            raise RequestError("request.bad_value", f"{flag} needs a value", value=flag, remedy=f"Write {flag} VALUE.")
        out[param.name] = parse_for(param, value)
    return out


def _flagged(flag: str, descriptor: EffectDescriptor, options: Sequence[str]) -> Param:
    name = flag[2:].replace("-", "_")
    if name in {p.name for p in descriptor.settable} | {e.name for e in descriptor.edits}:
        return _param(descriptor, name)
    flags = ["--" + p.name.replace("_", "-") for p in descriptor.settable]
    near = unknown_name("request.unknown_name", "option", flag, [*options, *flags]).remedy.partition("Allowed:")[0]
    raise RequestError(
        "request.unknown_name",
        f"unknown option {flag}",
        value=flag,
        remedy=f"{near}Parameters of {descriptor.identifier}: {', '.join(flags)}. "
        "See `faceplate render --help` for the options of every effect.",
    )


def _param(descriptor: EffectDescriptor, name: str) -> Param:
    """A parameter by name; whoever named an edit is told how edits are written."""
    if name in {e.name for e in descriptor.edits}:
        raise EffectError(
            "effect.parameter",
            f"{name} is an edit of {descriptor.identifier}, not a parameter",
            value=name,
            remedy=f"Write --edit {name}=0.5 (edits are applied in the order they are given).",
        )
    return descriptor.param(name)


def _edit(descriptor: EffectDescriptor, name: str) -> Param:
    if name in {p.name for p in descriptor.settable}:
        raise EffectError(
            "effect.parameter",
            f"{name} is a parameter of {descriptor.identifier}, not an edit",
            value=name,
            remedy=f"Write --set {name}=VALUE.",
        )
    try:
        return descriptor.edit(name)
    except FaceplateError as error:
        if descriptor.edits:
            raise
        raise EffectError(
            "effect.parameter",
            f"{descriptor.identifier} has no edits",
            value=name,
            remedy="Set its parameters with --set, or use an effect of kind edit; see `faceplate effects`.",
        ) from error
