"""The grid of a recurrent effect: which frames build on which, and that nobody can tell who rendered one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.errors import EffectError
from inference_server.faces.types import FaceState
from inference_server.networks.two_stage import Memory, refine
from inference_server.plates.types import Window
from inference_server.recurrence import Grid, Walk
from inference_server.shots.types import ShotAnalysis, Track

SEGMENT, PREROLL = 10, 4


def analysis(frames: Iterable[int], absent: Iterable[int] = (), cuts: tuple[int, ...] = ()) -> ShotAnalysis:
    numbers = tuple(frames)
    states = np.array([FaceState.ABSENT if f in set(absent) else FaceState.DETECTED for f in numbers], np.uint8)
    count = len(numbers)
    maps = np.zeros((count, 0, 0, 0), np.uint8), np.zeros((count, 2, 3), np.float32)
    track = Track(7, np.zeros((count, 478, 3), np.float32), states, np.ones(count, np.float32), (), *maps)
    return ShotAnalysis(numbers, Window(0, 0, 64, 64), 1.0, 0.0, (track,), cuts=cuts)


def grid(count: int = 40, **kind: tuple[int, ...]) -> Grid:
    return Grid.of(analysis(range(1001, 1001 + count), **kind), 7, SEGMENT, PREROLL)


class Summing:
    """Draws the sum of a frame and half of what it drew before; counts how often."""

    def __init__(self, failing: tuple[int, ...] = ()) -> None:
        self.steps: list[int] = []
        self._failing = failing

    def walk(self, over: Grid, wanted: Iterable[int]) -> dict[int, Tensor]:
        positions = set(wanted)
        way = Walk.to(over, positions)
        out = {}
        for position in sorted(way.positions()):

            def step(memory: Tensor | None, position: int = position) -> tuple[Tensor, Tensor]:
                self.steps.append(position)
                if position in self._failing:
                    raise EffectError("effect.failed", "it does not want to", remedy="None.")
                drawn = torch.tensor([np.sin(position)]) + (0 if memory is None else 0.5 * memory)
                return drawn, drawn

            try:
                drawn = way.advance(position, step)
            except EffectError:
                continue
            if drawn is not None:
                out[position] = drawn
        return out


@pytest.mark.parametrize(
    "over",
    [
        grid(),
        grid(37, absent=(1001, 1012, 1013, 1030)),
        grid(40, cuts=(1008, 1019, 1021)),
        Grid.of(analysis([*range(1001, 1015), *range(1020, 1050)]), 7, SEGMENT, PREROLL),
        Grid.of(analysis(range(1001, 1081, 2)), 7, SEGMENT, PREROLL),
        grid(1),
    ],
)
@pytest.mark.parametrize("failing", [(), (9, 17, 20)])
def test_a_frame_alone_is_the_frame_of_the_whole_walk(over: Grid, failing: tuple[int, ...]) -> None:
    whole = Summing(failing)
    everything = whole.walk(over, range(40))
    assert everything
    for position, drawn in everything.items():
        assert torch.equal(Summing(failing).walk(over, [position])[position], drawn)
    for chunk in (range(7, 13), range(3, 40, 4), range(18, 40)):
        found = Summing(failing).walk(over, chunk)
        assert {p: float(v) for p, v in found.items() if p in chunk} == {
            p: float(everything[p]) for p in chunk if p in everything
        }


def test_a_sequential_walk_takes_each_step_once_and_only_borders_twice() -> None:
    whole = Summing()
    assert sorted(whole.walk(grid(40), range(40))) == list(range(40))
    assert len(whole.steps) == 40 + 3 * PREROLL
    assert all(whole.steps.count(p) == (2 if p % 10 >= 6 and p < 30 else 1) for p in range(40))
    few = Summing()
    assert 14 in few.walk(grid(40), [14])
    assert few.steps == list(range(6, 15))  # its segment, from the pre-roll on


def test_the_last_frames_of_a_segment_fade_into_the_next() -> None:
    over = grid(40)
    assert over.fade == 3
    assert [len(over.parts(p)) for p in range(5, 12)] == [1, 1, 2, 2, 2, 1, 1]
    weights = [over.parts(p)[1][1] for p in (7, 8, 9)]
    assert weights == sorted(weights)
    assert 0 < weights[0] < 0.2
    assert 0.8 < weights[2] < 1
    assert len(over.parts(39)) == 1  # nothing follows


def test_where_there_is_nothing_to_remember_the_walk_begins() -> None:
    gone = grid(40, absent=(1017,))
    assert gone.parts(15) == (((0, 1), 1.0),)  # nothing follows that it could fade into
    assert gone.parts(16) == ()
    (chain, _), *more = gone.parts(17)
    assert (gone.start(chain), more) == (17, [])  # within the next one's pre-roll: the border is not felt
    assert gone.parts(22)[0][0] == chain
    cut = grid(40, cuts=(1013,))
    assert cut.start(cut.parts(12)[0][0]) == 12
    apart = Grid.of(analysis([1001, 1002, 1007, 1008]), 7, SEGMENT, PREROLL)
    assert [apart.start(apart.parts(p)[0][0]) for p in range(4)] == [0, 0, 2, 2]


class Averaging(torch.nn.Module):
    """A refiner that does what a trained one does: it leans on its last result where the picture stands still."""

    def forward(self, frames: Tensor, refined: Tensor, intermediate: Tensor) -> Tensor:
        still = torch.exp(-200 * (frames[:, 6:] - frames[:, 3:6]).square())
        return torch.lerp(intermediate, refined[:, 3:], 0.7 * still)


def test_no_border_is_seen_in_the_flicker_over_time() -> None:
    """A drawing that flickers, refined: the change from frame to frame at the borders is that of the interior.

    The scene stands still, so that the flow-warp error is the frame difference.
    """
    over = Grid.of(analysis(range(1001, 1161)), 7, 32, 8)
    scene = torch.linspace(-0.8, 0.8, 48).expand(1, 3, 48, 48)
    rng = torch.Generator().manual_seed(3)
    drawings = [(-scene + 0.1 * torch.randn(scene.shape, generator=rng)).clamp(-1, 1) for _ in range(160)]

    def refined(grid: Grid) -> NDArray[np.float64]:
        way, out = Walk.to(grid, range(160)), []
        for position in range(160):

            def step(memory: Memory | None, position: int = position) -> tuple[Tensor, Memory]:
                return refine(Averaging(), scene, drawings[position], memory)

            picture = way.advance(position, step)
            assert picture is not None
            out.append(picture)
        return np.array([float((b - a).abs().mean()) for a, b in itertools.pairwise(out)])

    errors = refined(over)
    fades = [[errors[b + away - 1] for away in range(-over.fade, 1)] for b in (32, 64, 96, 128)]
    around = {b + away for b in (32, 64, 96, 128) for away in range(-over.fade, 1)}
    interior = np.array([e for i, e in enumerate(errors, 1) if i not in around and i > 8])
    assert max(np.mean(fade) for fade in fades) <= np.percentile(interior, 95)
    assert max(max(fade) for fade in fades) <= 1.05 * np.percentile(interior, 95)
    hard = refined(Grid(32, 0, over.stretches))  # without pre-roll and fade every border is a jump
    assert min(hard[b - 1] for b in (32, 64, 96, 128)) > 1.2 * np.percentile(interior, 95)
