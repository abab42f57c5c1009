"""Writes a TorchScript file with the torch that runs this, loads it again and tries it: `python -m ... REQUEST.json`.

The request names the weights (a tensors-only .pt), the widths, the file to write and where to leave what was tried.
Run by the interpreter that has the host's torch, with nothing of Faceplate installed there.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference_server.export.hosted import hosted

SIZES = ((64, 64), (37, 50), (270, 480))


def trial(size: tuple[int, int]) -> Tensor:
    """The picture that both sides try: [1, 3, H, W], scene-linear with values below 0 and above 1."""
    height, width = size
    y = torch.linspace(0.0, 1.0, height)[:, None]
    x = torch.linspace(0.0, 1.0, width)[None, :]
    return torch.stack([x + 0.0 * y, y + 0.0 * x, 4.0 * x * y - 0.1])[None]


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Do it; what was tried, as JSON: `torch`, and lists of `tried` and `untried`."""
    state = torch.load(request["state"], weights_only=True)
    module = hosted(state, request["widths"], mixes=request["mixes"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format is the host's choice
        script = torch.jit.script(module)  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        script.save(request["output"])  # type: ignore[no-untyped-call, unused-ignore]
        loaded = torch.jit.load(request["output"])  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
    tried, untried = [f"loads in torch {torch.__version__}"], []
    pictures = {}
    with torch.no_grad():
        for size in SIZES:
            pictures[f"{size[0]}x{size[1]}"] = loaded(trial(size))
        tried.append("float on the CPU, sizes " + ", ".join(pictures))
        for row in range(1, len(request["mixes"])):
            loaded.style = float(row)
            pictures[f"style {row}"] = loaded(trial(SIZES[1]))
        if len(request["mixes"]) > 1:
            tried.append(f"the attribute style draws each of {len(request['mixes'])}")
        loaded.style = 0.0
        loaded.strength = 0.0
        if torch.equal(loaded(trial(SIZES[0])), trial(SIZES[0])):
            tried.append("the attribute strength acts, and 0 is the input")
        if torch.cuda.is_available():
            half = loaded.half().cuda()
            half.strength = 1.0
            apart = (half(trial(SIZES[0]).half().cuda()).cpu().float() - pictures["64x64"]).abs().max()
            tried.append(f"half on {torch.cuda.get_device_name()}, {float(apart):.2g} from float")
        else:
            untried.append("half and CUDA: no GPU here")
    torch.save(pictures, request["pictures"])
    return {"torch": torch.__version__, "tried": tried, "untried": untried}


def main(path: str) -> int:
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    Path(request["report"]).write_text(json.dumps(write(request)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
