"""Is a request one the server will take? Bodies, names, paths and parameters, before anything is queued.

The answer to no is always a FaceplateError. Bodies are validated against the protocol's dataclasses by msgspec;
paths are mapped to this host, must be absolute, and are judged by `Roots`. The part that touches a disk is
`check_paths`, which the gateway runs on another thread.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from host_bridge.effects import EffectDescriptor, check_values
from host_bridge.envelope import malformed
from host_bridge.errors import EffectError, FaceplateError, JobError, RequestError, unknown_name
from host_bridge.jobspec import (
    MASK_MODES,
    MATTE_NAMES,
    MISSING_POLICIES,
    PREMULT_MODES,
    JobSpec,
    PlateSpec,
    PreviewSpec,
)
from host_bridge.messages import JOB_KINDS, ImportModel, ListFaces
from host_bridge.paths import count_frames, map_path, same_pattern
from host_bridge.repairs import repairs_from_json
from inference_server.access import Roots, resolve_pattern
from inference_server.config import ServerConfig

T = TypeVar("T")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{0,64}\Z")
_BUILT_IN = re.compile(r"ocio://[A-Za-z0-9_.-]{1,128}\Z")
_MAX_PATH = 4096
_MAX_TEXT = 512
_MAX_ITEMS = 4096
_MAX_KEYS = 200_000


def decode(cls: type[T], body: dict[str, Any]) -> T:
    """A request's body as its dataclass; RequestError (`request.malformed`) naming the field otherwise."""
    try:
        return msgspec.convert(body, cls)
    except msgspec.ValidationError as error:
        raise malformed(str(error)[:300]) from error
    except RecursionError as error:
        raise malformed("the body is nested too deeply") from error


def check_job(spec: JobSpec, config: ServerConfig, effects: Callable[[], Iterable[EffectDescriptor]]) -> JobSpec:
    """A job with its paths mapped to this host; nothing on disk is looked at.

    Raises RequestError, EffectError, and ShotError `shot.edit` for repairs that cannot be read.
    """
    if spec.kind not in JOB_KINDS:
        raise unknown_name("request.unknown_name", "kind of job", spec.kind[:80], list(JOB_KINDS))
    spec = _map_paths(spec, config)
    for name, text in (
        ("face", spec.face),
        ("compression", spec.compression),
        ("effect", spec.effect),
        ("ocio_hash", spec.ocio_hash),
    ):
        _text(name, text)
    _plain("shot", spec.shot)
    _frames("frames", spec.frames, config)
    _frames("shot_range", spec.shot_range, config)
    if len(spec.matte_channels) > len(MATTE_NAMES):
        raise _bad("matte_channels", len(spec.matte_channels), f"at most {len(MATTE_NAMES)} names")
    for name in spec.matte_channels:
        _choice("matte channel", name, MATTE_NAMES)
    if spec.mask is not None:
        _choice("mask mode", spec.mask.mode, MASK_MODES)
        _text("mask channel", spec.mask.channel)
    if spec.kind == "repair":
        if not spec.shot:
            raise _bad("shot", "", "the id of the analysed shot")
        repairs_from_json(spec.repairs)
    elif spec.repairs:
        raise _bad("repairs", "given", "kind repair, or none")
    if (spec.steps or spec.accept) and spec.kind != "adapt":
        raise _bad("steps" if spec.steps else "accept", "given", "kind adapt, or none")
    if not 0.1 <= spec.retime <= 16 or (spec.retime != 1 and spec.kind != "render"):
        raise _bad("retime", spec.retime, "0.1 to 16, and 1 for what is no render")
    if spec.kind in ("render", "adapt") or spec.effect:
        descriptor = _check_effect(spec, effects)
        if spec.kind == "adapt":
            _check_steps(spec, descriptor)
    if spec.kind == "render":
        if not spec.output:
            raise _bad("output", "", "the pattern of the frames to write")
        for other, what in ((spec.plate.pattern, "plate"), (spec.mask.pattern if spec.mask else "", "mask")):
            if other and same_pattern(spec.output, other):
                raise _output_is_input(spec.output, what)
        if spec.matte_output and same_pattern(spec.output, spec.matte_output):
            raise _output_is_input(spec.output, "matte output")
    return spec


