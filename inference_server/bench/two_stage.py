"""The two-stage translator a frame: as it was trained against as it is used, in one run, and the floor of both.

Made-up weights of the full size, translator and refiner together, in the middle of a shot. "plain" are the networks as
training leaves them, "ready" the ones the effect draws with: norms folded, channels last, on CUDA as graphs. Both take
turns in one process, and with them the machine's convolutions; the best of several counts, because what disturbs a
measurement only ever makes it longer. The floor is the networks' multiply-adds at the highest rate of those
convolutions. Peak memory is each order's own, in a fresh process.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from host_bridge.errors import RequestError
from inference_server.bench.machine import (
    DTYPES,
    Machine,
    Precision,
    choose_device,
    measure_machine,
    mebibytes,
    resident_memory,
    synchronise,
)
from inference_server.bench.vtoonify import faster
from inference_server.networks.two_stage import Memory, Refiner, Translator, ready, step
from inference_server.networks.two_stage_graphs import GraphedStep

Order: TypeAlias = Literal["plain", "ready"]
Run: TypeAlias = Callable[[Tensor, Memory], tuple[Tensor, Memory]]

ORDERS: tuple[Order, ...] = ("plain", "ready")
SIZES, QUICK_SIZES = (256, 512, 1024), (32,)
BATCHES = (1, 8)
MOST_ON_CPU = 8 * 512 * 512  # pixels of a batch that is measured on a CPU without being asked for
TOLERANCE = 1e-4  # between the two orders' pictures, float32
WIDTHS_QUICK = ((4, 8, 12), (4, 8))


@dataclass(frozen=True)
class Measurement:
    """One order at one size and batch. `seconds`: of a frame. `difference`: the largest from the float32 pictures.
    `before`, `peak`: bytes, of a process of its own; None where the system does not tell.
    """

    size: int
    batch: int
    precision: Precision
    order: Order
    multiply_adds: int
    seconds: float
    difference: float
    before: int | None
    peak: int | None

    def to_floor(self, machine: Machine) -> float:
        """How many times the floor it takes: 1 is all multiply-adds at the machine's convolution rate."""
        return self.seconds * machine.rate / self.multiply_adds


@dataclass(frozen=True)
class Setup:
    """What all measurements of a run share. `graphs`: the ready networks as CUDA graphs, on CUDA."""

    device: str
    repeats: int
    quick: bool
    graphs: bool

    def networks(self) -> tuple[Translator, Refiner]:
        """Seeded, so that every process has the same; the refiner's correction is not the zero it begins with."""
        torch.manual_seed(0)
        widths = WIDTHS_QUICK if self.quick else None
        translator = Translator(widths[0]) if widths else Translator()
        refiner = Refiner(widths[1]) if widths else Refiner()
        nn.init.normal_(refiner.net.last.weight, std=0.02)
        device = choose_device(self.device)
        return translator.eval().requires_grad_(False).to(device), refiner.eval().requires_grad_(False).to(device)

    def inputs(self, size: int, batch: int) -> tuple[Tensor, Memory]:
        """A frame and the two before it, [N, 3, S, S]."""
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(5, batch, 3, size, size, generator=generator).to(self.device) * 2 - 1
        return x[0], Memory((x[1], x[2]), (x[3], x[4]))

    def order(self, order: Order, networks: tuple[nn.Module, nn.Module], precision: Precision) -> Run:
        """A step with these networks, which are left as they are."""
        dtype = DTYPES[precision]
        if order == "plain":
            translator, refiner = (copy.deepcopy(network).to(dtype) for network in networks)
            return lambda x, memory: step(translator, refiner, x, memory)
        translator, refiner = (ready(network, dtype) for network in networks)
        if self.graphs and torch.device(self.device).type == "cuda":
            return GraphedStep(translator, refiner)
        return lambda x, memory: step(translator, refiner, x, memory)


def compare(
    setup: Setup, size: int, batch: int, precision: Precision, machine: Machine
) -> tuple[list[Measurement], Machine]:
    """Both orders in turn, `setup.repeats` times; and the machine's rates, with those of this comparison in them."""
    device = torch.device(setup.device)
    networks = setup.networks()
    x, memory = setup.inputs(size, batch)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            expected, _ = step(*networks, x, memory)
        runs = {order: setup.order(order, networks, precision) for order in ORDERS}
        x, memory = _cast(x, memory, DTYPES[precision])
        differences = {order: float((run(x, memory)[0].float() - expected).abs().max()) for order, run in runs.items()}
        seconds = dict.fromkeys(ORDERS, float("inf"))
        for _ in range(setup.repeats):
            for order, run in runs.items():
                synchronise(device)
                started = time.perf_counter()
                run(x, memory)
                synchronise(device)
                seconds[order] = min(seconds[order], (time.perf_counter() - started) / batch)
            machine = faster(machine, measure_machine(device, precision, repeats=3, quick=setup.quick))
    work = counter.get_total_flops() // 2 // batch
    found = []
    for order in ORDERS:
        before, peak = memory_apart(setup, size, batch, precision, order)
        found.append(Measurement(size, batch, precision, order, work, seconds[order], differences[order], before, peak))
    return found, machine


def _cast(x: Tensor, memory: Memory, dtype: torch.dtype) -> tuple[Tensor, Memory]:
    (x1, x2), (y1, y2) = memory.frames, memory.refined
    return x.to(dtype), Memory((x1.to(dtype), x2.to(dtype)), (y1.to(dtype), y2.to(dtype)))


