"""A Faceplate node in the script: how it is built, what it writes, what it shows. Inside Nuke, on its main thread.

    Source ---------------------> Choose -> Guard -> Output
       \\-> Write_source             |        an Assert: the node's error and its remedy
    Result -> Range ----------------/         Result is a Read of the finished frames
    Mask --> Matte -> Write_mask              Matte copies the chosen channel to alpha
    Style --> Write_style

The Writes are disabled except while the node itself executes them, so that no render of the script runs into them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nuke

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import FaceplateError, HostError, JobError
from host_bridge.hosts.base import one_line
from host_bridge.hosts.nuke_files import missing_files, missing_frames
from host_bridge.hosts.nuke_job import NodeFacts, Plan, plain_space, plan, stale_reason
from host_bridge.hosts.nuke_knobs import DESCRIPTOR_KNOB, PARAM, KnobSpec, descriptor_of, enabled_knobs, knob_specs
from host_bridge.hosts.nuke_read import inputs_for, plain_read, read_node, text
from host_bridge.hosts.nuke_run import running

BUSY, DONE, STALE, ERROR, EMPTY = "busy", "done", "out of date", "error", "not rendered"
_FAR = 10_000_000
_CLONED = ("frame_mode", "frame", "first", "last", "origfirst", "origlast", "before", "after")


def create(effect: EffectDescriptor) -> nuke.Group:
    """A new node of an effect, below the selected one and connected to it."""
    selected = nuke.selectedNodes()
    group = nuke.nodes.Group()
    group.setName(f"Faceplate_{effect.label.replace(' ', '_')}1")
    with group:
        _contents(inputs_for(effect))
    for spec in knob_specs(effect):
        group.addKnob(make_knob(spec))
    if selected:
        group.setInput(0, selected[0])
        group.setXYpos(selected[0].xpos(), selected[0].ypos() + 60)
    set_state(group, EMPTY, "not rendered: the plate passes through")
    grey_out(group)
    return group


def make_knob(spec: KnobSpec) -> nuke.Knob:
    """Nuke's knob for a description, with its default."""
    knob: Any
    if spec.kind == "begin":
        knob = nuke.Tab_Knob(spec.name, spec.label, nuke.TABBEGINCLOSEDGROUP)
    elif spec.kind == "end":
        knob = nuke.Tab_Knob(spec.name, None, nuke.TABENDGROUP)
    elif spec.kind == "Enumeration_Knob":
        knob = nuke.Enumeration_Knob(spec.name, spec.label, list(spec.choices))
    elif spec.kind in ("PyScript_Knob", "Text_Knob"):
        knob = getattr(nuke, spec.kind)(spec.name, spec.label, spec.default)
    else:
        knob = getattr(nuke, spec.kind)(spec.name, spec.label)
    if spec.hint:
        knob.setTooltip(spec.hint)
    if spec.span:
        knob.setRange(*spec.span)
    if spec.kind not in ("begin", "end", "Tab_Knob", "PyScript_Knob", "Text_Knob"):
        knob.setValue(list(spec.default) if isinstance(spec.default, tuple) else spec.default)
        if not spec.animates:
            knob.setFlag(nuke.NO_ANIMATION)
    if spec.hidden:
        knob.setFlag(nuke.INVISIBLE)
    if spec.newline:
        knob.setFlag(nuke.STARTLINE)
    else:
        knob.clearFlag(nuke.STARTLINE)
    found: nuke.Knob = knob
    return found


def inner(group: nuke.Group, name: str) -> nuke.Node:
    """A node inside. Raises HostError (`host.failed`) where somebody took it out."""
    found = group.node(name)
    if found is None:
        raise HostError(
            "host.failed",
            f"{group.name()} has lost its node {name}",
            value=name,
            remedy="Make a new node from the Faceplate menu and copy the values over.",
        )
    return found


# -- what it shows -----------------------------------------------------------------------------------------------------


def set_state(group: nuke.Group, state: str, words: str) -> None:
    """Show how things stand; any state but an error lets the picture through."""
    group["fp_state"].setValue(state)
    group["fp_status"].setValue(words)
    guard = inner(group, "Guard")
    # [ and $ would be read as Tcl
    guard["message"].setValue(words.translate({ord("["): "(", ord("]"): ")", ord("$"): ""}) if state == ERROR else "")
    guard["expression"].setValue(int(state != ERROR))