def check_preview(
    spec: PreviewSpec, config: ServerConfig, effects: Callable[[], Iterable[EffectDescriptor]]
) -> PreviewSpec:
    """A preview with its job's paths mapped; sizes, names and viewer settings checked."""
    if not 16 <= spec.max_size <= config.max_preview:
        raise _bad("max_size", spec.max_size, f"16 to {config.max_preview} pixels")
    _frame(spec.frame)
    _choice("crop", spec.crop, ("face", "frame"))
    _choice("show", spec.show, ("result", "plate", "matte"))
    _text("display", spec.display)
    _text("view", spec.view)
    if not math.isfinite(spec.exposure) or abs(spec.exposure) > 40:
        raise _bad("exposure", str(spec.exposure), "-40 to 40 stops")
    if not math.isfinite(spec.gamma) or not 0.01 <= spec.gamma <= 100:
        raise _bad("gamma", str(spec.gamma), "0.01 to 100")
    checked = _looked_at(spec.job, config, effects)
    if checked.effect == "" and spec.show == "result":
        raise _bad("effect", "", "an effect, or show=plate")
    return replace(spec, job=checked)


def check_faces(asked: ListFaces, config: ServerConfig, effects: Callable[[], Iterable[EffectDescriptor]]) -> JobSpec:
    """The job of a request for faces with its paths mapped. Raises as `check_job`."""
    _frame(asked.frame)
    return _looked_at(asked.job, config, effects)


def _looked_at(job: JobSpec, config: ServerConfig, effects: Callable[[], Iterable[EffectDescriptor]]) -> JobSpec:
    """A job that is only looked at, whatever its kind, so that it needs no output."""
    looked_at = replace(job, kind="analyse", output="", matte_output="", repairs={}, steps=[], accept=False, retime=1.0)
    checked = check_job(looked_at, config, effects)
    return replace(checked, kind="render")


def check_plate(plate: PlateSpec, ocio: str, config: ServerConfig) -> tuple[PlateSpec, str]:
    """A plate and an OCIO config with their paths mapped to this host; nothing on disk is looked at.

    Raises RequestError.
    """
    for name, text in (("colorspace", plate.colorspace), ("layer", plate.layer), ("part", plate.part)):
        _text(name, text)
    _choice("missing", plate.missing, MISSING_POLICIES)
    _choice("premult", plate.premult, PREMULT_MODES)
    _plain("view", plate.view)
    return replace(plate, pattern=_mapped("plate", plate.pattern, config, required=True)), check_ocio(ocio, config)


def check_import(asked: ImportModel, config: ServerConfig) -> ImportModel:
    """A request to import a file, with its path mapped to this host. Raises RequestError."""
    _plain("model", asked.model)
    _plain("template", asked.template)
    return replace(asked, path=_mapped("path", asked.path, config, required=True))


def check_ocio(text: str, config: ServerConfig) -> str:
    """An OCIO config's path mapped to this host, or the name of a built-in one (`ocio://...`). Raises RequestError."""
    if _BUILT_IN.match(text):
        return text
    return _mapped("ocio", text, config)


def check_paths(spec: JobSpec, roots: Roots) -> None:
    """Judge every path of a job against the disk: inside the roots, and the output not the input. May block."""
    for path in (spec.plate.pattern, spec.output, spec.matte_output, spec.style_image, spec.ocio):
        if path and not _BUILT_IN.match(path):
            roots.check(path)
    if spec.mask is not None:
        roots.check(spec.mask.pattern)
    if spec.output:
        output = resolve_pattern(spec.output)
        for other, what in ((spec.plate.pattern, "plate"), (spec.mask.pattern if spec.mask else "", "mask")):
            if other and same_pattern(output, resolve_pattern(other)):
                raise _output_is_input(spec.output, what)
        if spec.matte_output and same_pattern(resolve_pattern(spec.matte_output), resolve_pattern(spec.plate.pattern)):
            raise _output_is_input(spec.matte_output, "plate")


def clip_error(error: FaceplateError, limit: int = 2000) -> dict[str, Any]:
    """An error's wire form with long texts cut, so that an answer never grows with what offended."""
    wire = error.to_wire()
    for name in ("message", "remedy", "path"):
        if isinstance(wire[name], str):
            wire[name] = wire[name][:limit]
    value = wire["value"]
    if isinstance(value, list) and len(value) <= 10_000 and all(isinstance(v, int) for v in value):
        return wire
    if value is not None and not isinstance(value, bool | int | float):
        wire["value"] = str(value)[:limit]
    elif isinstance(value, float) and not math.isfinite(value):
        wire["value"] = str(value)
    return wire


