"""A small effect that learns something of a shot, and says so in a log: for tests, also in processes of their own.

What it learns of a frame is the mean of the face there and of all frames before, so that a part of a shot would give
another result. The environment says where the log is, and where it should hang.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues, Param
from inference_server.effects import registry
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData, ShotView
from inference_server.effects.common import composite_params
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window
from inference_server.runs import Progress, RunEvent

LOG, HANG = "LEARNING_LOG", "LEARNING_HANG"
DESCRIPTOR = EffectDescriptor(
    "learning",
    "Learning",
    "1",
    "stylize",
    "Paints the face in the mean of its frames.",
    params=(
        Param("reach", "double", "Reach", 1.0, "What is learned depends on it.", 0.5, 2.0, 0.5, 2.0, animates=False),
        Param("amount", "double", "Amount", 1.0, "What is learned does not.", 0.0, 1.0, 0.0, 1.0),
        *composite_params("replace", True),
    ),
)


def said() -> list[str]:
    """The lines of the log."""
    path = Path(os.environ[LOG])
    return path.read_text().splitlines() if path.is_file() else []


def _say(line: str) -> None:
    with open(os.environ[LOG], "a") as log:
        log.write(f"{line}\n")


class Learning:
    """See the module."""

    descriptor = DESCRIPTOR

    def __init__(self, resources: Resources) -> None:
        self.device = resources.device

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        reach = float(shot.arrays["reach"]) if "reach" in shot.arrays else 1.0
        x0, y0, x1, y1 = face.box
        more = (x1 - x0) * 0.2 * reach
        return Window(int(x0 - more), int(y0 - more), int(x1 + more), int(y1 + more))

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        return {"reach": values.at(0)["reach"]}

    def analyse(self, shot: ShotView) -> Generator[RunEvent, None, None]:
        _say(f"learn {shot.track} {len(shot.frames)}")
        total = np.zeros(3, np.float32)
        for done, face in enumerate(shot.inputs(shot.frames, lambda f: self.region(f, {})), 1):
            total += face.picture.mean(dim=(1, 2)).cpu().numpy()
            shot.put_maps(face.frame, {"mean": total / done})
            yield Progress("prepare", done, len(shot.frames))
            if done == 2 and os.environ.get(HANG):
                _say("hanging")
                time.sleep(float(os.environ[HANG]))
        if shot.style is not None:
            shot.put("style", shot.style.mean(dim=(1, 2)).cpu().numpy())
        shot.put("reach", np.array(float(str(shot.values.at(0)["reach"]))))
        shot.put("window", np.array([shot.window.width, shot.window.height]))
        _say("learned")

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        return {"faces": len(shots)}

    def models(self, values: EffectValues) -> Mapping[str, str]:
        return {"no-network": "0" * 64}

    def render(self, face: FaceInput) -> EffectOutput:
        mean = torch.from_numpy(face.shot.maps(face.face.frame)["mean"])[:, None, None]
        if "style" in face.shot.arrays:
            mean = torch.from_numpy(face.shot.arrays["style"])[:, None, None]
        amount = float(str(face.values["amount"]))
        return EffectOutput(face.mattes["face"], picture=torch.lerp(face.picture, mean.expand_as(face.picture), amount))


def register() -> None:
    """Make it known beside the effects that there are."""
    registry._EFFECTS["learning"] = (DESCRIPTOR, "tests.inference_server.learning_effect:Learning")
