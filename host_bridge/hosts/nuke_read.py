"""Reading a Faceplate node: its inputs, its knobs, the script's colour and views. Runs inside Nuke, on its main thread.

Changes nothing and renders nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nuke

from host_bridge.curves import Curve, Value
from host_bridge.effects import EffectDescriptor
from host_bridge.errors import HostError, RequestError, unknown_name
from host_bridge.hosts.nuke_job import ColorFacts, InputFacts, NodeFacts, ReadFacts, plain_space, script_frames
from host_bridge.hosts.nuke_knobs import (
    DESCRIPTOR_KNOB,
    EDIT,
    EFFECT_KNOB,
    PARAM,
    descriptor_of,
    job_values,
    sampled,
)

INPUTS = ("source", "mask", "style")
# Knobs that decide how a node looks in the graph, not what it makes; `name` changes when nodes are copied.
_COSMETIC = re.compile(
    r"(xpos|ypos|selected|name|label|note_font|note_font_size|note_font_color|tile_color|gl_color|hide_input|bookmark|"
    r"postage_stamp|postage_stamp_frame|dope_sheet|icon|indicators|help|cached|cacheLocal|localizationPolicy|reload|"
    r"fp_status|fp_state)\Z"
)
_PASSES_THROUGH = ("Dot", "NoOp", "PostageStamp")


def is_faceplate(node: nuke.Node | None) -> bool:
    """Whether a node is one of ours."""
    return node is not None and node.Class() == "Group" and node.knob(EFFECT_KNOB) is not None


def faceplate_nodes() -> list[nuke.Group]:
    """Every Faceplate node of the script, in groups too, inputs before what uses them."""
    found = [n for n in nuke.allNodes("Group", recurseGroups=True) if isinstance(n, nuke.Group) and is_faceplate(n)]
    above = {n.fullName(): [u.fullName() for u in upstream(n) if is_faceplate(u)] for n in found}
    return sorted(found, key=lambda n: (len(above[n.fullName()]), n.fullName()))


def value(node: nuke.Node, name: str) -> Any:
    """A knob's value; None where an older node does not have the knob."""
    knob = node.knob(name)
    return None if knob is None else knob.value()


def text(node: nuke.Node, name: str) -> str:
    """A knob's text without blanks around it; "" where there is no such knob."""
    return str(value(node, name) or "").strip()


def read_node(group: nuke.Group, *, inputs: bool = True) -> NodeFacts:
    """Everything a Faceplate node says now; without `inputs` nothing of the graph above it but its Reads.

    Raises HostError (`host.no_source`), RequestError (`request.frame_range`, `request.bad_value`), EffectError.
    """
    name = group.name()
    effect = descriptor_of(text(group, DESCRIPTOR_KNOB))
    source = group.input(0)
    if source is None:
        raise HostError(
            "host.no_source",
            f"nothing is connected to the Source input of {name}",
            value=name,
            remedy="Connect the plate to Source.",
        )
    root = nuke.root()
    frames = script_frames(
        text(group, "fp_range") or "input",
        (source.firstFrame(), source.lastFrame()),
        (root.firstFrame(), root.lastFrame()),
        (int(value(group, "fp_first") or 0), int(value(group, "fp_last") or 0)),
        int(value(group, "fp_handles") or 0),
    )
    found = {key: _input(group.input(index), inputs) for index, key in enumerate(inputs_for(effect))}
    facts = found["source"]
    if facts is None:
        raise AssertionError("a connected node has facts")
    curves = {
        knob_name: sampled_knob(group, knob_name, frames)
        for knob_name in (
            *(PARAM + p.name for p in effect.settable),
            *(EDIT + e.name for e in effect.edits),
        )
        if group.knob(knob_name) is not None
    }
    params, edits = job_values(effect, curves, text(group, "fp_order"))
    return NodeFacts(
        name=group.fullName(),
        effect=effect,
        frames=frames,
        source=facts,
        mask=found.get("mask"),
        style=found.get("style"),
        params=params,
        edits=edits,
        folder=_folder(group),
        color=script_color(),
        face=text(group, "fp_face") or "largest",
        mask_channel=text(group, "fp_mask_channel") or "rgba.alpha",
        mask_mode=text(group, "fp_mask_mode") or "intersect",
        missing=text(group, "fp_missing") or "error",
        premult=text(group, "fp_premult") or "auto",
        colorspace=text(group, "fp_colorspace"),
        mattes=tuple(_names(text(group, "fp_mattes"))),
        views=_views(group, facts),
        half=not text(group, "fp_depth").startswith("32"),
    )