def _map_paths(spec: JobSpec, config: ServerConfig) -> JobSpec:
    plate, ocio = check_plate(spec.plate, spec.ocio, config)
    mask = spec.mask and replace(spec.mask, pattern=_mapped("mask", spec.mask.pattern, config, required=True))
    return replace(
        spec,
        plate=plate,
        mask=mask,
        output=_mapped("output", spec.output, config),
        matte_output=_mapped("matte_output", spec.matte_output, config),
        style_image=_mapped("style_image", spec.style_image, config),
        ocio=ocio,
    )


def _mapped(name: str, path: str, config: ServerConfig, *, required: bool = False) -> str:
    if not path and not required:
        return ""
    _text(name, path, _MAX_PATH)
    path = map_path(path, config.path_maps)
    if not os.path.isabs(path):
        raise _bad(name, path, "a path that is absolute on the server's host, or set path_maps there")
    return path


def _check_steps(spec: JobSpec, descriptor: EffectDescriptor) -> None:
    if not descriptor.steps:
        raise EffectError(
            "effect.parameter",
            f"{spec.effect} has no step that is a job of its own",
            value=spec.effect,
            remedy="Nothing needs to be adapted: render it.",
        )
    for step in spec.steps:
        _choice("step", step, descriptor.steps)


def _check_effect(spec: JobSpec, effects: Callable[[], Iterable[EffectDescriptor]]) -> EffectDescriptor:
    known = {d.identifier: d for d in effects()}
    if spec.effect not in known:
        raise unknown_name("effect.unknown", "effect", spec.effect, list(known))
    if len(spec.params) > _MAX_ITEMS or len(spec.edits) > _MAX_ITEMS:
        raise EffectError(
            "effect.parameter",
            f"{len(spec.params)} parameters and {len(spec.edits)} edits",
            value=max(len(spec.params), len(spec.edits)),
            remedy=f"Give at most {_MAX_ITEMS}.",
        )
    for value in [*spec.params.values(), *(e[1] for e in spec.edits if len(e) == 2)]:
        if isinstance(value, dict) and isinstance(value.get("keys"), list) and len(value["keys"]) > _MAX_KEYS:
            raise _bad("keys", len(value["keys"]), f"at most {_MAX_KEYS} keyframes")
    edits: list[tuple[str, Any]] = []
    for edit in spec.edits:
        if len(edit) != 2 or not isinstance(edit[0], str):
            raise EffectError(
                "effect.parameter", "an edit is not [direction, strength]", value=str(edit)[:200], remedy="Give both."
            )
        edits.append((edit[0], edit[1]))
    check_values(known[spec.effect], spec.params, edits)
    return known[spec.effect]


def _frame(frame: int) -> None:
    if not -10_000_000 <= frame <= 10_000_000:
        raise _bad("frame", frame, "a frame number")


def _frames(name: str, text: str, config: ServerConfig) -> None:
    if not text:
        return
    _text(name, text, 1 << 20)
    count = count_frames(text)
    if count is None or count > config.max_frames:
        raise RequestError(
            "request.frame_range",
            f"{name} {text[:80]!r} " + ("cannot be read" if count is None else f"names {count} frames"),
            value=text[:200],
            remedy=f"Write ranges such as 1001-1100, 1001-1100x2 or 1001,1005-1010; at most {config.max_frames}.",
        )


def _text(name: str, text: str, limit: int = _MAX_TEXT) -> None:
    if len(text) > limit or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or ord(c) == 127 for c in text):
        raise _bad(name, ascii(text)[:80], f"printable text of at most {limit} characters")


def _plain(name: str, text: str) -> None:
    if not _PLAIN_NAME.match(text) or ".." in text:
        raise _bad(name, text, "letters, digits, _ - and .")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown_name("request.unknown_name", name, value[:80], list(allowed))


def _bad(name: str, value: Any, wanted: str) -> RequestError:
    return RequestError(
        "request.bad_value", f"{name} cannot be {value!r:.120}", value=str(value)[:200], remedy=f"Give {wanted}."
    )


def _output_is_input(path: str, what: str) -> JobError:
    return JobError(
        "job.output_is_input",
        f"the output is the {what} itself",
        path=path,
        remedy="Write to another folder or name.",
    )
