"""Carry painted frames over their shot: a network of your own from one or a few frames that you painted.

  faceplate train keyframe --in sh010.%04d.exr --painted painted.%04d.exr --frames-painted 1001,1048 --name hero_look
  faceplate render --effect keyframe --set model=hero_look --in sh010.%04d.exr --out hero/sh010.%04d.exr

Paint in any program, in the plate's framing; EXR is read in the plate's colourspace, PNG, JPEG and integer TIFF as
display sRGB. It takes --minutes; pictures of the frames between come into OUT/round-*/*/sheets while it goes on. Ctrl-C
at any time: the best so far is in the model store, and the same command goes on. Paint another frame, add it to
--frames-painted, and give the command again: it goes on from what was learned.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ExitCode
from host_bridge.jobspec import PREMULT_MODES, JobSpec, PlateSpec
from inference_server.models.store import ModelStore, sha256_of
from inference_server.train_commands import running
from inference_server.train_commands.keyframe_rounds import STAGES, STARTER, Plan, Round, Rounds

if TYPE_CHECKING:
    from inference_server.keyframes.packing import PaintedShot
    from inference_server.runs import RunEvent
    from inference_server.source import PlateSource
    from inference_server.train_commands.keyframe_stages import Stages

REFINER_SHARE = 0.2  # of the minutes
LOOK_AHEAD = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    plate = parser.add_argument_group("plate and paint")
    plate.add_argument("--in", dest="plate", required=True, metavar="PATTERN", help="plate, e.g. sh010.%%04d.exr")
    plate.add_argument("--painted", required=True, metavar="PATTERN", help="painted frames, or one picture")
    plate.add_argument(
        "--frames-painted", default="", metavar="FRAMES", help="which are painted: 1001,1048 (default: all on disk)"
    )
    plate.add_argument(
        "--painted-colorspace",
        default="",
        metavar="NAME",
        help="of the paint: an OCIO name, plate, or display (sRGB); default: EXR plate, PNG, JPEG and TIFF display",
    )
    plate.add_argument("--trust-lineup", action="store_true", help="take paint that seems not to lie on the plate")
    plate.add_argument("--frames", default="", metavar="RANGE", help="the part of the shot to learn from")
    plate.add_argument(
        "--region", choices=("face", "head", "frame"), default="head", help="what is painted (default: %(default)s)"
    )
    plate.add_argument("--face", default="largest", metavar="WHICH", help="largest, an id, or x,y as in render")
    plate.add_argument(
        "--size", type=int, default=512, help="longer side of what the network sees, at most (default: %(default)s)"
    )
    for name, text in (
        ("colorspace", "the plate's"),
        ("ocio", "config file"),
        ("layer", ""),
        ("part", ""),
        ("view", ""),
    ):
        plate.add_argument(f"--{name}", default="", metavar="NAME", help=f"{text} as in render".strip())
    plate.add_argument("--premult", choices=PREMULT_MODES, default="auto", metavar="MODE", help="as in render")
    own = parser.add_argument_group("training")
    own.add_argument("--name", required=True, help="what the model is called: --set model=NAME")
    own.add_argument("--out", type=Path, help="the run's folder (default: keyframe_NAME here)")
    own.add_argument("--minutes", type=float, default=15.0, help="how long it may take (default: %(default)g)")
    own.add_argument("--steps", type=int, help="of the first network, in place of --minutes")
    own.add_argument("--refiner-steps", type=int, help="of the second network; 0 leaves it out")
    own.add_argument(
        "--more", action="store_true", help="another round from what was learned, though no other frame is painted"
    )
    own.add_argument(
        "--start", default=STARTER, metavar="MODEL", help="begin with: starter (where there is one), a model, or none"
    )
    own.add_argument("--preview-seconds", type=float, default=60.0, help="between two sheets (default: %(default)g)")
    own.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of a network's configuration: translator.recipe.geometry.mirror=0",
    )
    own.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    own.add_argument("--dry-run", action="store_true", help="check the paint; print steps, memory and time")
    own.add_argument("--progress", choices=("lines", "json"), default="lines", help="default: %(default)s")
    own.add_argument("--no-import", action="store_true", help="leave the model in the folder, out of the store")
    own.add_argument("--replace", action="store_true", help="replace a model of that name in the store")


def run(args: argparse.Namespace) -> int:
    with running.as_faceplate_errors():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from inference_server.train_commands.keyframe_stages import Stages
    from inference_server.training.distributed import group_from_environment
    from inference_server.training.loop import train
    from inference_server.training.recipes.keyframe_data import read_data

    ends = time.monotonic() + 60 * args.minutes
    rounds = Rounds(args.out or Path(f"keyframe_{args.name}"))
    with group_from_environment(running.device_of(args.device)) as group:
        if group.first:
            if not args.no_import and not args.dry_run:
                _check_free(args, rounds)
            _pack(args, rounds)
        group.barrier()
        round_ = rounds.last()
        stages = Stages(args, round_, rounds.before(round_), read_data(round_.data), group)
        if group.first:
            for line in stages.begins_with():
                _say(args, line)
        plan = _plan(args, round_, stages, ends - time.monotonic())
        if args.dry_run:
            return ExitCode.OK
        if group.first:
            round_.write_plan(plan)
        going_on = True
        for stage in STAGES:
            if not plan.steps(stage) or (stage == "translator" and round_.refining):
                continue
            until = ends - (60 * args.minutes * REFINER_SHARE if stage == "translator" and plan.refiner else 0.0)
            recipe, config = stages.recipe(stage, plan)
            timed = until if args.steps is None else None
            _, whole = running.follow(args, train(recipe, config, round_.folder / stage, group), group, timed)
            going_on = whole or group.any(timed is not None and time.monotonic() >= timed)
            if not going_on:
                break
        if group.first:
            _keep(args, rounds, round_, going_on)
    return ExitCode.OK if going_on else ExitCode.CANCELLED


def _plan(args: argparse.Namespace, round_: Round, stages: Stages, seconds: float) -> Plan:
    """The round's own, or what the seconds that are left (or the steps that are asked for) come to."""
    found = round_.plan()
    if found is not None and not args.dry_run and args.steps is None:
        return found
    refined = stages.can_refine and args.refiner_steps != 0
    if args.steps is not None and not args.dry_run:
        asked = args.refiner_steps if args.refiner_steps is not None else max(1, args.steps // 5)
        return Plan(args.steps, asked if refined else 0)
    share = REFINER_SHARE if refined else 0.0
    lines: list[str] = []
    first = stages.measured("translator", seconds * (1 - share), lines)
    second = stages.measured("refiner", seconds * share, lines) if refined else (0, 0.0)
    if stages.group.first:
        for line in lines if args.dry_run else ():
            _say(args, line)
        _say(args, f"{args.minutes:g} minutes here: {first[0]} steps, then {second[0]} of the refiner")
    return Plan(first[0], second[0], first[1], second[1])


# ------------------------------------------------------------------------------------------------ plate and paint


def _pack(args: argparse.Namespace, rounds: Rounds) -> None:
    """Makes the round of what is asked for, where it is not the last one already."""
    from inference_server.config import load_config
    from inference_server.faces.analyse import FaceTools
    from inference_server.keyframes.packing import PaintedShot, described, pack_shot
    from inference_server.keyframes.painted import painted_files
    from inference_server.plates.color import ColorConfig
    from inference_server.plates.sequence import parse_frames
    from inference_server.shots.analysing import locate_shot
    from inference_server.shots.store import ShotStore
    from inference_server.source import PlateSource

    settings = load_config()
    plate = PlateSpec(args.plate, args.colorspace, args.premult, args.layer, args.part, args.view)
    source = PlateSource.open(JobSpec("analyse", plate), ColorConfig(args.ocio or settings.ocio))
    wanted = tuple(parse_frames(args.frames_painted)) if args.frames_painted else ()
    files = painted_files(args.painted, wanted, source.sequence.frames, source.sequence.pattern.view)
    asked = PaintedShot(
        files, args.painted_colorspace, args.trust_lineup, args.frames, args.region, args.face, args.size
    )
    store = ShotStore(settings.shots_path, int(settings.shots_quota_gb * 2**30))
    with ThreadPoolExecutor(2, thread_name_prefix="faceplate-read") as pool:
        record, analysis = _shown(args, locate_shot(store, source, (), pool, LOOK_AHEAD, FaceTools.mediapipe))
        identity = {"shot": record.key, **_identity(asked, source)}
        round_, is_new = rounds.open(identity, args.more)
        if is_new:
            packed = _shown(args, pack_shot(source, asked, record, analysis, pool))
            packed.data.write(round_.data)
            round_.begin(identity, described(packed))


def _identity(asked: PaintedShot, source: PlateSource) -> dict[str, Any]:
    """What the data depend on beside the shot's own analysis."""
    return {
        "painted": {str(frame): sha256_of(Path(path)) for frame, path in asked.files.items()},
        "painted_colorspace": asked.colorspace,
        "config": source.config.hash,
        "trust": asked.trust,
        "frames": asked.frames,
        "region": asked.region,
        "face": asked.face,
        "size": asked.size,
    }


def _shown(args: argparse.Namespace, steps: Any) -> Any:
    """The result of a generator whose events are told."""
    from inference_server.runs import Progress, Warned

    told = -1
    while True:
        try:
            event: RunEvent = next(steps)
        except StopIteration as end:
            return end.value
        if isinstance(event, Warned):
            _say(args, event.message)
        elif isinstance(event, Progress) and event.total and 10 * event.done // event.total != told:
            told = 10 * event.done // event.total
            _say(args, f"{event.stage}: {event.done} of {event.total} frames")


def _say(args: argparse.Namespace, text: str) -> None:
    out = sys.stderr if args.progress == "json" else sys.stdout
    out.write(f"{text}\n")
    out.flush()


# ------------------------------------------------------------------------------------------------------ the store


def _check_free(args: argparse.Namespace, rounds: Rounds) -> None:
    """ModelError `model.exists` where the name is taken by a model that this folder has not made."""
    store = ModelStore()
    if not args.replace and not _is_ours(store, args.name, rounds):
        store.check_free(args.name)


def _is_ours(store: ModelStore, name: str, rounds: Rounds) -> bool:
    found = store.models().get(name)
    return found is not None and found.stored.source_sha256 in rounds.imported()


def _keep(args: argparse.Namespace, rounds: Rounds, round_: Round, done: bool) -> None:
    """Puts the furthest model of the round into the store, also of a run that was stopped."""
    from inference_server.training.events import Finished

    found = round_.result()
    if found is not None and not args.no_import:
        weights, card = found
        ours = _is_ours(ModelStore(), args.name, rounds)
        rounds.note_imported(weights)
        running.import_result(Finished(0, 0, weights, card), args.replace or ours)
    if not done:
        what = "nothing was learned yet" if found is None else f"the best so far is in {found[0]}"
        sys.stderr.write(f"stopped; {what}. Give the command again to go on.\n")
