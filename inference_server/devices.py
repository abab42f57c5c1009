"""Which devices `auto` stands for: every NVIDIA GPU that torch was built for, else the CPU. No torch is imported."""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from pathlib import Path


def settle(devices: tuple[str, ...]) -> tuple[str, ...]:
    """The devices with `auto` written out, each once: cuda:0, cuda:1, ... as $CUDA_VISIBLE_DEVICES counts, or cpu."""
    if "auto" not in devices:
        return devices
    found = tuple(f"cuda:{index}" for index in range(gpu_count())) or ("cpu",)
    written = [name for device in devices for name in (found if device == "auto" else (device,))]
    return tuple(dict.fromkeys(written))


def gpu_count() -> int:
    """How many GPUs a worker could use: 0 where torch was built without CUDA or the driver is not there."""
    if not torch_has_cuda():
        return 0
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, read from its version file: importing torch takes seconds."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    version = Path(torch.origin).with_name("version.py")
    return version.is_file() and bool(runpy.run_path(str(version)).get("cuda"))
