"""VToonify for a shot: the published order of computation against the baked one, in one run, and the floor of both.

Made-up weights of the full size. Both orders take turns in one process, and with them the machine's convolutions; the
best of several counts, because what disturbs a measurement only ever makes it longer. The floor is the network's
multiply-adds at the highest rate of those convolutions. Peak memory is each order's own, in a fresh process; without
baking the published order needs the whole network, the baked one lets go of it before its first frame.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from host_bridge.errors import RequestError
from inference_server.bench.machine import (
    DTYPES,
    Machine,
    Precision,
    choose_device,
    forget_peak,
    measure_machine,
    mebibytes,
    resident_memory,
    synchronise,
)
from inference_server.networks.vtoonify import Backbone, VToonify
from inference_server.networks.vtoonify_baked import bake
from inference_server.networks.vtoonify_graphs import GraphedVToonify

Order: TypeAlias = Literal["plain", "baked"]
Size: TypeAlias = tuple[int, int]  # width, height of the network's input

BACKBONES: dict[str, Backbone] = {"t": "toonify", "d": "dualstylegan"}
SIZES: tuple[Size, ...] = ((256, 256), (400, 320))
QUICK_SIZES: tuple[Size, ...] = ((32, 24),)
DEGREE = 0.5
TOLERANCE = 1e-3  # between the two orders' pictures, float32


@dataclass(frozen=True)
class Memory:
    """Bytes of a process: when torch is there, before the first frame, and at the peak of frames; None if not told.

    `preparing` is the peak before that, of building the network and of baking.
    """

    before: int | None = None
    preparing: int | None = None
    ready: int | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One order of one variant at one size. `difference` is the largest from the float32 network's picture."""

    variant: str
    width: int
    height: int
    order: Order
    multiply_adds: int
    seconds: float
    difference: float
    memory: Memory

    def to_floor(self, machine: Machine) -> float:
        """How many times the floor it takes: 1 is all multiply-adds at the machine's convolution rate."""
        return self.seconds * machine.rate / self.multiply_adds


@dataclass(frozen=True)
class Setup:
    """What all measurements of a run share. `graphs`: baked networks as CUDA graphs, on CUDA."""

    device: str
    precision: Precision
    repeats: int
    quick: bool
    graphs: bool

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def network(self, variant: str) -> VToonify:
        """Seeded, so that every process has the same; far from the near-zero start of a training."""
        torch.manual_seed(0)
        network = VToonify(BACKBONES[variant], channel_max=16 if self.quick else 512).eval().requires_grad_(False)
        for name, value in network.named_parameters():
            if name.startswith("res.") and name.endswith(("conv.0.weight", "conv2.0.weight")):
                value.mul_(30)
            if name.startswith("fusion_out") and name.endswith("conv2.bias"):
                value.fill_(0.5)
        return network.to(choose_device(self.device))

    def inputs(self, size: Size) -> tuple[Tensor, Tensor]:
        """Frame with parsing map [1, 22, H, W] and style code [1, 18, 512]."""
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(1, 22, size[1], size[0], generator=generator) * 2 - 1
        return x.to(self.device), torch.randn(1, 18, 512, generator=generator).to(self.device)

    def order(self, order: Order, network: VToonify, style: Tensor) -> Callable[[Tensor], Tensor]:
        """A frame to a picture, all preparation done. The network itself is left as it is."""
        if order == "baked":
            baked = bake(network, style, DEGREE, self.dtype)
            return GraphedVToonify(baked) if self.graphs and torch.device(self.device).type == "cuda" else baked
        plain = network if self.dtype == torch.float32 else copy.deepcopy(network).to(self.dtype)
        code = style.to(self.dtype)
        return lambda x: plain(x.to(self.dtype), code, DEGREE)


def compare(
    setup: Setup, variant: str, size: Size, network: VToonify, machine: Machine
) -> tuple[list[Measurement], Machine]:
    """Both orders in turn, `setup.repeats` times; and the machine's rates, with those of this comparison in them."""
    device = torch.device(setup.device)
    x, style = setup.inputs(size)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            expected = network(x, style, DEGREE)
        orders: tuple[Order, ...] = ("plain", "baked")
        runs = {order: setup.order(order, network, style) for order in orders}
        differences = {order: float((run(x).float() - expected).abs().max()) for order, run in runs.items()}
        seconds = dict.fromkeys(orders, float("inf"))
        for _ in range(setup.repeats):
            for order, run in runs.items():
                synchronise(device)
                started = time.perf_counter()
                run(x)
                synchronise(device)
                seconds[order] = min(seconds[order], time.perf_counter() - started)
            machine = faster(machine, measure_machine(device, setup.precision, repeats=3, quick=setup.quick))
    work = counter.get_total_flops() // 2
    return [
        Measurement(
            variant, *size, order, work, seconds[order], differences[order], memory_apart(setup, variant, size, order)
        )
        for order in orders
    ], machine


def faster(a: Machine, b: Machine) -> Machine:
    """The same machine with the better time of every convolution."""
    best = tuple(min(pair, key=lambda c: c.seconds) for pair in zip(a.convolutions, b.convolutions, strict=True))
    return replace(a, convolutions=best)


