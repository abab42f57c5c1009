"""The two runs of a keyframe round: what each begins with, its recipe and configuration, and how many steps fit.

A network begins with what the round before learned; without one with the starter, another model of the store, or anew.
Steps come from minutes once, when the round begins, and are kept with it: the same steps give the same network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ModelError
from inference_server.models.builders import build
from inference_server.models.store import ModelStore, StoredModel, sha256_of
from inference_server.networks.two_stage import Refiner, Translator
from inference_server.train_commands import needs, running
from inference_server.train_commands.keyframe_rounds import NONE, STAGES, STARTER, Plan, Round
from inference_server.training.config import TrainConfig, split_config
from inference_server.training.distributed import Group
from inference_server.training.draws import seeded
from inference_server.training.dry_run import dry_run
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.keyframe import KeyframeRefiner, KeyframeTranslator, one_style, widths_of
from inference_server.training.recipes.keyframe_data import CarriedPairs, KeyframeData, PaintedPairs, ShotWindows
from inference_server.training.recipes.two_stage import TranslatorSettings, TranslatorStart
from inference_server.training.recipes.two_stage_refiner import RefinerSettings, RefinerStart
from inference_server.training.tables import from_table, read_toml

if TYPE_CHECKING:
    from torch import nn

    from inference_server.training.recipe import Recipe

TRANSLATOR, REFINER = "two-stage-translator", "two-stage-refiner"
LICENCES: tuple[str | Mapping[str, Any], ...] = (
    {
        "id": "own-paint",
        "name": "Your own",
        "noncommercial": False,
        "summary": "Trained on frames that were painted by whoever trained it, and on their plate.",
    },
)
LEAST_STEPS = 20
USED = 0.85  # of the minutes are steps; the rest is scores, pictures and files
SETTLED = 0.6  # of a stage's steps, after which batch norm is what it will be in use
SCORES = 10  # of a stage
SAVED_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class Begin:
    """Networks to go on from: where they come from, with the hash of their weights, and under which licences."""

    name: str
    translator: Translator | None = None
    refiner: Refiner | None = None
    licences: tuple[str | Mapping[str, Any], ...] = ()


class Stages:
    """Recipes of a round. `before`: the round that this one goes on from, if any."""

    def __init__(
        self, args: argparse.Namespace, round_: Round, before: Round | None, data: KeyframeData, group: Group
    ) -> None:
        self.args, self.round, self.before, self.data, self.group = args, round_, before, data, group

    @property
    def can_refine(self) -> bool:
        """Whether two frames of the shot follow one another anywhere."""
        return self.data.longest_run > 1

    @cached_property
    def begin(self) -> Begin:
        found = self.before.result() if self.before is not None else None
        if self.before is not None and found is not None:
            weights, card = found
            return _of_files(f"{self.before.folder.name}@{sha256_of(weights)[: needs.PIN]}", weights, card)
        return _of_store(self.args.start, ModelStore())

    def begins_with(self) -> list[str]:
        """In words."""
        painted = ", ".join(str(n) for n in self.data.painted)
        height, width = self.data.frames.shape[-2:]
        what = self.begin.name or "nothing: the networks begin anew"
        return [f"{self.round.folder.name}: painted {painted}; network's picture {width}x{height}; begins with {what}"]

    def measured(self, stage: str, seconds: float, lines: list[str]) -> tuple[int, float]:
        """How many steps of a stage fit into so many seconds, and how long one takes."""
        recipe, config = self.recipe(stage, Plan(LEAST_STEPS, LEAST_STEPS))
        found = dry_run(recipe, config, self.group)
        lines.append(f"{stage}:")
        lines += found.lines()
        each = (found.first_seconds + found.last_seconds) / 2
        steps = self.group.from_first(max(LEAST_STEPS, int(USED * seconds / max(each, 1e-6))))
        return steps, round(each, 4)

    def recipe(self, stage: str, plan: Plan) -> tuple[Recipe, TrainConfig]:
        """A stage's recipe and configuration. Raises TrainingError, ModelError."""
        steps, seconds = plan.steps(stage), plan.seconds(stage)
        config, table = split_config(self._document(stage))
        fresh: dict[str, Any] = {"steps": steps, "validate_every": max(1, steps // SCORES)}
        if seconds > 0:
            fresh["pictures_every"] = max(1, round(self.args.preview_seconds / seconds))
            fresh["checkpoints"] = replace(config.checkpoints, every=max(1, round(SAVED_EVERY / seconds)))
        config = replace(config, **{**fresh, **{name: getattr(config, name) for name in self._set(stage, fresh)}})
        table = {"settle_norms": round(SETTLED * steps), **table, "data": self.data.digest, "title": self.args.name}
        return (self._translator(table) if stage == "translator" else self._refiner(table)), config

    # -------------------------------------------------------------------------------------------- configurations

    def _document(self, stage: str) -> dict[str, Any]:
        suffix = "_cpu" if self.group.device.type == "cpu" else ""
        table = read_toml(running.CONFIGS / f"keyframe_{stage}{suffix}.toml")
        for assignment in self.args.set:
            own, dot, rest = assignment.partition(".")
            if own not in STAGES or not dot:
                raise TrainingError(
                    "training.config",
                    f"--set {assignment} names neither network",
                    remedy="For example: --set translator.recipe.geometry.mirror=0",
                )
            if own == stage:
                running.assign(table, rest)
        return table

    def _set(self, stage: str, names: Mapping[str, Any]) -> list[str]:
        """Those of the names that --set gives a value."""
        keys = [assignment.partition("=")[0].strip() for assignment in self.args.set]
        return [name for name in names if any(key.split(".")[:2] == [stage, name] for key in keys)]

    # ---------------------------------------------------------------------------------------------------- recipes

    def _translator(self, table: Mapping[str, Any]) -> KeyframeTranslator:
        begin, crop = self.begin, int(table["crop"])
        pairs = PaintedPairs(self.data, crop)
        network = None if begin.translator is None else one_style(begin.translator, pairs)
        own = {**table, "id": self.args.name, "styles": ["painted"]}
        if network is not None:
            own |= {"widths": list(widths_of(network)), "models": {"start": begin.name}}
        start = TranslatorStart(
            pairs,
            CarriedPairs(self.data, crop) if len(self.data.carried_to) else None,
            self._licences(),
            begin=network,
            notes=self._notes(),
        )
        return KeyframeTranslator(
            from_table(TranslatorSettings, own, "translator.recipe."), start, self.data, self.round.card()
        )

    def _refiner(self, table: Mapping[str, Any]) -> KeyframeRefiner:
        translator, name = self._trained()
        refiner = self.begin.refiner
        own: dict[str, Any] = {
            **table,
            "id": self.args.name,
            "styles": ["painted"],
            "translator_widths": list(widths_of(translator)),
            "models": {"translator": name, **({"start": self.begin.name} if refiner is not None else {})},
        }
        if refiner is not None:
            own["widths"] = list(widths_of(refiner))
        multiple = 2 ** (len(own["widths"]) - 1)
        smallest = min(self.data.frames.shape[-2:])
        own["crop"] = min(int(own["crop"]), smallest // multiple * multiple)
        own["length"] = min(int(own.get("length", RefinerSettings.length)), self.data.longest_run)
        windows = ShotWindows.of(self.data, own["length"], own["crop"])
        settings = from_table(RefinerSettings, own, "refiner.recipe.")
        start = RefinerStart(
            translator,
            windows,
            windows.some(settings.held_out),
            self._licences(),
            begin=refiner,
            notes=self._notes(),
        )
        return KeyframeRefiner(settings, start, self.round.card())

    def _trained(self) -> tuple[Translator, str]:
        """Stage one's result; while a round is planned, any network of its size."""
        found = self.round.model("translator")
        if found is not None:
            trained = _of_files(f"translator@{sha256_of(found[0])[: needs.PIN]}", *found)
            assert trained.translator is not None
            return trained.translator, trained.name
        _, table = split_config(self._document("translator"))
        if self.begin.translator is not None:
            return one_style(self.begin.translator, PaintedPairs(self.data, int(table["crop"]))), ""
        with seeded(self.group.device, "keyframe plan"):
            return Translator(tuple(table.get("widths", TranslatorSettings.widths))), ""

    def _licences(self) -> tuple[str | Mapping[str, Any], ...]:
        return (*LICENCES, *(licence for licence in self.begin.licences if licence not in LICENCES))

    def _notes(self) -> str:
        card = self.round.card()
        painted = ", ".join(str(n) for n in self.data.painted)
        begun = f" Begun with {self.begin.name}." if self.begin.name else ""
        return f"Painted frames {painted} of shot {card.get('shot', '')}, {card.get('regions', '')}.{begun}"


# ----------------------------------------------------------------------------------------------- where to begin


def _of_files(name: str, weights: Path, card: Path) -> Begin:
    """Networks that a run has exported."""
    from safetensors.torch import load_file

    table, tensors = read_toml(card), load_file(weights)
    networks: dict[str, nn.Module] = {}
    for part, spec in table["parts"].items():
        network = build(spec["network"], spec["config"])
        prefix = spec["prefix"]
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        networks[part] = network
    return _begin(name, networks, tuple(table["licences"]))


def _of_store(wanted: str, store: ModelStore) -> Begin:
    """The model that --start names; nothing for `none`, and for `starter` where none comes with Faceplate."""
    if wanted == NONE:
        return Begin("")
    if wanted == STARTER:
        shipped = [m for m in store.models().values() if m.built_in and _translator_part(m) is not None]
        if not shipped:
            return Begin("")
        model = shipped[0]
    else:
        model = store.get(wanted)
        if _translator_part(model) is None:
            raise ModelError(
                "model.mismatch",
                f"{wanted!r} holds no two-stage translator to begin with",
                value=wanted,
                remedy="Name another with --start, or say --start none.",
            )
    networks = {
        name: needs.network(model, Translator if part.network == TRANSLATOR else Refiner, name)
        for name, part in model.card.parts.items()
        if part.network in (TRANSLATOR, REFINER)
    }
    return _begin(f"{model.id}@{model.sha256[: needs.PIN]}", networks, needs.licences_of({"start": model}))


def _translator_part(model: StoredModel) -> str | None:
    return next((name for name, part in model.card.parts.items() if part.network == TRANSLATOR), None)


def _begin(name: str, networks: Mapping[str, nn.Module], licences: tuple[Any, ...]) -> Begin:
    """Copies that can be trained."""
    translators = [n.requires_grad_(True).train() for n in networks.values() if isinstance(n, Translator)]
    refiners = [n.requires_grad_(True).train() for n in networks.values() if isinstance(n, Refiner)]
    return Begin(name, translators[0] if translators else None, refiners[0] if refiners else None, licences)
