"""Installing into Resolve: menu scripts in the user's own script folders, and nothing else.

    .../Fusion/Scripts/Edit/Faceplate Panel.py, Faceplate Status.py     menu Workspace > Scripts, on the Edit page
    .../Fusion/Scripts/Comp/...                                         the same on the Fusion page

A script holds two paths: the Python that Faceplate is installed in, and its `resolve_scripts/relay.py`. A file of that
name that does not carry our mark is somebody else's and stays.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from host_bridge.errors import HostError
from host_bridge.files import write_whole
from host_bridge.hosts.base import Finding
from host_bridge.hosts.resolve_api import script_paths

PAGES = ("Edit", "Comp")
SCRIPTS = {"Faceplate Panel.py": "faceplate_panel.py", "Faceplate Status.py": "faceplate_status.py"}
_MARK = "`faceplate install resolve` fills in the two paths."
_SHIPPED = Path(__file__).parent / "resolve_scripts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scripts",
        default="",
        metavar="DIR",
        help="a Fusion/Scripts folder (default: the user's own of this platform)",
    )


def install(args: argparse.Namespace) -> Iterator[Finding]:
    """Write the menu scripts, or write them again. Raises HostError (`host.install`)."""
    folder = scripts_folder(args.scripts)
    foreign = [path for path in _targets(folder) if path.exists() and not _ours(path)]
    if foreign:
        raise HostError(
            "host.install",
            "there is a script of that name that `faceplate install` did not write",
            path=str(foreign[0]),
            remedy="Rename it or move it away.",
        )
    try:
        for path, source in _targets(folder).items():
            write_whole(path, _filled(source).encode())
    except OSError as error:
        raise _refused(error, folder) from error
    yield Finding("resolve", "ok", f"{', '.join(SCRIPTS)} in {folder} ({' and '.join(PAGES)})")
    yield Finding("resolve", "note", "Resolve shows new scripts without a restart", "Workspace > Scripts")


def uninstall(args: argparse.Namespace) -> Iterator[Finding]:
    """Remove the menu scripts, and nothing else. Raises HostError (`host.install`)."""
    folder = scripts_folder(args.scripts)
    mine = [path for path in _targets(folder) if path.exists() and _ours(path)]
    if not mine:
        yield Finding("resolve", "note", f"nothing of Faceplate's is installed in {folder}")
        return
    try:
        for path in mine:
            path.unlink()
    except OSError as error:
        raise _refused(error, folder) from error
    yield Finding("resolve", "ok", f"removed {len(mine)} scripts from {folder}")


def diagnose() -> Iterator[Finding]:
    """The scripts in the user's own folders, what they point at, and whether Resolve can be asked from outside."""
    folder = scripts_folder("")
    again = "Run: faceplate install resolve"
    mine = [path for path in _targets(folder) if path.exists() and _ours(path)]
    if not mine:
        yield Finding("resolve", "note", f"not installed in {folder}", again)
    elif len(mine) < len(_targets(folder)):
        yield Finding("resolve", "missing", f"{len(mine)} of {len(_targets(folder))} scripts in {folder}", again)
    elif lost := sorted({text for path in mine for text in _paths_in(path) if not Path(text).exists()}):
        yield Finding("resolve", "missing", f"the scripts point at what is gone: {lost[0]}", again)
    elif any(path.read_text(encoding="utf-8") != _filled(source) for path, source in _targets(folder).items()):
        yield Finding("resolve", "note", f"the scripts in {folder} are of another installation or version", again)
    else:
        yield Finding("resolve", "ok", f"menu scripts in {folder}")
    api, lib = script_paths()
    if (api / "Modules" / "DaVinciResolveScript.py").is_file() and lib.is_file():
        yield Finding("resolve", "ok", f"scripting from outside (Studio) through {lib}")
    elif mine:
        yield Finding(
            "resolve",
            "note",
            f"`faceplate resolve` from a shell needs Resolve Studio's scripting modules, not in {api}",
            "Set RESOLVE_SCRIPT_API and RESOLVE_SCRIPT_LIB, or use Workspace > Scripts > Faceplate Panel.",
        )


def scripts_folder(
    text: str, environ: Mapping[str, str] = os.environ, platform: str = sys.platform, home: Path | None = None
) -> Path:
    """The folder given, or where Resolve looks for this user's scripts."""
    if text:
        return Path(os.path.abspath(os.path.expanduser(text)))
    home = home or Path.home()
    if platform == "win32":
        base = Path(environ.get("APPDATA") or home / "AppData/Roaming")
        return base / "Blackmagic Design/DaVinci Resolve/Support/Fusion/Scripts"
    if platform == "darwin":
        return home / "Library/Application Support/Blackmagic Design/DaVinci Resolve/Fusion/Scripts"
    return home / ".local/share/DaVinciResolve/Fusion/Scripts"


def _targets(folder: Path) -> dict[Path, Path]:
    """Where each script goes, and what it is made from."""
    return {folder / page / name: _SHIPPED / source for page in PAGES for name, source in SCRIPTS.items()}


def _filled(source: Path) -> str:
    """A script with its two paths."""
    text = source.read_text(encoding="utf-8")
    for name, value in (("PYTHON", sys.executable), ("RELAY", str(_SHIPPED / "relay.py"))):
        text = text.replace(f'{name} = ""', f"{name} = {value!r}", 1)
    return text


def _paths_in(path: Path) -> list[str]:
    found = re.findall(r"^(?:PYTHON|RELAY) = (['\"])(.*)\1", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [text.replace("\\\\", "\\") for _, text in found]


def _ours(path: Path) -> bool:
    try:
        return _MARK in path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _refused(error, path.parent) from error


def _refused(error: OSError, folder: Path) -> HostError:
    return HostError(
        "host.install",
        f"cannot write: {error.strerror or error}",
        path=str(error.filename or folder),
        remedy="Choose a folder of your own with --scripts, or ask whoever may write there.",
    )
