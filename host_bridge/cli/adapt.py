"""The command that takes an effect's long steps: adapt."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from host_bridge.cli.options import (
    add_command,
    add_connection,
    add_effect,
    add_face,
    add_plate,
    add_shot,
    keep_rest,
    render_job,
)
from host_bridge.cli.progress import open_reporter
from host_bridge.cli.render import connect, find_effect, run_job
from host_bridge.errors import ExitCode

_ADAPT = """\
Take the long steps that an effect needs before it can render a shot: adapt its network to the actor, say, or optimise
an expression over all frames. They are stored with the shot, and every render with the same values finds them.

  faceplate adapt --effect style_portrait --in shots/sh010.%04d.exr --edit smile=1001:0,1024:1

Takes the options of `render`, without the output. What is there already is not done again. Ctrl-C (or
`faceplate jobs cancel`) stops it and keeps what has been learned: the same command goes on there, and with --accept
takes the best so far as it is; renders then say so. A step depends on the values it was taken with: where they change,
a render says which step has to be taken again.
"""


def add_parsers(commands: Any) -> None:
    exits = "exit status: " + ", ".join(f"{int(c)} {c.name.lower().replace('_', ' ')}" for c in ExitCode)
    adapt = add_command(
        commands, "adapt", help="take an effect's long steps for a shot", description=_ADAPT, epilog=exits
    )
    add_plate(adapt)
    add_effect(adapt)
    group = adapt.add_argument_group("steps")
    group.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="NAME",
        help="take only this one; repeat it for more (default: all that the values need, in order)",
    )
    group.add_argument(
        "--accept",
        action="store_true",
        help="take the best so far of a run that was stopped as it is, and go on with the steps after it",
    )
    add_face(adapt.add_argument_group("faces"))
    add_shot(adapt)
    add_connection(adapt, runs_jobs=True)
    adapt.set_defaults(run=_adapt)
    keep_rest(adapt)


def _adapt(args: argparse.Namespace) -> int:
    with connect(args) as client:
        job = render_job(args, find_effect(client, args.effect))
        reporter = open_reporter(args.progress)
        status = run_job(client, replace(job, kind="adapt", steps=args.step, accept=args.accept), reporter)
    if status == ExitCode.OK and args.progress != "json":
        print(reporter.shot)
    return status
