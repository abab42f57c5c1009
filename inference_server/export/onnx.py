"""ONNX with Flame's JSON beside it: stage one of the two-stage network for hosts that read ONNX.

Flame gives display-encoded or scene-linear pictures; this file takes display-encoded sRGB in 0..1 and says so in its
JSON, so that the artist's colour management is before and after it. Height and width are free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from host_bridge.errors import ExportError
from inference_server.export.cattery import Export
from inference_server.export.hosted import hosted
from inference_server.export.scripting import SIZES, trial
from inference_server.export.styles import ALONE, Drawn
from inference_server.models.store import StoredModel

OPSET = 18
_CLOSE = 2e-4


def export_onnx(
    model: StoredModel, state: dict[str, Tensor], widths: tuple[int, ...], path: Path, drawn: Drawn = ALONE
) -> Export:
    """Write `path` (.onnx) and the JSON beside it, and compare the file, run by onnxruntime, with the network.

    It draws the first of `drawn`.

    Raises ExportError `export.package` where onnx or onnxruntime are missing, `export.failed` where it differs.
    """
    runtime = _runtime()
    module = hosted(state, widths, linear=False, mixes=drawn.mixes[:1])
    path.parent.mkdir(parents=True, exist_ok=True)
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    program = torch.onnx.export(
        module,
        (torch.zeros(2, 3, 48, 80),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["plate"],
        output_names=["result"],
        dynamic_shapes=({0: batch, 2: height, 3: width},),
        verbose=False,
    )
    if program is None:
        raise _failed("the exporter made nothing", path)
    program.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    apart = 0.0
    with torch.no_grad():
        for size in SIZES:
            x = trial(size).clamp(0, 1)
            (found,) = session.run(None, {"plate": x.numpy()})
            apart = max(apart, float(np.abs(found - module(x).numpy()).max()))
    if not apart <= _CLOSE:
        path.unlink()
        raise _failed(f"it gives pictures {apart:.3g} away from the network's", path)
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(flame_json(model, drawn), indent=4) + "\n", encoding="utf-8", newline="\n")
    sizes = ", ".join(f"{h}x{w}" for h, w in SIZES)
    return Export(
        path.parent,
        (path, sidecar),
        (f"onnxruntime {runtime.__version__} on the CPU, sizes {sizes}: at most {apart:.1g} from the network",),
        ("Flame is not here",),
    )


def flame_json(model: StoredModel, drawn: Drawn = ALONE) -> dict[str, object]:
    """The description Flame reads beside an ONNX file of the same name."""
    return {
        "ModelDescription": {
            "MinimumVersion": "2025.1",
            "Name": model.card.title + (f" - {drawn.suffix}" if drawn.suffix else ""),
            "Description": f"{model.card.purpose} {model.licence}",
            "SupportsSceneLinear": False,
            "KeepAspectRatio": False,
            "Padding": 1,
            "Inputs": [
                {"Name": "plate", "Description": "sRGB picture", "Type": "Front", "Gain": 1.0, "Channels": "RGB"}
            ],
            "Outputs": [
                {
                    "Name": "result",
                    "Description": "Stylised picture",
                    "Type": "Result",
                    "InverseGain": True,
                    "ScalingFactor": 1.0,
                    "Channels": "RGB",
                }
            ],
        }
    }


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            "export.package",
            f"the package {error.name} is not installed",
            value=error.name,
            remedy="Run: pip install 'faceplate[export]'.",
        ) from error
    return onnxruntime


def _failed(why: str, path: Path) -> ExportError:
    return ExportError(
        "export.failed",
        f"the ONNX file cannot be used: {why}",
        path=str(path),
        remedy="Report this with the model's card.",
    )
