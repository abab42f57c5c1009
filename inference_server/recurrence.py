"""Which frames a recurrent effect is walked over, so that a frame is the same whoever renders it.

A frame of a recurrent effect builds on those before it. So that not every frame needs the whole shot, the effect starts
anew on a grid: every `segment` frames, counted in the shot's frames from its first. Each segment is walked from
`preroll` frames before its beginning, which gives the effect something to remember; the last frames of a segment are
cross-faded with that pre-roll of the next one, so that no border is seen. Where the face is missing, at a cut, and
after a hole in the frame numbers, there is nothing to remember: the walk begins there.

What a job needs of this follows from the frames it makes alone. It is walked in one pass of rising frames, each read
once, each step of each segment taken once. A frame that fails is forgotten: the next one begins anew, in the whole
render and in a chunk alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from host_bridge.errors import FaceplateError, PlateError
from inference_server.effects.base import NO_DATA, RecurrentEffect
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.sequence import PlannedFrame
from inference_server.plates.sequence import Sequence as PlateSequence
from inference_server.plates.types import ChosenLayer, PlateFrame
from inference_server.rendering import RenderSettings, face_input, is_identity
from inference_server.shots.types import ShotAnalysis

HOLE = 4  # frame numbers: neighbours further apart than this have nothing to do with each other

Chain = tuple[int, int]  # where its stretch begins, and which segment it is for; positions in the shot's frames


@dataclass(frozen=True)
class Grid:
    """The restarts of one face over a shot.

    `stretches` are runs start..stop (exclusive) of positions in the shot's frames through which the face can be
    followed.
    """

    segment: int
    preroll: int
    stretches: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, analysis: ShotAnalysis, track: int, segment: int, preroll: int) -> Grid:
        """The grid of a face of that shot."""
        frames = analysis.frames
        states = next(t.states for t in analysis.tracks if t.id == track)
        runs: list[tuple[int, int]] = []
        begins = -1
        for i, frame in enumerate(frames):
            here = states[i] != FaceState.ABSENT
            broken = i > 0 and (frame in analysis.cuts or frame - frames[i - 1] > HOLE)
            if begins >= 0 and (broken or not here):
                runs.append((begins, i))
                begins = -1
            if here and begins < 0:
                begins = i
        if begins >= 0:
            runs.append((begins, len(frames)))
        return cls(segment, preroll, tuple(runs))

    @property
    def fade(self) -> int:
        """How many of a segment's last frames are cross-faded; before that the next one's pre-roll settles."""
        return self.preroll * 3 // 4

    def parts(self, position: int) -> tuple[tuple[Chain, float], ...]:
        """The chains whose pictures make the frame at that position, with weights that add up to 1; none: no face."""
        found = bisect_right(self.stretches, position, key=lambda run: run[0]) - 1
        if found < 0 or position >= self.stretches[found][1]:
            return ()
        first, end = self.stretches[found]
        own = position // self.segment
        border = (own + 1) * self.segment
        if border < end and first >= border - self.preroll:
            return (((first, own + 1), 1.0),)  # too short a piece to be walked apart from what follows
        into = position - (border - self.fade)
        if into < 0 or border >= end:
            return (((first, own), 1.0),)
        t = (into + 1) / (self.fade + 1)
        weight = t * t * (3 - 2 * t)
        return ((first, own), 1 - weight), ((first, own + 1), weight)

    def start(self, chain: Chain) -> int:
        """The position where a chain is begun."""
        return max(chain[1] * self.segment - self.preroll, chain[0])


@dataclass
class Walk:
    """One face's way through a job: what is remembered, and how far each chain has to go."""

    grid: Grid
    last: Mapping[Chain, int]
    _memory: dict[Chain, Any] = field(default_factory=dict)

    @classmethod
    def to(cls, grid: Grid, positions: Iterable[int]) -> Walk:
        """The way to those positions."""
        last: dict[Chain, int] = {}
        for position in positions:
            for chain, _ in grid.parts(position):
                last[chain] = max(last.get(chain, -1), position)
        return cls(grid, last)

    def positions(self) -> set[int]:
        """Every position that has to be seen."""
        return {i for chain, last in self.last.items() for i in range(self.grid.start(chain), last + 1)}

    def advance(self, position: int, step: Callable[[Any | None], tuple[Tensor, Any]]) -> Tensor | None:
        """Go over a position, `step` taking what a chain remembers; the frame's picture where it was on the way.

        Raises what `step` raises, after every chain was tried; a chain in which it failed begins anew.
        """
        drawn: dict[Chain, Tensor] = {}
        failed: list[FaceplateError] = []
        for chain in self.through(position):
            try:
                drawn[chain], self._memory[chain] = step(self._memory.pop(chain, None))
            except FaceplateError as error:
                failed.append(error)
            if position == self.last[chain]:
                self._memory.pop(chain, None)
        if failed:
            raise failed[0]
        parts = self.grid.parts(position)
        if not parts or any(chain not in drawn for chain, _ in parts):
            return None  # only passed over
        (first, _), *second = parts
        return torch.lerp(drawn[first], drawn[second[0][0]], second[0][1]) if second else drawn[first]

    def forget(self, position: int) -> None:
        """Go over a position that could not be seen: what comes next begins anew."""
        for chain in self.through(position):
            self._memory.pop(chain, None)

    def through(self, position: int) -> list[Chain]:
        """The chains that go over a position."""
        return [chain for chain, last in self.last.items() if self.grid.start(chain) <= position <= last]


