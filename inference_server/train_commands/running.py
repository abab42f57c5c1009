"""What every `faceplate train` command does alike: its configuration, the run itself, and the model at its end.

Decides how a configuration comes about: a file by name or path, or that of the run in the folder, with `--set` and the
command's own options on top. A run ends in the model store unless `--no-import` keeps it out.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ExitCode, TrainError
from inference_server.models.store import ModelStore
from inference_server.training.errors import TrainingError
from inference_server.training.tables import parse_toml, read_toml

if TYPE_CHECKING:
    from inference_server.training.distributed import Group
    from inference_server.training.events import Event, Finished
    from inference_server.training.recipe import Recipe

CONFIGS = Path(__file__).parents[1] / "training" / "configs"

RecipeFactory = Callable[[Mapping[str, Any]], "Recipe"]


def add_run_arguments(parser: argparse.ArgumentParser, configs: str) -> None:
    """The options of every command. `configs`: what the names of its built-in configurations begin with."""
    names = ", ".join(sorted(path.stem for path in CONFIGS.glob(f"{configs}*.toml")))
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; an unfinished run there goes on")
    parser.add_argument(
        "--config", help=f"a TOML file, or one of {names} (default: that of the run in the folder)", metavar="FILE"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value: --set checkpoints.every=100"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="take two steps; print steps, memory and time")
    parser.add_argument("--progress", choices=("lines", "json"), default="lines", help="default: %(default)s")
    parser.add_argument("--no-import", action="store_true", help="leave the model in the folder, out of the store")
    parser.add_argument("--replace", action="store_true", help="replace a model of that id in the store")


def document(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a run as one TOML document; TrainingError `training.config`."""
    before = args.out / "config.toml"
    if args.config is None:
        if not before.is_file():
            raise TrainingError(
                "training.config",
                f"{args.out} holds no run to go on with, and no configuration is named",
                remedy="Say --config.",
                value=str(args.out),
            )
        table = read_toml(before)
    else:
        named = CONFIGS / f"{args.config}.toml"
        table = read_toml(named if named.is_file() else Path(args.config))
    for assignment in args.set:
        assign(table, assignment)
    return table


def assign(table: dict[str, Any], assignment: str) -> None:
    """Puts `a.b=value` into a table; what is no TOML value is taken as text."""
    key, equals, text = assignment.partition("=")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    *way, last = key.strip().split(".")
    if not equals or not last or not all(way):
        raise TrainingError(
            "training.config", f"--set {assignment} is not KEY=VALUE", remedy="For example: --set checkpoints.every=100"
        )
    for step in way:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            raise TrainingError("training.config", f"{step!r} of --set {assignment} is no table", remedy="Correct it.")
    table[last] = value


@contextmanager
def as_faceplate_errors() -> Iterator[None]:
    """Training's own errors leave as the product's."""
    try:
        yield
    except TrainingError as error:
        value = json.loads(json.dumps(error.value, default=str))
        raise TrainError(error.code, error.message, remedy=error.remedy, value=value) from error


def run(args: argparse.Namespace, table: Mapping[str, Any], make: RecipeFactory) -> int:
    """Trains, or measures with `--dry-run`; the exit status.

    `table` is a whole document; `make` is given its [recipe]. Interrupted (SIGINT, SIGTERM), the run is saved, its best
    model exported to the folder, and the status is that of a cancelled job.
    """
    from inference_server.training.config import split_config
    from inference_server.training.distributed import group_from_environment
    from inference_server.training.dry_run import dry_run

    config, own = split_config(table)
    with group_from_environment(device_of(args.device)) as group:
        recipe = make(own)
        if args.dry_run:
            measured = dry_run(recipe, config, group)
            if group.first:
                sys.stdout.write("\n".join(measured.lines()) + "\n")
            return ExitCode.OK
        if group.first and not args.no_import and not args.replace:
            ModelStore().check_free(recipe.card().id)  # before the hours, not after them
        from inference_server.training.loop import train

        finished, whole = follow(args, train(recipe, config, args.out, group), group)
        if not whole:
            if group.first:
                sys.stderr.write(
                    f"stopped; the best model so far is in {args.out / 'model'}. Give the command again to go on.\n"
                )
            return ExitCode.CANCELLED
        if finished is not None and not args.no_import:
            import_result(finished, args.replace)
    return ExitCode.OK


def follow(
    args: argparse.Namespace, events: Generator[Event, None, None], group: Group, until: float | None = None
) -> tuple[Finished | None, bool]:
    """Shows the events; the last one of the first process, and whether the run came to its end.

    `until`: the run is stopped, as a signal would, after the step that goes beyond this time of the monotonic clock.
    """
    from inference_server.train_commands.progress import Lines
    from inference_server.training.__main__ import event_line
    from inference_server.training.events import Finished, Progress, Started

    lines = Lines()
    finished: Finished | None = None
    whole = False
    with _stop_requests() as stopped:
        for event in events:
            if group.first and args.progress == "json":
                sys.stdout.write(event_line(event) + "\n")
                sys.stdout.flush()
            elif group.first:
                lines.show(event)
            if isinstance(event, (Started, Progress)):
                whole = event.step == event.steps
            if isinstance(event, Finished):
                finished = event
            late = until is not None and isinstance(event, Progress) and time.monotonic() >= until
            if (stopped() or late) and not whole:
                events.close()  # the other processes learn of it
                break
    return finished, whole


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a farm's SIGTERM has come; the step at hand is finished first. A second one kills."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def device_of(choice: str) -> str:
    """The device that --device means."""
    import torch

    if choice != "auto":
        return choice
    return "cuda" if torch.cuda.is_available() else "cpu"


def import_result(finished: Finished, replace: bool) -> None:
    """Puts the trained model into the store. Its licences are those of models that were accepted at their import."""
    from inference_server.models.cards import read_cards
    from inference_server.models.importer import import_file

    (card,) = read_cards(finished.card)
    model = import_file(finished.weights, ModelStore(), card, accept_licence=True, replace=replace).model
    sys.stdout.write(f"ready to use: {model.id}  {model.licence}\n")
