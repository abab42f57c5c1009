"""StylePortraitVideo's steps (a face read, adaptation, expression, a frame drawn): plain against optimised, in one run.

Made-up weights of the full size, the recipes themselves, nothing written. Plain is float32 without TF32, one picture
at a time, the equations as they are written. Optimised is what Faceplate does: faces read in batches, the expression
step's targets kept and its eyes compared in their window, source and edited picture drawn together, and on CUDA TF32
and a short float where `--precision` says so. Both take turns in one process, and the best of several counts. Peak
memory is each one's own, in a fresh process. An adaptation step on the CPU is the same either way.

A step on the expression is a step on the whole shot: where fewer than 48 frames are measured, the time of 48 is
extrapolated, and the table says from how many. Every frame costs the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor

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
    timed,
    used_memory,
    with_ratios,
    write_json,
)
from inference_server.networks.hrnet import HRNet, Square
from inference_server.networks.lpips import LPIPS
from inference_server.networks.psp import E4eEncoder
from inference_server.networks.stylegan2 import Generator, log2_size
from inference_server.training.distributed import Group
from inference_server.training.dry_run import duration
from inference_server.training.loop import Run
from inference_server.training.recipe import Recipe
from inference_server.training.recipes.adaptation import Adaptation, AdaptationStart, adaptation_config
from inference_server.training.recipes.expression import (
    Expression,
    ExpressionNetworks,
    ExpressionShot,
    expression_config,
)
from inference_server.training.recipes.synthesis import AlignedShot

Order: TypeAlias = Literal["plain", "optimised"]
Stage: TypeAlias = Literal["invert", "adapt", "express", "render"]
Work: TypeAlias = Callable[[], Tensor]

ORDERS: tuple[Order, ...] = ("plain", "optimised")
STAGES: tuple[Stage, ...] = ("invert", "adapt", "express", "render")
UNITS = {"invert": "frame", "adapt": "iteration", "express": "iteration, 48 frames", "render": "frame"}
PUBLISHED = {"adapt": 1000, "express": 200}  # iterations
SIZES = (64, 128, 256, 512, 1024)
SHOT = 48  # frames of the published times
TOLERANCE = 1e-3  # between the two orders' results, float32
LICENCES = ({"id": "own", "name": "Made-up weights", "noncommercial": False, "summary": "For a bench."},)


@dataclass(frozen=True)
class Setup:
    """What all measurements of a run share. `precision`: of the optimised order. `frames`: of an expression step."""

    device: str
    size: int
    precision: Precision
    frames: int
    micro_batch: int
    repeats: int
    quick: bool

    @property
    def cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def precision_of(self, order: Order) -> Precision:
        return self.precision if order == "optimised" else "fp32"


@dataclass(frozen=True)
class Measurement:
    """`seconds` and `peak` bytes of a unit of UNITS; `difference`: the largest from plain's result, over its size."""

    stage: Stage
    order: Order
    precision: Precision
    seconds: float
    frames: int
    peak: int | None
    difference: float


class _Frames:
    """Made-up aligned pictures, kept as 8 bits like a shot's."""

    def __init__(self, count: int, size: int) -> None:
        chance = torch.Generator().manual_seed(1)
        self._pictures = torch.randint(0, 256, (count, 3, size, size), generator=chance, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, index: int) -> Tensor:
        return self._pictures[index].float() / 127.5 - 1


