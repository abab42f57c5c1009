"""Compare two sequences: how far B is from A, and how steady each is.

  faceplate metrics plate.%04d.exr render.%04d.exr --matte mattes.%04d.exr --out report

Both are looked at as display-encoded sRGB in the display window. Distances are of B from A. The warp error compares
each frame with the one before, carried along the motion of A (or of --guide), where that can be seen: B is as steady
as A where both have the same. Jitter and drifts come from the landmarks of the largest face; an edit moves landmarks,
but the head should stay (or the face floats on its neck), and so should the gaze. The temporal profile (--out) shows
one scan line over time, A beside B: a steady sequence has smooth streaks, a flickering one combs and dashes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Generator
from pathlib import Path

import cv2
import msgspec
import numpy as np

from host_bridge.cli.options import absolute
from host_bridge.errors import ExitCode, PlateError
from host_bridge.files import write_whole
from host_bridge.jobspec import PREMULT_MODES, MaskSpec, PlateSpec
from inference_server.config import load_config
from inference_server.metrics.comparing import Comparison, Line, Step, Wanted, compare
from inference_server.metrics.learned import IDENTITY, Identity, Perceptual
from inference_server.metrics.motion import profile_sheet
from inference_server.metrics.sequences import Pictures, common_frames
from inference_server.models.loading import LPIPS_HEADS, LPIPS_TRUNKS
from inference_server.models.store import ModelStore, store_of
from inference_server.plates.color import ColorConfig
from inference_server.plates.sequence import format_frames
from inference_server.runs import result_of
from inference_server.source import MaskSource

MATTE_CHANNEL = "faceplate.composite"
_LABELS = {
    "mse": "mean squared error",
    "psnr": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
    "identity": "identity (ArcFace)",
    "landmark_drift": "landmark drift (% of eye distance)",
    "head_drift": "head drift (% of eye distance)",
    "gaze_drift": "gaze drift (% of an eye's width)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("a", metavar="A", help="the one to compare with: the plate, e.g. shots/sh010.%%04d.exr")
    parser.add_argument("b", metavar="B", help="the one to judge")
    parser.add_argument("--frames", default="", metavar="RANGE", help="which frames (default: all that both have)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write metrics.json and profile.png there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    plate = parser.add_argument_group("plates")
    plate.add_argument(
        "--colorspace", default="", metavar="NAME", help="OCIO colourspace of both (default scene_linear)"
    )
    plate.add_argument("--colorspace-b", metavar="NAME", help="that of B where it is another one")
    plate.add_argument("--ocio", default="", metavar="FILE", help="OCIO config (default: $OCIO, else ACES CG)")
    plate.add_argument("--exposure", type=float, default=0.0, help="stops, before both are looked at (default 0)")
    plate.add_argument("--premult", choices=PREMULT_MODES, default="auto", metavar="MODE", help="how alpha is stored")
    plate.add_argument("--layer", default="", metavar="NAME", help="layer to compare (default: R, G, B)")
    plate.add_argument("--view", default="", metavar="NAME", help="stereo view; also what %%V stands for")
    what = parser.add_argument_group("what to compare")
    masks = what.add_mutually_exclusive_group()
    masks.add_argument("--mask", default="", metavar="PATTERN", help="count only what this mask covers")
    masks.add_argument(
        "--matte", default="", metavar="PATTERN", help=f"the same for mattes of Faceplate ({MATTE_CHANNEL})"
    )
    what.add_argument("--mask-channel", default="A", metavar="NAME", help="the mask's channel (default A)")
    what.add_argument(
        "--guide", default="", metavar="PATTERN", help="the sequence whose motion is followed (default A)"
    )
    what.add_argument("--no-faces", action="store_true", help="look for no faces: no jitter, drifts and identity")
    line = what.add_mutually_exclusive_group()
    line.add_argument("--column", type=int, metavar="X", help="scan line of the profile (default: through the face)")
    line.add_argument("--row", type=int, metavar="Y", help="scan line of the profile")
    what.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for LPIPS and identity")


def run(args: argparse.Namespace) -> int:
    """Compare, print the table or JSON, write the report; the exit status. Raises FaceplateError."""
    server = load_config()
    config = ColorConfig(absolute(args.ocio) if args.ocio and "://" not in args.ocio else args.ocio or server.ocio)
    store = store_of(server.models)
    spaces = (args.colorspace, args.colorspace if args.colorspace_b is None else args.colorspace_b)
    a, b = (
        Pictures.open(name, _plate(args, pattern, space), config, args.exposure)
        for name, pattern, space in zip("AB", (args.a, args.b), spaces, strict=True)
    )
    guide = None
    if args.guide:
        guide = Pictures.open("the guide", _plate(args, args.guide, args.colorspace), config, args.exposure)
    frames = common_frames([a, b] + ([guide] if guide else []), args.frames)
    device = _device(args.device)
    wanted = Wanted(
        faces=not args.no_faces,
        mask=_mask(args),
        guide=guide,
        line=Line(args.column, args.row),
        perceptual=Perceptual.imported(store, device),
        identity=None if args.no_faces else Identity.imported(store, device),
    )
    result = result_of(_shown(compare(a, b, frames, wanted)))
    report = _report(result, args, wanted)
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_table(result, args, wanted, store)) + "\n")
    if args.out is not None:
        _write(args.out, result, report)
    return int(ExitCode.OK)


def _plate(args: argparse.Namespace, pattern: str, space: str) -> PlateSpec:
    return PlateSpec(absolute(pattern), space, args.premult, args.layer, "", args.view)


def _mask(args: argparse.Namespace) -> MaskSource | None:
    if args.matte:
        return MaskSource.open(MaskSpec(absolute(args.matte), MATTE_CHANNEL))
    return MaskSource.open(MaskSpec(absolute(args.mask), args.mask_channel)) if args.mask else None


def _device(choice: str) -> str:
    import torch

    return choice if choice != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _shown(steps: Generator[Step, None, Comparison]) -> Generator[Step, None, Comparison]:
    """The same steps, told on a terminal."""
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            result: Comparison = done.value
            return result
        if sys.stderr.isatty():
            end = "\n" if step.done == step.total else ""
            sys.stderr.write(f"\r{step.what:<12} {step.done}/{step.total} {end}")
            sys.stderr.flush()
        yield step


def _number(value: float) -> float | None:
    """For JSON, which knows neither nan nor inf; where two pictures are equal, the error of 0 says so."""
    return value if math.isfinite(value) else None


def _report(result: Comparison, args: argparse.Namespace, wanted: Wanted) -> dict[str, object]:
    names = [n for n in result.per_frame if n not in ("warp_error_a", "warp_error_b", "seen")]
    return {
        "a": args.a,
        "b": args.b,
        "frames": list(result.frames),
        "size": list(result.size),
        "mask": args.matte or args.mask or None,
        "guide": args.guide or args.a,
        "lpips": wanted.perceptual.name if wanted.perceptual else None,
        "faces": result.faces or "found in both",
        **result.extra,
        "b_from_a": {name: _number(result.mean(name)) for name in names},
        "warp_error": {"a": _number(result.mean("warp_error_a")), "b": _number(result.mean("warp_error_b"))},
        "landmark_jitter": {"a": _number(result.jitter_a), "b": _number(result.jitter_b)},
        "profile": {"column": result.line.column, "row": result.line.row},
        "per_frame": {name: [_number(float(v)) for v in values] for name, values in result.per_frame.items()},
    }


def _table(result: Comparison, args: argparse.Namespace, wanted: Wanted, store: ModelStore) -> list[str]:
    width, height = result.size
    lines = [
        f"A  {args.a}",
        f"B  {args.b}",
        f"{len(result.frames)} frames {format_frames(result.frames)}, {width}x{height}"
        + (f", inside {args.matte or args.mask}" if args.matte or args.mask else ""),
        "",
        f"{'':<36}{'A':>10}{'B':>10}{'B from A':>12}",
    ]
    for name, label in _LABELS.items():
        if name in result.per_frame:
            label = wanted.perceptual.name if name == "lpips" and wanted.perceptual else label
            lines.append(f"{label:<36}{'':>20}{_text(result.mean(name)):>12}")
    pairs = (
        ("flow-warp error (x 1e-4)", 1e4 * result.mean("warp_error_a"), 1e4 * result.mean("warp_error_b")),
        ("landmark jitter (% of eye distance)", result.jitter_a, result.jitter_b),
    )
    for label, first, second in pairs:
        ratio = f"x {second / first:.2f}" if first > 0 and math.isfinite(second) else "-"
        lines.append(f"{label:<36}{_text(first):>10}{_text(second):>10}{ratio:>12}")
    if wanted.perceptual is None:
        lines.append(f"LPIPS: not imported; faceplate models show {LPIPS_HEADS['alex']}, {LPIPS_TRUNKS['alex']}")
    if wanted.faces and IDENTITY not in store:
        lines.append(f"identity: not imported; faceplate models show {IDENTITY}")
    if result.faces:
        lines.append(f"faces: {result.faces}")
    return lines


def _text(value: float) -> str:
    if math.isinf(value):
        return "equal"
    return "-" if math.isnan(value) else f"{value:.4g}"


def _write(folder: Path, result: Comparison, report: dict[str, object]) -> None:
    line = result.line
    where = f"column {line.column}" if line.row is None else f"row {line.row}"
    sheet = profile_sheet(
        {f"A, {where} over time": result.profiles[0], "B": result.profiles[1]}, vertical=line.row is None
    )
    done, png = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
    try:
        if not done:
            raise OSError("the picture cannot be encoded")
        write_whole(folder / "profile.png", png.tobytes())
        write_whole(folder / "metrics.json", msgspec.json.format(msgspec.json.encode(report), indent=1))
    except OSError as error:
        raise PlateError(
            "plate.write_failed",
            f"the report cannot be written: {error.strerror or error}",
            path=str(folder),
            remedy="Choose another folder with --out.",
        ) from error
    sys.stderr.write(f"wrote {folder / 'metrics.json'} and {folder / 'profile.png'}\n")
