"""What works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from host_bridge import __version__, launcher
from host_bridge.cli import install
from host_bridge.endpoint import runtime_dir
from host_bridge.errors import ExitCode, FaceplateError
from host_bridge.hosts.base import Finding

_OK, _BAD, _NOTE = "ok", "missing", "note"
_DISTRIBUTIONS = {"PySide6": "PySide6-Essentials"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Print every finding; exit status NO_SERVER when the main job cannot run here."""
    findings = list(examine())
    if args.json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.topic:<12} {finding.detail}")
            if finding.remedy:
                print(f"{'':<21} -> {finding.remedy}")
    return int(ExitCode.NO_SERVER if any(f.state == _BAD for f in findings) else ExitCode.OK)


def examine() -> Iterator[Finding]:
    """Every finding, one check after the other; a check that fails is a finding, not the end."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _color,
        _plates,
        _faces,
        _folders,
        _server,
        _panel,
        install.diagnose,
        _farms,
        _exports,
    )
    for check in checks:
        try:
            yield from check()
        except FaceplateError as error:
            yield Finding(check.__name__.strip("_"), _BAD, error.message, error.remedy)
        except (ImportError, OSError, RuntimeError) as error:
            name = check.__name__.strip("_")
            yield Finding(name, _BAD, f"{type(error).__name__}: {error}", "Reinstall: pip install 'faceplate[server]'.")


def _python() -> Iterator[Finding]:
    detail = f"Faceplate {__version__}, Python {sys.version.split()[0]}, {sys.executable}"
    try:
        launcher.check_server_python(missing=())
    except FaceplateError as error:
        yield Finding("python", _BAD, error.message, error.remedy)
        return
    yield Finding("python", _OK, detail)


def _packages() -> Iterator[Finding]:
    names = {"cv2": "opencv-python", "PyOpenColorIO": "opencolorio"}
    have, lacking = [], []
    for module in launcher.SERVER_PACKAGES:
        package = names.get(module, module)
        try:
            have.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            lacking.append(package)
    yield Finding("packages", _OK, ", ".join(have))
    if lacking:
        yield Finding("packages", _BAD, f"not installed: {', '.join(lacking)}", "pip install 'faceplate[server]'")


def _devices() -> Iterator[Finding]:
    torch: Any = importlib.import_module("torch")
    yield Finding("device", _OK, f"cpu, {os.cpu_count()} cores")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding("device", _OK, f"cuda:{index}, {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if not torch.cuda.is_available():
        yield Finding("device", _NOTE, "no GPU that torch can use; everything works, more slowly")


def _color() -> Iterator[Finding]:
    color: Any = importlib.import_module("inference_server.plates.color")
    config = color.ColorConfig()
    config.transform("")
    yield Finding("ocio", _OK, f"{config.source}, {len(config.spaces())} colourspaces, hash {config.hash}")


def _plates() -> Iterator[Finding]:
    """Writes a frame and reads it back, bit for bit."""
    numpy: Any = importlib.import_module("numpy")
    types: Any = importlib.import_module("inference_server.plates.types")
    writer: Any = importlib.import_module("inference_server.plates.writer")
    reader: Any = importlib.import_module("inference_server.plates.reader")
    ids = numpy.arange(64, dtype=numpy.uint32).reshape(8, 8) + numpy.uint32(0xFFFFFF00)
    window = types.Window(0, 0, 8, 8)
    channels = {**{c: numpy.full((8, 8), 37, numpy.float16) for c in "RGB"}, "id": ids}
    with tempfile.TemporaryDirectory(prefix="faceplate-") as folder:
        path = str(Path(folder) / "doctor.0001.exr")
        writer.write_plate(types.PlateFrame(1, "", (types.Part("", channels, window, window, 1.0),)), path)
        back = reader.read_plate(path).parts[0].channels
    same = all(numpy.array_equal(back[c], channels[c]) for c in channels)
    yield Finding(
        "exr", _OK if same else _BAD, "half and 32-bit ids " + ("round-trip" if same else "do NOT round-trip")
    )


def _faces() -> Iterator[Finding]:
    """Loads the detector and lets it look at an empty picture."""
    numpy: Any = importlib.import_module("numpy")
    analyse: Any = importlib.import_module("inference_server.faces.analyse")
    window = importlib.import_module("inference_server.plates.types").Window(0, 0, 320, 180)
    frame = analyse.Frame(1, numpy.zeros((180, 320, 3), numpy.float32), (0, 0))
    for _ in analyse.analyse_frames(iter([frame]), total=1, display_window=window, pixel_aspect=1.0):
        pass
    yield Finding("faces", _OK, "detector and landmarks load and run")


def _folders() -> Iterator[Finding]:
    config: Any = importlib.import_module("inference_server.config").load_config()
    for topic, folder in (("shots", config.shots_path), ("state", config.state_path)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free / 2**30
            yield Finding(topic, _OK, f"{folder}, {free:.0f} GiB free")
        except OSError as error:
            yield Finding(topic, _BAD, f"{folder}: {error.strerror}", "Set another folder in server.toml.")


def _server() -> Iterator[Finding]:
    try:
        found = launcher.status()
    except FaceplateError as error:
        if error.code == "server.not_running":
            yield Finding("server", _NOTE, f"not running ({runtime_dir()}); any command starts one")
        else:
            yield Finding("server", _BAD, error.message, error.remedy)
        return
    devices = ", ".join(f"{d['device']} {d['state']}" for d in found["pong"]["devices"])
    yield Finding("server", _OK, f"{found['endpoint']}, ping {1000 * found['ping_s']:.1f} ms, {devices}")


def _panel() -> Iterator[Finding]:
    """Whether `faceplate panel` can open here; Nuke and Resolve bring their own Qt or use this one."""
    found = [name for name in ("PySide6", "PySide2") if importlib.util.find_spec(name)]
    if found:
        yield Finding("panel", _OK, f"{found[0]} {importlib.metadata.version(_DISTRIBUTIONS.get(found[0], found[0]))}")
    else:
        yield Finding("panel", _NOTE, "no Qt here; the command line works", "pip install 'faceplate[panel]'")


def _farms() -> Iterator[Finding]:
    """What on this machine takes submissions."""
    found = {
        "openjd": shutil.which("openjd"),
        "Deadline Cloud": shutil.which("deadline"),
        "Deadline 10": shutil.which("deadlinecommand", path=os.environ.get("DEADLINE_PATH") or os.environ.get("PATH")),
        "OpenCue": importlib.util.find_spec("outline") and "PyOutline",
    }
    here = [f"{name} ({where})" for name, where in found.items() if where]
    yield Finding("farm", _NOTE, ", ".join(here) or "no farm's command here; `faceplate submit --write-only` works")


def _exports() -> Iterator[Finding]:
    lacking = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if lacking:
        yield Finding("export", _NOTE, f"not installed: {', '.join(lacking)}", "pip install 'faceplate[export]'")
    else:
        yield Finding("export", _OK, "ONNX; TorchScript for Nuke needs that Nuke's torch (--make-environment)")
