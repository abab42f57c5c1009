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
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
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
        turns = {order: partial(run, x, memory) for order, run in runs.items()}
        seconds, machine = take_turns(turns, device, precision, setup.repeats, setup.quick, machine)
    work = counter.get_total_flops() // 2 // batch
    found = []
    for order in ORDERS:
        before, peak = memory_apart(setup, size, batch, precision, order)
        each = seconds[order] / batch
        found.append(Measurement(size, batch, precision, order, work, each, differences[order], before, peak))
    return found, machine


def _cast(x: Tensor, memory: Memory, dtype: torch.dtype) -> tuple[Tensor, Memory]:
    (x1, x2), (y1, y2) = memory.frames, memory.refined
    return x.to(dtype), Memory((x1.to(dtype), x2.to(dtype)), (y1.to(dtype), y2.to(dtype)))


def memory_used(
    setup: Setup, size: int, batch: int, precision: Precision, order: Order
) -> tuple[int | None, int | None]:
    """Bytes of this process, which should do nothing else, before it has the networks and at the peak of two frames."""
    device = choose_device(setup.device)
    before = used_memory(device, peak=False)
    x, memory = _cast(*setup.inputs(size, batch), DTYPES[precision])
    with torch.inference_mode():
        run = setup.order(order, setup.networks(), precision)
        for _ in range(2):
            run(x, memory)
    return before, used_memory(device, peak=True)


def memory_apart(
    setup: Setup, size: int, batch: int, precision: Precision, order: Order
) -> tuple[int | None, int | None]:
    """The same in a process of its own; RuntimeError with its last words if it fails."""
    request = [asdict(setup), size, batch, precision, order]
    before, peak = memory_of(__name__, request, f"{size}x{size}, batch {batch}, {order}")
    return before, peak


def table(machines: dict[Precision, Machine], measurements: list[Measurement]) -> str:
    """For people: two lines a comparison, the second with its ratio to the first."""
    rows = [("size", "batch", "", "order", "GMAC", "ms/frame", "to floor", "peak", "own", "difference", "to plain")]
    for m, ratio in with_ratios(measurements):
        rows.append(
            (
                f"{m.size}x{m.size}",
                str(m.batch),
                m.precision,
                m.order,
                f"{m.multiply_adds / 1e9:.2f}",
                f"{m.seconds * 1e3:.4g}",
                f"{machines[m.precision].to_floor(m.seconds, m.multiply_adds):.2f}",
                mebibytes(m.peak),
                mebibytes(beyond(m.before, m.peak)),
                f"{m.difference:.1e}",
                ratio,
            )
        )
    heads = [line for machine in machines.values() for line in machine.lines()]
    return "\n".join([*heads, "", *aligned(rows)])


def document(setup: Setup, machines: dict[Precision, Machine], measurements: list[Measurement]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "setup": asdict(setup),
        "machines": {name: machine.document() for name, machine in machines.items()},
        "two_stage": [
            {**asdict(m), "to_floor": machines[m.precision].to_floor(m.seconds, m.multiply_adds)} for m in measurements
        ],
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
    parser = new_parser(subparsers, "two_stage", __doc__, run)
    parser.add_argument(
        "--precision", nargs="+", choices=list(DTYPES), default=[], help="default: fp32; CUDA: and fp16"
    )
    parser.add_argument("--size", nargs="+", type=int, default=[], help="sides of square frames; default: 256 512 1024")
    parser.add_argument("--batch", nargs="+", type=int, default=[], help="default: 1 and 8; not 8 of 1024 on a CPU")
    add_turns(
        parser, 5, "small networks and a small picture: does everything run?", graphs="on CUDA, without CUDA graphs"
    )


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
        write_json(args.json, document(setup, machines, measurements))
    sys.stdout.write(table(machines, measurements) + "\n")
    exact = [m for m in measurements if m.precision == "fp32"]
    return judge(exact, TOLERANCE, lambda m: f"{m.size}x{m.size}, batch {m.batch}, {m.order}")


def _child(request: list[Any]) -> tuple[int | None, int | None]:
    setup, *case = request
    return memory_used(Setup(**setup), *case)


if __name__ == "__main__":
    answer(_child)
