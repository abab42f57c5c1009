"""Commands for farms: submit a render, and run one task of it."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from host_bridge.cli.options import (
    absolute,
    add_command,
    add_connection,
    add_effect,
    add_faces,
    add_plate,
    add_shot,
    keep_rest,
    render_job,
)
from host_bridge.cli.progress import open_reporter
from host_bridge.cli.render import add_output, add_retime, connect, find_effect, run_job
from host_bridge.errors import ExitCode, RequestError
from host_bridge.farm import FARMS, FarmOptions, submit
from host_bridge.farm.jobfile import chunk_of, mapped, read_job, read_openjd_rules, read_shot, write_text

_SUBMIT = """\
Submit a render to a farm: the shot is analysed once, then its frames are rendered in chunks.

  faceplate submit --to deadline --chunk-size 10 --effect look --style cartoon \\
      --in shots/sh010.%04d.exr --frames 1001-1100 --out renders/sh010_toon.%04d.exr

Takes the options of `render`. The submission is a folder (default: .faceplate/NAME beside the output) that the
workers must see; --write-only writes it and submits nothing.
"""

_RUN = """\
Run one task of a submission: the analysis (--analyse), or those of its frames that are in --chunk. The analysis also
takes the long steps of an effect that has some, as `faceplate adapt` does.
Farms call this; a chunk equals the whole render, byte for byte.
"""


def add_parsers(commands: Any) -> None:
    send = add_command(commands, "submit", help="submit a render to a farm", description=_SUBMIT)
    group = send.add_argument_group("farm")
    group.add_argument(
        "--to", required=True, choices=tuple(FARMS), metavar="FARM", help="openjd, opencue or deadline (Deadline 10)"
    )
    group.add_argument(
        "--chunk-size",
        type=int,
        default=10,
        metavar="FRAMES",
        help="frames of one task (default: 10). Any size gives the same frames; effects that look back (two_stage, "
        "keyframe) are walked from the beginning of their segment, so that multiples of 32 save work",
    )
    group.add_argument(
        "--priority", type=int, default=-1, metavar="NUMBER", help="on the farm's own scale (default: the farm's)"
    )
    group.add_argument("--pool", default="", metavar="NAME", help="Deadline: pool; OpenCue: tag of the hosts")
    group.add_argument("--secondary-pool", default="", metavar="NAME", help="Deadline: secondary pool")
    group.add_argument("--group", default="", metavar="NAME", help="Deadline: group")
    group.add_argument("--show", default="", metavar="NAME", help="OpenCue: show")
    group.add_argument("--cue-shot", default="", metavar="NAME", help="OpenCue: shot")
    group.add_argument("--name", default="", metavar="TEXT", help="name on the farm")
    group.add_argument(
        "--command", default="faceplate", metavar="PATH", help="faceplate as the workers call it (default: faceplate)"
    )
    group.add_argument("--bundle", default="", metavar="FOLDER", help="where to write the submission")
    group.add_argument(
        "--path-map",
        action="append",
        default=[],
        metavar="FROM=TO",
        help="the workers have the folder FROM as TO; repeat it for more",
    )
    group.add_argument("--write-only", action="store_true", help="write the submission, do not submit it")
    add_plate(send)
    frames = send.add_argument_group("frames")
    add_retime(frames)
    frames.add_argument(
        "--frames", required=True, metavar="RANGE", help="frames to render: 1001-1100, 1001-1100x2, 1001,1005-1010"
    )
    add_effect(send)
    add_faces(send)
    add_output(send)
    add_shot(send)
    add_connection(send)
    send.set_defaults(run=_submit)
    keep_rest(send)

    run = add_command(commands, "run", help="run one task of a farm submission", description=_RUN)
    run.add_argument("job", metavar="JOB.json", help="the job file that `faceplate submit` wrote")
    what = run.add_mutually_exclusive_group()
    what.add_argument("--analyse", action="store_true", help="analyse (and adapt to) the whole shot, render nothing")
    what.add_argument("--chunk", default="", metavar="RANGE", help="only the job's frames in this range")
    run.add_argument(
        "--shot-file", default="", metavar="FILE", help="--analyse leaves the shot's id here, other tasks read it"
    )
    run.add_argument(
        "--map-rules", default="", metavar="FILE", help="an Open Job Description session's path mapping rules"
    )
    add_connection(run, runs_jobs=True)
    run.set_defaults(run=_run)


def _submit(args: argparse.Namespace) -> int:
    if args.chunk_size < 1:
        raise RequestError(
            "request.bad_value", "a chunk has a frame or more", value=args.chunk_size, remedy="Give --chunk-size 1."
        )
    with connect(args) as client:
        job = render_job(args, find_effect(client, args.effect))
    done = submit(
        job,
        args.to,
        FarmOptions(
            chunk=args.chunk_size,
            priority=args.priority,
            pool=args.pool,
            secondary_pool=args.secondary_pool,
            group=args.group,
            show=args.show,
            shot=args.cue_shot,
            name=args.name,
            command=args.command,
            bundle=absolute(args.bundle),
            path_maps=tuple(_rule(text) for text in args.path_map),
            write_only=args.write_only,
        ),
    )
    for file in done.files:
        print(file)
    if done.said:
        print(done.said)
    return int(ExitCode.OK)


def _rule(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not (source and equals and target):
        raise RequestError(
            "request.bad_value",
            f"cannot read --path-map {text}",
            value=text,
            remedy="Write FROM=TO, as in Z:/=/mnt/z/.",
        )
    return source, target


def _run(args: argparse.Namespace) -> int:
    file = read_job(Path(args.job))
    rules = [*(read_openjd_rules(Path(args.map_rules)) if args.map_rules else ()), *file.path_maps]
    job = mapped(file.job, rules)
    shot_file = Path(absolute(args.shot_file)) if args.shot_file else None
    if args.analyse:
        job = replace(job, frames="", output="", matte_output="", matte_channels=[])
    else:
        if shot_file:
            job = replace(job, shot=read_shot(shot_file))
        if args.chunk:
            job = chunk_of(job, args.chunk)
        os.makedirs(os.path.dirname(job.output), exist_ok=True)
    reporter = open_reporter(args.progress)
    with connect(args) as client:
        if args.analyse:
            job = replace(job, kind="adapt" if find_effect(client, job.effect).steps else "analyse")
        status = run_job(client, job, reporter)
    if args.analyse and status == ExitCode.OK and shot_file:
        write_text(shot_file, reporter.shot + "\n")
    return status
