"""Installing into Nuke: one folder of our own, and one marked line in an `init.py` that puts it on Nuke's plugin path.

    DIR/init.py                       one line, at the end; everything else in it stays byte for byte
    DIR/faceplate/installed.json      every file we wrote, and the Python that can start a server
    DIR/faceplate/lib/                host_bridge, panels, nuke_scripts: nothing else of this Python is shown to Nuke
    DIR/faceplate/vendor/cp311/       pyzmq for that Python of Nuke's

DIR is `~/.nuke`, or a folder that is on NUKE_PATH already. Uninstalling removes exactly what the list names.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from host_bridge import __version__
from host_bridge.errors import HostError
from host_bridge.files import write_whole
from host_bridge.hosts.base import Finding

PACKAGES = ("host_bridge", "panels", "nuke_scripts")
PYTHONS = ("3.10", "3.11")  # Nuke 15; Nuke 16 and 17
PYZMQ = "pyzmq>=26"
MANIFEST = "installed.json"
_MARK = b"# faceplate: this line is added and removed by `faceplate install nuke` and `faceplate uninstall nuke`"


@dataclass(frozen=True)
class Installed:
    """What an installation wrote. `files` are relative to DIR/faceplate; the rest says how init.py was found."""

    version: str
    python: str
    files: tuple[str, ...]
    init_created: bool = False
    newline_added: bool = False
    pyzmq: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nuke-path", default="", metavar="DIR", help="a folder on NUKE_PATH, for a whole studio (default: ~/.nuke)"
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="X.Y",
        help=f"a Python of Nuke's to fetch pyzmq for; repeat it for more (default: {', '.join(PYTHONS)})",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheels", default="", metavar="DIR", help="take pyzmq's wheels from there, without a network")
    source.add_argument("--no-pyzmq", action="store_true", help="Nuke's Python finds a pyzmq of the studio's own")


def install(args: argparse.Namespace) -> Iterator[Finding]:
    """Install, or install again over an older one. Raises HostError (`host.install`)."""
    folder = nuke_folder(args.nuke_path)
    target = folder / "faceplate"
    before = read_installed(target)
    if before is None and target.exists():
        raise HostError(
            "host.install",
            "there is a folder of that name that `faceplate install` did not write",
            path=str(target),
            remedy="Move it away, or choose another folder with --nuke-path.",
        )
    fresh = folder / f".faceplate.{os.getpid()}"
    try:
        fresh.mkdir(parents=True)
        _copy_packages(fresh / "lib")
        pythons = () if args.no_pyzmq else args.python or PYTHONS
        vendored = [_vendor(fresh, version, args.wheels) for version in pythons]
        line = _line(target / "lib" / "nuke_scripts")
        init, created, newline = _with_line(folder / "init.py", line, before)
        files = sorted(p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file())
        record = Installed(__version__, sys.executable, (MANIFEST, *files), created, newline, not args.no_pyzmq)
        (fresh / MANIFEST).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        if before is not None:
            _remove_files(target, before)
        _merge(fresh, target)
        _write(folder / "init.py", init)
    except OSError as error:
        raise _refused(error, folder) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    yield Finding("nuke", "ok", f"Faceplate {__version__} in {target}, one line in {folder / 'init.py'}")
    yield from vendored
    if args.nuke_path and not _on_nuke_path(folder):
        yield Finding(
            "nuke", "note", f"{folder} is not on NUKE_PATH here", f"Add it where Nuke is started: NUKE_PATH={folder}"
        )


def uninstall(args: argparse.Namespace) -> Iterator[Finding]:
    """Remove what `install` wrote, and nothing else. Raises HostError (`host.install`)."""
    folder = nuke_folder(args.nuke_path)
    target = folder / "faceplate"
    before = read_installed(target)
    if before is None:
        yield Finding("nuke", "note", f"nothing of Faceplate's is installed in {folder}")
        return
    try:
        init = folder / "init.py"
        if init.exists():
            rest = _without_line(init.read_bytes(), before.newline_added)
            if rest or not before.init_created:
                _write(init, rest)
            else:
                init.unlink()
        left = _remove_files(target, before)
    except OSError as error:
        raise _refused(error, folder) from error
    yield Finding("nuke", "ok", f"removed from {folder}")
    if left:
        yield Finding("nuke", "note", f"{target} stays: it holds {left} files that are not Faceplate's")


def diagnose() -> Iterator[Finding]:
    """The installations in `~/.nuke` and on NUKE_PATH: whole, of this version, with pyzmq for which Pythons."""
    places = {nuke_folder(""), *(Path(p) for p in os.environ.get("NUKE_PATH", "").split(os.pathsep) if p)}
    found = [(folder, record) for folder in sorted(places) if (record := read_installed(folder / "faceplate"))]
    if not found:
        yield Finding("nuke", "note", "not installed in ~/.nuke or on NUKE_PATH", "Run: faceplate install nuke")
    for folder, record in found:
        again = "Run: faceplate install nuke" + ("" if folder == nuke_folder("") else f" --nuke-path {folder}")
        target = folder / "faceplate"
        lost = [name for name in record.files if not (target / name).is_file()]
        init = folder / "init.py"
        pythons = sorted(p.name for p in (target / "vendor").glob("cp*") if (p / "zmq").is_dir())
        if lost:
            yield Finding("nuke", "missing", f"{len(lost)} files are gone from {target}, first {lost[0]}", again)
        elif not init.is_file() or _MARK not in init.read_bytes():
            yield Finding("nuke", "missing", f"{init} has lost Faceplate's line", again)
        elif record.version != __version__:
            yield Finding("nuke", "note", f"{folder} has Faceplate {record.version}, this is {__version__}", again)
        elif not pythons and record.pyzmq:
            yield Finding("nuke", "missing", f"no pyzmq for any of Nuke's Pythons in {target}", again)
        else:
            yield Finding(
                "nuke", "ok", f"{folder}, pyzmq for {', '.join(pythons) or 'no Python: the studio has its own'}"
            )
        if not Path(record.python).exists():
            yield Finding(
                "nuke", "missing", f"the Python that starts servers from Nuke is gone: {record.python}", again
            )


def nuke_folder(text: str) -> Path:
    """The folder that gets the line: the one given, or Nuke's own folder in the home folder."""
    return Path(os.path.abspath(os.path.expanduser(text))) if text else Path.home() / ".nuke"


