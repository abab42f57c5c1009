"""The step `expression`: codes are moved until the lips of the edited face are the actor's (StylePortraitVideo 3.3).

The lips are held to the frame as it was edited before the edits of the expression: to the plate where there is no edit
before them, else to what the adapted generator draws of those codes (sequential editing).
"""

from __future__ import annotations

from collections.abc import Generator as Steps
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from host_bridge.errors import JobError
from inference_server.effects.style_portrait.adapting import drawn_by
from inference_server.effects.style_portrait.descriptor import EXPRESSION
from inference_server.effects.style_portrait.imported import LPIPS
from inference_server.effects.style_portrait.learning import learn, licences_of, read_config, read_pictures
from inference_server.effects.style_portrait.material import Material
from inference_server.effects.style_portrait.results import save_offsets
from inference_server.networks.hrnet import face_square
from inference_server.runs import RunEvent, Warned
from inference_server.training import events as training
from inference_server.training.distributed import Group
from inference_server.training.loop import train
from inference_server.training.recipes.expression import (
    OFFSETS,
    Expression,
    ExpressionNetworks,
    ExpressionShot,
    expression_config,
)
from inference_server.training.recipes.expression_terms import eye_masks
from inference_server.training.recipes.synthesis import Frames

MICRO_BATCH = 4
"""Frames that are worked on at once, as many as the device's memory takes; the result does not depend on it."""
_EYES = (slice(36, 42), slice(42, 48))  # of dlib's 68 points
_WEIGHTS = {"lips": "lip", "eyes": "eye", "regularisation": "reg", "temporal": "temporal"}


def express(material: Material) -> Steps[RunEvent, None, None]:
    """Take the step. Raises TrainError, and JobError `job.out_of_memory` where not even one frame fits."""
    values = material.values.at(0)
    edited = material.edited()
    reference: Frames | torch.Tensor
    if np.array_equal(edited.before, material.codes):
        reference = yield from read_pictures(material)
    else:
        reference = torch.from_numpy(edited.before)
    size, transforms = material.base.size, material.transforms
    points = material.points * np.float32(size)
    shot = ExpressionShot(
        torch.from_numpy(edited.after),
        reference,
        face_square(torch.from_numpy(points)),
        eye_masks([points[:, eye] for eye in _EYES], size),
        None if transforms is None else torch.from_numpy(transforms),
        joined(material.frames),
    )
    chosen = str(values["landmarks"])
    used = [material.base.model, *(material.imported.needed(i, "keeping the expression") for i in (*LPIPS, chosen))]
    generator, landmarks = material.generator(), material.landmarks()
    networks = ExpressionNetworks(
        generator.module,
        landmarks.module,
        material.perceptual(),
        licences_of(*used),
        (landmarks.inner_lip.start, landmarks.inner_lip.stop - 1),
        drawn_by(generator),
    )
    document = {**read_config("expression"), "steps": int(float(str(values["expression_iterations"])))}
    config, table = expression_config(document)
    table |= {name: float(str(values[f"weight_{own}"])) for name, own in _WEIGHTS.items()}
    table["models"] = {model.id: model.sha256 for model in used}

    def keep(weights: Path, done: int) -> Mapping[str, Any]:
        save_offsets(material.shot.folder, material.frames, load_file(weights)[OFFSETS].numpy())
        return {}

    micro_batch = MICRO_BATCH
    while True:
        recipe = Expression(table, shot, networks, micro_batch)

        def begin(folder: Path, recipe: Expression = recipe) -> Steps[training.Event, None, None]:
            return train(recipe, config, folder, Group(device=material.device))

        try:
            yield from learn(material, EXPRESSION, begin, keep)
            return
        except torch.OutOfMemoryError as error:
            if micro_batch == 1:
                raise _too_little(size) from error
        micro_batch //= 2
        torch.cuda.empty_cache()
        yield Warned("effect.smaller_batch", f"the device's memory takes {micro_batch} frames at once; going on so")


def joined(frames: tuple[int, ...]) -> torch.Tensor:
    """[F - 1], whether a frame and the next follow each other: a gap in which the face was away is none."""
    steps = torch.from_numpy(np.diff(np.asarray(frames, np.int64)))
    return steps == steps.min() if len(steps) else steps.bool()


def _too_little(size: int) -> JobError:
    return JobError(
        "job.out_of_memory",
        f"the device's memory does not take one frame of {size} px with its gradients",
        value=size,
        remedy="Close other programs on this device, or adapt on one with more memory.",
    )
