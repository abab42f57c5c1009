"""How fast this machine convolves: the yardstick of every other bench.

Seconds on one machine say nothing about another. What a network achieves is therefore reported as a share of the
rate of plain 3x3 convolutions, measured in the same run, with the same threads, device and precision.
"""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn

from host_bridge.errors import RequestError

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Channels and sides of maps such as generators and encoders have: deep and small to shallow and large.
SHAPES = ((512, 32), (512, 64), (256, 128), (128, 256), (64, 512))
QUICK_SHAPES = ((256, 32), (128, 64), (64, 128))


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


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall-clock seconds of `repeats` calls. The caller has warmed up."""
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


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
