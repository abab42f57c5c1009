"""What the node's buttons do, and what is checked before something renders that depends on a node.

Runs on Nuke's main thread; what takes long and needs no node is a `Run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import nuke

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import FaceplateError, HostError, JobError, RequestError, unknown_name
from host_bridge.framerange import format_frames
from host_bridge.hosts.base import remember_effects, remembered_effects
from host_bridge.hosts.nuke_job import NodeFacts, Plan, plan, stale_error
from host_bridge.hosts.nuke_node import (
    BUSY,
    create,
    reason_against,
    refresh,
    set_state,
    show_error,
    take_result,
    write_precomps,
)
from host_bridge.hosts.nuke_read import is_faceplate, read_node, text, upstream, value
from host_bridge.hosts.nuke_run import Errand, Run, connector, running
from host_bridge.jobspec import JobSpec

_PREVIEW_PRIORITY = 50
Jobs = Callable[[NodeFacts, Plan], Sequence[JobSpec]]


def effects() -> tuple[EffectDescriptor, ...]:
    """The effects to make nodes of: the server's, and without a server those of the last time.

    A server is started only where nothing is remembered. Raises what went wrong if there is neither.
    """
    known = remembered_effects()
    try:
        with connector()(start=not known, name="nuke", timeout_s=30.0) as client:
            return remember_effects(client.list_effects())
    except FaceplateError:
        if known:
            return known
        raise


def create_node(identifier: str) -> nuke.Group:
    """A node of that effect. Raises EffectError (`effect.unknown`), ServerError."""
    found = {effect.identifier: effect for effect in effects()}
    if identifier not in found:
        raise unknown_name("effect.unknown", "effect", identifier, list(found))
    return create(found[identifier])


def press(group: nuke.Group, button: str) -> None:
    """Do what a button says. What cannot be done is shown as the node's error."""
    try:
        _PRESSED[button](group)
    except FaceplateError as error:
        show_error(group, error)


def render(group: nuke.Group) -> None:
    """Write what has to be written, then render the whole range in the background."""
    _start(group, "rendering", lambda facts, now: now.jobs, result=True)


def preview(group: nuke.Group) -> None:
    """Render the current frame in the background, before other jobs, and show it."""
    frame = nuke.frame()

    def one(facts: NodeFacts, now: Plan) -> Sequence[JobSpec]:
        if frame not in facts.frames:
            raise RequestError(
                "request.frame_range",
                f"frame {frame} is outside the node's range {format_frames(facts.frames)}",
                value=frame,
                remedy="Go to a frame inside, or set the node's frame range.",
            )
        return [replace(job, frames=str(frame - now.offset)) for job in now.jobs]

    _start(group, f"rendering frame {frame}", one, result=True, priority=_PREVIEW_PRIORITY)


def analyse(group: nuke.Group) -> None:
    """Find and track the faces in the background."""

    def analysis(facts: NodeFacts, now: Plan) -> Sequence[JobSpec]:
        return [replace(job, kind="analyse", frames="", output="", matte_channels=[]) for job in now.jobs]

    _start(group, "analysing", analysis, result=False)


def submit(group: nuke.Group) -> None:
    """Write what has to be written, hand the range to the farm in the background, and show its frames as they come."""
    from host_bridge import farm  # it needs pyzmq, and Nuke's start-up loads this module

    key = group.fullName()
    if running(key):
        return
    options = farm.FarmOptions(chunk=int(value(group, "fp_chunk") or 10), pool=text(group, "fp_pool"))
    farm_name = text(group, "fp_farm")
    set_state(group, BUSY, "submitting")
    facts, now = settled(group)

    def work() -> str:
        sent = [farm.submit(job, farm_name, options) for job in now.jobs]
        return "; ".join(" ".join(one.said.split()) or str(one.folder) for one in sent)

    def done(said: str, error: FaceplateError | None) -> None:
        _finish(group, facts, now, f"submitted: {said}", error)

    Errand(key, work, done).start()


def cancel(group: nuke.Group) -> None:
    """End what the node is doing."""
    run = running(group.fullName())
    if run is not None:
        set_state(group, BUSY, "cancelling: the frame in hand is finished or dropped")
        run.cancel()
    else:
        refresh(group)


def check_inputs(node: nuke.Node) -> None:
    """Refuse to render `node` from Faceplate nodes whose result is missing or out of date.

    Raises HostError (`host.stale`) and makes the first of those nodes, counted from the plate, one with an error.
    """
    for found in reversed(upstream(node)):
        if isinstance(found, nuke.Group) and is_faceplate(found) and not value(found, "disable"):
            reason = usable(found)
            if reason:
                error = stale_error(found.fullName(), reason)
                show_error(found, error)
                raise error


def usable(group: nuke.Group) -> str:
    """Why the node's result cannot be used for a render now; "" if it can. The node's own errors count."""
    try:
        reason = reason_against(group)
    except FaceplateError as error:
        return f"{error.message}. {error.remedy}"
    if reason and value(group, "fp_use_stale") and text(group, "fp_made"):
        return ""
    return reason


def settled(group: nuke.Group) -> tuple[NodeFacts, Plan]:
    """The node's facts and plan, with everything above it rendered and its own pre-comps on disk."""
    facts = read_node(group)
    now = plan(facts)
    if now.precomps:
        check_inputs(group)
    write_precomps(group, facts, now)
    return facts, now


def _start(
    group: nuke.Group,
    words: str,
    jobs_of: Jobs,
    *,
    result: bool,
    priority: int = 0,
) -> None:
    key = group.fullName()
    if running(key):
        return  # its progress is on the screen
    if not nuke.GUI:
        raise HostError(
            "host.unsupported",
            "a Nuke without windows cannot wait for a render while it renders",
            value=key,
            remedy="Write the passes first: nuke -t passes.py write SCRIPT.nk (see the README of nuke_scripts).",
        )
    set_state(group, BUSY, words)
    facts, now = settled(group)
    jobs = jobs_of(facts, now)

    def done(shot: str, error: FaceplateError | None) -> None:
        _finish(group, facts, now if result else None, "" if result else f"analysed: shot {shot}", error)

    Run(key, jobs, done, server=text(group, "fp_server"), priority=priority).start()


def _finish(group: nuke.Group, facts: NodeFacts, now: Plan | None, said: str, error: FaceplateError | None) -> None:
    """On the main thread: take the result of `now`, if there is one, and show how it ended."""
    found = nuke.toNode(facts.name)
    if found is None or found != group:
        return  # deleted or renamed while it ran: what was rendered stays on disk, and Render finds it there
    set_state(group, "", "")
    if error is not None and not (isinstance(error, JobError) and error.code == "job.cancelled"):
        show_error(group, error)
        return
    if error is None and now is not None:
        take_result(group, facts, now)
    refresh(group)
    if error is not None:
        group["fp_status"].setValue(error.message)
    elif said:
        group["fp_status"].setValue(said)


_PRESSED = {"render": render, "preview": preview, "analyse": analyse, "cancel": cancel, "submit": submit}
