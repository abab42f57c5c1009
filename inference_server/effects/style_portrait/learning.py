"""How a training run becomes a long step: its pictures, its events, and what is kept of it when it is stopped.

The run lives in the step's `run` folder and goes on there. Pictures are read from the plate once and kept beside it as
8-bit samples, which is what such generators were trained on, so that a step of training waits for no plate.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Generator as Steps
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.files import write_whole
from inference_server.effects.steps import PREVIEW, RUN, StepResult, note_result
from inference_server.effects.style_portrait.material import Material
from inference_server.models.store import StoredModel
from inference_server.runs import Progress, RunEvent, Tick, Warned
from inference_server.train_commands.running import CONFIGS, as_faceplate_errors
from inference_server.training import events as training
from inference_server.training.errors import TrainingError
from inference_server.training.tables import read_toml

Train = Callable[[Path], Steps[training.Event, None, None]]
"""Begins or goes on with a run in a folder."""
Keep = Callable[[Path, int], Mapping[str, Any]]
"""Puts the weights of that file into the step's folder as its result, `done` steps being done; returns facts of it."""

_TRAINING, _PICTURES = "training", "pictures.npy"


def read_config(name: str) -> dict[str, Any]:
    """A configuration that comes with Faceplate."""
    return read_toml(CONFIGS / f"{name}.toml")


def licences_of(*models: StoredModel) -> tuple[Mapping[str, Any], ...]:
    """The licences of all of them, each once, as tables."""
    every = {licence.id: licence for model in models for licence in model.card.licences}
    return tuple(msgspec.to_builtins(licence) for licence in every.values())


class Pictures:
    """A shot's pictures on disk (training.recipes.synthesis.Frames): uint8 [F, 3, S, S]."""

    def __init__(self, samples: NDArray[np.uint8]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def picture(self, index: int) -> Tensor:
        return torch.from_numpy(self._samples[index].astype(np.float32)) / 127.5 - 1


def read_pictures(material: Material) -> Steps[RunEvent, None, Pictures]:
    """What the generator should draw, read from the plate unless an earlier attempt has done so."""
    folder = material.shot.folder / RUN
    folder.mkdir(exist_ok=True)
    path, size = folder / _PICTURES, material.base.size
    frames = material.frames
    if not path.is_file():
        draft = folder / f".{_PICTURES}"
        shape = (len(frames), 3, size, size)
        samples = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
        for done, crop in enumerate(material.crops(), 1):
            samples[done - 1] = ((crop.picture[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            yield Progress("prepare", done, len(frames), "reading the face from the plate")
        samples.flush()
        del samples
        draft.replace(path)
    return Pictures(np.load(path, mmap_mode="r", allow_pickle=False))


def learn(material: Material, stage: str, train: Train, keep: Keep) -> Steps[RunEvent, None, None]:
    """Run a training to its end as a step of that name.

    Closed, it checkpoints, exports its best and keeps that. A run that an older version of the software began and that
    cannot be gone on with is begun anew. Raises TrainError.
    """
    folder = material.shot.folder
    home = folder / RUN / _TRAINING
    with as_faceplate_errors():
        try:
            yield from _run(stage, folder, train(home), keep)
            return
        except TrainingError as error:
            if error.code != "training.resume":
                raise
            yield Warned("shot.step_restarted", f"{stage} cannot go on with what an earlier run left: {error.message}")
        shutil.rmtree(home)
        yield from _run(stage, folder, train(home), keep)


def _run(
    stage: str, folder: Path, events: Steps[training.Event, None, None], keep: Keep
) -> Steps[RunEvent, None, None]:
    done = wanted = 0
    picture = ""

    def put(weights: Path) -> None:
        facts = keep(weights, done)
        note_result(folder, StepResult(done, wanted, facts))

    try:
        for event in events:
            if isinstance(event, training.Started):
                done, wanted = event.step, event.steps
            elif isinstance(event, training.Progress):
                done = event.step
            elif isinstance(event, training.Pictured) and event.kind == "sheet":
                write_whole(folder / PREVIEW, event.path.read_bytes())
                picture = str(folder / PREVIEW)
            elif isinstance(event, training.Finished):
                put(event.weights)
            yield from _told(event, stage, picture)
    except GeneratorExit:
        events.close()
        exported = next((folder / RUN / _TRAINING / "model").glob("*.safetensors"), None)
        if exported is not None and done:
            put(exported)
        raise


def _told(event: training.Event, stage: str, picture: str) -> Iterator[RunEvent]:
    if isinstance(event, training.Progress):
        terms = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
        note = f"loss {sum(event.losses.values()):.4g} ({terms})"
        yield Progress(stage, event.step, event.steps, note, picture)
    elif isinstance(event, training.Started):
        yield Progress(stage, event.step, event.steps, "going on" if event.step else "")
    elif isinstance(event, training.Warned):
        yield Warned(event.code, f"{event.message}. {event.remedy}")
    else:
        yield Tick()
