"""`faceplate bench plate`: seconds per frame of every stage and end to end, overlap, memory, and round trips.

Every figure of a run comes from the same machine in the same minutes; compare ratios, not seconds. The plate is the
demo's, shrunk or enlarged to the asked size, and written once before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from host_bridge import launcher
from host_bridge.errors import ExitCode
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server.bench.machine import resident_memory
from inference_server.config import ServerConfig
from inference_server.demo.plate import COLORSPACE, make_plate
from inference_server.effects.base import Effect, EffectOutput, FaceInput
from inference_server.pipeline import PipelineRunner
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence
from inference_server.plates.types import Part, PlateFrame, Window
from inference_server.plates.writer import write_plate
from inference_server.rendering import render_frame
from inference_server.runs import JobContext, result_of

T = TypeVar("T")
_STAGE_FRAMES = 4
SIZES = {"1080p": (1920, 1080), "4k": (3840, 2160), "small": (480, 270)}
_EFFECTS = {"look": {"style": "cartoon"}, "retouch": {}}


@dataclass(frozen=True)
class StageTimes:
    """Median seconds per frame of each stage alone, one after the other."""

    read: float
    color: float
    analyse: float
    effect: float
    composite: float
    write: float

    @property
    def slowest(self) -> float:
        return max(self.read, self.color, self.analyse, self.effect, self.composite, self.write)


@dataclass(frozen=True)
class EndToEnd:
    """A whole render after analysis. `busy` is CPU time over wall time and cores; `to_copy` the ratio of its time to
    reading and writing the same frames with no work between. Memory in bytes, peak of the process."""

    frames: int
    seconds_per_frame: float
    frames_per_second: float
    busy: float
    to_slowest: float
    to_copy: float
    peak_memory: int


@dataclass
class Report:
    """One size and effect."""

    size: str
    effect: str
    device: str
    threads: int
    stages: StageTimes
    whole: EndToEnd
    analyse_fps: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)


def add_parser(benches: Any) -> None:
    parser = benches.add_parser("plate", help="the plate path: stages, overlap, memory, round trips")
    parser.add_argument("--sizes", default="1080p,4k", help=f"of {', '.join(SIZES)} (default 1080p,4k)")
    parser.add_argument("--effects", default="look,retouch")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="also compare the memory of 100 and 1000 small frames")
    parser.add_argument("--round-trips", action="store_true", help="also time pings and previews, idle and busy")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    figures: dict[str, Any] = {"cores": os.cpu_count(), "plate": []}
    with tempfile.TemporaryDirectory(prefix="faceplate-bench-") as folder:
        for size in args.sizes.split(","):
            pattern = _plate(Path(folder), size, args.frames)
            for effect in args.effects.split(","):
                report = _measure(Path(folder), pattern, size, effect, args.device)
                figures["plate"].append(asdict(report))
                _print(report)
        if args.memory:
            figures["memory"] = _memory(Path(folder), args.device)
            print(
                f"memory   100 frames {figures['memory']['100'] / 2**20:.0f} MiB, 1000 frames "
                f"{figures['memory']['1000'] / 2**20:.0f} MiB: {100 * figures['memory']['growth']:+.1f} %"
            )
        if args.round_trips:
            figures["round_trips"] = _round_trips(Path(folder), args.device)
            for name, value in figures["round_trips"].items():
                print(f"{name:<28} {1000 * value:.1f} ms")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))
    return int(ExitCode.OK)


def _plate(folder: Path, size: str, frames: int) -> str:
    """The demo plate at another size; returns its pattern."""
    width, _ = SIZES[size]
    original = folder / "original"
    if not original.exists():
        list(make_plate(original, frames=frames))
    pattern = str(folder / size / "plate.%04d.exr")
    for frame, path in find_sequence(str(original / "astronaut.%04d.exr")).files.items():
        write_plate(_resized(read_plate(path, frame), width / 1920), pattern % frame)
    return pattern


def _resized(plate: PlateFrame, scale: float) -> PlateFrame:
    """The first part at another scale."""
    part = plate.parts[0]
    if scale == 1:
        return replace(plate, parts=(part,), path="")

    def grown(window: Window) -> Window:
        return Window(*(round(v * scale) for v in (window.x0, window.y0, window.x1, window.y1)))

    data = grown(part.data_window)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    channels = {
        name: cv2.resize(samples.astype(np.float32), (data.width, data.height), interpolation=how).astype(np.float16)
        for name, samples in part.channels.items()
    }
    resized: Part = replace(part, channels=channels, data_window=data, display_window=grown(part.display_window))
    return replace(plate, parts=(resized,), path="")


def _spec(pattern: str, effect: str, out: Path) -> JobSpec:
    edits = [["smile", 0.6], ["age", 0.5]] if effect == "retouch" else []
    return JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect=effect,
        params=dict(_EFFECTS[effect]),
        edits=edits,
        output=str(out / "out.%04d.exr"),
    )


def _measure(folder: Path, pattern: str, size: str, effect: str, device: str) -> Report:
    out = folder / f"{size}-{effect}"
    runner = PipelineRunner(device, ServerConfig(shots=str(folder / "shots")))
    try:
        spec = _spec(pattern, effect, out)
        began = time.perf_counter()
        for _ in runner.run(replace(spec, kind="analyse", output=""), JobContext("bench")):
            pass
        frames = len(find_sequence(pattern).files)
        analyse = (time.perf_counter() - began) / frames
        stages = _stages(runner, spec, analyse)
        copy = _copy_time(pattern, out)
        usage, began = _cpu_time(), time.perf_counter()
        for _ in runner.run(spec, JobContext("bench")):
            pass
        wall = time.perf_counter() - began
        whole = EndToEnd(
            frames=frames,
            seconds_per_frame=wall / frames,
            frames_per_second=frames / wall,
            busy=(_cpu_time() - usage) / wall / (os.cpu_count() or 1),
            to_slowest=wall / frames / stages.slowest if stages.slowest else 0.0,
            to_copy=wall / frames / copy,
            peak_memory=_peak_memory(),
        )
        return Report(size, effect, device, torch.get_num_threads(), stages, whole, 1 / analyse, {"copy": copy})
    finally:
        runner.close()


def _stages(runner: PipelineRunner, spec: JobSpec, analyse: float) -> StageTimes:
    """Every stage of a few frames by itself, through the pipeline's own functions."""
    source = runner.open_source(spec)
    files = source.sequence.files
    with ThreadPoolExecutor(1) as pool:
        _, analysis = result_of(runner.locate(source, tuple(files), pool))
    settings = runner.render_settings(spec, source, analysis)
    timed = _TimedEffect(settings.effect)
    settings = replace(settings, effect=timed)
    times: dict[str, list[float]] = {name: [] for name in ("read", "color", "effect", "composite", "write")}
    for frame, path in list(files.items())[:_STAGE_FRAMES]:
        plate, read = _timed(partial(read_plate, path, frame))
        _, color = _timed(partial(source.straight, plate))
        rendered, whole = _timed(partial(render_frame, plate, source.layer(plate), analysis, settings))
        _, write = _timed(partial(write_plate, rendered.plate, spec.output % frame))
        for name, seconds in zip(times, (read, color, timed.seconds, whole - timed.seconds, write), strict=True):
            times[name].append(seconds)
    return StageTimes(analyse=analyse, **{name: statistics.median(values) for name, values in times.items()})


