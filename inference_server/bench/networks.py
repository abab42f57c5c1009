"""What each network costs: multiply-adds, seconds, share of the machine's convolution rate, memory.

Every network is measured in a process of its own, so that the peak of memory is its own. Multiply-adds are those of
convolutions and matrix products, counted while one call runs; warps, filters by shifts and element-wise work take
time and are not counted, which is what the achieved share shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from host_bridge.errors import unknown_name
from inference_server.bench.cases import CASES
from inference_server.bench.machine import (
    DTYPES,
    Machine,
    Precision,
    add_json,
    answer,
    beyond,
    choose_device,
    measure_machine,
    mebibytes,
    median_seconds,
    new_parser,
    used_memory,
    write_json,
)


@dataclass(frozen=True)
class Measurement:
    """One network. `memory` is the peak of the device, on the CPU of the process, in bytes; `memory_before` of it was
    there before the network was built (torch itself). `problem` is set where it could not be measured.
    """

    name: str
    size: str
    parameters: int = 0
    multiply_adds: int = 0
    seconds: float = 0.0
    memory: int | None = None
    memory_before: int | None = None
    problem: str = ""

    @property
    def rate(self) -> float:
        """Multiply-adds a second."""
        return self.multiply_adds / self.seconds if self.seconds else 0.0


def measure(name: str, device: torch.device, precision: Precision, repeats: int, quick: bool) -> Measurement:
    """Measures a network in this process: one call to warm up and count, then the median of `repeats`."""
    case = CASES[name]
    before = used_memory(device, peak=False)
    torch.manual_seed(0)
    network, inputs = case.build(quick)
    network = network.eval().requires_grad_(False).to(device)
    inputs = tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in inputs)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def call() -> object:
        with torch.no_grad(), torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            return network(*inputs)

    with FlopCounterMode(display=False) as counter:
        call()
    seconds = median_seconds(call, device, repeats)
    return Measurement(
        name=name,
        size=case.quick_size if quick else case.size,
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        seconds=seconds,
        memory=used_memory(device, peak=True),
        memory_before=before,
    )


def measure_apart(name: str, device: str, precision: Precision, repeats: int, quick: bool) -> Measurement:
    """The same in a process of its own. What goes wrong there becomes the measurement's `problem`."""
    request = {"name": name, "device": device, "precision": precision, "repeats": repeats, "quick": quick}
    done = subprocess.run(
        [sys.executable, "-m", "inference_server.bench.networks", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    case = CASES[name]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        problem = last or f"the process ended with status {done.returncode} (killed for memory?)"
        return Measurement(name, case.quick_size if quick else case.size, problem=problem)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def table(machine: Machine, measurements: list[Measurement]) -> str:
    """For people: one line a network."""
    rows = [("network", "size", "parameters", "GMAC", "seconds", "GMAC/s", "of conv", "memory", "own")]
    for m in measurements:
        if m.problem:
            rows.append((m.name, m.size, m.problem, "", "", "", "", "", ""))
            continue
        rows.append(
            (
                m.name,
                m.size,
                f"{m.parameters / 1e6:.2f} M",
                f"{m.multiply_adds / 1e9:.2f}",
                f"{m.seconds:.3f}",
                f"{m.rate / 1e9:.1f}",
                f"{m.rate / machine.rate:.0%}",
                mebibytes(m.memory),
                mebibytes(beyond(m.memory_before, m.memory)),
            )
        )
    widths = [max(len(row[i]) for row in rows if i < 2 or row[3]) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*machine.lines(), "", *lines])


def document(machine: Machine, measurements: list[Measurement], quick: bool) -> dict[str, Any]:
    """The same for programs."""
    return {
        "machine": machine.document(),
        "quick": quick,
        "networks": [
            {**asdict(m), "rate": m.rate, "share_of_convolution_rate": m.rate / machine.rate} for m in measurements
        ],
    }


def chosen(patterns: list[str]) -> list[str]:
    """Names of cases that match any of the patterns, all without; RequestError for a pattern that matches none."""
    if not patterns:
        return list(CASES)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            raise unknown_name("request.unknown_name", "network", pattern, list(CASES))
    return [name for name in CASES if any(fnmatchcase(name, pattern) for pattern in patterns)]


def add_parser(subparsers: Any) -> None:
    """`networks` below `faceplate bench`."""
    parser = new_parser(subparsers, "networks", __doc__, run)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32", help="default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help=f"names or patterns; known: {', '.join(CASES)}"
    )
    parser.add_argument("--quick", action="store_true", help="small networks and pictures: does everything run?")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, of which the median counts")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 when a network could not be measured. FaceplateError for arguments that cannot be used."""
    device = choose_device(args.device)
    names = chosen(args.only)
    repeats = max(1, args.repeats)
    machine = measure_machine(device, args.precision, quick=args.quick)
    measurements = []
    for number, name in enumerate(names, 1):
        sys.stderr.write(f"[{number}/{len(names)}] {name}")
        sys.stderr.flush()
        measurements.append(measure_apart(name, args.device, args.precision, repeats, args.quick))
        last = measurements[-1]
        sys.stderr.write(f": {last.problem or f'{last.seconds:.3f} s'}\n")
        write_json(args.json, document(machine, measurements, args.quick))
    sys.stdout.write(table(machine, measurements) + "\n")
    return 1 if any(m.problem for m in measurements) else 0


def _child(request: dict[str, Any]) -> dict[str, Any]:
    device = choose_device(request.pop("device"))
    return asdict(measure(device=device, **request))


if __name__ == "__main__":
    answer(_child)