def inputs_for(effect: EffectDescriptor) -> tuple[str, ...]:
    """The names of an effect's inputs, in the order the node has them."""
    clips = [clip.name.lower() for clip in effect.clips]
    return tuple(name for name in INPUTS if name in clips)


def sampled_knob(node: nuke.Node, name: str, frames: tuple[int, ...]) -> Curve:
    """A knob over the script's `frames`: a constant, or one key per frame where it is animated or an expression."""
    knob = node[name]
    if not (knob.isAnimated() or knob.hasExpression()):
        return Curve.constant(_plain(knob, knob.value()))
    return sampled(lambda frame: _value_at(knob, frame), frames)


def _value_at(knob: nuke.Knob, frame: float) -> Value:
    if isinstance(knob, nuke.Enumeration_Knob):
        return str(knob.enumName(int(knob.getValueAt(frame))))
    if isinstance(knob, nuke.Color_Knob | nuke.XY_Knob):
        size = 3 if isinstance(knob, nuke.Color_Knob) else 2
        return tuple(float(knob.getValueAt(frame, index)) for index in range(size))
    if isinstance(knob, nuke.String_Knob):
        return str(knob.value())
    return _plain(knob, knob.getValueAt(frame))


def _plain(knob: nuke.Knob, found: Any) -> Value:
    """A knob's value as a parameter's: whole numbers stay whole, a single number of a colour is three."""
    if isinstance(knob, nuke.Boolean_Knob):
        return bool(found)
    if isinstance(knob, nuke.Int_Knob):
        return round(float(found))
    if isinstance(knob, nuke.Color_Knob | nuke.XY_Knob):
        size = 3 if isinstance(knob, nuke.Color_Knob) else 2
        numbers = tuple(float(v) for v in found) if isinstance(found, list | tuple) else (float(found),) * size
        return numbers[:size]
    if isinstance(found, bool | int | float):
        return float(found)
    return str(found)


# -- the graph above ---------------------------------------------------------------------------------------------------


def inputs_of(node: nuke.Node) -> Iterator[nuke.Node]:
    """The nodes a node's picture comes from: into groups through their Output, out of them through their Inputs."""
    if node.Class() == "Input":
        group = node.parent()
        found = group.input(int(node["number"].value())) if group is not None else None
        if found is not None:
            yield found
    elif isinstance(node, nuke.Group) and node.Class() != "Root":
        yield from (inner for inner in node.nodes() if inner.Class() == "Output")
        if is_faceplate(node):  # its picture is a file, which is made of what is above
            yield from (found for found in map(node.input, range(node.inputs())) if found is not None)
    else:
        chosen = range(node.inputs())
        which = node.knob("which") if node.Class() == "Switch" else None
        if which is not None and not (which.isAnimated() or which.hasExpression()):
            chosen = range(int(which.value()), int(which.value()) + 1)
        for index in chosen:
            found = node.input(index)
            if found is not None:
                yield found


def upstream(node: nuke.Node) -> list[nuke.Node]:
    """Every node that a node's picture comes from, each once, itself left out."""
    seen: dict[str, nuke.Node] = {}
    waiting = list(inputs_of(node))
    while waiting:
        found = waiting.pop()
        if found.fullName() not in seen:
            seen[found.fullName()] = found
            waiting += inputs_of(found)
    return list(seen.values())


def graph_text(node: nuke.Node) -> str:
    """What makes a node's picture, as text: classes, connections and values, not names, places or labels."""
    numbers: dict[str, int] = {}
    lines: list[str] = []
    waiting = [node]  # a comp may be a thousand nodes deep: no recursion
    while waiting:
        found = waiting[-1]
        above = list(inputs_of(found))
        new = [other for other in above if other.fullName() not in numbers]
        if new and found.fullName() not in numbers:
            waiting += reversed(new)
            continue
        waiting.pop()
        if found.fullName() not in numbers:
            numbers[found.fullName()] = len(numbers)
            lines.append(f"{found.Class()} {[numbers[other.fullName()] for other in above]} {knob_text(found)}")
    return "\n".join(lines)


def knob_text(node: nuke.Node) -> str:
    """The knobs of a node that are not at their default, as `name value` pairs in order of their names."""
    words = tcl_words(node.writeKnobs(nuke.TO_SCRIPT | nuke.WRITE_NON_DEFAULT_ONLY))
    pairs = zip(words[::2], words[1::2], strict=False)
    return " ".join(f"{name} {found}" for name, found in sorted(pairs) if not _COSMETIC.match(name))


