"""Align a folder of pictures for training: each face into the square that face generators are trained on.

  faceplate train prepare --in pictures --out aligned

Every file is accounted for, on screen and in OUT/prepared.json. Exit status 4 when some could not be used. Drawings in
which no face is found are aligned by hand and prepared with --aligned; both may go into one folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from host_bridge.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--in", dest="source", type=Path, required=True, help="the folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="where aligned PNG files go")
    parser.add_argument("--size", type=_side, default=1024, help="of the generator, pixels (default: %(default)s)")
    parser.add_argument("--aligned", action="store_true", help="they are aligned squares; only scale them")


def _side(text: str) -> int:
    side = int(text)
    if not 32 <= side <= 2048 or side & (side - 1):
        raise argparse.ArgumentTypeError(f"{side} is not a power of two from 32 to 2048")
    return side


def run(args: argparse.Namespace) -> int:
    from inference_server.collections.prepare import prepare_pictures, unused

    done = []
    for picture in prepare_pictures(args.source, args.out, args.size, aligned=args.aligned):
        done.append(picture)
        made = picture.result or "not used"
        sys.stdout.write(f"{picture.source}: {made}" + (f" ({picture.note})" if picture.note else "") + "\n")
    lost = unused(done)
    sys.stdout.write(f"{len(done) - len(lost)} of {len(done)} pictures are in {args.out}\n")
    return ExitCode.FRAMES_FAILED if lost else ExitCode.OK