@dataclass(frozen=True)
class Visit:
    """A frame to read: to make it, or only to pass over it."""

    item: PlannedFrame
    made: bool = True


def _passed(frame: int, sequence: PlateSequence) -> PlannedFrame:
    """A frame that is read because others build on it."""
    if frame in sequence.files:
        return PlannedFrame(frame, sequence.files[frame], frame)
    error = PlateError(
        "plate.missing_frame",
        "the frame is not on disk, and the frames asked for build on it",
        value=frame,
        frame=frame,
        path=sequence.pattern.path(frame),
        remedy="Put the shot's other frames beside them, or let the effect draw every frame alone (refine off).",
    )
    return PlannedFrame(frame, "", frame, error)


class Recurrence:
    """A recurrent effect in one job."""

    def __init__(
        self, effect: RecurrentEffect, analysis: ShotAnalysis, settings: RenderSettings, items: Sequence[PlannedFrame]
    ) -> None:
        self._effect, self._analysis, self._settings = effect, analysis, settings
        self._places = {frame: i for i, frame in enumerate(analysis.frames)}
        wanted = [
            self._places[item.source]
            for item in items
            if item.error is None and item.source in self._places and not is_identity(settings, item.frame)
        ]
        shape = effect.descriptor.segment, effect.descriptor.preroll
        self._walks = {track: Walk.to(Grid.of(analysis, track, *shape), wanted) for track in settings.faces}
        self._drawn: tuple[int, dict[int, Tensor]] = (-1, {})

    @property
    def frames(self) -> tuple[int, ...]:
        """Every frame of the shot that has to be seen, rising."""
        positions: set[int] = set()
        for walk in self._walks.values():
            positions |= walk.positions()
        return tuple(self._analysis.frames[i] for i in sorted(positions))

    def visits(self, items: Sequence[PlannedFrame], sequence: PlateSequence) -> list[Visit]:
        """The frames to read, rising, those to make among them; frames that hold another's picture follow it."""
        made = {item.frame for item in items if item.source == item.frame}
        passed = [Visit(_passed(frame, sequence), False) for frame in self.frames if frame not in made]
        return sorted(
            [*passed, *(Visit(item) for item in items)], key=lambda v: (v.item.source, v.item.held, v.item.frame)
        )

    def see(self, plate: PlateFrame, layer: ChosenLayer) -> None:
        """Go over a frame of the shot. Raises what the effect raises; a face for which it did begins anew after it."""
        position = self._places.get(plate.frame)
        if position is None:
            return
        drawn: dict[int, Tensor] = {}
        self._drawn = (plate.frame, drawn)
        failed: list[FaceplateError] = []
        for track, walk in self._walks.items():
            face = self._analysis.face_at(track, plate.frame)
            if face is None or not walk.through(position):
                continue
            try:
                picture = self._advance(walk, position, face, plate, layer)
            except FaceplateError as error:
                failed.append(error)
            else:
                if picture is not None:
                    drawn[track] = picture
        if failed:
            raise failed[0].at(frame=plate.frame, path=plate.path)

    def _advance(
        self, walk: Walk, position: int, face: FaceFrame, plate: PlateFrame, layer: ChosenLayer
    ) -> Tensor | None:
        values, shot = self._settings.values.at(plate.frame), self._settings.shots.get(face.track, NO_DATA)
        region = self._effect.region(face, values, shot).intersect(plate.parts[layer.part].seen)
        if region.empty:
            walk.forget(position)
            return None
        seen = face_input(plate, layer, face, region, self._settings, mattes=())
        return walk.advance(position, lambda memory: self._effect.advance(seen, memory))

    def forget(self, frame: int) -> None:
        """Go over a frame that could not be read or drawn."""
        position = self._places.get(frame)
        for walk in self._walks.values():
            if position is not None:
                walk.forget(position)

    def drawn(self, frame: int) -> Mapping[int, Tensor]:
        """Track -> its picture in the shot's frame that was seen last."""
        return self._drawn[1] if self._drawn[0] == frame else {}


def builds_on_others(analysis: ShotAnalysis, settings: RenderSettings, frame: int) -> bool:
    """Whether a render's picture of that frame depends on frames before it, so that the frame alone shows another."""
    effect = settings.effect
    if not isinstance(effect, RecurrentEffect) or not effect.is_recurrent(settings.values):
        return False
    if frame not in analysis.frames or is_identity(settings, frame):
        return False
    position = analysis.frames.index(frame)
    for track in settings.faces:
        grid = Grid.of(analysis, track, effect.descriptor.segment, effect.descriptor.preroll)
        if any(grid.start(chain) < position for chain, _ in grid.parts(position)):
            return True
    return False
