"""A small effect with two long steps, for tests, also in processes of their own.

`adapt` counts: each iteration makes a number out of the one before, so that a part that is left out or done twice
gives another result. `expression` does the same from what `adapt` found and the strengths over the shot; it is only
needed where there are edits. The environment says where the log is, how long an iteration takes, and where one hangs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues
from host_bridge.files import write_whole
from inference_server.config import ServerConfig
from inference_server.effects import registry
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData, ShotView, StepView
from inference_server.effects.steps import PREVIEW, RUN, StepResult, note_result
from inference_server.faces.types import FaceFrame
from inference_server.pipeline import PipelineRunner
from inference_server.plates.types import Window
from inference_server.runs import Progress, RunEvent
from tests.inference_server.staged import DESCRIPTOR

LOG, HANG, PACE = "STAGED_LOG", "STAGED_HANG", "STAGED_PACE"
EVERY = 2  # iterations from one checkpoint to the next


def said() -> list[str]:
    """The lines of the log."""
    path = Path(os.environ[LOG])
    return path.read_text().splitlines() if path.is_file() else []


def _say(line: str) -> None:
    with open(os.environ[LOG], "a") as log:
        log.write(f"{line}\n")


class Staged:
    """See the module."""

    def __init__(self, resources: Resources) -> None:
        self.device = resources.device

    @property
    def descriptor(self) -> EffectDescriptor:
        return DESCRIPTOR

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        x0, y0, x1, y1 = face.box
        return Window(int(x0) - 20, int(y0) - 20, int(x1) + 20, int(y1) + 20)

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        return {"salt": values.at(0)["salt"]}

    def analyse(self, shot: ShotView) -> Generator[RunEvent, None, None]:
        _say(f"learn {shot.track}")
        shot.put("track", np.array(shot.track))
        yield Progress("prepare", 1, 1)

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        return {}

    def models(self, values: EffectValues) -> Mapping[str, str]:
        return {"no-network": "0" * 64}

    def steps(self, values: EffectValues) -> tuple[str, ...]:
        return ("adapt", "expression") if values.edits else ("adapt",)

    def step_key(self, step: str, values: EffectValues, frames: Sequence[int]) -> Mapping[str, Any]:
        at = values.at(0)
        if step == "adapt":
            return {"iterations": at["iterations"], "start": at["start"]}
        return {"iterations": at["iterations"], "strengths": [list(values.edits_at(f)) for f in frames]}

    def kept_as(self, step: str, values: EffectValues) -> str:
        return str(values.at(0)["actor"]) if step == "adapt" else ""

    def run_step(self, step: str, shot: StepView) -> Generator[RunEvent, None, None]:
        at = shot.values.at(0)
        wanted = int(float(str(at["iterations"])))
        state = shot.folder / RUN / "state.json"
        done, number = 0, self._start(step, shot)
        if state.is_file():
            done, number = json.loads(state.read_text())
        _say(f"{step} {shot.track} from {done}")

        def save() -> None:
            write_whole(state, json.dumps([done, number]).encode())
            write_whole(shot.folder / "number.json", json.dumps(number).encode())
            picture = np.full((8, 8, 3), number % 256, np.uint8)
            cv2.imwrite(str(shot.folder / PREVIEW), picture)
            note_result(shot.folder, StepResult(done, wanted, {"number": number}))

        try:
            while done < wanted:
                time.sleep(float(os.environ.get(PACE, "0")))
                number = (number * 6364136223846793005 + 1442695040888963407) % (1 << 31)
                done += 1
                if done % EVERY == 0:
                    save()
                if f"{step} {done}" == os.environ.get(HANG):
                    _say("hanging")
                    time.sleep(100)
                yield Progress(step, done, wanted, f"loss {1 / done:.4f}", str(shot.folder / PREVIEW))
        except GeneratorExit:
            save()
            raise
        save()
        _say(f"{step} {shot.track} done")

    def _start(self, step: str, shot: StepView) -> int:
        if step == "expression":
            strengths = json.dumps([shot.values.edits_at(f) for f in shot.frames])
            return int(found(shot.data.steps["adapt"]) + sum(strengths.encode()))
        source = str(shot.values.at(0)["start"])
        return found(shot.earlier(source)) if source else shot.track

    def render(self, face: FaceInput) -> EffectOutput:
        """Grey without any step; with them, a colour that both decide."""
        colour = [found(folder) % 1000 / 1000 for _, folder in sorted(face.shot.steps.items())]
        tint = torch.tensor([*colour, 0.5, 0.5, 0.5][:3])[:, None, None]
        amount = float(str(face.values["amount"]))
        return EffectOutput(face.mattes["face"], picture=torch.lerp(face.picture, tint.expand_as(face.picture), amount))


def found(folder: Path) -> int:
    """The number a step came to."""
    return int(json.loads((folder / "number.json").read_text()))


def register() -> None:
    """Make it known beside the effects that there are."""
    registry._EFFECTS["staged"] = (DESCRIPTOR, "tests.inference_server.staged_effect:Staged")


def open_staged(device: str, settings: ServerConfig) -> PipelineRunner:
    """The real pipeline that knows it: a server's `runner`."""
    register()
    return PipelineRunner(device, settings)
