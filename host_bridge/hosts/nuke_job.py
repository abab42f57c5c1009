"""What a Faceplate node submits, which files that needs and makes, and when a result is out of date. Needs no Nuke.

An input that is a file already is used as it is, but only where every frame of the range has its own file and its
numbering and colourspace can be told for certain; everything else is written by Nuke as a pre-comp, numbered as the
script is. Results and pre-comps live in folders named by a hash of all that decides them:

    FOLDER/NODE/pre-INPUTS/source.1001.exr      the pre-comps, reused until an input changes
    FOLDER/NODE/HASH/sh010.1001.exr             the result of one state of inputs and knobs

so a result is never mistaken for another one's, copies of a node share what is equal, and nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import HostError, RequestError, unknown_name
from host_bridge.framerange import format_frames
from host_bridge.hosts.nuke_files import FRAME_TOKEN, at_frame, missing_frames, stamps, with_view
from host_bridge.jobspec import MATTE_NAMES, JobSpec, MaskSpec, PlateSpec

WORKING_LINEAR = "lin_rec709"  # what Nuke's own colour management calls linear, as OCIO's ACES configs name it
_KEPT_FORMATS = (".exr", ".dpx", ".tif", ".tiff", ".png")
_ROLE = re.compile(r"[a-z_]+ \((?P<space>.+)\)\Z")
_CHANNELS = {"rgba.alpha": "A", "alpha": "A", "rgba.red": "R", "rgba.green": "G", "rgba.blue": "B"}


@dataclass(frozen=True)
class ReadFacts:
    """What a Read says: its file as typed and evaluated (`%04d`, `####`, `%V`), range and time mapping, colour."""

    typed: str
    file: str
    first: int
    last: int
    frame_mode: str = "expression"
    frame: str = ""
    colorspace: str = ""
    raw: bool = False
    premultiplied: bool = False
    still: bool = False


@dataclass(frozen=True)
class InputFacts:
    """A connected input: the Read it comes from unchanged, if any, and all that decides its picture.

    `graph` is the nodes above it as text, `files` the pattern, first and last frame of every Read among them.
    """

    read: ReadFacts | None
    graph: str = ""
    files: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class ColorFacts:
    """The script's colour management: `ocio` False is Nuke's own; `config` a path or ""; `working` an OCIO name."""

    ocio: bool = False
    config: str = ""
    working: str = WORKING_LINEAR


@dataclass(frozen=True)
class NodeFacts:
    """A node's inputs and own knobs, read at one moment. `frames` are the script's, handles included.

    `params` and `edits` are a job's, their keyframes at the script's frames.
    """

    name: str
    effect: EffectDescriptor
    frames: tuple[int, ...]
    source: InputFacts
    mask: InputFacts | None
    style: InputFacts | None
    params: Mapping[str, Any]
    edits: Sequence[Sequence[Any]]
    folder: str
    color: ColorFacts = field(default_factory=ColorFacts)
    face: str = "largest"
    mask_channel: str = "rgba.alpha"
    mask_mode: str = "intersect"
    missing: str = "error"
    premult: str = "auto"
    colorspace: str = ""
    mattes: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    half: bool = True


@dataclass(frozen=True)
class Plan:
    """What to do for a node.

    `precomps` names the inputs (source, mask, style) that Nuke has to write, and where; `jobs` is one job per view;
    `offset` + a plate frame is the script's frame. `inputs` and `knobs` are the two hashes, `result` the pattern of the
    finished frames, `frames` the plate frames. `why` says for each pre-comp why the file could not be used.
    """

    jobs: tuple[JobSpec, ...]
    precomps: Mapping[str, str]
    why: Mapping[str, str]
    frames: tuple[int, ...]
    offset: int
    inputs: str
    knobs: str
    result: str
    style_frame: int

    @property
    def made(self) -> str:
        """What a result is known by."""
        return _digest([self.inputs, self.knobs])


def script_frames(
    mode: str, source: tuple[int, int], project: tuple[int, int], custom: tuple[int, int], handles: int
) -> tuple[int, ...]:
    """The script frames a node renders. Raises RequestError (`request.frame_range`) for an empty range."""
    first, last = {"input": source, "project": project, "custom": custom}[mode]
    if first > last or handles < 0:
        raise RequestError(
            "request.frame_range",
            f"the node's frame range is {first}-{last} with {handles} handles",
            value=f"{first}-{last}",
            remedy="Set frame range to input, project or custom with first not after last, and handles of 0 or more.",
        )
    return tuple(range(first - handles, last + handles + 1))


def plain_space(text: str) -> str:
    """A colourspace knob's text as OCIO's name: `default (sRGB)` and `scene_linear (ACEScg)` name what is inside."""
    match = _ROLE.match(text)
    return match["space"] if match else text


def file_colorspace(read: ReadFacts, color: ColorFacts) -> str | None:
    """The OCIO name of a file's pixels; None where only Nuke knows how to get from there to the working space."""
    if read.raw:
        return color.working
    name = plain_space(read.colorspace)
    if color.ocio:
        return name or None
    return WORKING_LINEAR if name in ("linear", "scene_linear") else None


