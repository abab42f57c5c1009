"""The faces of the current frame, who is treated, and corrections by hand until they are applied as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from host_bridge import messages as m
from host_bridge.errors import FaceplateError
from panels.controller.corrections import Box, Corrections, Point
from panels.controller.observe import Topic


@dataclass(frozen=True)
class FaceView:
    """A face of the current frame with the pending corrections laid over it. Plate pixels.

    `points` are the mesh's 478 landmarks as found; `moved` the corrected ones by landmark (keys at or around this
    frame). `box_key`: the box has a correction key at this frame.
    """

    track: int
    state: str
    score: float
    chosen: bool
    enabled: bool
    box: Box
    points: tuple[Point, ...]
    region: Box
    moved: Mapping[int, Point]
    box_key: bool


@dataclass(frozen=True)
class FacesState:
    """`found` is the server's answer for `frame`, None before it. `applying` is the id of the running repair job."""

    found: m.Faces | None = None
    loading: bool = False
    error: FaceplateError | None = None
    choice: str = "largest"
    applying: str = ""


class Faces:
    """`changed`: the state is another. Corrections are part of the document (undo)."""

    state: FacesState
    changed: Topic

    def watch(self, on: bool) -> None:
        """Ask for the faces of every frame looked at, or (hidden) do not."""
        raise NotImplementedError

    def refresh(self) -> None:
        raise NotImplementedError

    def choose(self, choice: str) -> None:
        """Who is treated: largest, all, a track's id, or "x,y" (the face nearest to that pixel)."""
        raise NotImplementedError

    @property
    def views(self) -> tuple[FaceView, ...]:
        """The faces of the current frame as they are to be drawn."""
        raise NotImplementedError

    @property
    def corrections(self) -> Corrections:
        raise NotImplementedError

    @property
    def dirty(self) -> bool:
        """Whether there are corrections that have not been applied."""
        raise NotImplementedError

    def move_box(self, track: int, box: Box, *, dragging: bool = False) -> None:
        """Key a face's box at the current frame."""

    def add_box(self, box: Box) -> int:
        """A face that was not found: a new track with a box key at the current frame; its id."""
        raise NotImplementedError

    def remove_box_key(self, track: int) -> None:
        """Remove the box key at the current frame."""

    def move_point(
        self, track: int, landmark: int, point: Point, *, reach: float = 0.5, dragging: bool = False
    ) -> None:
        """Key a landmark at the current frame."""

    def remove_point_key(self, track: int, landmark: int) -> None:
        """Remove the landmark's key at the current frame."""

    def set_track(self, track: int, *, enabled: bool, first: int | None = None, last: int | None = None) -> None:
        """Let effects see a track or not, and limit it to frames."""

    def split(self, track: int) -> None:
        """From the current frame on, the face of `track` is another one."""

    def merge(self, into: int, track: int) -> None:
        """`track` is the same face as `into`."""

    def correction_frames(self, track: int) -> tuple[int, ...]:
        """Frames with correction keys of a track."""
        raise NotImplementedError

    def discard(self) -> None:
        """Back to what the shot has."""

    def apply(self) -> None:
        """Submit the corrections as a repair of the shot; previews follow when it is done."""
