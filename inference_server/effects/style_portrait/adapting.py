"""The step `adapt`: the generator learns to draw this actor in this shot (StylePortraitVideo 3.2).

What is kept is the best of the run by its own score, as the weights that adaptation changes. Where it continues another
adaptation, which one that was is settled when it begins and told with the result: an actor's newest adaptation may be
another one by the time a stopped run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Generator as Steps
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from host_bridge.files import write_whole
from inference_server.effects.steps import RUN
from inference_server.effects.style_portrait.descriptor import ADAPT
from inference_server.effects.style_portrait.imported import LPIPS
from inference_server.effects.style_portrait.interfaces import Generator
from inference_server.effects.style_portrait.learning import learn, licences_of, read_config, read_pictures
from inference_server.effects.style_portrait.material import Material
from inference_server.effects.style_portrait.results import ADAPTED, save_adapted
from inference_server.models.store import sha256_of
from inference_server.runs import RunEvent
from inference_server.training import events as training
from inference_server.training.distributed import Group
from inference_server.training.loop import train
from inference_server.training.recipes.adaptation import Adaptation, AdaptationStart, adaptation_config
from inference_server.training.recipes.synthesis import AlignedShot, Synthesis, synthesis_of

_BEGAN = "began.json"


def adapt(material: Material) -> Steps[RunEvent, None, None]:
    """Take the step. Raises ShotError `shot.not_adapted` where there is nothing to continue from, and TrainError."""
    values = material.values.at(0)
    source = str(values["adapt_from"]).strip()
    start = material.shot.earlier(source) if source else None
    pictures = yield from read_pictures(material)
    learner = material.learner(start)
    document = {**read_config("adaptation"), "seed": int(float(str(values["adapt_seed"])))}
    steps = int(float(str(values["continual_iterations" if source else "adapt_iterations"])))
    config, table = adaptation_config(document, continual=bool(source), steps=steps)
    used = [material.base.model, *(material.imported.needed(name, "adaptation") for name in LPIPS)]
    transforms = material.transforms
    shot = AlignedShot(
        pictures,
        torch.from_numpy(material.codes),
        None if transforms is None else torch.from_numpy(transforms),
    )
    recipe = Adaptation(
        {**table, "models": {model.id: model.sha256 for model in used}},
        shot,
        AdaptationStart(
            learner.module,
            material.base.model.card.parts["main"].config,
            material.perceptual(),
            licences_of(*used),
            drawn_by(learner),
        ),
    )

    def begin(folder: Path) -> Steps[training.Event, None, None]:
        _note_start(folder, source, start)
        return train(recipe, config, folder, Group(device=material.device))

    def keep(weights: Path, done: int) -> Mapping[str, Any]:
        own = dict(learner.module.named_parameters())
        with torch.no_grad():
            for name, value in load_file(weights).items():
                known = own.get(name.removeprefix("main."))
                if known is not None:
                    known.copy_(value)
        save_adapted(learner, material.base, material.shot.folder)
        return dict(json.loads((material.shot.folder / RUN / _BEGAN).read_text(encoding="utf-8")))

    yield from learn(material, ADAPT, begin, keep)


def drawn_by(generator: Generator) -> Synthesis:
    """How the recipes draw with a generator, trained being what the effect says is trainable."""
    known = synthesis_of(generator.module)
    trainable = {id(parameter) for parameter in generator.trainable()}
    fixed = tuple(name for name, value in generator.module.named_parameters() if id(value) not in trainable)
    return replace(known, bypassed=fixed)


def _note_start(folder: Path, source: str, start: Path | None) -> None:
    """Say what a run begins with, unless it goes on from a checkpoint of its own."""
    note = folder.parent / _BEGAN
    if note.is_file() and any((folder / "checkpoints").glob("*")):
        return
    facts = {"continues": source, "from": sha256_of(start / ADAPTED)} if start is not None else {}
    write_whole(note, json.dumps(facts).encode())
