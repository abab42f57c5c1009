"""`faceplate install HOST` and `faceplate uninstall HOST`: what a host needs on its own paths, and nothing else.

A host is one line of `_HOSTS`: a module that offers `add_arguments(parser)`, `install(args) -> findings`,
`uninstall(args) -> findings` and `diagnose() -> findings`. The modules are imported when they are used.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

from host_bridge.errors import ExitCode
from host_bridge.hosts.base import Finding

# host, module, help
_HOSTS = (
    ("nuke", "host_bridge.hosts.nuke_install", "Nuke 15 to 17: the node, the menu and pyzmq for Nuke's Python"),
    ("resolve", "host_bridge.hosts.resolve_install", "DaVinci Resolve 19 or newer: menu scripts on two pages"),
)


class Installer(Protocol):
    """What a module of `_HOSTS` offers. All of it raises HostError (`host.install`, `host.missing`)."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def install(self, args: argparse.Namespace) -> Iterable[Finding]: ...

    def uninstall(self, args: argparse.Namespace) -> Iterable[Finding]: ...

    def diagnose(self) -> Iterable[Finding]: ...


def add_parsers(commands: Any) -> None:
    for command, text in (("install", "install Faceplate into"), ("uninstall", "remove Faceplate's own files from")):
        parser = commands.add_parser(command, allow_abbrev=False, help=f"{text} a host", description=f"{text} a host.")
        hosts = parser.add_subparsers(dest="host", required=True, metavar="HOST")
        for host, module, note in _HOSTS:
            one = hosts.add_parser(host, allow_abbrev=False, help=note, description=f"{text} {note}.")
            installer(module).add_arguments(one)
            one.set_defaults(run=_run, module=module, act=command)


def installer(module: str) -> Installer:
    """The installer of a host's module."""
    return cast(Installer, importlib.import_module(module))


def diagnose() -> Iterator[Finding]:
    """What is installed into which host, for `faceplate doctor`. A host that was never installed is a note."""
    for _, module, _ in _HOSTS:
        yield from installer(module).diagnose()


def _run(args: argparse.Namespace) -> int:
    found = list(getattr(installer(args.module), args.act)(args))
    for finding in found:
        print(f"{finding.state:<8} {finding.topic:<12} {finding.detail}")
        if finding.remedy:
            print(f"{'':<21} -> {finding.remedy}")
    return int(ExitCode.NO_SERVER if any(f.state == "missing" for f in found) else ExitCode.OK)