def generator(setup: Setup) -> Generator:
    """Seeded, so that every process has the same."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"style_dim": 16, "channel_max": 8, "n_mlp": 2} if setup.quick else {}
    return Generator(setup.size, **arguments).eval().requires_grad_(False)


def codes(setup: Setup, network: Generator, count: int) -> Tensor:
    """[count, rows, width] in W+."""
    z = torch.randn(count, network.style_dim, generator=torch.Generator().manual_seed(2))
    return network.expand(network.mapping(z)).contiguous()


def perceptual(setup: Setup) -> LPIPS:
    torch.manual_seed(3)
    return LPIPS("alex", width_divisor=16 if setup.quick else 1).eval()


def work(setup: Setup, stage: Stage, order: Order, stack: ExitStack) -> tuple[Work, int]:
    """One unit of a stage, all preparation done, and how many frames it is of."""
    return {"invert": _invert, "adapt": _adapt, "express": _express, "render": _render}[stage](setup, order, stack)


def _invert(setup: Setup, order: Order, stack: ExitStack) -> tuple[Work, int]:
    torch.manual_seed(4)
    rows = 2 * log2_size(setup.size) - 2
    small: dict[str, Any] = {"image_size": 32, "widths": (16, 16, 16, 16), "depths": (1, 1, 1, 1)}
    encoder = E4eEncoder(rows, **(small if setup.quick else {})).eval().requires_grad_(False).to(setup.device)
    pictures = _Frames(8, encoder.image_size)
    faces = torch.stack([pictures.picture(i) for i in range(8)]).to(setup.device)
    batch = 1 if order == "plain" else len(faces)

    @torch.inference_mode()
    def read() -> Tensor:
        with _autocast(setup, order):
            return torch.cat([encoder(faces[i : i + batch]) for i in range(0, len(faces), batch)])

    return read, len(faces)


def _render(setup: Setup, order: Order, stack: ExitStack) -> tuple[Work, int]:
    """Source and edited picture of a frame, as a composite of their difference needs them."""
    network = generator(setup)
    pair = codes(setup, network, 2).to(setup.device)
    network.to(setup.device)
    noise = network.stored_noise()

    @torch.inference_mode()
    def draw() -> Tensor:
        with _autocast(setup, order):
            if order == "optimised":
                return network.synthesis(pair, noise)
            return torch.cat([network.synthesis(pair[i : i + 1], noise) for i in range(2)])

    return draw, 1


def _adapt(setup: Setup, order: Order, stack: ExitStack) -> tuple[Work, int]:
    network = generator(setup)
    shot = AlignedShot(_Frames(4, setup.size), codes(setup, network, 4))
    recipe = Adaptation({}, shot, AdaptationStart(network, {}, perceptual(setup), LICENCES))
    document = {"batch": 1, "ema": {"half_life": 0.0}, "precision": setup.precision_of(order)}
    return _steps(setup, recipe, adaptation_config(document)[0], stack), 1


def _express(setup: Setup, order: Order, stack: ExitStack) -> tuple[Work, int]:
    network, count, size = generator(setup), setup.frames, setup.size
    torch.manual_seed(5)
    tiny: dict[str, Any] = {"channels": (4, 4, 4, 4), "modules": (1, 1, 1), "blocks": 1, "stem": 4}
    landmarks = HRNet(98, **(tiny if setup.quick else {})).eval().requires_grad_(False)
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[round(0.40 * size) : round(0.53 * size), round(0.27 * size) : round(0.73 * size)] = 1
    square = Square(torch.tensor([[0.5, 0.64]]).expand(count, 2) * size, torch.full((count,), 0.75 * size))
    shot = ExpressionShot(codes(setup, network, count), _Frames(count, size), square, mask)
    networks = ExpressionNetworks(network, landmarks, perceptual(setup), LICENCES)
    table = {"lip_side": 64} if setup.quick else {}
    recipe = Expression(table, shot, networks, setup.micro_batch, plain=order == "plain")
    document = {"ema": {"half_life": 0.0}, "precision": setup.precision_of(order), "workers": 0}
    return _steps(setup, recipe, expression_config(document)[0], stack), count


def _steps(setup: Setup, recipe: Recipe, config: Any, stack: ExitStack) -> Work:
    """A step of the loop; returns its losses."""
    config = replace(config, steps=10_000)  # data is loaded ahead to the last step
    run = Run(recipe, config, None, Group(device=torch.device(setup.device)), stack)
    run.open()
    return lambda: torch.tensor(list(run.step()[0].values()))


def _autocast(setup: Setup, order: Order) -> torch.autocast:
    precision = setup.precision_of(order)
    return torch.autocast(torch.device(setup.device).type, DTYPES[precision], enabled=precision != "fp32")


@contextmanager
def _arithmetic(order: Order) -> Iterator[None]:
    """TF32 on CUDA for the optimised order only; settings are put back."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = order == "optimised"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def compare(setup: Setup, stage: Stage) -> list[Measurement]:
    """Both orders in turn, `setup.repeats` times."""
    device = torch.device(setup.device)
    seconds = dict.fromkeys(ORDERS, float("inf"))
    results: dict[Order, Tensor] = {}
    with ExitStack() as stack:
        units = {order: work(setup, stage, order, stack) for order in ORDERS}
        for turn in range(setup.repeats + 1):  # the first one warms up
            for order, (unit, _) in units.items():
                with _arithmetic(order):
                    result, taken = timed(unit, device)
                    if turn:
                        seconds[order] = min(seconds[order], taken)
                    if turn == 1:
                        results[order] = result.float()
    plain = results["plain"]
    scale = float(plain.abs().max()) or 1.0
    found = []
    for order in ORDERS:
        count = units[order][1]
        each = seconds[order] * (SHOT / count if stage == "express" else 1 / count)
        difference = float((results[order] - plain).abs().max()) / scale
        peak = peak_apart(setup, stage, order)
        found.append(Measurement(stage, order, setup.precision_of(order), each, count, peak, difference))
    return found


