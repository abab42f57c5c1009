"""What benches share: the yardstick, clocks, memory, a process of one's own, and how they are asked and answer.

Seconds on one machine say nothing about another. What a network achieves is therefore reported as a share of the
rate of plain 3x3 convolutions, measured in the same run, with the same threads, device and precision. Two orders of
the same computation take turns in one run, and each has its peak of memory in a process that does nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import nn

from host_bridge.errors import RequestError

K = TypeVar("K")
T = TypeVar("T")
M = TypeVar("M", bound="Compared")

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Channels and sides of maps such as generators and encoders have: deep and small to shallow and large.
SHAPES = ((512, 32), (512, 64), (256, 128), (128, 256), (64, 512))
QUICK_SHAPES = ((256, 32), (128, 64), (64, 128))


class Compared(Protocol):
    """What the measurements of two orders have in common; the order "plain" is measured before the other."""

    @property
    def order(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    @property
    def difference(self) -> float: ...


@dataclass(frozen=True)
class ConvolutionRate:
    """A 3x3 convolution of `channels` to `channels` at `side` x `side`, batch 1."""

    channels: int
    side: int
    multiply_adds: int
    seconds: float

    @property
    def rate(self) -> float:
        """Multiply-adds a second."""
        return self.multiply_adds / self.seconds


@dataclass(frozen=True)
class Machine:
    """What was measured on, and how fast it is."""

    device: str
    precision: str
    threads: int
    torch: str
    platform: str
    convolutions: tuple[ConvolutionRate, ...]

    @property
    def rate(self) -> float:
        """The highest of the convolutions' rates: what this machine is capable of."""
        return max(c.rate for c in self.convolutions)

    def to_floor(self, seconds: float, multiply_adds: int) -> float:
        """How many times the floor a computation takes: 1 is all multiply-adds at the machine's convolution rate."""
        return seconds * self.rate / multiply_adds

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "rate": self.rate}

    def lines(self) -> list[str]:
        """For people."""
        shapes = ", ".join(f"{c.channels}x{c.side}x{c.side} {c.rate / 1e9:.0f}" for c in self.convolutions)
        return [
            f"{self.device}, {self.precision}, {self.threads} threads, torch {self.torch}, {self.platform}",
            f"3x3 convolutions: {self.rate / 1e9:.1f} billion multiply-adds a second ({shapes})",
        ]


def choose_device(name: str) -> torch.device:
    """The device of that name; RequestError `request.bad_value` where it cannot be used."""
    problem = ""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    else:
        if device.type not in ("cpu", "cuda"):
            problem = "benches run on cpu and cuda"
        elif device.type == "cuda" and not torch.cuda.is_available():
            problem = "torch finds no CUDA device"
    if problem:
        raise RequestError(
            "request.bad_value",
            f"the device {name!r} cannot be used: {problem}",
            value=name,
            remedy="Use --device cpu, or cuda where there is an NVIDIA GPU and a torch built for it.",
        )
    return device


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Result and wall-clock seconds of a call, with all that it left for the device to do."""
    synchronise(device)
    started = time.perf_counter()
    result = work()
    synchronise(device)
    return result, time.perf_counter() - started


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall-clock seconds of `repeats` calls. The caller has warmed up."""
    return statistics.median(timed(work, device)[1] for _ in range(repeats))


def measure_machine(device: torch.device, precision: Precision, repeats: int = 5, quick: bool = False) -> Machine:
    """Times a few convolutions: a second or so on a CPU."""
    dtype = DTYPES[precision]
    results = []
    with torch.inference_mode():
        for channels, side in QUICK_SHAPES if quick else SHAPES:
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
            x = torch.randn(1, channels, side, side, device=device).to(dtype)
            conv(x)
            seconds = median_seconds(lambda conv=conv, x=x: conv(x), device, repeats)  # type: ignore[misc]
            results.append(ConvolutionRate(channels, side, 9 * channels * channels * side * side, seconds))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return Machine(
        device=name,
        precision=precision,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        convolutions=tuple(results),
    )


