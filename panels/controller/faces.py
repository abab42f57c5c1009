"""The faces of the current frame, who is treated, and corrections by hand until they are applied as a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from host_bridge import messages as m
from host_bridge.errors import FaceplateError, PanelError, ShotError
from host_bridge.repairs import Box, Merge, Split, TrackEdit
from panels.controller.connection import Connection
from panels.controller.corrections import REACH, Corrections, Point, corrections_of
from panels.controller.document import EffectState
from panels.controller.jobs import Jobs
from panels.controller.notices import Notices
from panels.controller.observe import Home, Topic
from panels.controller.work import Work


@dataclass(frozen=True)
class FaceView:
    """A face of the current frame with the pending corrections laid over it. Plate pixels.

    `points` are the mesh's 478 landmarks as found; `moved` the corrected ones by landmark (keys at this frame).
    `box_key`: the box has a correction key at this frame.
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


REPAIR_PRIORITY = 50
SOON_S = 0.2


class Faces:
    """`changed`: the state is another. Corrections are part of the document (undo)."""

    def __init__(self, home: Home, connection: Connection, work: Work, jobs: Jobs, notices: Notices) -> None:
        self.state = FacesState()
        self.changed = Topic()
        self.applied = Topic()  # a repair is done: pictures of the shot are others now
        self._home = home
        self._connection = connection
        self._work = work
        self._jobs = jobs
        self._notices = notices
        self._watching = False
        self._asked = 0
        self._soon: Callable[[], None] | None = None
        self._effect: tuple[str, EffectState] = ("", EffectState())
        self._stored = Corrections()
        jobs.ended.connect(self._ended)

    # looking

    def watch(self, on: bool) -> None:
        """Ask for the faces of every frame looked at, or (hidden) do not."""
        self._watching = on
        self.update()

    def refresh(self) -> None:
        """Ask for the faces of the current frame."""
        self._asked += 1
        if not self._connection.ready or not self._work.plate.state.ready or self._work.effects.current is None:
            self._put(loading=False)
            return
        asked, frame = self._asked, self._work.plate.frame
        self._put(loading=True)
        question = m.ListFaces(self._work.job(), frame)
        self._connection.ask(question, m.Faces, lambda got: self._listed(asked, frame, got), timeout_s=120.0)

    def update(self) -> None:
        """Plate, frame or effect are others."""
        found = self.state.found
        if found is not None and found.frame != self._work.plate.frame:
            self._put(found=None, error=None)
        if self._watching:
            self.refresh()

    def values_changed(self) -> None:
        """The crop depends on the effect's values: look again, a few times a second at most."""
        document = self._work.history.document
        effect = (document.effect, document.state)
        if not self._watching or effect == self._effect or self._soon is not None:
            return
        self._effect = effect
        self._soon = self._home.later(SOON_S, self._look_soon)

    def _look_soon(self) -> None:
        self._soon = None
        if self.state.loading:
            self._soon = self._home.later(SOON_S, self._look_soon)
        elif self._watching:
            self.refresh()
            self.values_changed()

    def forget(self) -> None:
        """Another plate: nothing of this shot matters any more."""
        self._asked += 1
        self._stored = Corrections()
        if self.corrections != Corrections():
            document = replace(self._work.history.document, corrections=Corrections())
            self._work.history.change("Another plate", document)
        self._put(found=None, error=None, loading=False, applying="")

    def choose(self, choice: str) -> None:
        """Who is treated: largest, all, a track's id, or "x,y" (the face nearest to that pixel)."""
        if choice != self._work.face:
            self._work.face = choice
            self._put(choice=choice)
            if self._watching:
                self.refresh()

    @property
    def views(self) -> tuple[FaceView, ...]:
        """The faces of the current frame as they are to be drawn, those only corrections know included."""
        found, frame, mine = self.state.found, self._work.plate.frame, self.corrections
        if found is None or found.frame != frame:
            return ()
        out = [_view(body, mine, frame) for body in found.faces]
        there = {view.track for view in out}
        for track in mine.boxes:
            box = mine.box_at(track, frame)
            if box is not None and track not in there:
                key = frame in mine.box_keys(track)
                out.append(FaceView(track, "manual", 0.0, False, True, box, (), box, {}, key))
        return tuple(out)

    # correcting

    @property
    def corrections(self) -> Corrections:
        """Boxes, points, tracks, splits and merges as they will be applied."""
        return self._work.history.document.corrections

    @property
    def dirty(self) -> bool:
        """Whether there are corrections that have not been applied."""
        return self.corrections != self._stored

    @property
    def locked(self) -> bool:
        """Whether the shot is approved: corrections would be refused."""
        return self.state.found is not None and self.state.found.locked

    def move_box(self, track: int, box: Box, *, dragging: bool = False) -> None:
        """Key a face's box at the current frame."""
        new = self.corrections.with_box(track, self._work.plate.frame, box)
        self._change(f"Box of face {track}", new, f"box {track}" if dragging else "")

    def add_box(self, box: Box) -> int:
        """A face that was not found: a new track with a box key at the current frame; its id."""
        track = self._new_track()
        self._change(f"New face {track}", self.corrections.with_box(track, self._work.plate.frame, box))
        return track

    def remove_box_key(self, track: int) -> None:
        """Remove the box key at the current frame."""
        self._change(f"Remove box of face {track}", self.corrections.with_box(track, self._work.plate.frame, None))

    def move_point(
        self, track: int, landmark: int, point: Point, *, reach: float = REACH, dragging: bool = False
    ) -> None:
        """Key a landmark at the current frame."""
        new = self.corrections.with_point(track, landmark, self._work.plate.frame, point, reach)
        self._change(f"Point {landmark} of face {track}", new, f"point {track} {landmark}" if dragging else "")

    def remove_point_key(self, track: int, landmark: int) -> None:
        """Remove the landmark's key at the current frame."""
        new = self.corrections.with_point(track, landmark, self._work.plate.frame, None, REACH)
        self._change(f"Remove point {landmark} of face {track}", new)

    def release(self) -> None:
        """A drag is over."""
        self._work.history.release()

    def set_track(self, track: int, *, enabled: bool, first: int | None = None, last: int | None = None) -> None:
        """Let effects see a track or not, and limit it to frames."""
        new = self.corrections.with_track(TrackEdit(track, enabled, first, last))
        self._change(f"Face {track} {'on' if enabled else 'off'}", new)

    def split(self, track: int) -> int:
        """From the current frame on, the face of `track` is another one; its id."""
        new = self._new_track()
        self._change(f"Split face {track}", self.corrections.with_split(Split(track, self._work.plate.frame, new)))
        return new

    def merge(self, into: int, track: int) -> None:
        """`track` is the same face as `into`."""
        self._change(f"Face {track} is face {into}", self.corrections.with_merge(Merge(into, track)))

    def correction_frames(self, track: int) -> tuple[int, ...]:
        """Frames with correction keys of a track."""
        frames = set(self.corrections.box_keys(track))
        for (owner, _), point in self.corrections.points.items():
            if owner == track:
                frames.update(point.keys)
        return tuple(sorted(frames))

    def discard(self) -> None:
        """Back to what the shot has."""
        self._change("Discard corrections", self._stored)

    def apply(self) -> None:
        """Submit the corrections as a repair of the shot; previews follow when it is done."""
        shot = self.state.found.shot if self.state.found is not None else ""
        problem: FaceplateError | None = None
        if not shot:
            problem = PanelError(
                "panel.input",
                "the shot has not been analysed",
                remedy="Analyse it first; corrections are kept with it.",
            )
        elif self.locked:
            problem = ShotError(
                "shot.locked", "the shot is approved", value=shot, remedy="Unlock it: `faceplate shots lock --off`."
            )
        if problem is not None:
            self._notices.error(problem)
            return
        spec = replace(self._work.job("repair"), shot=shot, repairs=self.corrections.to_repairs())
        try:
            self._put(applying=self._jobs.submit(spec, priority=REPAIR_PRIORITY))
        except FaceplateError as error:
            self._notices.error(error)

    # inside

    def _listed(self, asked: int, frame: int, outcome: m.Faces | FaceplateError) -> None:
        if asked != self._asked or frame != self._work.plate.frame:
            return
        if not isinstance(outcome, FaceplateError):
            try:
                self._take_stored(corrections_of(outcome.repairs))
            except FaceplateError as error:
                outcome = error
        if isinstance(outcome, FaceplateError):
            if self._connection.lost(outcome):
                self._put(loading=False)
            else:
                self._put(found=None, error=outcome, loading=False)
            return
        self._put(found=outcome, error=None, loading=False)

    def _take_stored(self, stored: Corrections) -> None:
        """What the shot has is where the artist goes on from, not a step to take back."""
        before, self._stored = self._stored, stored
        self._work.history.rebase(
            lambda document: replace(document, corrections=stored) if document.corrections == before else document
        )

    def _ended(self, job_id: str) -> None:
        if job_id != self.state.applying:
            return
        row, spec = self._jobs.find(job_id), self._jobs.spec(job_id)
        self._put(applying="")
        if row is not None and spec is not None and row.state == "finished":
            self._stored = corrections_of(spec.repairs)
            self.changed.emit()
            self.refresh()
            self.applied.emit()

    def _new_track(self) -> int:
        """An id that neither the shot nor a correction uses."""
        mine = self.corrections
        used = {0, *mine.boxes, *mine.tracks, *(split.new for split in mine.splits)}
        if self.state.found is not None:
            used.update(int(body["track"]) for body in (*self.state.found.faces, *self.state.found.tracks))
        return max(used) + 1

    def _change(self, label: str, corrections: Corrections, merge: str = "") -> None:
        document = replace(self._work.history.document, corrections=corrections)
        self._work.history.change(label, document, merge=merge)

    def _put(self, **fields: Any) -> None:
        state = replace(self.state, **fields)
        if state != self.state:
            self.state = state
            self.changed.emit()


def _view(body: dict[str, Any], mine: Corrections, frame: int) -> FaceView:
    """A face as the server describes it, with pending corrections."""
    track = int(body["track"])
    points: tuple[Point, ...] = tuple((float(x), float(y)) for x, y in body.get("points") or ())
    found = box_of(body.get("box") or (0, 0, 0, 0))
    return FaceView(
        track,
        str(body.get("state", "")),
        float(body.get("score", 0.0)),
        bool(body.get("chosen")),
        mine.tracks.get(track, TrackEdit(track)).enabled,
        mine.box_at(track, frame) or found,
        points,
        box_of(body.get("region") or found),
        {
            landmark: keys.keys[frame]
            for (owner, landmark), keys in mine.points.items()
            if owner == track and frame in keys.keys
        },
        frame in mine.box_keys(track),
    )


def box_of(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (float(v) for v in values)
    return x0, y0, x1, y1
