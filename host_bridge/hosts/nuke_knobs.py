"""Which knobs a Faceplate node has, and what their values mean. Needs no Nuke.

A parameter `degree` is the knob `p_degree`, an edit `smile` the knob `e_smile`, the node's own are `fp_...`. The node
carries the descriptor it was built from, so that a script opens, and a farm checks it, without a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from host_bridge.curves import Curve, Value
from host_bridge.effects import EffectDescriptor, Param, check_values, descriptor_from_json
from host_bridge.errors import EffectError, HostError, unknown_name
from host_bridge.jobspec import MASK_MODES, MATTE_NAMES, MISSING_POLICIES, PREMULT_MODES

PARAM, EDIT = "p_", "e_"
EFFECT_KNOB, DESCRIPTOR_KNOB = "fp_effect", "fp_descriptor"
BUTTONS = (
    ("analyse", "Analyse", "Find and track the faces of the range, once for all later renders"),
    ("render", "Render", "Render the range and show the result"),
    ("cancel", "Cancel", "End what this node is doing; finished frames stay"),
    ("preview", "Preview frame", "Render the current frame and show it"),
    ("panel", "Open panel", "Live preview, faces and jobs in Faceplate's panel"),
)
FARMS = ("openjd", "opencue", "deadline")
RANGES = ("input", "project", "custom")
_KINDS = {
    "double": "Double_Knob",
    "integer": "Int_Knob",
    "boolean": "Boolean_Knob",
    "choice": "Enumeration_Knob",
    "string": "String_Knob",
    "rgb": "Color_Knob",
    "double2d": "XY_Knob",
}


@dataclass(frozen=True)
class KnobSpec:
    """One knob: `kind` is Nuke's class, or `begin` and `end` of a closed group of knobs.

    `span` is the slider's; `newline` False keeps it on the line of the one before; `hidden` ones hold the node's state.
    """

    kind: str
    name: str
    label: str = ""
    default: Value = ""
    hint: str = ""
    span: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    animates: bool = False
    newline: bool = True
    hidden: bool = False


def knob_specs(effect: EffectDescriptor) -> Iterator[KnobSpec]:
    """Every knob of the effect's node, in order."""
    yield KnobSpec("Tab_Knob", "fp_tab", effect.label)
    for index, (name, label, hint) in enumerate(BUTTONS):
        yield KnobSpec("PyScript_Knob", f"fp_{name}", label, button_script(name), hint, newline=index == 0)
    yield KnobSpec("Text_Knob", "fp_status", "status", "not rendered")
    yield from _parameters(effect)
    if effect.edits:
        yield KnobSpec("begin", "fp_edits", "Edits")
        for edit in effect.edits:
            yield _parameter(EDIT, edit)
        yield KnobSpec(
            "String_Knob",
            "fp_order",
            "order",
            "",
            "Edits in the order they are applied, separated by commas; those not named come after, as shown",
        )
        yield KnobSpec("end", "fp_edits_end")
    yield from _own(effect)


def button_script(name: str) -> str:
    """What a button runs: a script opened where Faceplate is not installed says so."""
    return (
        "try:\n    from nuke_scripts import buttons\n"
        "except ImportError:\n    nuke.message('Faceplate is not installed here. Run: faceplate install nuke')\n"
        f"else:\n    buttons.press({name!r})"
    )


def _parameters(effect: EffectDescriptor) -> Iterator[KnobSpec]:
    """Parameters without a parent first, then each group with what belongs to it."""
    for param in effect.settable:
        if not param.parent:
            yield _parameter(PARAM, param)
    for group in (p for p in effect.params if p.type == "group"):
        members = [p for p in effect.settable if p.parent == group.name]
        if members:
            yield KnobSpec("begin", f"fp_group_{group.name}", group.label, hint=group.hint)
            for param in members:
                yield _parameter(PARAM, param)
            yield KnobSpec("end", f"fp_group_{group.name}_end")


def _parameter(prefix: str, param: Param) -> KnobSpec:
    low = param.display_min if param.display_min is not None else param.minimum
    high = param.display_max if param.display_max is not None else param.maximum
    return KnobSpec(
        _KINDS[param.type],
        prefix + param.name,
        param.label,
        param.default,
        param.hint,
        (low, high) if low is not None and high is not None else None,
        param.choices,
        param.animates and param.type in ("double", "integer", "boolean", "rgb", "double2d"),
    )


