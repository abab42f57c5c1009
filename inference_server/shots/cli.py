"""Analysed shots: list and show them, repair them by hand, lock what is approved, remove what is not needed."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge import repairs as repairs_format
from host_bridge.cli import show_error
from host_bridge.cli.options import absolute, ocio_of
from host_bridge.cli.progress import MODES, open_reporter
from host_bridge.client import JobResult
from host_bridge.errors import ExitCode, FaceplateError, RequestError, ShotError
from host_bridge.messages import JobProgress, JobWarning
from host_bridge.repairs import DEFAULT_REACH, Repairs, repairs_from_json
from inference_server.config import ServerConfig, load_config
from inference_server.faces.types import FaceState
from inference_server.plates.sequence import format_frames
from inference_server.runs import Progress, RunEvent, Warned
from inference_server.shots.packing import ShotOutline, TrackOutline
from inference_server.shots.store import ShotRecord, ShotStore

_EPILOG = """\
A shot is named by its id or the beginning of it. The store lies in $FACEPLATE_SHOTS, in `shots` of server.toml, or in
your own state folder.

edit --file replaces the repairs of the shot by those in the file (an empty one, {"version": 1}, takes them all away);
edit --nuke-tracker adds points to those it has, or to those of --file. --export writes what the shot has now.
Landmarks are MediaPipe's 478; often used: 4 tip of the nose, 152 chin, 10 forehead, 468 and 473 irises, 61 and 291
corners of the mouth, the person's right before the left.

