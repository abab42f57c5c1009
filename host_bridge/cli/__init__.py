"""`faceplate ...`: the command line. Decides the commands, what they print, and the exit status.

Commands that only talk to a server need nothing but the thin client. Those that work on this machine's files
(models, shots, demo, bench, doctor) import `inference_server` when they run, and say plainly what is missing if
that is not installed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from host_bridge.errors import ExitCode, FaceplateError

Command = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status (`host_bridge.errors.ExitCode`)."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    args.rest = rest
    if rest and not getattr(args, "takes_rest", False):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        run: Command = args.run
        with _terminated_as_interrupt():
            return run(args)
    except FaceplateError as error:
        show_error(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return int(ExitCode.CANCELLED)
    except BrokenPipeError:  # the reader of our output has gone: `faceplate jobs list | head`
        sys.stderr.close()
        return int(ExitCode.OK)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from host_bridge.cli import adapt, farm, install, jobs, local, panel, render, resolve, server

    parser = argparse.ArgumentParser(
        prog="faceplate",
        allow_abbrev=False,
        description="Portrait stylization and face editing inside the comp.",
        epilog="Exit status: " + ", ".join(f"{int(c)} {c.name.lower().replace('_', ' ')}" for c in ExitCode),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    render.add_parsers(commands)
    adapt.add_parsers(commands)
    panel.add_parsers(commands)
    jobs.add_parsers(commands)
    farm.add_parsers(commands)
    resolve.add_parsers(commands)
    server.add_parsers(commands)
    local.add_parsers(commands)
    install.add_parsers(commands)
    return parser


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """A farm's SIGTERM takes the same way as Ctrl-C; a second one kills."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_error(error: FaceplateError) -> None:
    """An error as the artist reads it: what happened and where, then what to do."""
    where = " ".join(
        part for part in (f"frame {error.frame}" if error.frame is not None else "", error.path or "") if part
    )
    print(f"error: {error.message}" + (f" [{where}]" if where else "") + f"  ({error.code})", file=sys.stderr)
    if error.remedy:
        print(f"       {error.remedy}", file=sys.stderr)