def faster(a: Machine, b: Machine) -> Machine:
    """The same machine with the better time of every convolution."""
    best = tuple(min(pair, key=lambda c: c.seconds) for pair in zip(a.convolutions, b.convolutions, strict=True))
    return replace(a, convolutions=best)


def take_turns(
    runs: Mapping[K, Callable[[], object]],
    device: torch.device,
    precision: Precision,
    repeats: int,
    quick: bool,
    machine: Machine,
) -> tuple[dict[K, float], Machine]:
    """Best seconds of each of the runs, in turn and with the machine's convolutions; and the machine with those."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name] = min(seconds[name], timed(run, device)[1])
        machine = faster(machine, measure_machine(device, precision, repeats=3, quick=quick))
    return seconds, machine


def _processor() -> str:
    """The processor's model where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or f"{os.cpu_count()} CPUs"


def mebibytes(size: int | None) -> str:
    """For tables; a question mark where the system does not tell."""
    return "?" if size is None else f"{size / 2**20:.0f} MiB"


def beyond(before: int | None, peak: int | None) -> int | None:
    """Bytes of `peak` that were not there before; None where the system does not tell."""
    return None if peak is None or before is None else peak - before


def forget_peak() -> None:
    """Starts the record of `resident_memory(peak=True)` anew, on Linux; freed memory is given back first."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")


def resident_memory(peak: bool) -> int | None:
    """Bytes of this process' memory that are, or at their peak were, resident; None where the system does not tell.

    Linux's own record is preferred to getrusage, whose peak a process inherits from the one that started it; elsewhere
    the peak stands for both.
    """
    status = Path("/proc/self/status")
    if status.exists():
        field = "VmHWM:" if peak else "VmRSS:"
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if platform.system() == "Darwin" else highest * 1024


def used_memory(device: torch.device, peak: bool) -> int | None:
    """Bytes of the device, on the CPU of this process: now or at the peak; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    return resident_memory(peak)


def memory_of(module: str, request: Any, what: str) -> Any:
    """What a bench `answer`s in a process of its own; RuntimeError with its last words if it fails."""
    command = [sys.executable, "-m", module, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode} (killed for memory?)"])[-1]
        raise RuntimeError(f"measuring memory of {what}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(measure: Callable[[Any], Any]) -> None:
    """The other end of `memory_of`: what a bench does as a program."""
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")


def new_parser(
    subparsers: Any, name: str, doc: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """`name` below `faceplate bench`, so far with --device."""
    parser = cast(argparse.ArgumentParser, subparsers.add_parser(name, help=doc.splitlines()[0]))
    parser.description = doc
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.set_defaults(run=run)
    return parser


def add_turns(parser: argparse.ArgumentParser, repeats: int, quick: str, graphs: str = "") -> None:
    """--repeats, --no-graphs where its help is given, --quick with that help, and --json."""
    parser.add_argument("--repeats", type=int, default=repeats, help="turns of each order, the best of which counts")
    if graphs:
        parser.add_argument("--no-graphs", action="store_true", help=graphs)
    parser.add_argument("--quick", action="store_true", help=quick)
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """To be called after each measurement, so that a bench cut short leaves what it has."""
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def with_ratios(measurements: Iterable[M], peak: Callable[[M], int | None] = lambda _: None) -> Iterator[tuple[M, str]]:
    """Each with its ratios, of time and of the peaks that are known, to the plain one before it."""
    plain: M | None = None
    for m in measurements:
        ratio = ""
        if m.order == "plain":
            plain = m
        elif plain is not None:
            ratio = f"{m.seconds / plain.seconds:.2f} time"
            own, its = peak(m), peak(plain)
            if own and its:
                ratio += f", {own / its:.2f} memory"
        yield m, ratio


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table's lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def judge(measurements: Iterable[M], tolerance: float, name: Callable[[M], str]) -> int:
    """The exit status: 1 when a result differs by more than the tolerance or is no number, which is told."""
    wrong = [m for m in measurements if not m.difference <= tolerance]
    for m in wrong:
        sys.stderr.write(f"{name(m)}: differs by {m.difference:.1e}\n")
    return 1 if wrong else 0