def time_offset(read: ReadFacts) -> int | None:
    """What is added to a file's frame to get the script's; None where it is not one number."""
    if read.still:
        return None
    mode, frame = read.frame_mode.replace("_", " "), read.frame.strip()
    if frame in ("", "frame") and mode == "expression":
        return 0
    if mode == "start at" and re.fullmatch(r"-?\d+", frame):
        return int(frame) - read.first
    if mode == "offset" and frame in ("", "0"):
        return 0
    return None


def plan(facts: NodeFacts, inputs: str = "") -> Plan:
    """Decide files and jobs. Raises FaceplateErrors that say which knob to change.

    `inputs` is the inputs' hash where it is known that they have not changed: then no file is looked at.
    """
    for name in facts.mattes:
        if name not in MATTE_NAMES:
            raise unknown_name("request.unknown_name", "matte channel", name, list(MATTE_NAMES))
    why: dict[str, str] = {}
    source, offset = _source(facts, why)
    mask_pattern, mask_channel = _mask(facts, offset, why) if facts.mask else ("", "")
    if "mask" in why and offset:
        # a pre-comp is numbered as the script is, and mask and plate go by the same numbers
        why["source"] = "its numbers are not the script's, and the mask's are"
        source, offset = None, 0
        mask_pattern, mask_channel = _mask(facts, 0, why) if facts.mask else ("", "")
    style, style_frame = _style(facts, source, why) if facts.style else ("", facts.frames[0])

    inputs = inputs or _digest(_decides_inputs(facts, source, why))
    folder = Path(facts.folder) / _safe(facts.name)
    precomps = {name: str(folder / f"pre-{inputs}" / _precomp_name(name, facts.views)) for name in why}
    frames = tuple(frame - offset for frame in facts.frames)
    shot = f"{source.first}-{source.last}" if source else format_frames(frames)
    colorspace = facts.colorspace or (file_colorspace(source, facts.color) if source else facts.color.working) or ""
    params = {name: _shifted(value, offset) for name, value in facts.params.items()}
    edits = [[name, _shifted(value, offset)] for name, value in facts.edits]
    knobs = _digest(
        [
            facts.effect.identifier,
            facts.effect.version,
            params,
            edits,
            facts.face,
            facts.mask_mode if facts.mask else "",
            facts.missing,
            facts.premult,
            colorspace,
            sorted(facts.mattes),
            shot,
        ]
    )
    result = str(folder / _digest([inputs, knobs]) / _result_name(source, facts))
    job = JobSpec(
        kind="render",
        plate=PlateSpec(
            pattern=source.file if source else precomps["source"],
            colorspace=colorspace,
            premult=facts.premult,
            missing=facts.missing,
        ),
        frames=format_frames(frames),
        shot_range=shot,
        effect=facts.effect.identifier,
        params=params,
        edits=edits,
        output=result,
        matte_channels=list(facts.mattes),
        mask=MaskSpec(mask_pattern or precomps["mask"], mask_channel, facts.mask_mode) if facts.mask else None,
        style_image=(style or precomps["style"]) if facts.style else "",
        face=facts.face,
        ocio=facts.color.config,
    )
    jobs = tuple(_for_view(job, view) for view in facts.views or ("",))
    return Plan(jobs, precomps, why, frames, offset, inputs, knobs, result, style_frame)


