"""The one training loop: runs a recipe step by step and yields what happens.

`train` is a generator. Closing it cancels the run: the state is checkpointed and the best model exported before
`close()` returns. Nothing else has to be asked. A run that was killed goes on from its newest whole checkpoint; since
every random number is a function of (seed, step, index), it goes on as if it had not stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from inference_server.training import card, checkpoint, pictures
from inference_server.training.config import TrainConfig, differences, run_table
from inference_server.training.data import batches
from inference_server.training.distributed import Group
from inference_server.training.draws import seeded
from inference_server.training.errors import TrainingError
from inference_server.training.events import (
    Event,
    Finished,
    Pictured,
    Progress,
    Saved,
    Started,
    Validated,
    Warned,
)
from inference_server.training.files import write_text
from inference_server.training.history import History
from inference_server.training.recipe import Batch, Losses, Phase, Recipe
from inference_server.training.state import TrainingState
from inference_server.training.tables import dump_toml

MAX_SKIPPED = 50  # steps in a row without finite gradients before the run is given up

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def train(
    recipe: Recipe, config: TrainConfig, folder: Path, group: Group | None = None
) -> Generator[Event, None, None]:
    """Trains in `folder`, or goes on there, until `config.steps` steps are done.

    The folder gets config.toml, checkpoints/, history.jsonl, curves.png, sheets/ and, at the end or when closed, model/
    with weights and card. With several processes every one of them iterates; the first one writes. Closing any
    of them cancels the run in all.

    TrainingError: `training.config`, `training.recipe`, `training.data`, `training.resume`, `training.diverged`.
    """
    group = group or Group()
    with ExitStack() as stack:
        run = Run(recipe, config, folder, group, stack)
        over = False
        try:
            yield from run.open()
            over = group.any(False)
            while not over and run.state.step < run.config.steps:
                yield from run.advance()
                over = group.any(False)
        except GeneratorExit:
            group.any(True)  # answers the question that the other processes ask at this point
            run.stop()
            raise
        if over:
            run.stop()
            return
        yield from run.finish()


class Run:
    """One run between two yields. With `folder` None nothing is written (a dry run)."""

    def __init__(
        self, recipe: Recipe, config: TrainConfig, folder: Path | None, group: Group, stack: ExitStack
    ) -> None:
        if config.pieces % group.size:
            raise TrainingError(
                "training.config",
                f"{config.pieces} micro-batches cannot be shared by {group.size} processes",
                remedy="Make batch / micro_batch a multiple of the number of processes.",
                value=config.pieces,
            )
        self.recipe, self.config, self.folder, self.group = recipe, config.resolved(), folder, group
        self.table = run_table(self.config, recipe.settings)
        self.state = TrainingState(recipe, self.config, group)
        self.facts = recipe.card()
        card.check_facts(self.facts, self.state.parts.trained)
        self.saved_step = -1
        self.drawn_step = -1
        self.skipped = 0
        self._stack = stack
        self._batches: Iterator[list[Batch]] = iter(())
        self._history = History(None, 0)
        self._seconds: list[float] = []

    # ------------------------------------------------------------------------------------------ start and end

    def open(self) -> list[Event]:
        """Takes up the newest whole checkpoint, where there is one, and starts loading data."""
        if self.folder is not None and self.group.first:
            self._lock(self.folder)
        events = self._resume() if self.folder is not None else []
        state, config = self.state, self.config
        if self.folder is not None and self.group.first:
            write_text(self.folder / "config.toml", dump_toml(self.table))
            self._history = History(self.folder / "history.jsonl", state.step)
        self._batches = self._stack.enter_context(batches(self.recipe, config, self.group, state.step))
        events.insert(0, Started(state.step, config.steps, state.count(), self.group.size))
        return events

    def seek(self, step: int) -> None:
        """Goes to another step, its data and schedules, with the weights as they are (a dry run)."""
        self.state.step = step
        self._batches = self._stack.enter_context(batches(self.recipe, self.config, self.group, step))

    def _lock(self, folder: Path) -> None:
        """Keeps a second run out of the folder; the system lets go of the lock when a process dies."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._stack.enter_context(FileLock(folder / ".lock", timeout=0))
        except Timeout as error:
            raise TrainingError(
                "training.busy",
                f"another process is training in {folder}",
                remedy="Wait for it, cancel it, or choose another folder.",
                value=str(folder),
            ) from error

    def _resume(self) -> list[Event]:
        assert self.folder is not None
        folder = self.folder / "checkpoints"
        events: list[Event] = []
        found: checkpoint.Snapshot | None = None
        if self.group.first:
            for step in reversed(checkpoint.steps(folder)):
                try:
                    found = checkpoint.read(folder, step)
                    break
                except TrainingError as error:
                    events.append(Warned(error.code, error.message, error.remedy, error.value))
        step = self.group.from_first(-1 if found is None else found.step)
        if step < 0:
            return events
        if found is None:  # another process than the first
            found = checkpoint.read(folder, step)
        if found.facts["recipe"] != self.recipe.name:
            raise _not_this_run(self.folder, f"its recipe is {found.facts['recipe']!r}, not {self.recipe.name!r}")
        changed = differences(found.facts["config"], self.table)
        if changed:
            raise _not_this_run(self.folder, f"the configuration has changed: {'; '.join(changed)}")
        if step > self.config.steps:
            raise _not_this_run(self.folder, f"it has done {step} steps, more than the {self.config.steps} asked for")
        self.state.restore(found)
        self.saved_step = step
        if self.group.first:
            for later in checkpoint.steps(folder):
                if later > step:  # damaged, or it would have been used
                    checkpoint.remove(folder, later)
        self.group.barrier()
        return events

    def finish(self) -> list[Event]:
        """The last checkpoint and pictures, weights and card."""
        events: list[Event] = []
        if self.saved_step != self.state.step:
            events += self._save()
        if self.drawn_step != self.state.step:
            events += self._draw()
        exported = self._export()
        self.group.barrier()
        return events + exported

    def stop(self) -> None:
        """The end of a cancelled run: the last state is checkpointed, the best one exported."""
        if self.saved_step != self.state.step:
            self._save()
        if self.state.step > 0:
            self._export()
        self.group.barrier()

    # --------------------------------------------------------------------------------------------- one step

    def advance(self) -> list[Event]:
        """One step of the loop: all phases, averages, and what is due after it."""
        started = time.perf_counter()
        losses, watched = self.step()
        state, config = self.state, self.config
        state.step += 1
        seconds = time.perf_counter() - started
        self._seconds = [*self._seconds[-49:], seconds]
        left = sorted(self._seconds)[len(self._seconds) // 2] * (config.steps - state.step)
        events: list[Event] = [Progress(state.step, config.steps, losses, watched, seconds, left)]
        values = {f"loss/{name}": value for name, value in losses.items()}
        values |= {f"watched/{name}": value for name, value in watched.items()}
        if not all(math.isfinite(value) for value in losses.values()):
            events.append(
                Warned(
                    "training.diverged",
                    f"step {state.step} has losses that are not finite",
                    "Lower the learning rate, or set clip_norm, if this goes on.",
                    losses,
                )
            )
        if config.validate_every and state.step % config.validate_every == 0:
            events += self._validate(values)
        self._history.add(state.step, values)
        best_now = any(isinstance(event, Validated) and event.best for event in events)
        if best_now or state.step % config.checkpoints.every == 0:
            events += self._save()
        if config.pictures_every and state.step % config.pictures_every == 0:
            events += self._draw()
        return events

    def step(self) -> tuple[dict[str, float], dict[str, float]]:
        """All phases of one step and the averages; returns losses and watched values."""
        state, device = self.state, self.group.device
        modules = state.modules
        prepared = []
        for batch in next(self._batches):
            with torch.no_grad(), self._autocast(), seeded(device, *self._place(batch), "prepare"):
                prepared.append(self.recipe.prepare(modules, batch))
        state.set_rates()
        sums: dict[str, Tensor] = {}
        updated = True
        for phase in self.recipe.phases(state.step):
            optimiser = state.parts.optimisers[phase.optimiser]
            scaler = state.scalers[phase.optimiser]
            state.set_trainable(phase.optimiser)
            optimiser.zero_grad(set_to_none=True)
            for batch in prepared:
                with self._autocast(), seeded(device, *self._place(batch), phase.name):
                    losses = self.recipe.losses(modules, phase.name, batch)
                total = self._take(sums, phase, losses)
                scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            updated &= self._update(phase, optimiser, scaler)
        state.share_buffers()
        state.average()
        self._count_skipped(updated)
        return self._read(sums)

    def _autocast(self) -> torch.autocast:
        precision = self.config.precision
        return torch.autocast(self.group.device.type, _DTYPES[precision], enabled=precision != "fp32")

    def _place(self, batch: Batch) -> tuple[int, int, int]:
        return (self.config.seed, batch.step, batch.draws[0].index)

    def _take(self, sums: dict[str, Tensor], phase: Phase, losses: Losses) -> Tensor:
        """Adds a micro-batch's share to the step's means and returns what is to be minimised."""
        if not losses.terms:
            raise TrainingError(
                "training.recipe",
                f"phase {phase.name!r} of recipe {self.recipe.name!r} has no loss",
                remedy="Leave the phase out of phases() in steps where it has nothing to do.",
            )
        share = 1.0 / self.config.pieces
        for kind, values in (("loss", losses.terms), ("watched", losses.watched)):
            for name, value in values.items():
                if value.numel() != 1:
                    raise TrainingError(
                        "training.recipe",
                        f"loss {name!r} of phase {phase.name!r} has shape {tuple(value.shape)}, expected one number",
                        remedy="Return the mean over the micro-batch.",
                    )
                key = f"{kind}/{name}"
                part = value.detach().float().reshape(()) * share
                sums[key] = sums[key] + part if key in sums else part
        return torch.stack([value.float().reshape(()) for value in losses.terms.values()]).sum() * share

    def _update(self, phase: Phase, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> bool:
        """The optimiser step, unless gradients are not finite. True when it was taken."""
        parameters = self.state.parameters_of(phase.optimiser)
        self.group.sum_gradients(parameters)
        scaler.unscale_(optimiser)
        limit = self.config.clip_norm or math.inf
        finite = bool(torch.nn.utils.clip_grad_norm_(parameters, limit).isfinite())
        if scaler.is_enabled():
            scaler.step(optimiser)  # skips by itself
            scaler.update()
        elif finite:
            optimiser.step()
        return finite

    def _count_skipped(self, updated: bool) -> None:
        self.skipped = 0 if updated else self.skipped + 1
        if self.skipped > MAX_SKIPPED:
            raise TrainingError(
                "training.diverged",
                f"gradients have not been finite for {self.skipped} steps, up to step {self.state.step}",
                remedy="Go on from an earlier checkpoint with a lower learning rate, or with clip_norm or fp32.",
                value=self.state.step,
            )

    def _read(self, sums: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """Means over all processes as numbers: one transfer for all of them."""
        if not sums:
            return {}, {}
        stacked = self.group.sum_(torch.stack(list(sums.values())))
        losses: dict[str, float] = {}
        watched: dict[str, float] = {}
        for key, value in zip(sums, stacked.tolist(), strict=True):
            kind, _, name = key.partition("/")
            (losses if kind == "loss" else watched)[name] = value
        return losses, watched

    # ------------------------------------------------------------------------------------- what is due after it

    def _validate(self, values: dict[str, float]) -> list[Event]:
        """The first process scores; the others learn whether it is the best so far."""
        score: float | None = None
        state = self.state
        if self.group.first:
            with state.evaluating() as modules, seeded(self.group.device, self.config.seed, "score"):
                score = self.recipe.score(modules)
        best = self.group.any(score is not None and score < state.score)
        if best:
            state.best_step = state.step
            state.score = math.inf if score is None else score
        if score is None:
            return []
        values["score"] = score
        return [Validated(state.step, score, best)]

    def _save(self) -> list[Event]:
        """A checkpoint by the first process."""
        state = self.state
        self.saved_step = state.step
        if self.folder is None or not self.group.first:
            return []
        folder = self.folder / "checkpoints"
        path = checkpoint.write(folder, state.snapshot(self.table, self.recipe.name))
        checkpoint.prune(folder, self.config.checkpoints.keep, [state.best_step])
        return [Saved(state.step, path)]

    def _draw(self) -> list[Event]:
        """Curves and a sample sheet by the first process."""
        self.drawn_step = self.state.step
        if self.folder is None or not self.group.first:
            return []
        step = self.state.step
        path = self.folder / "curves.png"
        pictures.write_png(path, pictures.curves(self._history.series))
        events: list[Event] = [Pictured(step, "curves", path)]
        with self.state.evaluating() as modules, seeded(self.group.device, self.config.seed, "sheet"):
            content = self.recipe.sheet(modules)
        if content is not None:
            path = self.folder / "sheets" / f"step-{step:08d}.png"
            pictures.write_png(path, pictures.sheet(content))
            events.append(Pictured(step, "sheet", path))
        return events

    def _export(self) -> list[Event]:
        """Weights and card of the best step, or of the last where there is no best."""
        if self.folder is None or not self.group.first:
            return []
        state = self.state
        events: list[Event] = []
        snapshot = None
        if 0 <= state.best_step < state.step:
            try:
                snapshot = checkpoint.read(self.folder / "checkpoints", state.best_step)
            except TrainingError as error:
                remedy = "The last step is exported instead."
                events.append(Warned(error.code, error.message, remedy, error.value))
        if snapshot is None:
            snapshot = state.snapshot(self.table, self.recipe.name)
        weights, path = card.export(snapshot, self.facts, self.config.steps, self.folder / "model")
        return [*events, Finished(state.step, snapshot.step, weights, path)]


def _not_this_run(folder: Path, what: str) -> TrainingError:
    return TrainingError(
        "training.resume",
        f"{folder} holds another run: {what}",
        remedy="Continue with what the run was started with (its config.toml), or choose a new folder.",
        value=str(folder),
    )