def memory(setup: Setup, variant: str, size: Size, order: Order) -> Memory:
    """Of this process, which should do nothing else: two frames."""
    device = choose_device(setup.device)
    before = _used(device, peak=False)
    x, style = setup.inputs(size)
    with torch.inference_mode():
        run = setup.order(order, setup.network(variant), style)
        preparing = _used(device, peak=True)
        forget_peak()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        ready = _used(device, peak=False)
        for _ in range(2):
            run(x)
        return Memory(before, preparing, ready, _used(device, peak=True))


def _used(device: torch.device, peak: bool) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    return resident_memory(peak)


def memory_apart(setup: Setup, variant: str, size: Size, order: Order) -> Memory:
    """The same in a process of its own; RuntimeError with its last words if it fails."""
    request = {"setup": asdict(setup), "variant": variant, "size": size, "order": order}
    done = subprocess.run(
        [sys.executable, "-m", "inference_server.bench.vtoonify", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode} (killed for memory?)"])[-1]
        raise RuntimeError(f"measuring memory of {variant} {size[0]}x{size[1]} {order}: {last}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def table(machine: Machine, measurements: list[Measurement]) -> str:
    """For people: two lines a comparison, the second with its ratios to the first."""
    rows = [("variant", "size", "order", "GMAC", "s/frame", "to floor", "peak", "own", "difference", "to plain")]
    plain: Measurement | None = None
    for m in measurements:
        ratio = ""
        if m.order == "plain":
            plain = m
        elif plain is not None:
            ratio = f"{m.seconds / plain.seconds:.2f} time"
            if m.memory.peak and plain.memory.peak:
                ratio += f", {m.memory.peak / plain.memory.peak:.2f} memory"
        own = None if m.memory.peak is None or m.memory.before is None else m.memory.peak - m.memory.before
        rows.append(
            (
                m.variant.upper(),
                f"{m.width}x{m.height}",
                m.order,
                f"{m.multiply_adds / 1e9:.1f}",
                f"{m.seconds:.4g}",
                f"{m.to_floor(machine):.2f}",
                mebibytes(m.memory.peak),
                mebibytes(own),
                f"{m.difference:.1e}",
                ratio,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*machine.lines(), "", *lines])


def document(setup: Setup, machine: Machine, measurements: list[Measurement]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "setup": asdict(setup),
        "machine": {**asdict(machine), "rate": machine.rate},
        "vtoonify": [{**asdict(m), "to_floor": m.to_floor(machine)} for m in measurements],
    }


def parse_size(text: str) -> Size:
    """WIDTHxHEIGHT of the network's input, multiples of 8; RequestError otherwise."""
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdecimal() and int(part) >= 16 and int(part) % 8 == 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise RequestError(
        "request.bad_value",
        f"the size {text!r} is not WIDTHxHEIGHT in multiples of 8, at least 16",
        value=text,
        remedy="Give the size of the network's input, for example 400x320, of which the picture is four times.",
    )


def add_parser(subparsers: Any) -> None:
    """`vtoonify` below `faceplate bench`."""
    parser = cast(argparse.ArgumentParser, subparsers.add_parser("vtoonify", help=__doc__.splitlines()[0]))
    parser.description = __doc__
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32", help="default: %(default)s")
    parser.add_argument("--variant", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), help="default: both")
    parser.add_argument("--size", nargs="+", default=[], metavar="WxH", help="of the input; default: 256x256 400x320")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each order, the best of which counts")
    parser.add_argument("--no-graphs", action="store_true", help="on CUDA, run baked networks without CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="small networks and a small picture: does everything run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 when float32 pictures differ by more than 0.001. FaceplateError for wrong arguments."""
    device = choose_device(args.device)
    sizes = [parse_size(text) for text in args.size] or list(QUICK_SIZES if args.quick else SIZES)
    setup = Setup(str(device), args.precision, max(1, args.repeats), args.quick, not args.no_graphs)
    machine = measure_machine(device, setup.precision, repeats=3, quick=setup.quick)
    measurements: list[Measurement] = []
    for variant in args.variant:
        network = setup.network(variant)
        for size in sizes:
            sys.stderr.write(f"{variant.upper()} {size[0]}x{size[1]} ...\n")
            found, machine = compare(setup, variant, size, network, machine)
            measurements += found
            if args.json is not None:  # after each, so that a bench cut short leaves what it has
                text = json.dumps(document(setup, machine, measurements), indent=1)
                args.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(table(machine, measurements) + "\n")
    wrong = [m for m in measurements if setup.precision == "fp32" and not m.difference <= TOLERANCE]
    for m in wrong:
        sys.stderr.write(f"{m.variant.upper()} {m.width}x{m.height} {m.order}: differs by {m.difference:.1e}\n")
    return 1 if wrong else 0


def _child(request: dict[str, Any]) -> None:
    setup = Setup(**request["setup"])
    found = memory(setup, request["variant"], tuple(request["size"]), request["order"])
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