def stale_reason(plan_now: Plan, made: str, made_inputs: str, views: Sequence[str] = ()) -> str:
    """Why the node's result is not the one its inputs and knobs ask for; "" where it is, whole and on disk."""
    if not made:
        return "it has not been rendered"
    if made != plan_now.made:
        changed = "its values or range have changed" if made_inputs == plan_now.inputs else "its inputs have changed"
        return f"{changed} since it was rendered"
    lost = missing_frames(plan_now.result, plan_now.frames, views)
    if lost:
        script = format_frames(frame + plan_now.offset for frame in lost)
        return f"{len(lost)} of {len(plan_now.frames)} frames are not rendered: {script[:80]}"
    return ""


def stale_error(node: str, reason: str) -> HostError:
    """HostError (`host.stale`) of a node whose result cannot be used."""
    return HostError(
        "host.stale",
        f"{node}: {reason}",
        value=node,
        remedy=f"Press Render on {node}, or write the passes of a headless render (Faceplate > Write render passes).",
    )


# -- inputs ------------------------------------------------------------------------------------------------------------


def _source(facts: NodeFacts, why: dict[str, str]) -> tuple[ReadFacts | None, int]:
    """The Read to use as it is, and its offset; else None, 0 and the reason in `why`."""
    read = facts.source.read
    reason = _no_file(read)
    if not reason and read:
        offset = time_offset(read)
        if offset is None:
            reason = "its Read is retimed, or a still"
        elif not _covered(read, offset, facts.frames):
            reason = "the range goes beyond the Read's"
        elif not facts.colorspace and file_colorspace(read, facts.color) is None:
            reason = f"its colourspace {plain_space(read.colorspace)!r} is known to Nuke only"
        elif facts.views and "%v" not in read.file.lower():
            reason = "views are asked for, and the file has no %V"
        else:
            return read, offset
    why["source"] = reason
    return None, 0


def _mask(facts: NodeFacts, offset: int, why: dict[str, str]) -> tuple[str, str]:
    """Pattern and channel of the mask's own file, or "" and the pre-comp's channel and the reason in `why`."""
    read = facts.mask.read if facts.mask else None
    channel = _CHANNELS.get(facts.mask_channel, "")
    reason = _no_file(read)
    if not reason and read:
        if not channel:
            reason = f"the file's name for the channel {facts.mask_channel} is known to Nuke only"
        elif channel != "A" and not (read.raw or file_colorspace(read, facts.color) == facts.color.working):
            reason = "Nuke converts its colours"
        elif not read.still and (time_offset(read) != offset or not _covered(read, offset, facts.frames)):
            reason = "its frames are not numbered as the plate's"
        elif facts.views and "%v" in read.file.lower():
            reason = "it has views"
        else:
            why.pop("mask", None)
            return read.file, channel
    why["mask"] = reason
    return "", "A"


