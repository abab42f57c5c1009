"""A runner that copies plates byte for byte, one file per frame, and misbehaves on request.

`control.json` beside the plate says how: `step_s` per frame, `crash` and `hang` as {frame: how often}, `pause_s`
between writing the temporary file and asking `may_write`, `activity` text to report. What it did is appended to
`done.log`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from host_bridge.errors import EffectError, JobError
from host_bridge.jobspec import JobSpec, PreviewSpec
from host_bridge.messages import Faces
from inference_server.config import ServerConfig
from inference_server.runs import (
    FrameDone,
    FrameFailed,
    FrameStarted,
    JobContext,
    Planned,
    PreviewPicture,
    Progress,
    RunEvent,
    Tick,
    Warned,
)


def frames_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


class IdentityRunner:
    def __init__(self, device: str, config: ServerConfig) -> None:
        self.device = device
        self.report: Callable[[str, float], None] = lambda text, done: None

    def run(self, spec: JobSpec, context: JobContext) -> Iterator[RunEvent]:
        folder = Path(spec.plate.pattern).parent
        frames = frames_of(spec.frames)
        yield Planned("shot-1", tuple(frames), {"device": self.device, "batch": 1})
        yield Warned("test.hello", "an identity run")
        for index, frame in enumerate(frames):
            control = self._control(folder)
            target = Path(spec.output % frame)
            if frame in context.done and target.exists():
                yield FrameDone(frame, str(target), "kept", 0.0)
                continue
            if frame in context.banned:
                yield FrameFailed(frame, context.banned[frame])
                continue
            yield FrameStarted(frame)
            if "activity" in control:
                self.report(control["activity"], 0.25)
            began = time.perf_counter()
            source = Path(spec.plate.pattern % frame)
            if not source.exists():
                yield FrameFailed(frame, EffectError("effect.failed", "no source", remedy="Make it.").to_wire())
                continue
            self._misbehave(folder, control, frame)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                temporary.write_bytes(source.read_bytes())
                end = time.perf_counter() + control.get("step_s", 0.0)
                while time.perf_counter() < end:
                    time.sleep(0.005)
                    yield Tick()
                time.sleep(control.get("pause_s", 0.0))
                if not context.may_write():
                    raise JobError("job.lease_lost", "another worker has this job", frame=frame, remedy="Wait.")
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            with (folder / "done.log").open("a") as log:
                log.write(f"{os.getpid()} {frame}\n")
            yield FrameDone(frame, str(target), "rendered", time.perf_counter() - began)
            yield Progress("render", index + 1, len(frames))

    def preview(self, spec: PreviewSpec) -> PreviewPicture:
        folder = Path(spec.job.plate.pattern).parent
        control = self._control(folder)
        self._misbehave(folder, control, -1)
        time.sleep(control.get("preview_s", 0.0))
        size = spec.max_size
        pixels = np.full((size, size, 3), spec.frame % 256, np.uint8)
        return PreviewPicture(pixels, (0, 0, size, size), True, "", 0.001)

    def faces(self, job: JobSpec, frame: int) -> Faces:
        return Faces(frame)

    def close(self) -> None:
        pass

    def _control(self, folder: Path) -> dict[str, Any]:
        try:
            control = json.loads((folder / "control.json").read_text())
        except FileNotFoundError:
            return {}
        assert isinstance(control, dict)
        return control

    def _misbehave(self, folder: Path, control: dict[str, Any], frame: int) -> None:
        for what in ("crash", "hang"):
            times = control.get(what, {}).get(str(frame), 0)
            marks = folder / f"{what}.{frame}"
            before = len(marks.read_text()) if marks.exists() else 0
            if before < times:
                marks.write_text("x" * (before + 1))
                if what == "crash":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(600)


def open_identity(device: str, config: ServerConfig) -> IdentityRunner:
    return IdentityRunner(device, config)


def open_broken(device: str, config: ServerConfig) -> IdentityRunner:
    raise EffectError("effect.needs_model", "no model", remedy="Import it.")


def open_dying(device: str, config: ServerConfig) -> IdentityRunner:
    os._exit(7)
