"""What a run will take, measured on steps at its beginning and its end without writing anything.

Both, because schedules switch losses on: the last step of a run may take more than the first.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from inference_server.training.config import TrainConfig
from inference_server.training.distributed import Group
from inference_server.training.loop import Run
from inference_server.training.recipe import Recipe


@dataclass(frozen=True)
class DryRun:
    """`memory` is the device's peak, or on the CPU the process' own; None where the system does not tell it.

    `first_seconds` and `last_seconds` are those of a step at the beginning (after one to warm up) and at the end;
    pictures, scores and checkpoints come on top.
    """

    recipe: str
    steps: int
    batch: int
    micro_batches: int
    trained_parameters: int
    all_parameters: int
    memory: int | None
    memory_of: str
    checkpoint_bytes: int
    disk_bytes: int
    first_seconds: float
    last_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole run, as if steps grew evenly from the first to the last."""
        return 0.5 * (self.first_seconds + self.last_seconds) * self.steps

    def lines(self) -> list[str]:
        """The same for people."""
        memory = "unknown" if self.memory is None else f"{self.memory / 2**30:.2f} GiB ({self.memory_of})"
        return [
            f"recipe      {self.recipe}",
            f"steps       {self.steps}, batch {self.batch} in {self.micro_batches} micro-batches",
            f"parameters  {self.trained_parameters:,} trained of {self.all_parameters:,}",
            f"memory      {memory}",
            f"checkpoint  {self.checkpoint_bytes / 2**20:.1f} MiB each, {self.disk_bytes / 2**20:.1f} MiB kept at most",
            f"time        {self.first_seconds:.3f} s a step at first, {self.last_seconds:.3f} s at last, "
            f"{duration(self.seconds)} in all",
        ]


def dry_run(recipe: Recipe, config: TrainConfig, group: Group | None = None) -> DryRun:
    """Builds the recipe and takes three steps: one to warm up, one at the beginning, one at the end (timed both)."""
    group = group or Group()
    reset_peak(group.device)
    with ExitStack() as stack:
        run = Run(recipe, config, None, group, stack)
        run.open()
        _timed(run, group)
        run.seek(min(1, config.steps - 1))
        first = _timed(run, group)
        run.seek(config.steps - 1)
        last = _timed(run, group)
        memory = peak_memory(group.device)
        tensors = run.state.snapshot(run.table, recipe.name).tensors.values()
        size = sum(t.numel() * t.element_size() for t in tensors)
        modules = run.state.modules.values()
        kept = config.checkpoints.keep + (1 if config.validate_every else 0) + 1  # the one being written
        return DryRun(
            recipe=recipe.name,
            steps=config.steps,
            batch=config.batch,
            micro_batches=config.pieces,
            trained_parameters=run.state.count(),
            all_parameters=sum(p.numel() for module in modules for p in module.parameters()),
            memory=memory,
            memory_of="GPU" if group.device.type == "cuda" else "this process",
            checkpoint_bytes=size,
            disk_bytes=size * kept,
            first_seconds=first,
            last_seconds=last,
        )


def _timed(run: Run, group: Group) -> float:
    started = time.perf_counter()
    run.step()
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    return time.perf_counter() - started


def reset_peak(device: torch.device) -> None:
    """Begins to measure memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `reset_peak` (since the start of the process where it cannot be reset)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def duration(seconds: float) -> str:
    """A time for people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