def peak(setup: Setup, stage: Stage, order: Order) -> int | None:
    """Bytes that two units take at their peak in this process, beyond what torch by itself takes."""
    device = choose_device(setup.device)
    before = 0 if setup.cuda else used_memory(device, peak=False)
    forget_peak()
    with ExitStack() as stack, _arithmetic(order):
        unit, _ = work(setup, stage, order, stack)
        for _ in range(2):
            unit()
        return beyond(before, used_memory(device, peak=True))


def peak_apart(setup: Setup, stage: Stage, order: Order) -> int | None:
    """The same in a process of its own; RuntimeError with its last words if it fails."""
    request = {"setup": asdict(setup), "stage": stage, "order": order}
    return cast("int | None", memory_of(__name__, request, f"{stage} {order}"))


def table(setup: Setup, machine: Machine, measurements: list[Measurement]) -> str:
    """For people: two lines a stage, the second with its ratio to the first."""
    rows = [("stage", "order", "precision", "s each", "of a", "published length", "memory", "difference", "to plain")]
    for m, ratio in with_ratios(measurements, lambda m: m.peak):
        unit = UNITS[m.stage]
        if m.stage == "express" and m.frames != SHOT:
            unit += f" (from {m.frames})"
        whole = f"{PUBLISHED[m.stage]}: {duration(PUBLISHED[m.stage] * m.seconds)}" if m.stage in PUBLISHED else ""
        numbers = (f"{m.seconds:.4g}", unit, whole, mebibytes(m.peak), f"{m.difference:.1e}", ratio)
        rows.append((m.stage, m.order, m.precision, *numbers))
    what = f"StyleGAN2 of {setup.size} px, {setup.micro_batch} frames at once in an expression step"
    return "\n".join([*machine.lines(), what, "", *aligned(rows)])


def add_parser(subparsers: Any) -> None:
    """`style_portrait` below `faceplate bench`."""
    parser = new_parser(subparsers, "style_portrait", __doc__, run)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the optimised order; default: fp32 on the CPU, bf16 on CUDA"
    )
    parser.add_argument(
        "--size", type=int, choices=SIZES, help="of the generator; default: 256 on the CPU, 1024 on CUDA"
    )
    parser.add_argument("--frames", type=int, help="of an expression step; default: 4 on the CPU, 48 on CUDA")
    parser.add_argument("--micro-batch", type=int, default=4, help="frames at once in it (default: %(default)s)")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    add_turns(parser, 3, "small networks of 64 px: does everything run?")


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 when float32 results on the CPU differ by more than 0.001. RequestError for a bad device."""
    device = choose_device(args.device)
    cuda = device.type == "cuda"
    setup = Setup(
        str(device),
        64 if args.quick else args.size or (1024 if cuda else 256),
        args.precision or ("bf16" if cuda else "fp32"),
        max(1, args.frames or (SHOT if cuda else 4)),
        max(1, args.micro_batch),
        max(1, args.repeats),
        args.quick,
    )
    machine = measure_machine(device, setup.precision, repeats=3, quick=setup.quick)
    measurements: list[Measurement] = []
    for stage in args.stage:
        sys.stderr.write(f"{stage} ...\n")
        measurements += compare(setup, stage)
        document = {
            "setup": asdict(setup),
            "machine": machine.document(),
            "style_portrait": [asdict(m) for m in measurements],
        }
        write_json(args.json, document)
    sys.stdout.write(table(setup, machine, measurements) + "\n")
    exact = measurements if setup.precision == "fp32" and not cuda else []
    return judge(exact, TOLERANCE, lambda m: f"{m.stage} {m.order}")


def _child(request: dict[str, Any]) -> int | None:
    return peak(Setup(**request["setup"]), request["stage"], request["order"])


if __name__ == "__main__":
    answer(_child)
