"""Everything of a run that changes from step to step: modules, averages, optimisers, scalers, the best score.

Decides what a checkpoint holds, under which names, and how it is put back exactly.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inference_server.training.checkpoint import Snapshot, flat_optimiser, load_optimiser
from inference_server.training.config import TrainConfig
from inference_server.training.distributed import Group
from inference_server.training.draws import seeded
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Parts, Recipe


class TrainingState:
    """The state after `step` steps. `score` is the lowest so far, reached at `best_step` (-1: none)."""

    def __init__(self, recipe: Recipe, config: TrainConfig, group: Group) -> None:
        self.config, self.group = config, group
        with seeded(torch.device("cpu"), config.seed, "build"):
            self.parts: Parts = recipe.build()
        _check(self.parts, recipe.name)
        for module in (*self.parts.trained.values(), *self.parts.frozen.values()):
            module.to(group.device)
        for module in self.parts.frozen.values():
            module.requires_grad_(False)
        group.broadcast_(itertools.chain.from_iterable(_tensors(m) for m in self.parts.trained.values()))
        self.averages: dict[str, nn.Module] = {}
        if config.ema.half_life > 0:
            self.averages = {
                name: copy.deepcopy(self.parts.ema_start.get(name, self.parts.trained[name]))
                .to(group.device)
                .eval()
                .requires_grad_(False)
                for name in self.parts.ema
            }
        for optimiser in self.parts.optimisers.values():
            for settings in optimiser.param_groups:
                settings.setdefault("initial_lr", settings["lr"])
        self.scalers = {
            name: torch.amp.GradScaler(group.device.type, enabled=config.precision == "fp16")
            for name in self.parts.optimisers
        }
        self.step = 0
        self.score = math.inf
        self.best_step = -1

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Trained and frozen modules."""
        return {**self.parts.frozen, **self.parts.trained}

    def parameters_of(self, optimiser: str) -> list[nn.Parameter]:
        groups = self.parts.optimisers[optimiser].param_groups
        return [parameter for settings in groups for parameter in settings["params"]]

    def count(self) -> int:
        """Trained parameters."""
        unique = {id(p): p.numel() for name in self.parts.optimisers for p in self.parameters_of(name)}
        return sum(unique.values())

    def set_trainable(self, optimiser: str) -> None:
        """Only this optimiser's parameters ask for gradients."""
        for name in self.parts.optimisers:
            for parameter in self.parameters_of(name):
                parameter.requires_grad_(False)
        for parameter in self.parameters_of(optimiser):
            parameter.requires_grad_(True)

    def set_rates(self) -> None:
        """Learning rates of the step at hand."""
        factor = self.config.schedule.factor(self.step)
        for optimiser in self.parts.optimisers.values():
            for settings in optimiser.param_groups:
                settings["lr"] = settings["initial_lr"] * factor

    @torch.no_grad()
    def average(self) -> None:
        """Moves the averaged copies towards the weights of the step at hand; buffers are copied."""
        decay = self.config.ema.decay(self.step, self.config.batch)
        for name, average in self.averages.items():
            trained = self.parts.trained[name]
            for mean, weight in zip(average.parameters(), trained.parameters(), strict=True):
                mean.lerp_(weight.to(mean.dtype), 1 - decay)
            for target, source in zip(average.buffers(), trained.buffers(), strict=True):
                target.copy_(source)

    def share_buffers(self) -> None:
        """Running statistics become those of the first process."""
        self.group.broadcast_(b for m in self.parts.trained.values() for b in m.buffers())

    @contextmanager
    def evaluating(self) -> Iterator[dict[str, nn.Module]]:
        """Modules to look at: averaged copies where there are any, all in eval mode, without gradients."""
        modules = {**self.modules, **self.averages}
        modes = [(m, m.training) for module in modules.values() for m in module.modules()]
        try:
            for module in modules.values():
                module.eval()
            with torch.no_grad():
                yield modules
        finally:
            for module, mode in modes:
                module.training = mode

    def snapshot(self, config_table: Mapping[str, Any], recipe: str) -> Snapshot:
        tensors: dict[str, Tensor] = {}
        for name, module in self.parts.trained.items():
            tensors.update({f"module/{name}/{key}": value for key, value in module.state_dict().items()})
        for name, module in self.averages.items():
            tensors.update({f"ema/{name}/{key}": value for key, value in module.state_dict().items()})
        optimisers = {}
        for name, optimiser in self.parts.optimisers.items():
            state, optimisers[name] = flat_optimiser(optimiser)
            tensors.update({f"optimiser/{name}/{key}": value for key, value in state.items()})
        facts = {
            "recipe": recipe,
            "config": config_table,
            "optimisers": optimisers,
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "schedule": {"factor": self.config.schedule.factor(self.step)},
            "sampler": {"position": self.step * self.config.batch},
            "best": {"step": self.best_step, "score": None if math.isinf(self.score) else self.score},
        }
        return Snapshot(self.step, tensors, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Puts a snapshot back; TrainingError `training.resume` when it is of another kind of run."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in snapshot.tensors.items():
            kind, name, rest = key.split("/", 2)
            groups.setdefault(f"{kind}/{name}", {})[rest] = value
        facts = snapshot.facts
        _same_names("optimisers", set(facts["optimisers"]), set(self.parts.optimisers))
        own = {f"module/{n}" for n in self.parts.trained} | {f"ema/{n}" for n in self.averages}
        # A module without any tensor leaves no trace in the file.
        own = {name for name in own if _module_of(self, name).state_dict()}
        _same_names("modules", {name for name in groups if not name.startswith("optimiser/")}, own)
        expected = self.config.schedule.factor(snapshot.step)
        if facts["schedule"]["factor"] != expected:
            raise _mismatch(
                f"the schedule's factor at step {snapshot.step} was {facts['schedule']['factor']}, now it is {expected}"
            )
        position = snapshot.step * self.config.batch
        if facts["sampler"]["position"] != position:
            raise _mismatch(f"the sampler stood at {facts['sampler']['position']}, expected {position}")
        for name in own:
            try:
                _module_of(self, name).load_state_dict(groups[name], strict=True)
            except RuntimeError as error:
                raise _mismatch(f"{name} does not fit: {error}") from error
        for name, optimiser in self.parts.optimisers.items():
            try:
                load_optimiser(optimiser, groups.get(f"optimiser/{name}", {}), facts["optimisers"][name])
            except (ValueError, KeyError) as error:
                raise _mismatch(f"the state of optimiser {name!r} does not fit: {error}") from error
        for name, scaler in self.scalers.items():
            if facts["scalers"][name]:
                scaler.load_state_dict(facts["scalers"][name])
        best = facts["best"]
        self.step = snapshot.step
        self.best_step = best["step"]
        self.score = math.inf if best["score"] is None else best["score"]


def _module_of(state: TrainingState, name: str) -> nn.Module:
    kind, _, rest = name.partition("/")
    return state.parts.trained[rest] if kind == "module" else state.averages[rest]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _check(parts: Parts, recipe: str) -> None:
    def bad(what: str) -> TrainingError:
        return TrainingError("training.recipe", f"recipe {recipe!r}: {what}", remedy="Correct the recipe's build().")

    if not parts.optimisers:
        raise bad("it builds no optimiser")
    for name in (*parts.trained, *parts.frozen, *parts.optimisers):
        if "/" in name or not name:
            raise bad(f"{name!r} is no name for a module or optimiser (empty, or with a slash)")
    both = set(parts.trained) & set(parts.frozen)
    if both:
        raise bad(f"{sorted(both)} are trained and frozen at once")
    unknown = set(parts.ema) - set(parts.trained)
    if unknown:
        raise bad(f"ema names {sorted(unknown)}, which are not among the trained modules {sorted(parts.trained)}")
    owned = {id(p) for module in parts.trained.values() for p in module.parameters()}
    for name, optimiser in parts.optimisers.items():
        if any(id(p) not in owned for settings in optimiser.param_groups for p in settings["params"]):
            raise bad(f"optimiser {name!r} has parameters that are in none of the trained modules")


def _same_names(what: str, stored: set[str], own: set[str]) -> None:
    if stored != own:
        raise _mismatch(f"{what} of the checkpoint are {sorted(stored)}, of the recipe {sorted(own)}")


def _mismatch(what: str) -> TrainingError:
    return TrainingError(
        "training.resume",
        f"the checkpoint is of another run: {what}",
        remedy="Continue with the recipe and configuration it was made with, or start in a new folder.",
    )
