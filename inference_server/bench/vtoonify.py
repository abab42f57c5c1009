"""VToonify for a shot: the published order of computation against the baked one, in one run, and the floor of both.

Made-up weights of the full size. Both orders take turns in one process, and with them the machine's convolutions; the
best of several counts, because what disturbs a measurement only ever makes it longer. The floor is the network's
multiply-adds at the highest rate of those convolutions. Peak memory is each order's own, in a fresh process; without
baking the published order needs the whole network, the baked one lets go of it before its first frame.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from host_bridge.errors import RequestError
from inference_server.bench.machine import (
    DTYPES,
    Machine,
    Precision,
    add_turns,
    aligned,
    answer,
    beyond,
    choose_device,
    forget_peak,
    judge,
    measure_machine,
    mebibytes,
    memory_of,
    new_parser,
    take_turns,
    used_memory,
    with_ratios,
    write_json,
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
        turns = {order: partial(run, x) for order, run in runs.items()}
        seconds, machine = take_turns(turns, device, setup.precision, setup.repeats, setup.quick, machine)
    work = counter.get_total_flops() // 2
    return [
        Measurement(
            variant, *size, order, work, seconds[order], differences[order], memory_apart(setup, variant, size, order)
        )
        for order in orders
    ], machine


def memory(setup: Setup, variant: str, size: Size, order: Order) -> Memory:
    """Of this process, which should do nothing else: two frames."""
    device = choose_device(setup.device)
    before = used_memory(device, peak=False)
    x, style = setup.inputs(size)
    with torch.inference_mode():
        run = setup.order(order, setup.network(variant), style)
        preparing = used_memory(device, peak=True)
        forget_peak()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        ready = used_memory(device, peak=False)
        for _ in range(2):
            run(x)
        return Memory(before, preparing, ready, used_memory(device, peak=True))


def memory_apart(setup: Setup, variant: str, size: Size, order: Order) -> Memory:
    """The same in a process of its own; RuntimeError with its last words if it fails."""
    request = {"setup": asdict(setup), "variant": variant, "size": size, "order": order}
    return Memory(**memory_of(__name__, request, f"{variant} {size[0]}x{size[1]} {order}"))


def table(machine: Machine, measurements: list[Measurement]) -> str:
    """For people: two lines a comparison, the second with its ratios to the first."""
    rows = [("variant", "size", "order", "GMAC", "s/frame", "to floor", "peak", "own", "difference", "to plain")]
    for m, ratio in with_ratios(measurements, lambda m: m.memory.peak):
        rows.append(
            (
                m.variant.upper(),
                f"{m.width}x{m.height}",
                m.order,
                f"{m.multiply_adds / 1e9:.1f}",
                f"{m.seconds:.4g}",
                f"{machine.to_floor(m.seconds, m.multiply_adds):.2f}",
                mebibytes(m.memory.peak),
                mebibytes(beyond(m.memory.before, m.memory.peak)),
                f"{m.difference:.1e}",
                ratio,
            )
        )
    return "\n".join([*machine.lines(), "", *aligned(rows)])


def document(setup: Setup, machine: Machine, measurements: list[Measurement]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "setup": asdict(setup),
        "machine": machine.document(),
        "vtoonify": [{**asdict(m), "to_floor": machine.to_floor(m.seconds, m.multiply_adds)} for m in measurements],
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
    parser = new_parser(subparsers, "vtoonify", __doc__, run)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32", help="default: %(default)s")
    parser.add_argument("--variant", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), help="default: both")
    parser.add_argument("--size", nargs="+", default=[], metavar="WxH", help="of the input; default: 256x256 400x320")
    add_turns(
        parser,
        5,
        "small networks and a small picture: does everything run?",
        graphs="on CUDA, run baked networks without CUDA graphs",
    )


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
            write_json(args.json, document(setup, machine, measurements))
    sys.stdout.write(table(machine, measurements) + "\n")
    exact = measurements if setup.precision == "fp32" else []
    return judge(exact, TOLERANCE, lambda m: f"{m.variant.upper()} {m.width}x{m.height} {m.order}")


def _child(request: dict[str, Any]) -> dict[str, int | None]:
    setup = Setup(**request["setup"])
    return asdict(memory(setup, request["variant"], tuple(request["size"]), request["order"]))


if __name__ == "__main__":
    answer(_child)