def show_error(group: nuke.Group, error: FaceplateError) -> None:
    """Make the node a node with an error: what happened and what to do, in its panel and for whatever renders it."""
    set_state(group, ERROR, one_line(error))


def refresh(group: nuke.Group, *, inputs: bool = True) -> None:
    """Mark the node by what its result is worth now. Without `inputs` only its own values are compared: that is quick.

    An error stays until something changes; a running job stays as it is. Never raises: what cannot be told is shown.
    """
    state, made = text(group, "fp_state"), text(group, "fp_made")
    if state == ERROR or (state == BUSY and running(group.fullName()) is not None):
        return
    try:
        unsure = not made or "inputs" in text(group, "fp_status")
        reason = reason_against(group, inputs=inputs or unsure)
    except FaceplateError as error:
        set_state(group, STALE if made else EMPTY, one_line(error))
        return
    if not made:
        set_state(group, EMPTY, "not rendered: the plate passes through")
    else:
        set_state(group, STALE if reason else DONE, f"out of date: {reason}" if reason else "up to date")


def reason_against(group: nuke.Group, *, inputs: bool = True) -> str:
    """Why the node's result cannot be used, "" if it can. Raises FaceplateErrors where a knob is set wrongly."""
    made, known = text(group, "fp_made"), text(group, "fp_made_inputs")
    facts = read_node(group, inputs=inputs)
    return stale_reason(plan(facts, "" if inputs else known), made, known, facts.views)


def grey_out(group: nuke.Group) -> None:
    """Disable the knobs that do nothing while another one has its value."""
    effect = descriptor_of(text(group, DESCRIPTOR_KNOB))
    values = {p.name: group[PARAM + p.name].value() for p in effect.settable if group.knob(PARAM + p.name)}
    for name, enabled in enabled_knobs(effect, values).items():
        group[name].setEnabled(enabled)


# -- files -------------------------------------------------------------------------------------------------------------


def write_precomps(group: nuke.Group, facts: NodeFacts, now: Plan) -> list[str]:
    """Let Nuke write the inputs that are no files yet; the names of those it wrote. Blocks; on the main thread.

    Frames are written beside their place and moved there when all of them are whole. Raises HostError (`host.failed`)
    with what Nuke said, JobError (`job.cancelled`).
    """
    written = []
    for name, pattern in now.precomps.items():
        frames = (now.style_frame,) if name == "style" else facts.frames
        lacking = missing_frames(pattern, frames, facts.views)
        if lacking:
            like = plain_read(group.input(0)) if name == "style" and "source" not in now.precomps else None
            _execute(group, name, pattern, lacking, facts, like)
            written.append(name)
    return written


def take_result(group: nuke.Group, facts: NodeFacts, now: Plan, output: str = "") -> None:
    """Show the finished frames: the inner Read as the source's Read is, raw only for the node's own pre-comp.

    `output` are frames of this node that were rendered with other values than it has now.
    """
    read, found = inner(group, "Result"), plain_read(group.input(0))
    result = output or now.result
    read["file"].setValue(result)
    if "source" in now.precomps or found is None:
        # Open at both ends: a frame that was not rendered is an error, not the last one held. Range says the range.
        for name, number in (("first", -_FAR), ("last", _FAR), ("origfirst", -_FAR), ("origlast", _FAR)):
            read[name].setValue(number)
        read["frame_mode"].setValue("expression")
        read["frame"].setValue("")
        read["raw"].setValue(True)
        read["premultiplied"].setValue(False)
    else:
        for name in _CLONED:
            read[name].fromScript(found[name].toScript())
        same = os.path.splitext(result)[1] == os.path.splitext(facts.source.read.file if facts.source.read else "")[1]
        if same:
            read["colorspace"].fromScript(found["colorspace"].toScript())
        else:  # "default" would mean another space for another format
            read["colorspace"].setValue(plain_space(str(found["colorspace"].value())))
        for name in ("raw", "premultiplied"):
            read[name].setValue(bool(found[name].value()))
    span = inner(group, "Range")
    span["first_frame"].setValue(facts.frames[0])
    span["last_frame"].setValue(facts.frames[-1])
    inner(group, "Choose")["which"].setValue(1)
    made = Path(result).parent.name  # the folder is named by what decides the frames
    for name, words in (("fp_made", made), ("fp_made_inputs", now.inputs)):
        group[name].setValue(words)
    reload = read.knob("reload")
    if isinstance(reload, nuke.Script_Knob):
        reload.execute()  # frames that Nuke has seen missing before