def read_installed(target: Path) -> Installed | None:
    """The list of an installation; None where there is none. Raises HostError (`host.install`) if it is damaged."""
    try:
        data = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(str(name) for name in data["files"])
        flags = (bool(data["init_created"]), bool(data["newline_added"]), bool(data["pyzmq"]))
        return Installed(str(data["version"]), str(data["python"]), files, *flags)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(
            "host.install",
            f"the list of installed files cannot be read: {error}",
            path=str(target / MANIFEST),
            remedy=f"Remove the folder {target} and Faceplate's line in init.py by hand, then install again.",
        ) from error


def vendor_folder(target: Path, version: tuple[int, int]) -> Path:
    """Where pyzmq for that Python lies."""
    return target / "vendor" / f"cp{version[0]}{version[1]}"


# -- files -------------------------------------------------------------------------------------------------------------


def _copy_packages(lib: Path) -> None:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise HostError(
                "host.install", f"the package {name} is not here", value=name, remedy="Reinstall Faceplate."
            )
        shutil.copytree(
            spec.submodule_search_locations[0], lib / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
        )


def _merge(fresh: Path, target: Path) -> None:
    """Move the new files to where they belong; what is there and not ours stays."""
    for path in sorted(p for p in fresh.rglob("*") if p.is_file()):
        goal = target / path.relative_to(fresh)
        goal.parent.mkdir(parents=True, exist_ok=True)
        path.replace(goal)


def _remove_files(target: Path, installed: Installed) -> int:
    """Remove the listed files, the byte code Nuke made of them and empty folders; how many files are left."""
    root = target.resolve()
    for name in installed.files:
        path = (target / name).resolve()
        if root in path.parents:  # a list that was tampered with reaches nothing outside
            path.unlink(missing_ok=True)
            if path.suffix == ".py":
                for code in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                    code.unlink()
    for directory in sorted((p for p in target.rglob("*") if p.is_dir()), reverse=True):
        if not any(directory.iterdir()):
            directory.rmdir()
    left = sum(p.is_file() for p in target.rglob("*"))
    if not left and target.is_dir():
        target.rmdir()
    return left


