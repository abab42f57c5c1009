"""The network that comes with Faceplate, on the grid on which it is rendered."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_server.effects.base import Resources
from inference_server.effects.two_stage.descriptor import PREROLL, SEGMENT
from inference_server.effects.two_stage.networks import Networks
from inference_server.effects.two_stage.variants import Offered, Variant
from inference_server.models.store import BUILT_IN, Folder, ModelStore
from inference_server.networks.two_stage import Memory
from inference_server.recurrence import Grid, Walk
from tests.portrait import still

FRAMES, SIDE = 2 * SEGMENT + 6, 96


@pytest.fixture(scope="module")
def starter() -> Variant:
    offered = Offered.of(ModelStore((Folder(BUILT_IN),)), keyframe=False)
    assert offered.variants, "the starter weights are missing from the package"
    return next(iter(offered.variants.values()))


def place(frame: int) -> NDArray[np.float32]:
    """Where the portrait is in a frame: it sways by whole pixels and fractions of one."""
    return np.array([2.4 * np.sin(frame / 5), 1.7 * np.cos(frame / 7)], np.float32)


def moved(picture: NDArray[np.float32], by: NDArray[np.float32]) -> NDArray[np.float32]:
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float32)
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))


@torch.no_grad()
def test_the_flow_warp_error_at_the_borders_of_segments_is_that_of_the_interior(starter: Variant) -> None:
    """The motion is known, so is the flow: what was drawn before, moved along, against what is drawn now."""
    torch.set_num_threads(1)
    pair = Networks(Resources()).pair(starter, "fp32")
    assert starter.refiner
    style = torch.eye(len(starter.styles))[:1] if len(starter.styles) > 1 else None
    portrait = still(SIDE).clip(0, 1) ** np.float32(1 / 2.2)
    rng = np.random.default_rng(5)
    way = Walk.to(Grid(SEGMENT, PREROLL, ((0, FRAMES),)), range(FRAMES))
    drawn: list[NDArray[np.float32]] = []
    for position in range(FRAMES):
        grain = rng.normal(0, 0.015, portrait.shape)
        seen = (moved(portrait, place(position)) + grain).clip(0, 1).astype(np.float32) * 2 - 1
        frame = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None]

        def step(memory: Memory | None, frame: Tensor = frame) -> tuple[Tensor, Memory | None]:
            return pair.draw(frame, style, memory, True)

        picture = way.advance(position, step)
        assert picture is not None
        drawn.append(picture[0].permute(1, 2, 0).numpy())
    inner = (slice(8, -8), slice(8, -8))
    errors = np.array(
        [np.square(moved(drawn[i - 1], place(i) - place(i - 1)) - drawn[i])[inner].mean() for i in range(1, FRAMES)]
    )
    fade = Grid(SEGMENT, PREROLL, ()).fade
    around = {border + away for border in (SEGMENT, 2 * SEGMENT) for away in range(-fade, 1)}
    interior = [error for i, error in enumerate(errors, 1) if i not in around and i > PREROLL]
    at_borders = [np.mean([errors[border + away - 1] for away in range(-fade, 1)]) for border in (SEGMENT, 2 * SEGMENT)]
    assert max(at_borders) <= np.percentile(interior, 95)
