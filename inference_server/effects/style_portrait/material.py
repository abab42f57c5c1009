"""What the long steps work from: a shot's crops, codes and landmarks as its analysis left them, and the networks.

A step asks `Material` and stays free of plates, squares and stores. Pictures are what the generator draws: the aligned
crop for StyleGAN2, for StyleGAN3 the view with the transform that belongs to it (see `placing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.effects import EffectValues
from inference_server.directions import CodeEdit
from inference_server.effects.base import FaceInput, ShotData, ShotView, StepView
from inference_server.effects.style_portrait import placing
from inference_server.effects.style_portrait.descriptor import ADAPT, EXPRESSION
from inference_server.effects.style_portrait.editing import Codes, EditedCodes, edited_codes
from inference_server.effects.style_portrait.imported import GeneratorModel, Imported
from inference_server.effects.style_portrait.interfaces import Generator, LandmarkNetwork
from inference_server.effects.style_portrait.networks import Networks
from inference_server.effects.style_portrait.results import ADAPTED, read_offsets
from inference_server.faces.align import invert, landmarks68
from inference_server.faces.types import FaceFrame
from inference_server.networks.lpips import LPIPS as Perceptual
from inference_server.plates.types import Window


@dataclass(frozen=True)
class Crop:
    """One frame as the generator should draw it.

    index      where the frame is in the shot's arrays
    picture    [1, 3, S, S] in -1..1, display-encoded
    transform  [1, 3, 3] for the generator, or None
    """

    frame: int
    index: int
    picture: Tensor
    transform: Tensor | None


class _Plates(Protocol):
    """The part of ShotView and StepView that crops come from."""

    def inputs(self, frames: Sequence[int], region: Any) -> Iterator[FaceInput]: ...


def crops(
    plates: ShotView | StepView | _Plates, data: ShotData, frames: Sequence[int], size: int, device: torch.device
) -> Iterator[Crop]:
    """The crops of those frames, in that order, read from the plate again. They must be in `data`."""

    def region(face: FaceFrame) -> Window:
        found = placing.placing_at(data, face.frame)
        if found is None:
            raise KeyError(face.frame)
        return placing.window_of(found.view)

    for face in plates.inputs(frames, region):
        index, found = placing.index_of(data, face.face.frame), placing.placing_at(data, face.face.frame)
        assert index is not None
        assert found is not None
        picture = placing.cut(face.picture.to(device, torch.float32), face.region, found.view, size)
        yield Crop(face.face.frame, index, picture.clamp(0, 1)[None] * 2 - 1, transform_of(found, device))


def transform_of(found: placing.Placing, device: torch.device) -> Tensor | None:
    """The generator's transform [1, 3, 3] of a frame."""
    return None if found.user is None else torch.from_numpy(found.user).to(device, torch.float32)[None]


def landmarks_of(faces: Mapping[int, FaceFrame], placings: Sequence[placing.Placing]) -> NDArray[np.float32]:
    """dlib's 68 points [F, 68, 2] in the view's picture coordinates, 0..1."""
    out = []
    for face, found in zip(faces.values(), placings, strict=True):
        back = invert(found.view)
        out.append(landmarks68(face.landmarks) @ back[:, :2].T + back[:, 2])
    return np.asarray(np.stack(out), np.float32)


@dataclass(frozen=True)
class Material:
    """A face of a shot, ready for a long step.

    frames   of the shot in which the face is; arrays below are in their order
    codes    [F, L, D] float32, as inverted (and smoothed, where that is asked for)
    points   [F, 68, 2] dlib's points in parts of the picture's side
    """

    shot: StepView
    device: torch.device
    memory: int
    base: GeneratorModel
    imported: Imported
    networks: Networks
    edits: Mapping[str, CodeEdit]

    @property
    def values(self) -> EffectValues:
        return self.shot.values

    @property
    def frames(self) -> tuple[int, ...]:
        return tuple(int(f) for f in self.shot.data.arrays["frames"])

    @property
    def codes(self) -> Codes:
        return np.asarray(self.shot.data.arrays["codes"], np.float32)

    @property
    def points(self) -> NDArray[np.float32]:
        return np.asarray(self.shot.data.arrays["points"], np.float32)

    @property
    def transforms(self) -> NDArray[np.float32] | None:
        """[F, 3, 3] for the generator, or None for StyleGAN2."""
        user = self.shot.data.arrays.get("user")
        return None if user is None else np.asarray(user, np.float32)

    def edited(self) -> EditedCodes:
        """The codes with all edits but those of the expression, and with all; [F, L, D] each."""
        return edited_codes(self.codes, self.frames, self.values, self.edits)

    def crops(self, frames: Sequence[int] | None = None) -> Iterator[Crop]:
        """Crops of those frames, of all by default."""
        wanted = self.frames if frames is None else frames
        yield from crops(self.shot, self.shot.data, wanted, self.base.size, self.device)

    def learner(self, start: Path | None = None) -> Generator:
        """A generator of its own to adapt: as published, or going on from the adaptation in that folder."""
        return self.networks.learner(self.base, start)

    def generator(self) -> Generator:
        """The generator as it draws this shot: adapted where that step has been taken."""
        return self.networks.generator(self.base, adapted_in(self.shot.data))

    def landmarks(self) -> LandmarkNetwork:
        """The chosen landmark network. EffectError `effect.needs_model`."""
        chosen = str(self.values.at(0)["landmarks"])
        return self.networks.landmarks(self.imported.needed(chosen, "keeping the expression"))

    def perceptual(self) -> Perceptual:
        """LPIPS. EffectError `effect.needs_model`."""
        return self.networks.perceptual(self.imported)


def adapted_in(data: ShotData) -> Path | None:
    """The folder of the shot's finished adaptation, or None."""
    folder = data.steps.get(ADAPT)
    return folder if folder is not None and (folder / ADAPTED).is_file() else None


def offsets_in(data: ShotData, layers: int, width: int) -> NDArray[np.float32] | None:
    """The expression step's offsets [F, L, D], or None where it has not been taken."""
    if "offsets" in data.arrays:  # of frames between those of the shot
        return np.asarray(data.arrays["offsets"], np.float32)
    folder = data.steps.get(EXPRESSION)
    if folder is None:
        return None
    return read_offsets(folder, [int(f) for f in data.arrays["frames"]], layers, width)
