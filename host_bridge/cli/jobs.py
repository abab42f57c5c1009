"""Commands that list: effects, jobs."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from host_bridge.cli.options import add_command, add_connection
from host_bridge.cli.progress import describe
from host_bridge.cli.render import connect, find_effect
from host_bridge.client import Client
from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, Param
from host_bridge.errors import ExitCode, JobError, from_wire
from host_bridge.messages import FrameFailedEvent, JobStarted, JobStatus, JobWarning, event_from_body

_MOST_LISTED = 20  # choices beside their parameter
_JOB_ID = re.compile(r"[0-9a-f]{6,32}\Z")
_ACTIONS = {
    "list": "the newest jobs",
    "show": "one job: what it does, its warnings and failed frames",
    "cancel": "end a job before its next frame; frames on disk stay",
    "resume": "queue a failed or cancelled job again; finished frames are kept, adaptations go on where they stopped",
}


def add_parsers(commands: Any) -> None:
    effects = add_command(commands, "effects", help="list effects, or one effect's parameters and edits")
    effects.add_argument("effect", nargs="?", default="", metavar="EFFECT")
    effects.add_argument("--json", action="store_true", help="descriptors as JSON")
    add_connection(effects)
    effects.set_defaults(run=_effects)

    jobs = add_command(commands, "jobs", help="list, show, cancel or resume jobs")
    actions = jobs.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in _ACTIONS.items():
        one = add_command(actions, action, help=text, description=text[0].upper() + text[1:] + ".")
        if action == "list":
            one.add_argument("--state", default="", help="only queued, running, finished, failed or cancelled ones")
        else:
            one.add_argument("job", metavar="ID", help="the job's id, or its first digits (at least six)")
        one.add_argument("--json", action="store_true", help="as JSON")
        add_connection(one)
        one.set_defaults(run=_jobs)


# -- effects -----------------------------------------------------------------------------------------------------------


def _effects(args: argparse.Namespace) -> int:
    with connect(args) as client:
        found = client.list_effects()
        one = find_effect(client, args.effect) if args.effect else None
    if args.json:
        print(json.dumps(one.to_json() if one else found, indent=1))
    elif one is None:
        for data in found:
            print(f"{data['identifier']:<16} {data['kind']:<9} {data['summary']}")
        print("\n`faceplate effects NAME` lists an effect's parameters and edits.")
    else:
        print("\n".join(_described(one)))
    return int(ExitCode.OK)


def _described(effect: EffectDescriptor) -> Iterator[str]:
    yield f"{effect.label} ({effect.identifier} {effect.version}, {effect.kind})"
    yield effect.summary
    if effect.edits:
        yield "\nEdits: --edit NAME=STRENGTH, as often as you like; they are applied in that order"
        yield from _listed(effect.edits)
    yield "\nParameters: --set NAME=VALUE or --NAME VALUE"
    yield from _listed([p for p in effect.settable if not p.parent])
    for group in effect.params:
        if group.type == "group":
            yield f"\n{group.label}" + (f": {group.hint}" if group.hint else "")
            yield from _listed([p for p in effect.settable if p.parent == group.name])
    for param in effect.settable:
        for value, choices in param.choices_for:
            if choices:
                start = f"\n{param.label}, where {param.depends} is {value}: "
                yield from textwrap.wrap(
                    start + ", ".join(choices), 118, subsequent_indent="  ", replace_whitespace=False
                )


def _listed(params: Sequence[Param]) -> Iterator[str]:
    for param in params:
        constant = "" if param.animates else " One value for the whole shot."
        start = f"  {param.name:<17} {_allowed(param):<17} "
        hint = param.hint.rstrip(".") + "." + constant if param.hint else param.label + "." + constant
        if len(start) > 40:
            yield start.rstrip()
            start = ""
        yield from textwrap.wrap(hint, 118, initial_indent=start.ljust(38), subsequent_indent=" " * 38)


def _allowed(param: Param) -> str:
    default = _shown(param.default)
    if len(param.choices) > _MOST_LISTED:
        return f"one of {len(param.choices)}, see below ({default})"
    if param.choices:
        return f"{'|'.join(param.choices)} ({default})"
    if param.type == "rgb":
        return f"r,g,b ({default})"
    if param.type == "double2d":
        return f"x,y ({default})"
    if param.type == "boolean":
        return f"true|false ({default})"
    if param.minimum is not None or param.maximum is not None:
        return f"{_shown(param.minimum)}..{_shown(param.maximum)} ({default})"
    return f"{'text' if param.type == 'string' else 'number'} ({default})"


def _shown(value: Value | None) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# -- jobs --------------------------------------------------------------------------------------------------------------


def _jobs(args: argparse.Namespace) -> int:
    if args.action != "list" and not _JOB_ID.match(args.job):
        raise JobError(
            "job.unknown",
            f"{args.job!r} is no job id",
            value=args.job,
            remedy="Give the id that `faceplate jobs list` shows, or at least its first six digits.",
        )
    with connect(args) as client:
        if args.action == "list":
            found = client.list_jobs(args.state)
        elif args.action == "show":
            found = [_with_events(client, args.job)]
        else:
            found = [client.cancel(args.job) if args.action == "cancel" else client.resume(args.job)]
    if args.json:
        print(json.dumps([job.body() for job in found], indent=1))
        return int(ExitCode.OK)
    if not found:
        print("no jobs")
    for job in found:
        failed = f", {job.failed} failed" if job.failed else ""
        # Only a render puts frames on disk one by one; the others do all or nothing.
        frames = f"{job.done}/{job.total or '?'}" if job.kind == "render" else str(job.total or "?")
        ending = ", cancelling" if job.cancelling and not job.ended else ""
        print(
            f"{job.job_id[:12]}  {job.state:<10} {job.kind:<8} {job.effect:<12} "
            f"{frames} frames{failed}{ending}" + (f"  {job.error['code']}" if job.error else "")
        )
        if args.action == "show":
            _show(job)
            if job.error:
                print(f"    {from_wire(job.error)}")
    return int(ExitCode.OK)


def _with_events(client: Client, job_id: str) -> JobStatus:
    """A job and all its events, which come in pages."""
    job = client.query(job_id, after=0)
    page = job
    while page.more and page.events:
        page = client.query(job.job_id, after=int(page.events[-1]["seq"]))
        job.events.extend(page.events)
    return job


def _show(job: JobStatus) -> None:
    spec = job.job
    plate, mask = spec.get("plate") or {}, spec.get("mask") or {}
    events = [event_from_body(str(body.get("type")), body) for body in job.events]
    started = [event.shot for event in events if isinstance(event, JobStarted)]
    repairs = spec.get("repairs") or {}
    lines = {
        "plate": plate.get("pattern"),
        "frames": "" if job.kind in ("repair", "adapt") else spec.get("frames") or "all on disk",
        "shot": started[-1] if started else spec.get("shot"),
        "repairs": ", ".join(f"{len(v)} {k}" for k, v in repairs.items() if isinstance(v, list) and v)
        or ("none" if job.kind == "repair" else ""),
        "output": spec.get("output"),
        "params": json.dumps(spec["params"]) if spec.get("params") else "",
        "edits": json.dumps(spec["edits"]) if spec.get("edits") else "",
        "steps": ", ".join(spec.get("steps") or []) + (" (what there is, accepted)" if spec.get("accept") else ""),
        "mask": f"{mask.get('pattern')} ({mask.get('mode')})" if mask else "",
        "device": job.device,
    }
    for name, value in lines.items():
        if value:
            print(f"    {name:<8} {value}")
    for event in events:
        if isinstance(event, JobWarning | FrameFailedEvent):
            print(f"    {describe(event)}")
    sys.stdout.flush()
