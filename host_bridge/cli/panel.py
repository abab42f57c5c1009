"""`faceplate panel`: the window. Qt and the panel are imported when it is opened."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from host_bridge.cli.options import absolute, add_command
from host_bridge.errors import PanelError
from host_bridge.hosts.base import Host


def add_parsers(commands: Any) -> None:
    panel = add_command(
        commands,
        "panel",
        help="open the panel: live preview, faces, keyframes, jobs, models",
        description="Open the panel in a window of its own. Nuke and Resolve open the same one from their menus.",
    )
    panel.add_argument("--in", dest="plate", default="", metavar="PATTERN", help="plate, e.g. shots/sh010.%%04d.exr")
    panel.add_argument("--effect", default="", metavar="NAME", help="effect to begin with; see `faceplate effects`")
    panel.add_argument("--colorspace", default="", metavar="NAME", help="the plate's OCIO colourspace")
    panel.add_argument("--out", default="", metavar="PATTERN", help="frames to write, e.g. renders/sh010.%%04d.exr")
    add_where(panel)
    panel.set_defaults(run=_panel)


def add_where(panel: argparse.ArgumentParser) -> None:
    """Which server the panel works with."""
    where = panel.add_argument_group("server").add_mutually_exclusive_group()
    where.add_argument(
        "--server", default="", metavar="ENDPOINT", help="tcp://host:port, or the path of a connection file"
    )
    where.add_argument("--no-start", action="store_true", help="use a server that runs, start none")


def _panel(args: argparse.Namespace) -> int:
    return open_panel(args)


def open_panel(args: argparse.Namespace, host: Host | None = None) -> int:
    """The panel, beside a host if one is given, until it is closed; the exit status."""
    try:
        app = importlib.import_module("panels.app")
        controller = importlib.import_module("panels.controller")
    except ImportError as error:
        raise PanelError(
            "panel.qt",
            f"the panel cannot be loaded: {error}",
            value=error.name or "",
            remedy="Run: pip install 'faceplate[panel]' (and on Linux the libraries it names, such as libegl1).",
        ) from error
    options = controller.PanelOptions(
        connect=args.server or ("attach" if args.no_start else "start"),
        plate=absolute(args.plate),
        effect=args.effect,
        colorspace=args.colorspace,
        output=absolute(args.out),
    )
    return int(app.run(options, host))
