"""The main job on a portrait plate: make a shot, render it through the server, check and show it.

A look and a retouch, which need nothing, and the network that comes with Faceplate, where one does.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_bridge import launcher
from host_bridge.cli.progress import open_reporter
from host_bridge.cli.render import run_job
from host_bridge.client import Client
from host_bridge.errors import ExitCode, JobError
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.demo.plate import COLORSPACE, FIRST, FRAMES, make_plate
from inference_server.demo.sheet import contact_sheet
from inference_server.demo.verify import Verdict, verify
from inference_server.effects.two_stage.descriptor import TWO_STAGE
from inference_server.effects.two_stage.variants import Offered
from inference_server.models.store import ModelStore

STYLE = "cartoon"
# The head fills little more than this; a tighter crop is a faster one.
_CROP: dict[str, Any] = {"padding_left": 140.0, "padding_right": 140.0, "padding_top": 150.0, "padding_bottom": 160.0}


@dataclass(frozen=True)
class _Render:
    """One job of the demo."""

    name: str
    spec: JobSpec

    @property
    def output(self) -> str:
        return self.spec.output

    @property
    def mattes(self) -> str:
        return self.spec.matte_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo_output", metavar="FOLDER", help="where to put it (default demo_output)")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"length of the plate (default {FRAMES})")
    parser.add_argument("--progress", default="auto", choices=("auto", "bar", "farm", "json"))


def run(args: argparse.Namespace) -> int:
    """Make, render, verify, show. Exit status FRAMES_FAILED when a check fails."""
    began = time.monotonic()
    folder = Path(args.out).resolve()
    plate = str(folder / "plate" / "astronaut.%04d.exr")
    count = 0
    for _ in make_plate(folder / "plate", frames=args.frames):
        count += 1
        print(f"\rplate {count}/{args.frames}", end="", flush=True)
    print(f"\rplate: {count} frames in {time.monotonic() - began:.0f} s, {folder / 'plate'}")
    renders = _renders(plate, folder, args.frames)
    seconds: dict[str, float] = {}
    with launcher.connect(private=True) as client:
        for render in renders:
            started = time.monotonic()
            _must(client, render, args.progress)
            seconds[render.name] = time.monotonic() - started
    verdicts = {r.name: verify(plate, r.output, r.mattes, args.frames) for r in renders}
    sheet = folder / "contact_sheet.png"
    contact_sheet(plate, [(r.name, r.output) for r in renders], renders[0].mattes, args.frames, sheet)
    return _report(folder, renders, seconds, verdicts, sheet, args.frames, time.monotonic() - began)


def _renders(plate: str, folder: Path, frames: int) -> list[_Render]:
    last = FIRST + frames - 1
    middle = (FIRST + last) // 2
    source = PlateSpec(plate, colorspace=COLORSPACE)
    ramp = {"keys": [[FIRST, 0.0], [middle, 1.0]]}
    look = JobSpec(
        kind="render",
        plate=source,
        effect="look",
        params={"style": STYLE, "degree": ramp, "color": ramp, **_CROP},
        output=str(folder / "look" / "astronaut_look.%04d.exr"),
        matte_output=str(folder / "look_matte" / "astronaut_look_matte.%04d.exr"),
        matte_channels=[],
    )
    retouch = JobSpec(
        kind="render",
        plate=source,
        effect="retouch",
        params=dict(_CROP),
        edits=[["smile", {"keys": [[FIRST, 0.0], [middle, 0.9]]}], ["age", {"keys": [[middle, 0.0], [last, 0.9]]}]],
        output=str(folder / "retouch" / "astronaut_retouch.%04d.exr"),
        matte_output=str(folder / "retouch_matte" / "astronaut_retouch_matte.%04d.exr"),
    )
    renders = [_Render("look", look), _Render("retouch", retouch)]
    starter = _starter()
    if starter:
        drawn = JobSpec(
            kind="render",
            plate=source,
            effect=TWO_STAGE,
            params={**starter, "degree": ramp},
            output=str(folder / "two_stage" / "astronaut_two_stage.%04d.exr"),
            matte_output=str(folder / "two_stage_matte" / "astronaut_two_stage_matte.%04d.exr"),
        )
        renders.insert(1, _Render(TWO_STAGE, drawn))
    return renders


def _starter() -> dict[str, Any]:
    """The two-stage model that comes with Faceplate, in the look's style where it has that; empty: none comes."""
    built_in = [v for v in Offered.of(ModelStore(), keyframe=False).variants.values() if v.model.built_in]
    if not built_in:
        return {}
    return {"model": built_in[0].id, "style": STYLE if STYLE in built_in[0].styles else built_in[0].styles[0]}


def _must(client: Client, render: _Render, progress: str) -> None:
    print(f"{render.name}:")
    status = run_job(client, render.spec, open_reporter(progress))
    if status != ExitCode.OK:
        raise JobError("job.cancelled", f"the demo's {render.name} was cancelled", remedy="Run `faceplate demo` again.")


def _report(
    folder: Path,
    renders: list[_Render],
    seconds: dict[str, float],
    verdicts: dict[str, Verdict],
    sheet: Path,
    frames: int,
    total: float,
) -> int:
    print()
    for render in renders:
        verdict = verdicts[render.name]
        print(
            f"{render.name:<9} {verdict.outside_different} of {verdict.outside} samples outside the matte differ, "
            f"{verdict.inside_different} of {verdict.inside} inside; other parts and channels: "
            f"{'identical' if verdict.rest_identical else 'DIFFERENT'}; "
            f"{frames / seconds[render.name]:.2f} frames/s (analysis included the first time)"
        )
    print(f"{'total':<9} {total:.0f} s")
    print(f"frames    {folder}")
    print(f"sheet     {sheet}")
    good = all(v.outside_different == 0 and v.rest_identical and v.inside_different for v in verdicts.values())
    return int(ExitCode.OK if good else ExitCode.FRAMES_FAILED)