Exit status: 0 done, 2 wrong arguments or repairs, 3 no such shot, or its plate is not there or not the same,
6 cancelled, 7 locked or not writable, 8 in use."""

_LOOK_AHEAD = 3
_STATES = tuple((state, state.name.lower()) for state in FaceState)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands, on a parser of the caller's."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.allow_abbrev = False
    commands = parser.add_subparsers(dest="shots_command", required=True, metavar="COMMAND")

    lister = commands.add_parser("list", allow_abbrev=False, help="all shots of the store")
    lister.add_argument("--json", action="store_true", help="one JSON array, for programs")

    show = commands.add_parser("show", allow_abbrev=False, help="a shot's settings, tracks and repairs")
    show.add_argument("id")
    show.add_argument("--json", action="store_true", help="one JSON object, for programs")

    edit = commands.add_parser(
        "edit",
        allow_abbrev=False,
        help="repair a shot by hand",
        epilog=f"{_EPILOG}\n\n{repairs_format.__doc__ or ''}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    edit.add_argument("id")
    edit.add_argument("--file", type=Path, metavar="JSON", help="repairs in place of those the shot has")
    edit.add_argument("--nuke-tracker", type=Path, metavar="FILE", help="a Tracker node or a curve, exported as text")
    edit.add_argument("--track", type=int, metavar="N", help="the face whose landmarks the Nuke tracks follow")
    edit.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="[NAME=]LANDMARK",
        help="which landmark a Nuke track follows; may be repeated",
    )
    edit.add_argument(
        "--reach", type=float, help=f"how far neighbours follow, in eye distances (default {DEFAULT_REACH})"
    )
    edit.add_argument("--export", metavar="FILE", help="write the shot's repairs to a new file (- prints them)")
    edit.add_argument("--in", dest="plate", default="", metavar="PATTERN", help="where the plate is now")
    edit.add_argument("--ocio", default="", metavar="FILE", help="the OCIO config of the analysis (default: $OCIO)")
    edit.add_argument("--progress", choices=MODES, default="auto")

    lock = commands.add_parser("lock", allow_abbrev=False, help="keep an approved shot as it is, also through upgrades")
    lock.add_argument("id")
    lock.add_argument("--off", action="store_true", help="release it")

    remove = commands.add_parser("remove", allow_abbrev=False, help="delete a shot that is neither locked nor in use")
    remove.add_argument("id")


def run(args: argparse.Namespace) -> int:
    """Carry out a parsed command; the exit status. Raises FaceplateError."""
    config = load_config()
    store = ShotStore(config.shots_path, int(config.shots_quota_gb * 2**30))
    command = args.shots_command
    if command == "list":
        return int(_list(args, store))
    if command == "remove":
        return int(_remove(args, store))
    record = store.get(args.id)
    if command == "show":
        return int(_show(args, store, record))
    if command == "lock":
        changed = store.set_locked(record, not args.off)
        _say(f"{changed.id} {'locked' if changed.locked else 'released'}")
        return int(ExitCode.OK)
    return int(_export(args, record) if args.export else _edit(args, store, record, config))


# -- list and show -----------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace, store: ShotStore) -> ExitCode:
    rows = []
    for record in store.records():
        try:
            rows.append(_summary(store, record, store.outline(record)))
        except ShotError as error:
            show_error(error)
    for damage in store.damaged().values():
        show_error(damage)
    if args.json:
        _say(json.dumps(rows, indent=1))
        return ExitCode.OK
    head = ("id", "frames", "size", "tracks", "rev", "state", "space", "used", "pattern")
    table = [head, *(_row(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(head) - 1)]
    for line in table:
        _say("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]))
    return ExitCode.OK


def _summary(store: ShotStore, record: ShotRecord, outline: ShotOutline) -> dict[str, Any]:
    window = outline.display_window
    return {
        "id": record.id,
        "frames": format_frames(sorted(record.frames)),
        "count": len(record.frames),
        "size": [window.width, window.height],
        "pixel_aspect": outline.pixel_aspect,
        "tracks": len(outline.tracks),
        "revision": record.revision,
        "locked": record.locked,
        "pinned": store.pinned(record.id),
        "bytes": store.size_of(record.id),
        "used": store.used(record.id),
        "created": record.created,
        "version": record.version,
        "narrowed": record.narrowed,
        "pattern": record.pattern,
    }


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    state = ",".join(name for name in ("locked", "pinned") if row[name]) or "-"
    return (
        row["id"],
        row["frames"],
        "{}x{}".format(*row["size"]),
        str(row["tracks"]),
        str(row["revision"]),
        state,
        _bytes(row["bytes"]),
        _time(row["used"]),
        row["pattern"],
    )


def _show(args: argparse.Namespace, store: ShotStore, record: ShotRecord) -> ExitCode:
    outline = store.outline(record)
    tracks = [_track(track, outline.frames) for track in outline.tracks]
    whole = {
        **_summary(store, record, outline),
        "settings": asdict(record.settings),
        "work_exposure": outline.work_exposure,
        "jitter": [outline.jitter_before, outline.jitter_after],
        "tracks": tracks,
        "repairs": dict(record.repairs),
    }
    if args.json:
        _say(json.dumps(whole, indent=1))
        return ExitCode.OK
    s = record.settings
    picked = ", ".join(
        f"{name} {value}" for name, value in (("layer", s.layer), ("part", s.part), ("view", s.view)) if value
    )
    state = ", ".join(name for name in ("locked", "pinned") if whole[name])
    aspect = f", pixel aspect {outline.pixel_aspect:g}" if outline.pixel_aspect != 1 else ""
    lines = (
        ("shot", f"{record.id}, revision {record.revision}" + (f", {state}" if state else "")),
        ("plate", record.pattern),
        ("frames", f"{whole['frames']} ({whole['count']})" + (", narrowed by --shot-range" if record.narrowed else "")),
        ("size", "{}x{}".format(*whole["size"]) + aspect),
        ("colour", f"{s.colorspace}, premult {s.premult}, config {s.config_hash}" + (f", {picked}" if picked else "")),
        ("exposure", f"{outline.work_exposure:+.2f} stops"),
        (
            "jitter",
            f"{outline.jitter_before:.2f} found, {outline.jitter_after:.2f} smoothed (px per 100 px of eye distance)",
        ),
        ("stored", f"{_bytes(whole['bytes'])}, used {_time(whole['used'])}, analysis version {record.version}"),
    )
    for name, text in lines:
        _say(f"{name:<9} {text}")
    if not tracks:
        _say("tracks    none: no face was found")
    for track in tracks:
        counts = ", ".join(f"{n} {name}" for name, n in track["states"].items() if n)
        off = "" if track["enabled"] else ", disabled"
        _say(f"track {track['id']:<3} {track['frames'] or 'nowhere'}: {counts}{off}")
    for line in _repair_lines(record):
        _say(f"repairs   {line}")
    return ExitCode.OK


def _track(track: TrackOutline, frames: tuple[int, ...]) -> dict[str, Any]:
    present = [frame for frame, state in zip(frames, track.states, strict=True) if state != FaceState.ABSENT]
    return {
        "id": track.id,
        "enabled": track.enabled,
        "frames": format_frames(present) if present else "",
        "states": _counts(track.states),
    }


def _counts(states: NDArray[np.uint8]) -> dict[str, int]:
    return {name: int((states == state).sum()) for state, name in _STATES}


def _repair_lines(record: ShotRecord) -> Iterator[str]:
    for part, entries in record.repairs.items():
        if part != "version":
            for entry in entries:
                yield f"{part}: {json.dumps(entry)}"


# -- edit --------------------------------------------------------------------------------------------------------------


def _export(args: argparse.Namespace, record: ShotRecord) -> ExitCode:
    from inference_server.shots.editing import export_repairs

    if args.file or args.nuke_tracker:
        raise _arguments("--export does not go with --file or --nuke-tracker", args.export)
    text = export_repairs(record.repairs)
    if args.export == "-":
        sys.stdout.write(text)
        return ExitCode.OK
    try:
        with open(args.export, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ShotError(
            "shot.edit",
            f"the repairs cannot be written: {error.strerror or error}",
            path=args.export,
            remedy="Give the name of a new file in a folder that can be written.",
        ) from error
    _say(args.export)
    return ExitCode.OK


def _edit(args: argparse.Namespace, store: ShotStore, record: ShotRecord, config: ServerConfig) -> ExitCode:
    # Reading plates and finding faces needs packages that take a second to load; the other commands answer at once.
    from inference_server.faces.analyse import FaceTools
    from inference_server.plates.color import ColorConfig
    from inference_server.shots.editing import edit_shot, open_plate

    store.refuse_locked(record)
    repairs = _wanted(args, store, record)
    if repairs == repairs_from_json(dict(record.repairs) or {"version": 1}):
        _say(f"{record.id} has these repairs already (revision {record.revision})")
        return ExitCode.OK
    source = open_plate(record, absolute(args.plate), ColorConfig(ocio_of(args) or config.ocio))
    with ThreadPoolExecutor(2, thread_name_prefix="faceplate-read") as pool:
        steps = edit_shot(store, record, repairs, source, pool, _LOOK_AHEAD, FaceTools.mediapipe)
        with closing(steps):
            revised = _follow(steps, record.id, args.progress)
    if args.progress != "json":  # which has standard output to itself
        outline = store.outline(revised)
        _say(f"{revised.id} revision {revised.revision}: " + (_tracks_line(outline) or "no face"))
    return ExitCode.OK


def _wanted(args: argparse.Namespace, store: ShotStore, record: ShotRecord) -> Repairs:
    """The repairs that the arguments ask for."""
    from inference_server.shots.editing import read_repairs, tracker_points, with_points

    if args.file is None and args.nuke_tracker is None:
        raise _arguments("nothing to do", None, "Give --file, --nuke-tracker or --export.")
    if args.nuke_tracker is None and (args.track is not None or args.point or args.reach is not None):
        raise _arguments("--track, --point and --reach belong to --nuke-tracker", None)
    repairs = read_repairs(args.file) if args.file else repairs_from_json(dict(record.repairs) or {"version": 1})
    if args.nuke_tracker is None:
        return repairs
    if args.track is None or not args.point:
        raise _arguments("--nuke-tracker needs --track and --point", None, "Write --track 1 --point nose=4.")
    reach = DEFAULT_REACH if args.reach is None else args.reach
    if not 0 < reach < math.inf:
        raise _arguments(f"--reach is {reach:g}, it must be above 0", reach)
    height = store.outline(record).display_window.height
    points = [_point(text) for text in args.point]
    return with_points(repairs, tracker_points(args.nuke_tracker, height, args.track, points, reach))


def _point(text: str) -> tuple[str, int]:
    name, _, landmark = text.rpartition("=")
    if not landmark.isascii() or not landmark.isdigit():
        raise _arguments(f"--point {text!r} names no landmark", text, "Write NAME=LANDMARK, such as nose=4.")
    return name, int(landmark)


def _follow(steps: Iterator[RunEvent], shot: str, mode: str) -> ShotRecord:
    """Run an analysis to its end, telling how far it is as jobs do."""
    reporter = open_reporter(mode)
    reporter.shot = shot
    began, done, state, failure = time.monotonic(), 0, "cancelled", None
    try:
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                state = "finished"
                record: ShotRecord = end.value
                return record
            if isinstance(event, Progress):
                done = event.done
                reporter.show(JobProgress("", stage=event.stage, done=event.done, total=event.total))
            elif isinstance(event, Warned):
                reporter.show(JobWarning("", code=event.code, message=event.message, frame=event.frame))
    except FaceplateError as error:
        state, failure = "failed", error
        raise
    finally:
        reporter.close(JobResult("", state, done, 0, time.monotonic() - began, failure), failure)


def _tracks_line(outline: ShotOutline) -> str:
    tracks = [_track(track, outline.frames) for track in outline.tracks]
    return "; ".join(
        f"track {t['id']} {t['frames'] or 'nowhere'}" + ("" if t["enabled"] else " disabled") for t in tracks
    )


# -- remove ------------------------------------------------------------------------------------------------------------


def _remove(args: argparse.Namespace, store: ShotStore) -> ExitCode:
    if args.id in store.damaged():
        store.discard(args.id)
        _say(f"{args.id} removed")
        return ExitCode.OK
    record = store.get(args.id)
    store.remove(record)
    _say(f"{record.id} removed")
    return ExitCode.OK


def _arguments(message: str, value: Any, remedy: str = "See `faceplate shots edit --help`.") -> RequestError:
    return RequestError("request.bad_value", message, value=value, remedy=remedy)


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _time(stamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stamp))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