def memory_used(
    setup: Setup, size: int, batch: int, precision: Precision, order: Order
) -> tuple[int | None, int | None]:
    """Bytes of this process, which should do nothing else, before it has the networks and at the peak of two frames."""
    device = choose_device(setup.device)

    def used(peak: bool) -> int | None:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
        return resident_memory(peak)

    before = used(peak=False)
    x, memory = _cast(*setup.inputs(size, batch), DTYPES[precision])
    with torch.inference_mode():
        run = setup.order(order, setup.networks(), precision)
        for _ in range(2):
            run(x, memory)
    return before, used(peak=True)


def memory_apart(
    setup: Setup, size: int, batch: int, precision: Precision, order: Order
) -> tuple[int | None, int | None]:
    """The same in a process of its own; RuntimeError with its last words if it fails."""
    request = [asdict(setup), size, batch, precision, order]
    command = [sys.executable, "-m", "inference_server.bench.two_stage", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode} (killed for memory?)"])[-1]
        raise RuntimeError(f"measuring memory of {size}x{size}, batch {batch}, {order}: {last}")
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return before, peak


def table(machines: dict[Precision, Machine], measurements: list[Measurement]) -> str:
    """For people: two lines a comparison, the second with its ratio to the first."""
    rows = [("size", "batch", "", "order", "GMAC", "ms/frame", "to floor", "peak", "own", "difference", "to plain")]
    plain: Measurement | None = None
    for m in measurements:
        ratio = ""
        if m.order == "plain":
            plain = m
        elif plain is not None:
            ratio = f"{m.seconds / plain.seconds:.2f} time"
        own = None if m.peak is None or m.before is None else m.peak - m.before
        rows.append(
            (
                f"{m.size}x{m.size}",
                str(m.batch),
                m.precision,
                m.order,
                f"{m.multiply_adds / 1e9:.2f}",
                f"{m.seconds * 1e3:.4g}",
                f"{m.to_floor(machines[m.precision]):.2f}",
                mebibytes(m.peak),
                mebibytes(own),
                f"{m.difference:.1e}",
                ratio,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    heads = [line for machine in machines.values() for line in machine.lines()]
    return "\n".join([*heads, "", *lines])


def document(setup: Setup, machines: dict[Precision, Machine], measurements: list[Measurement]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "setup": asdict(setup),
        "machines": {name: {**asdict(machine), "rate": machine.rate} for name, machine in machines.items()},
        "two_stage": [{**asdict(m), "to_floor": m.to_floor(machines[m.precision])} for m in measurements],
    }


def chosen(args: argparse.Namespace, device: torch.device) -> list[tuple[int, int, Precision]]:
    """Sizes, batches and precisions to measure; RequestError `request.bad_value`."""
    for name, values, least in (("size", args.size, 16), ("batch", args.batch, 1)):
        for value in values:
            if value < least:
                raise RequestError(
                    "request.bad_value",
                    f"--{name} {value} is less than {least}",
                    value=value,
                    remedy=f"Give {least} or more.",
                )
    sizes = args.size or (QUICK_SIZES if args.quick else SIZES)
    precisions = args.precision or (["fp32", "fp16"] if device.type == "cuda" else ["fp32"])
    found = [(size, batch, precision) for precision in precisions for size in sizes for batch in args.batch or BATCHES]
    if device.type == "cpu" and not args.size and not args.batch:
        found = [(size, batch, precision) for size, batch, precision in found if batch * size * size <= MOST_ON_CPU]
    return found


def add_parser(subparsers: Any) -> None:
    """`two_stage` below `faceplate bench`."""
    parser = cast(argparse.ArgumentParser, subparsers.add_parser("two_stage", help=__doc__.splitlines()[0]))
    parser.description = __doc__
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--precision", nargs="+", choices=list(DTYPES), default=[], help="default: fp32; CUDA: and fp16"
    )
    parser.add_argument("--size", nargs="+", type=int, default=[], help="sides of square frames; default: 256 512 1024")
    parser.add_argument("--batch", nargs="+", type=int, default=[], help="default: 1 and 8; not 8 of 1024 on a CPU")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each order, the best of which counts")
    parser.add_argument("--no-graphs", action="store_true", help="on CUDA, without CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="small networks and a small picture: does everything run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 when float32 pictures differ by more than 0.0001. FaceplateError for wrong arguments."""
    device = choose_device(args.device)
    setup = Setup(str(device), max(1, args.repeats), args.quick, not args.no_graphs)
    cases = chosen(args, device)
    machines = {
        precision: measure_machine(device, precision, repeats=3, quick=setup.quick)
        for precision in dict.fromkeys(precision for _, _, precision in cases)
    }
    measurements: list[Measurement] = []
    for size, batch, precision in cases:
        sys.stderr.write(f"{size}x{size}, batch {batch}, {precision} ...\n")
        found, machines[precision] = compare(setup, size, batch, precision, machines[precision])
        measurements += found
        if args.json is not None:  # after each, so that a bench cut short leaves what it has
            text = json.dumps(document(setup, machines, measurements), indent=1)
            args.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(table(machines, measurements) + "\n")
    wrong = [m for m in measurements if m.precision == "fp32" and not m.difference <= TOLERANCE]
    for m in wrong:
        sys.stderr.write(f"{m.size}x{m.size}, batch {m.batch}, {m.order}: differs by {m.difference:.1e}\n")
    return 1 if wrong else 0


def _child(request: list[Any]) -> None:
    setup, *case = request
    sys.stdout.write(json.dumps(memory_used(Setup(**setup), *case)) + "\n")


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