def _style(facts: NodeFacts, source: ReadFacts | None, why: dict[str, str]) -> tuple[str, int]:
    """The style's own picture, or "" and the reason in `why`; the script frame it is taken at is the range's first.

    The server takes EXR as the plate's colourspace and every other format as sRGB.
    """
    at = facts.frames[0]
    read = facts.style.read if facts.style else None
    reason = _no_file(read)
    if not reason and read:
        offset = 0 if read.still else time_offset(read)
        same = (
            (read.raw, plain_space(read.colorspace)) == (source.raw, plain_space(source.colorspace))
            if source
            else False
        )
        exr = read.file.lower().endswith(".exr")
        if offset is None or not (read.still or _covered(read, offset, (at,))):
            reason = "its Read is retimed"
        elif exr and not same:
            reason = "its colourspace is not the plate's"
        elif not exr and "srgb" not in plain_space(read.colorspace).lower():
            reason = "its colourspace is not sRGB"
        elif "%v" in read.file.lower():
            reason = "it has views"
        else:
            return at_frame(read.file, at - offset), at
    why["style"] = reason
    return "", at


def _no_file(read: ReadFacts | None) -> str:
    if read is None:
        return "it is not a file but made in the script"
    if os.path.splitext(read.file)[1].lower() not in _KEPT_FORMATS:
        return f"{os.path.splitext(read.file)[1] or 'its'} files are read by Nuke only"
    return "" if os.path.isabs(read.file) or re.match(r"[A-Za-z]:/", read.file) else "its path is relative"


def _covered(read: ReadFacts, offset: int, frames: Sequence[int]) -> bool:
    return all(read.first <= frame - offset <= read.last for frame in frames)


def _decides_inputs(facts: NodeFacts, source: ReadFacts | None, why: Mapping[str, str]) -> list[Any]:
    """All that decides the files behind the inputs, paths as typed (mounts differ between machines)."""
    out: list[Any] = [facts.half if why else None, list(facts.views), asdict(facts.color) | {"config": ""}]
    for name, found in (("source", facts.source), ("mask", facts.mask), ("style", facts.style)):
        if found is None:
            out.append(None)
        elif name in why:
            state = [stamps(file, range(first, last + 1)) for file, first, last in found.files]
            out.append([found.graph, state, facts.mask_channel if name == "mask" else ""])
            # the style's pre-comp is encoded as the plate is
            out.append(_encoding(source) if name == "style" else None)
        elif found.read:
            frames = range(found.read.first, found.read.last + 1)
            read = replace(found.read, file="")
            channel = facts.mask_channel if name == "mask" else ""
            out.append([asdict(read), stamps(found.read.file, frames, every=True, views=facts.views), channel])
    return out


def _encoding(source: ReadFacts | None) -> list[Any] | None:
    return [source.colorspace, source.raw] if source else None


def _shifted(value: Any, offset: int) -> Any:
    """A curve's JSON with its keyframes moved from the script's frames to the plate's."""
    if not (offset and isinstance(value, dict)):
        return value
    return {"keys": [[frame - offset, found] for frame, found in value["keys"]]}


# -- names -------------------------------------------------------------------------------------------------------------


def _for_view(job: JobSpec, view: str) -> JobSpec:
    if not view:
        return job
    mask = replace(job.mask, pattern=with_view(job.mask.pattern, view)) if job.mask else None
    plate = replace(job.plate, pattern=with_view(job.plate.pattern, view))
    return replace(
        job, plate=plate, mask=mask, output=with_view(job.output, view), style_image=with_view(job.style_image, view)
    )


def _precomp_name(name: str, views: Sequence[str]) -> str:
    return f"{name}{'.%V' if views else ''}{'' if name == 'style' else '.%04d'}.exr"


def _result_name(source: ReadFacts | None, facts: NodeFacts) -> str:
    stem, extension = _safe(facts.name), ".exr"
    if source:
        base, extension = os.path.splitext(os.path.basename(source.file))
        base = FRAME_TOKEN.sub("", base.replace("%V", "").replace("%v", ""))
        stem = re.sub(r"[._-]{2,}", ".", base).strip("._-") or stem
        extension = ".exr" if facts.mattes else extension
    return f"{stem}{'.%V' if facts.views else ''}.%04d{extension}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "node"


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)
