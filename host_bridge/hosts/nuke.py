"""Nuke as the panel's host: the selected Faceplate node, or the Read that is selected. Imported inside Nuke only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import nuke

from host_bridge.curves import Curve, Value
from host_bridge.effects import EffectDescriptor
from host_bridge.errors import HostError
from host_bridge.framerange import format_frames
from host_bridge.hosts.base import HostShot
from host_bridge.hosts.nuke_actions import settled
from host_bridge.hosts.nuke_job import ReadFacts, file_colorspace, plan, time_offset
from host_bridge.hosts.nuke_knobs import DESCRIPTOR_KNOB, EDIT, PARAM, descriptor_of
from host_bridge.hosts.nuke_node import grey_out, refresh, take_result
from host_bridge.hosts.nuke_read import (
    is_faceplate,
    plain_read,
    read_facts,
    read_node,
    script_color,
    text,
)
from host_bridge.hosts.nuke_run import in_main
from host_bridge.jobspec import JobSpec, PlateSpec


class NukeHost:
    """See `host_bridge.hosts.base.Host`. `node` binds it to one Faceplate node; "" follows the selection."""

    def __init__(self, node: str = "") -> None:
        self._node = node

    @property
    def name(self) -> str:
        return f"Nuke {nuke.NUKE_VERSION_STRING}"

    def shot(self) -> HostShot:
        return in_main(self._shot)

    def go_to(self, frame: int) -> None:
        in_main(lambda: nuke.frame(frame + self._shot().offset))

    def keep(self, job: JobSpec) -> None:
        in_main(self._keep, job)

    def prepare(self, job: JobSpec) -> JobSpec:
        return in_main(self._prepare, job)

    def import_result(self, job: JobSpec) -> str:
        return in_main(self._import, job)

    # on the main thread

    def _group(self) -> nuke.Group | None:
        """The node the panel was opened from, or the first selected one of ours."""
        found = [nuke.toNode(self._node)] if self._node else list(nuke.selectedNodes())
        return next((n for n in found if isinstance(n, nuke.Group) and is_faceplate(n)), None)

    def _shot(self) -> HostShot:
        group = self._group()
        if group is None:
            return _read_shot()
        facts = read_node(group)
        now = plan(facts)
        notes = [f"{name} is written as a pre-comp: {why}" for name, why in now.why.items()]
        if len(now.jobs) > 1:
            notes.append(f"the panel renders the view {facts.views[0]}; the node's Render button renders every view")
        note = "; ".join(notes)
        return HostShot(group.fullName(), now.jobs[0], nuke.frame() - now.offset, now.offset, note)

    def _keep(self, job: JobSpec) -> None:
        group = self._group()
        if group is None or text(group, "fp_effect") != job.effect:
            return
        offset = plan(read_node(group)).offset
        effect = descriptor_of(text(group, DESCRIPTOR_KNOB))
        for param in effect.settable:
            curve = Curve.from_json(job.params[param.name]) if param.name in job.params else None
            set_curve(group[PARAM + param.name], curve or Curve.constant(param.default), offset)
        edits = {str(name): Curve.from_json(value) for name, value in job.edits}
        for edit in effect.edits:
            set_curve(group[EDIT + edit.name], edits.get(edit.name, Curve.constant(0.0)), offset)
        if effect.edits:
            group["fp_order"].setValue(_order(effect, list(edits)))
        group["fp_face"].setValue(job.face)
        if job.mask is not None and group.knob("fp_mask_mode") is not None:
            group["fp_mask_mode"].setValue(job.mask.mode)
        grey_out(group)
        refresh(group)

    def _prepare(self, job: JobSpec) -> JobSpec:
        """The node's own plate, mask and style are written where they have to be; the rest is the panel's."""
        group = self._group()
        if group is None:
            return job
        self._keep(job)
        _, now = settled(group)
        mine = now.jobs[0]
        return replace(
            job,
            plate=mine.plate,
            mask=mine.mask,
            style_image=mine.style_image,
            frames=job.frames or mine.frames,
            shot_range=mine.shot_range,
            output=mine.output if _own(job, mine) else job.output,
            ocio=mine.ocio,
        )

    def _import(self, job: JobSpec) -> str:
        group = self._group()
        if group is not None:
            facts = read_node(group)
            now = plan(facts)
            if _own(job, now.jobs[0]):
                take_result(group, facts, now, job.output)
                refresh(group)
                return group.fullName()
        source = plain_read(group.input(0)) if group is not None else _selected_read()
        read = nuke.nodes.Read(file=job.output)
        if source is not None:
            for name in (
                "frame_mode",
                "frame",
                "first",
                "last",
                "origfirst",
                "origlast",
                "before",
                "after",
                "colorspace",
                "raw",
                "premultiplied",
            ):
                read[name].fromScript(source[name].toScript())
            read.setXYpos(source.xpos() + 110, source.ypos())
        return read.name()


def set_curve(knob: nuke.Knob, curve: Curve, offset: int) -> None:
    """Put a curve over plate frames on a knob: a constant, or linear keyframes at the script's frames."""
    knob.clearAnimated()
    first = curve.keys[0][1]
    if curve.is_constant or not isinstance(knob, nuke.Array_Knob) or isinstance(knob, nuke.Enumeration_Knob):
        knob.setValue(list(first) if isinstance(first, tuple) else first)
        return
    for index in range(len(_parts(first))):
        knob.setAnimated(index)
        for frame, value in curve.keys:
            knob.setValueAt(_parts(value)[index], frame + offset, index)
        found: Any = knob.animation(index)
        found.changeInterpolation(found.keys(), nuke.LINEAR)


def _own(job: JobSpec, mine: JobSpec) -> bool:
    """Whether a job writes where the node keeps its results, of any values; "" leaves it to the node."""
    return not job.output or PurePath(job.output).parents[1] == PurePath(mine.output).parents[1]


def _parts(value: Value) -> Sequence[float]:
    if isinstance(value, tuple):
        return value
    return (float(value),)


def _order(effect: EffectDescriptor, names: list[str]) -> str:
    """The order knob's text: empty where the edits are in the effect's own order."""
    usual = [edit.name for edit in effect.edits if edit.name in names]
    return "" if names == usual else ", ".join(names)


def _selected_read() -> nuke.Node | None:
    return next((plain_read(n) for n in nuke.selectedNodes() if plain_read(n) is not None), None)


def _read_shot() -> HostShot:
    read = _selected_read()
    if read is None:
        raise HostError(
            "host.no_source",
            "neither a Faceplate node nor a Read is selected",
            remedy="Select one, or make a node from the Faceplate menu.",
        )
    facts = read_facts(read)
    offset = time_offset(facts)
    if offset is None:
        raise HostError(
            "host.unsupported",
            f"{read.name()} is retimed, or a single picture",
            value=read.name(),
            remedy="Put a Faceplate node below it: it writes the frames as the script has them.",
        )
    color = script_color()
    job = JobSpec(
        kind="render",
        plate=PlateSpec(facts.file, file_colorspace(facts, color) or ""),
        frames=format_frames(range(facts.first, facts.last + 1)),
        shot_range=f"{facts.first}-{facts.last}",
        ocio=color.config,
    )
    return HostShot(read.name(), job, nuke.frame() - offset, offset, _color_note(facts, color.ocio))


def _color_note(facts: ReadFacts, ocio: bool) -> str:
    if ocio or facts.raw or file_colorspace(facts, script_color()):
        return ""
    return f"{facts.colorspace} is a colourspace of Nuke's own: choose its OCIO name"