class _TimedEffect:
    """An effect whose last `render` is timed."""

    def __init__(self, effect: Effect) -> None:
        self._effect = effect
        self.descriptor = effect.descriptor
        self.region = effect.region
        self.is_identity = effect.is_identity
        self.seconds = 0.0

    def render(self, face: FaceInput) -> EffectOutput:
        output, self.seconds = _timed(partial(self._effect.render, face))
        return output


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def _copy_time(pattern: str, out: Path) -> float:
    """Seconds per frame to read and write the same frames, nothing between."""
    files = find_sequence(pattern).files
    began = time.perf_counter()
    for frame, path in files.items():
        write_plate(read_plate(path, frame), str(out / f"copy.{frame:04d}.exr"))
    return (time.perf_counter() - began) / len(files)


def _cpu_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_memory() -> int:
    return resident_memory(peak=True) or 0


def _memory(folder: Path, device: str) -> dict[str, float]:
    """Peak memory of rendering 100 and 1000 small frames, each in a process of its own."""
    pattern = _plate(folder, "small", 8)
    files = list(find_sequence(pattern).files.values())
    peaks: dict[str, float] = {}
    for count in (100, 1000):
        long = folder / f"long{count}"
        long.mkdir()
        for i in range(count):
            os.symlink(files[i % len(files)], long / f"plate.{1001 + i:04d}.exr")
        program = (
            "import sys; from pathlib import Path; from inference_server.bench import plate\n"
            "print(plate.render_and_peak(Path(sys.argv[1]), sys.argv[2]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(long), device], capture_output=True, text=True, check=True
        )
        peaks[str(count)] = float(done.stdout.split()[-1])
    peaks["growth"] = peaks["1000"] / peaks["100"] - 1
    return peaks


