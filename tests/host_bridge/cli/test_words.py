"""A job as a command line, read back by the command line itself."""

from __future__ import annotations

from typing import Any

import pytest

from host_bridge.cli import build_parser
from host_bridge.cli.options import render_job
from host_bridge.cli.words import render_words
from host_bridge.errors import RequestError
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec
from inference_server.effects.registry import descriptor

PLAIN: dict[str, Any] = {
    "kind": "render",
    "plate": PlateSpec("/shots/sh 010/plate.%04d.exr"),
    "effect": "look",
    "output": "/out/toon.%04d.exr",
}
FULL: dict[str, Any] = {
    **PLAIN,
    "plate": PlateSpec("/p.%V.%04d.exr", "ACES - ACEScg", "straight", "beauty", "1", "left", "hold"),
    "frames": "1001-1010",
    "shot": "abc123",
    "shot_range": "1001-1100",
    "matte_output": "/out/matte.%04d.exr",
    "matte_channels": ["face", "lips"],
    "compression": "piz",
    "mask": MaskSpec("/roto.%04d.exr", "R", "subtract"),
    "style_image": "/art/a=b.png",
    "face": "10,20",
    "ocio": "/show/config.ocio",
    "skip_existing": True,
    "continue_on_error": True,
}


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        FULL,
        {**PLAIN, "params": {"style": "comic_ink", "degree": 0.1 + 0.2, "levels": 4.0, "auto_exposure": False}},
        {**PLAIN, "params": {"degree": {"keys": [[1001.0, 0.0], [1010.5, 1e-07]]}, "matte_grow": -2.5}},
        {**PLAIN, "params": {"regions": "head,-neck"}},
        {
            **PLAIN,
            "effect": "retouch",
            "params": {"lip_tint": [0.5, 0.25, 0.0]},
            "edits": [["smile", -0.5], ["age", {"keys": [[1.0, 0.0], [2.0, 1.0]]}]],
        },
    ],
)
def test_the_command_line_says_exactly_this_job(fields: dict[str, Any]) -> None:
    job = JobSpec(**fields)
    args, args_rest = build_parser().parse_known_args(render_words(job))
    args.rest = args_rest
    assert render_job(args, descriptor(job.effect)) == job


def test_what_a_command_line_cannot_say_is_refused() -> None:
    keyed = {"lip_tint": {"keys": [[1.0, [1.0, 0.0, 0.0]], [2.0, [0.0, 0.0, 0.0]]]}}
    with pytest.raises(RequestError, match="keyframes of lip_tint"):
        render_words(JobSpec(**{**PLAIN, "effect": "retouch", "params": keyed}))
