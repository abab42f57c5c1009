"""A Cattery folder for NukeX: the TorchScript file, the script that makes a .cat of it, the gizmo and cat.json.

A TorchScript file has to be written by a torch no newer than the one inside Nuke. Where the torch of this process is
newer, another interpreter is asked (`--python`), or an environment with that torch is made (`--make-environment`). A
.cat itself is written by NukeX's own CatFileCreator; that step, and Nuke, cannot be tried here, and the report says so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from host_bridge import __version__
from host_bridge.errors import ExportError
from inference_server.export.hosted import hosted
from inference_server.export.scripting import SIZES, trial
from inference_server.export.styles import ALONE, Drawn
from inference_server.models.store import StoredModel

# Nuke -> its own torch; Foundry's release notes
NUKE_TORCH = {
    "15": "2.1",
    "15.0": "2.1",
    "15.1": "2.1",
    "15.2": "2.1",
    "16": "2.1",
    "16.0": "2.1",
    "17": "2.7",
    "17.0": "2.7",
}
_PINNED = {"2.1": "2.1.2", "2.7": "2.7.1"}
_NUMPY = {"2.1": "numpy<2", "2.7": "numpy"}
_CLOSE = 2e-4  # between two torch versions, and between float sums in another order


@dataclass(frozen=True)
class Export:
    """What was written, and what could and could not be tried."""

    folder: Path
    files: tuple[Path, ...]
    tried: tuple[str, ...]
    untried: tuple[str, ...]


def torch_for(nuke: str) -> str:
    """The torch inside that Nuke, as "2.1". ExportError `export.host` for one that is not known."""
    if nuke not in NUKE_TORCH:
        raise ExportError(
            "export.host",
            f"the torch inside Nuke {nuke} is not known here",
            value=nuke,
            remedy=f"Known are {', '.join(NUKE_TORCH)}; give the older one, Nuke reads files of an older torch.",
        )
    return NUKE_TORCH[nuke]


def export_cattery(
    model: StoredModel,
    state: dict[str, Tensor],
    widths: tuple[int, ...],
    nuke: str,
    folder: Path,
    python: str = "",
    drawn: Drawn = ALONE,
) -> Export:
    """Write the Cattery folder of a translator for that Nuke, with the torch of `python` or of this process.

    Several drawings get a control, `style`, that goes from the first to the last.

    Raises ExportError: `export.host`, `export.torch` where that torch is newer than Nuke's, `export.failed` where the
    file does not give what the network gives.
    """
    wanted = torch_for(nuke)
    python = python or sys.executable
    _check_torch(python, wanted, nuke)
    name = _class_name(f"{model.id}-{drawn.suffix}")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.pt"
    tried, untried = _script(python, state, widths, drawn, script)
    texts = {
        f"{name}_make_cat.nk": _creator(name, drawn),
        f"{name}.gizmo": _gizmo(name, model, drawn),
        "cat.json": json.dumps(_cat(name, model, nuke), indent=2) + "\n",
        "init.py": _INIT,
    }
    untried = (*untried, f"CatFileCreator and Inference of Nuke {nuke}: Nuke is not here")
    report = {
        "model": model.id,
        "sha256": model.sha256,
        "licence": model.licence,
        "nuke": nuke,
        "styles": dict(zip(drawn.names, drawn.mixes, strict=True)),
        "tried": tried,
        "untried": untried,
        "faceplate": __version__,
    }
    texts["report.json"] = json.dumps(report, indent=2) + "\n"
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8", newline="\n")
    return Export(folder, (script, *(folder / file for file in texts)), tried, untried)


def make_environment(nuke: str, folder: Path) -> str:
    """A virtual environment with Nuke's torch, made by this Python; its interpreter. ExportError `export.torch`."""
    wanted = torch_for(nuke)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", f"torch=={_PINNED[wanted]}", _NUMPY[wanted]],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExportError(
                "export.torch",
                f"an environment with torch {wanted} cannot be made: {done.stderr.strip()[-400:]}",
                value=wanted,
                path=str(folder),
                remedy=f"Make one by hand, with a Python that torch {wanted} has packages for, and give its "
                "interpreter with --python.",
            )
    return str(python)


def _check_torch(python: str, wanted: str, nuke: str) -> None:
    if python == sys.executable:
        found = str(torch.__version__)
    else:
        asked = [python, "-c", "import torch; print(torch.__version__)"]
        try:
            found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            raise ExportError(
                "export.torch",
                f"{python} has no torch that can be asked: {error}",
                value=python,
                remedy=f"Give an interpreter with torch {wanted}.",
            ) from error
    if _numbers(found) > _numbers(wanted):
        raise ExportError(
            "export.torch",
            f"Nuke {nuke} has torch {wanted} inside and cannot read a file of torch {found}",
            value=found,
            remedy=f"Add --make-environment FOLDER, or --python with an interpreter that has torch {wanted}: "
            f"python3 -m venv t && t/bin/pip install torch=={_PINNED[wanted]} '{_NUMPY[wanted]}'.",
        )