def _line(scripts: Path) -> bytes:
    return f"import nuke; nuke.pluginAddPath({scripts.as_posix()!r})  ".encode() + _MARK


def _with_line(init: Path, line: bytes, before: Installed | None) -> tuple[bytes, bool, bool]:
    """init.py's new content, whether there was none, and whether its last line had no end."""
    content, created = b"", not init.exists()
    if not created:
        content = _without_line(init.read_bytes(), bool(before and before.newline_added))
        created = bool(before and before.init_created and not content)
    end = b"\r\n" if b"\r\n" in content else b"\n"
    open_end = bool(content) and not content.endswith((b"\n", b"\r"))
    return content + (end if open_end else b"") + line + end, created, open_end


def _without_line(content: bytes, newline_added: bool) -> bytes:
    lines = content.splitlines(keepends=True)
    ours = [index for index, text in enumerate(lines) if text.rstrip(b"\r\n").endswith(_MARK)]
    for index in reversed(ours):
        if newline_added and 0 < index == len(lines) - 1:
            lines[index - 1] = lines[index - 1].rstrip(b"\r\n")
        del lines[index]
    return b"".join(lines)


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, keeping its mode and following a link to where the studio keeps it."""
    write_whole(Path(os.path.realpath(path)), content, keep_mode=True)


def _refused(error: OSError, folder: Path) -> HostError:
    return HostError(
        "host.install",
        f"cannot write: {error.strerror or error}",
        path=str(error.filename or folder),
        remedy="Choose a folder of your own with --nuke-path, or ask whoever may write there.",
    )


def _on_nuke_path(folder: Path) -> bool:
    return any(Path(p) == folder for p in os.environ.get("NUKE_PATH", "").split(os.pathsep) if p)


# -- pyzmq -------------------------------------------------------------------------------------------------------------


def pip_words(version: str, target: Path, wheels: str = "", machine: Mapping[str, str] | None = None) -> list[str]:
    """The command that puts pyzmq for another Python into `target`. `machine` overrides `system` and `machine`."""
    found = {"system": platform.system(), "machine": platform.machine(), **(machine or {})}
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(found["machine"].lower(), found["machine"].lower())
    if found["system"] == "Windows":
        tags = ["win_amd64" if arch == "x86_64" else "win_arm64"]
    elif found["system"] == "Darwin":
        name = "arm64" if arch == "aarch64" else arch
        tags = [f"macosx_{v}_{a}" for v in ("11_0", "10_15", "10_9") for a in ("universal2", name)]
    else:  # Nuke 15 needs glibc 2.28
        tags = [f"manylinux_2_28_{arch}", f"manylinux_2_26_{arch}", f"manylinux_2_17_{arch}", f"manylinux2014_{arch}"]
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    for tag in tags:
        words += ["--platform", tag]
    if wheels:
        words += ["--no-index", "--find-links", os.path.abspath(os.path.expanduser(wheels))]
    return [*words, "--target", str(target), PYZMQ]


def _vendor(fresh: Path, version: str, wheels: str) -> Finding:
    """Fetch pyzmq for one of Nuke's Pythons; a finding either way, because the rest works without it."""
    parts = version.split(".")
    if len(parts) != 2 or not all(p.isdigit() for p in parts):
        raise HostError(
            "host.install", f"not a Python version: {version!r}", value=version, remedy="Write --python 3.11."
        )
    folder = vendor_folder(fresh, (int(parts[0]), int(parts[1])))
    try:
        done = subprocess.run(
            pip_words(version, folder, wheels), capture_output=True, text=True, timeout=300, check=False
        )
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    if not said and (folder / "zmq").is_dir():
        return Finding("nuke", "ok", f"pyzmq for Python {version}")
    shutil.rmtree(folder, ignore_errors=True)
    why = said[0] if said else "pip put nothing there"
    return Finding(
        "nuke",
        "missing",
        f"pyzmq for Python {version} could not be fetched: {why}",
        f"On a machine with a network: pip download --no-deps --only-binary=:all: --python-version {version} "
        f"--platform manylinux2014_x86_64 -d wheels '{PYZMQ}'; then install again with --wheels wheels.",
    )