def tcl_words(found: str) -> list[str]:
    """The words of a Tcl list, braces and quotes kept: `size {{curve x1 0}} label "a b"` has four."""
    words: list[str] = []
    word, depth, quoted, escaped = "", 0, False, False
    for char in found:
        if char.isspace() and not depth and not quoted and not escaped:
            words += [word] if word else []
            word = ""
            continue
        word += char
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"' and not depth:
            quoted = not quoted
        elif not quoted:
            depth += (char == "{") - (char == "}")
    return [*words, word] if word else words


def _input(node: nuke.Node | None, whole: bool) -> InputFacts | None:
    if node is None:
        return None
    read = plain_read(node)
    if not whole:
        return InputFacts(read_facts(read) if read is not None else None)
    if read is not None:
        return InputFacts(read_facts(read), graph_text(node), _files([read]))
    # the result of another Faceplate node is named by what it is made of
    reads = [n for n in (node, *upstream(node)) if n.Class() == "Read" and not is_faceplate(n.parent())]
    return InputFacts(None, graph_text(node), _files(reads))


def plain_read(node: nuke.Node | None) -> nuke.Node | None:
    """The Read whose picture arrives at `node` unchanged; None where anything is done to it."""
    while node is not None and node.Class() != "Read":
        disabled = node.knob("disable")
        off = disabled is not None and disabled.value() and not (disabled.isAnimated() or disabled.hasExpression())
        if not (node.Class() in _PASSES_THROUGH or off):
            return None
        node = node.input(0)
    return node


def _files(reads: list[nuke.Node]) -> tuple[tuple[str, int, int], ...]:
    facts = [read_facts(read) for read in reads]
    return tuple(sorted({(f.file, f.first, f.last) for f in facts}))


def read_facts(read: nuke.Node) -> ReadFacts:
    """What a Read says of its file."""
    typed = str(read["file"].getValue() or "")
    file = pattern_of(read["file"])
    return ReadFacts(
        typed=typed,
        file=file,
        first=int(read["first"].value()),
        last=int(read["last"].value()),
        frame_mode=text(read, "frame_mode") or "expression",
        frame=text(read, "frame"),
        colorspace=text(read, "colorspace"),
        raw=bool(value(read, "raw")),
        premultiplied=bool(value(read, "premultiplied")),
        still=not re.search(r"%0?\d*d|#|@", os.path.basename(file)),
    )


def pattern_of(knob: nuke.Knob) -> str:
    """A file knob's path with its expressions evaluated and its frame and view placeholders kept."""
    found = str(knob.getValue() or "")
    if "[" in found and isinstance(knob, nuke.File_Knob):
        found = str(knob.getEvaluatedValue())
    return str(nuke.filenameFilter(found) or found).replace("\\", "/")  # type: ignore[no-untyped-call]


# -- the script --------------------------------------------------------------------------------------------------------


def script_color() -> ColorFacts:
    """The script's colour management, as the server has to know it."""
    root = nuke.root()
    if text(root, "colorManagement") != "OCIO":
        return ColorFacts()
    config = os.environ.get("OCIO", "")
    if not config:
        name = text(root, "OCIO_config")
        config = pattern_of(root["customOCIOConfigPath"]) if name == "custom" else _bundled_config(name)
    return ColorFacts(True, config, plain_space(text(root, "workingSpaceLUT")))


def _bundled_config(name: str) -> str:
    """A config that comes with Nuke; "" where it is not found, so that the server's own is used."""
    folder = Path(nuke.EXE_PATH).parent / "plugins" / "OCIOConfigs" / "configs"
    for found in (folder / name / "config.ocio", folder / f"{name}.ocio"):
        if name and found.is_file():
            return found.as_posix()
    return ""


def _views(group: nuke.Group, source: InputFacts) -> tuple[str, ...]:
    """The views to render: those named, all of the script's where the plate has `%V`, else none in particular."""
    named, known = _names(text(group, "fp_views")), nuke.views()
    for view in named:
        if view not in known:
            raise unknown_name("request.unknown_name", "view", view, list(known))
    if not named and source.read and "%v" in source.read.file.lower():
        return tuple(known)
    return tuple(named)


def _folder(group: nuke.Group) -> str:
    knob = group["fp_folder"]
    found = str(knob.evaluate()) if isinstance(knob, nuke.File_Knob) else str(knob.value())
    found = str(nuke.filenameFilter(found) or found)  # type: ignore[no-untyped-call]
    if not (os.path.isabs(found) or re.match(r"[A-Za-z]:[\\/]", found)):
        raise RequestError(
            "request.bad_value",
            f"results of {group.name()} would go to {found or 'nowhere'!r}",
            value=found,
            remedy="Save the script, or set the node's folder to a full path.",
        )
    return found.replace("\\", "/")


def _names(found: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", found) if name]
