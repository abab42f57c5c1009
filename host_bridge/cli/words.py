"""A job as the words of a command: of `faceplate render` for render passes and farms that run command lines, of
`faceplate adapt` for what a render lacks.
"""

from __future__ import annotations

from typing import Any

from host_bridge.curves import Curve, Value
from host_bridge.errors import RequestError
from host_bridge.jobspec import JobSpec, PlateSpec


def render_words(job: JobSpec) -> list[str]:
    """The arguments that make `faceplate render` submit exactly this job; options at their default are left out.

    Raises RequestError (`request.bad_value`) for what a command line cannot say: keyframes of colours and points.
    """
    words = ["render", "--effect", job.effect, "--in", job.plate.pattern, "--out", job.output]
    options = [
        ("--frames", job.frames, ""),
        ("--retime", f"{job.retime:g}", "1"),
        *_shot_options(job),
        ("--matte-channels", ",".join(job.matte_channels), ""),
        ("--matte-out", job.matte_output, ""),
        ("--compression", job.compression, ""),
    ]
    if job.mask is not None:
        options += [
            ("--mask", job.mask.pattern, ""),
            ("--mask-channel", job.mask.channel, "A"),
            ("--mask-mode", job.mask.mode, "intersect"),
        ]
    words += _given(options) + _values(job)
    words += ["--skip-existing"] if job.skip_existing else []
    return words + (["--continue-on-error"] if job.continue_on_error else [])


def adapt_words(job: JobSpec) -> list[str]:
    """The arguments that make `faceplate adapt` take the steps a render needs. Raises as `render_words`."""
    words = ["adapt", "--effect", job.effect, "--in", job.plate.pattern]
    return words + _given(_shot_options(job)) + _values(job)


def _shot_options(job: JobSpec) -> list[tuple[str, str, str]]:
    """Flag, value and default of everything that says which shot and face it is and how it is read."""
    plate, plain = job.plate, PlateSpec("")
    return [
        ("--shot", job.shot, ""),
        ("--shot-range", job.shot_range, ""),
        *((f"--{name}", getattr(plate, name), getattr(plain, name)) for name in _PLATE),
        ("--ocio", job.ocio, ""),
        ("--style-image", job.style_image, ""),
        ("--face", job.face, "largest"),
    ]


def _given(options: list[tuple[str, str, str]]) -> list[str]:
    return [f"{flag}={value}" for flag, value, default in options if value != default]


def _values(job: JobSpec) -> list[str]:
    words = [f"--set={name}={curve_text(name, value)}" for name, value in job.params.items()]
    return words + [f"--edit={name}={curve_text(name, value)}" for name, value in job.edits]


def curve_text(name: str, value: Any) -> str:
    """A parameter's JSON as `parse_curve` reads it."""
    curve = Curve.from_json(value)
    if curve.is_constant:
        return _text(curve.keys[0][1])
    if any(isinstance(found, tuple) for _, found in curve.keys):
        raise RequestError(
            "request.bad_value",
            f"keyframes of {name} cannot be written on a command line",
            value=name,
            remedy="Render it from the host or the panel, or take the keyframes away.",
        )
    return ",".join(f"{frame:g}:{_text(found)}" for frame, found in curve.keys)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(repr(number) for number in value)
    return value if isinstance(value, str) else repr(value)


_PLATE = ("colorspace", "premult", "layer", "part", "view", "missing")