def _script(
    python: str, state: dict[str, Tensor], widths: tuple[int, ...], drawn: Drawn, output: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    with tempfile.TemporaryDirectory(prefix="faceplate-export-") as work:
        there = Path(work)
        weights = there / "state.pt"
        request = {
            "state": str(weights),
            "widths": list(widths),
            "mixes": drawn.mixes,
            "output": str(output),
            "pictures": str(there / "pictures.pt"),
            "report": str(there / "report.json"),
        }
        torch.save(dict(state), weights)
        (there / "request.json").write_text(json.dumps(request), encoding="utf-8")
        root = Path(__file__).parents[2]
        command = [python, "-m", "inference_server.export.scripting", str(there / "request.json")]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExportError(
                "export.failed",
                f"the TorchScript file could not be written: {done.stderr.strip()[-600:]}",
                path=str(output),
                remedy="Report this with the model's card.",
            )
        report = json.loads((there / "report.json").read_text(encoding="utf-8"))
        pictures = torch.load(there / "pictures.pt", weights_only=True)
    module = hosted(state, widths, mixes=drawn.mixes)
    with torch.no_grad():
        apart = max(float((pictures[f"{h}x{w}"] - module(trial((h, w)))).abs().max()) for h, w in SIZES)
        for row in range(1, len(drawn.mixes)):
            module.style = float(row)
            apart = max(apart, float((pictures[f"style {row}"] - module(trial(SIZES[1]))).abs().max()))
    if not apart <= _CLOSE:
        output.unlink()
        raise ExportError(
            "export.failed",
            f"the TorchScript file gives pictures {apart:.3g} away from the network's",
            value=apart,
            path=str(output),
            remedy="Report this with the model's card.",
        )
    return (*report["tried"], f"at most {apart:.1g} from the network itself"), tuple(report["untried"])


def _numbers(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def _class_name(model_id: str) -> str:
    return "Faceplate" + "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", model_id))


_CHANNELS = "rgba.red, rgba.green, rgba.blue"

# Knobs whose names are the attributes of HostedTranslator; 7 is a double, 6 a check box.
_KNOBS = """\
 addUserKnob {20 User}
 addUserKnob {7 strength l Strength t "0 is the plate, 1 the stylised picture" R 0 1}
 strength 1
 addUserKnob {7 exposure l "Work exposure" t "Stops by which the plate is brightened for the network" R -4 4}
 exposure 0
"""

_INIT = '"""Nuke finds the gizmo of this folder."""\n\nimport nuke\n\nnuke.pluginAddPath(".")\n'


def _style_knob(drawn: Drawn) -> str:
    """A slider from style to style, where there are several."""
    if len(drawn.names) == 1:
        return ""
    said = ", ".join(f"{row} {style}" for row, style in enumerate(drawn.names)).replace('"', "'")
    return f' addUserKnob {{7 style l Style t "{said}; between two, a mix" R 0 {len(drawn.names) - 1}}}\n style 0\n'


def _creator(name: str, drawn: Drawn) -> str:
    """A script with one CatFileCreator: open it in NukeX and press Create .cat file and Inference."""
    return f"""\
CatFileCreator {{
 inputs 0
 torchScriptFile {name}.pt
 catFile {name}.cat
 channelsIn "{_CHANNELS}"
 channelsOut "{_CHANNELS}"
 modelId {name}
{_KNOBS}{_style_knob(drawn)} name CatFileCreator_{name}
}}
"""


def _gizmo(name: str, model: StoredModel, drawn: Drawn) -> str:
    """Inference between conversions from the script's working space to scene-linear Rec.709 and back."""
    label = (model.card.title + (f" - {drawn.suffix}" if drawn.suffix else "")).replace('"', "'")
    style = " addUserKnob {41 style l Style T Inference1.style}\n" if len(drawn.names) > 1 else ""
    return f"""\
Group {{
 name {name}
 help "{label}. {model.licence}. Made by Faceplate {__version__}."
 addUserKnob {{20 Faceplate}}
 addUserKnob {{41 strength l Strength T Inference1.strength}}
 addUserKnob {{41 exposure l "Work exposure" T Inference1.exposure}}
{style} addUserKnob {{41 useGPUIfAvailable l "Use GPU if available" T Inference1.useGPUIfAvailable}}
}}
 Input {{
  inputs 0
  name Input1
 }}
 OCIOColorSpace {{
  in_colorspace scene_linear
  out_colorspace "Linear Rec.709 (sRGB)"
  name ToRec709
 }}
 Inference {{
  modelFile {name}.cat
  name Inference1
 }}
 OCIOColorSpace {{
  in_colorspace "Linear Rec.709 (sRGB)"
  out_colorspace scene_linear
  name FromRec709
 }}
 Output {{
  name Output1
 }}
end_group
"""


def _cat(name: str, model: StoredModel, nuke: str) -> dict[str, object]:
    return {
        "minimum_nuke_version_required": float(nuke),
        "version": 1,
        "category": "Stylize",
        "description": f"{model.card.title} - {model.licence}",
        "cats": [{"filepath": f"{name}.gizmo", "name": name, "icon": ""}],
    }
