"""Commands that start, stop and look at the server."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from host_bridge import launcher
from host_bridge.endpoint import CONNECTION_FILE
from host_bridge.errors import ExitCode, RequestError


def add_parsers(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument(
        "--device",
        default="",
        help="cpu, mps, or cuda:0,cuda:1: one worker process each (default: every GPU, else cpu)",
    )
    serve.add_argument(
        "--bind", default="", metavar="ENDPOINT", help="tcp://address:port (default: a free port on this machine only)"
    )
    serve.add_argument("--config", default="", metavar="FOLDER", help="folder of server.toml and certificates")
    serve.add_argument("--detach", action="store_true", help="run in the background")
    serve.add_argument(
        "--runtime", default="", metavar="FOLDER", help="a server of its own, with its keys and jobs in this folder"
    )
    serve.add_argument(
        "--announce",
        choices=("openjd",),
        default="",
        metavar="openjd",
        help="with --detach: let the following tasks of an Open Job Description session find the server",
    )
    serve.set_defaults(run=_serve)
    stop = commands.add_parser("stop", help="stop the server; unfinished jobs go on at its next start")
    stop.add_argument("--server", default="", metavar="ENDPOINT")
    stop.set_defaults(run=_stop)
    status = commands.add_parser("status", help="show whether a server runs, on what, and how busy it is")
    status.add_argument("--server", default="", metavar="ENDPOINT")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)


def _serve(args: argparse.Namespace) -> int:
    settings: dict[str, Any] = {}
    if args.device:
        settings["devices"] = args.device.split(",")
    if args.bind:
        settings["bind"] = args.bind
    if args.runtime:
        folder = os.path.abspath(args.runtime)
        settings |= {"runtime": folder, "state": os.path.join(folder, "state")}
    if args.config:
        os.environ["FACEPLATE_CONFIG"] = os.path.abspath(args.config)
    if args.announce and not (args.detach and args.runtime):
        raise RequestError(
            "request.bad_value",
            "--announce is for a server in the background with a folder of its own",
            value=args.announce,
            remedy="Add --detach and --runtime FOLDER.",
        )
    if not args.detach:
        return launcher.serve_foreground(settings)
    connection = launcher.serve_detached(settings)
    if args.announce == "openjd":
        print(f"openjd_env: FACEPLATE_SERVER={os.path.join(settings['runtime'], CONNECTION_FILE)}")
    print(f"serving on {connection.endpoint} (pid {connection.pid})")
    return int(ExitCode.OK)


def _stop(args: argparse.Namespace) -> int:
    print("stopped" if launcher.stop(args.server or None) else "no server was running")
    return int(ExitCode.OK)


def _status(args: argparse.Namespace) -> int:
    found = launcher.status(args.server or None)
    if args.json:
        print(json.dumps(found, indent=1))
        return int(ExitCode.OK)
    welcome, pong = found["welcome"], found["pong"]
    print(f"{welcome['server']} (pid {welcome['pid']}) on {found['endpoint']}, ping {1000 * found['ping_s']:.1f} ms")
    print(f"{pong['running']} running, {pong['queued']} queued, log {welcome['log']}")
    for device in pong["devices"]:
        used, whole = device["memory_used"] / 2**30, device["memory_total"] / 2**30
        memory = f"{used:.1f} of {whole:.1f} GiB" if whole else ""
        print(
            f"  {device['device']:<8} {device['state']:<10} {device['name']} {memory} {device['job_id'][:12]}".rstrip()
        )
    return int(ExitCode.OK)