def render_and_peak(folder: Path, device: str) -> int:
    """Analyse and render `folder/plate.%04d.exr` in this process; its peak memory in bytes."""
    runner = PipelineRunner(device, ServerConfig(shots=str(folder / "shots")))
    try:
        for _ in runner.run(_spec(str(folder / "plate.%04d.exr"), "retouch", folder / "out"), JobContext("bench")):
            pass
    finally:
        runner.close()
    return _peak_memory()


def _round_trips(folder: Path, device: str) -> dict[str, float]:
    """Median seconds of a ping and of a warm preview, alone and while a batch job runs."""
    pattern = (
        _plate(folder, "1080p", 8) if not (folder / "1080p").exists() else str(folder / "1080p" / "plate.%04d.exr")
    )
    spec = _spec(pattern, "look", folder / "busy")
    settings = {"devices": [device], "shots": str(folder / "shots")}
    out: dict[str, float] = {}
    with launcher.connect(private=True, settings=settings) as client:
        frame = min(find_sequence(pattern).files)
        preview = PreviewSpec(spec, frame, max_size=512)
        client.submit(replace(spec, kind="analyse", output="")).wait(600)
        client.preview(preview).result(120)

        def look_again(_: int) -> object:
            return client.preview(preview).result(120)

        out["ping"] = _median(lambda _: client.ping(), 200)
        out["preview"] = _median(look_again, 10)
        handle = client.submit(spec)
        started = threading.Event()

        def wait_for_frames() -> None:
            for event in handle.events():
                if event.TYPE == "frame_done":
                    started.set()

        watcher = threading.Thread(target=wait_for_frames)
        watcher.start()
        started.wait(120)
        out["ping while rendering"] = _median(lambda _: client.ping(), 50)
        out["preview while rendering"] = _median(look_again, 3)
        handle.wait(600)
        watcher.join()
    return out


def _median(call: Callable[[int], object], times: int) -> float:
    taken = []
    for i in range(times):
        began = time.perf_counter()
        call(i)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _print(report: Report) -> None:
    stages = "  ".join(f"{name} {1000 * value:.0f}" for name, value in asdict(report.stages).items())
    whole = report.whole
    print(f"{report.size} {report.effect} on {report.device}, {report.threads} threads (ms per frame)")
    print(f"  stages      {stages}")
    print(
        f"  end to end  {1000 * whole.seconds_per_frame:.0f}  ({whole.frames_per_second:.2f} frames/s, "
        f"{100 * whole.busy:.0f} % of the cores busy, {whole.to_slowest:.2f}x the slowest stage, "
        f"{whole.to_copy:.1f}x read-and-write, peak {whole.peak_memory / 2**20:.0f} MiB)"
    )