def _own(effect: EffectDescriptor) -> Iterator[KnobSpec]:
    mattes = ", ".join(MATTE_NAMES)
    masked = any(clip.name == "Mask" for clip in effect.clips)
    yield KnobSpec("begin", "fp_shot", "Shot")
    yield KnobSpec("Enumeration_Knob", "fp_range", "frame range", "input", "Frames that are rendered", choices=RANGES)
    yield KnobSpec("Int_Knob", "fp_first", "first", 1, "Of the custom range", newline=False)
    yield KnobSpec("Int_Knob", "fp_last", "last", 1, "Of the custom range", newline=False)
    yield KnobSpec("Int_Knob", "fp_handles", "handles", 0, "Frames added before and after the range")
    yield KnobSpec(
        "String_Knob",
        "fp_face",
        "face",
        "largest",
        "largest, all, x,y for the face nearest to that pixel, or a face's id",
    )
    yield KnobSpec(
        "Enumeration_Knob", "fp_missing", "missing frames", "error", "Of the plate on disk", choices=MISSING_POLICIES
    )
    yield KnobSpec("String_Knob", "fp_views", "views", "", "Views to render, separated by commas; empty: as the plate")
    yield KnobSpec("end", "fp_shot_end")
    if masked:
        yield KnobSpec("begin", "fp_mask", "Mask input")
        yield KnobSpec("Enumeration_Knob", "fp_mask_mode", "mode", "intersect", "", choices=MASK_MODES)
        yield KnobSpec("String_Knob", "fp_mask_channel", "channel", "rgba.alpha", "Channel of the Mask input")
        yield KnobSpec("end", "fp_mask_end")
    yield KnobSpec("begin", "fp_files", "Files")
    yield KnobSpec(
        "File_Knob",
        "fp_folder",
        "folder",
        "[file dirname [value root.name]]/faceplate",
        "Results and pre-comps go there, each version in a folder of its own",
    )
    yield KnobSpec(
        "String_Knob", "fp_mattes", "matte channels", "", f"Mattes to add as channels faceplate.NAME: {mattes}"
    )
    yield KnobSpec(
        "String_Knob", "fp_colorspace", "colourspace", "", "OCIO name of the plate's; empty: what its Read says"
    )
    yield KnobSpec("Enumeration_Knob", "fp_premult", "alpha", "auto", "How it is stored", choices=PREMULT_MODES)
    yield KnobSpec(
        "Enumeration_Knob",
        "fp_depth",
        "pre-comp",
        "16 bit half",
        "Of pre-comps that the node writes where an input is not a file already",
        choices=("16 bit half", "32 bit float"),
    )
    yield KnobSpec(
        "String_Knob", "fp_server", "server", "", "Address of a server elsewhere; empty: the one of this machine"
    )
    yield KnobSpec(
        "Boolean_Knob", "fp_use_stale", "use out-of-date result", False, "Otherwise a render that needs it is an error"
    )
    yield KnobSpec("end", "fp_files_end")
    yield KnobSpec("begin", "fp_render_farm", "Farm")
    yield KnobSpec("Enumeration_Knob", "fp_farm", "farm", FARMS[0], "Who renders", choices=FARMS)
    yield KnobSpec("Int_Knob", "fp_chunk", "frames of a task", 10)
    yield KnobSpec("String_Knob", "fp_pool", "pool", "", "Deadline: pool; OpenCue: tag of the hosts", newline=False)
    yield KnobSpec(
        "PyScript_Knob",
        "fp_submit",
        "Submit to farm",
        button_script("submit"),
        "Write the pre-comps, then hand the range to the farm; the node shows the frames as they come",
    )
    yield KnobSpec("end", "fp_render_farm_end")
    yield KnobSpec("String_Knob", EFFECT_KNOB, default=effect.identifier, hidden=True)
    yield KnobSpec(
        "String_Knob", DESCRIPTOR_KNOB, default=json.dumps(effect.to_json(), separators=(",", ":")), hidden=True
    )
    for name in ("fp_state", "fp_made", "fp_made_inputs"):
        yield KnobSpec("String_Knob", name, hidden=True)


def descriptor_of(text: str) -> EffectDescriptor:
    """The descriptor a node carries. Raises HostError (`host.failed`) when its knob was damaged."""
    try:
        return descriptor_from_json(json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise HostError(
            "host.failed",
            f"the node's description of its effect cannot be read: {error}",
            remedy="Make a new node from the Faceplate menu and copy the values over.",
        ) from error


def sampled(value_at: Callable[[float], Value], frames: Iterable[int]) -> Curve:
    """A knob's value at every one of the script's `frames`, as a curve.

    A key is left out where the frames beside it have the same value: the curve is the same at every frame.
    """
    keys = [(float(frame), value_at(frame)) for frame in frames]
    if not keys:
        raise EffectError("effect.parameter", "there is no frame to take values at", remedy="Set a frame range.")
    inner = [b for a, b, c in zip(keys, keys[1:], keys[2:], strict=False) if not a[1] == b[1] == c[1]]
    return Curve((keys[0], *inner, *keys[-1:])) if len(keys) > 1 else Curve(tuple(keys))


def job_values(
    effect: EffectDescriptor, values: Mapping[str, Curve], order: str = ""
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Knob values (by knob name) as the `params` and `edits` of a job, checked.

    Parameters at their default are left out, as the command line and the panel do; edits that
    are 0 throughout are left out. Raises EffectError (`effect.parameter`).
    """
    params: dict[str, Any] = {}
    for param in effect.settable:
        curve = values.get(PARAM + param.name)
        if curve is not None and not (curve.is_constant and curve.keys[0][1] == param.default):
            params[param.name] = curve.to_json()
    names = [edit.name for edit in effect.edits]
    first = [name.strip() for name in order.split(",") if name.strip()]
    for name in first:
        if name not in names:
            raise unknown_name("effect.parameter", "edit in the order", name, names)
    edits: list[list[Any]] = []
    for name in dict.fromkeys([*first, *names]):
        curve = values.get(EDIT + name)
        if curve is not None and not (curve.is_constant and curve.keys[0][1] == 0):
            edits.append([name, curve.to_json()])
    check_values(effect, params, [(name, value) for name, value in edits])
    return params, edits


def enabled_knobs(effect: EffectDescriptor, values: Mapping[str, Value]) -> dict[str, bool]:
    """Knob name -> whether it does anything, for parameters that depend on another one (`values` by parameter)."""
    return {PARAM + p.name: p.acts(values) for p in effect.settable if p.depends}