def _execute(
    group: nuke.Group,
    name: str,
    pattern: str,
    frames: Sequence[int],
    facts: NodeFacts,
    like: nuke.Node | None,
) -> None:
    goal = Path(pattern)
    part = goal.parent.with_name(f".{goal.parent.name}.{os.getpid()}.part")
    write = inner(group, f"Write_{name}")
    root = nuke.root()
    proxy = bool(root["proxy"].value())
    if name == "mask":
        inner(group, "Matte")["from0"].setValue(facts.mask_channel)
    try:
        part.mkdir(parents=True, exist_ok=True)
        write["file"].setValue((part / goal.name).as_posix())
        write["file_type"].setValue("exr")
        write["channels"].setValue({"source": "all", "mask": "alpha", "style": "rgb"}[name])
        write["datatype"].setValue("16 bit half" if facts.half else "32 bit float")
        raw = like is None or bool(like["raw"].value())
        write["raw"].setValue(raw)
        if like is not None and not raw:  # a style is encoded as the plate it is given with
            write["colorspace"].setValue(plain_space(str(like["colorspace"].value())))
        root["proxy"].setValue(False)
        write["disable"].setValue(False)
        views = list(facts.views) or nuke.views()[:1]
        nuke.execute(write, frames[0], frames[-1], 1, views)
        lost = missing_files((part / goal.name).as_posix(), frames, facts.views)
        if lost:
            raise HostError(
                "host.failed",
                "Nuke's Write left out a frame",
                path=lost[0],
                remedy="Look for its error in the console.",
            )
        goal.parent.mkdir(parents=True, exist_ok=True)
        for path in part.iterdir():
            path.replace(goal.parent / path.name)
    except RuntimeError as error:
        raise _write_failed(group, name, error) from error
    except OSError as error:
        raise HostError(
            "host.failed",
            f"the pre-comp of {name} cannot be written: {error.strerror or error}",
            path=str(error.filename or part),
            remedy="Set the node's folder to one you may write to, on a disk with room.",
        ) from error
    finally:
        write["disable"].setValue(True)
        root["proxy"].setValue(proxy)
        if part.is_dir():
            for path in part.iterdir():
                path.unlink()
            part.rmdir()


def _write_failed(group: nuke.Group, name: str, error: RuntimeError) -> FaceplateError:
    words = " ".join(str(error).split())
    if "cancel" in words.lower():
        return JobError("job.cancelled", f"the pre-comp of {name} was cancelled", remedy="Press the button again.")
    return HostError(
        "host.failed",
        f"Nuke could not write the pre-comp of {name}: {words}",
        value=group.name(),
        remedy=f"Look at the {name} input of {group.name()} in the viewer and mend what is wrong there.",
    )


def _contents(names: Sequence[str]) -> None:
    """The nodes inside; runs in the group."""
    pipes = {}
    for index, name in enumerate(names):
        pipes[name] = nuke.nodes.Input(name=name.capitalize())
        pipes[name]["number"].setValue(index)
    source = pipes["source"]
    if "mask" in pipes:
        matte = nuke.nodes.Copy(name="Matte", from0="rgba.alpha", to0="rgba.alpha")
        matte.setInput(0, pipes["mask"])
        matte.setInput(1, pipes["mask"])
        pipes["mask"] = matte
    for name, pipe in pipes.items():
        write = nuke.nodes.Write(name=f"Write_{name}", disable=True)
        write.setInput(0, pipe)
    result = nuke.nodes.Read(name="Result", on_error="error")
    span = nuke.nodes.FrameRange(name="Range")
    span.setInput(0, result)
    choose = nuke.nodes.Switch(name="Choose", which=0)
    choose.setInput(0, source)
    choose.setInput(1, span)
    guard = nuke.nodes.Assert(name="Guard", expression=1)
    guard.setInput(0, choose)
    output = nuke.nodes.Output()
    output.setInput(0, guard)
