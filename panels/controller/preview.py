"""The live preview: one picture of the current frame with the current values, never late, never blocking.

At most one request is under way; of what changes meanwhile only the newest state is asked for next. A result is shown
when it belongs to what is looked at (plate, frame, effect, face, viewer) and is newer than the one shown; during a drag
that may be a value the slider has just left (`behind` says so), after it the last one shown is always the last one set.
The plate for comparing comes through the same path (region, size, display, view, exposure, gamma) and is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from host_bridge.client import PreviewPixels
from host_bridge.errors import FaceplateError
from host_bridge.jobspec import PreviewSpec
from panels.controller.connection import CONNECTING, STARTING, Connection
from panels.controller.observe import Home, Topic
from panels.controller.work import Work


@dataclass(frozen=True)
class Picture:
    """Row-major 8-bit RGB as the viewer shows it. `region` x0, y0, x1, y1: where it lies in the plate.

    `final` says whether the render will give the same, `note` why not. `stamp` counts requests.
    """

    pixels: bytes
    width: int
    height: int
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    frame: int = 0
    final: bool = True
    note: str = ""
    seconds: float = 0.0
    stamp: int = 0


@dataclass(frozen=True)
class Viewer:
    """How pictures are looked at: OCIO display and view ("" = plain sRGB), exposure in stops, gamma; `crop` is face
    (what the effect looks at) or frame; `size` bounds the longer side in pixels."""

    display: str = ""
    view: str = ""
    exposure: float = 0.0
    gamma: float = 1.0
    crop: str = "face"
    size: int = 960


@dataclass(frozen=True)
class PreviewState:
    """What is shown. `result`, `plate` and `matte` are of the same frame, region and size, or None.

    `busy`: a request is under way. `behind`: the result is of other values than the current ones. `blocked` says in
    words what has to be done before there can be a picture ("" = nothing). `error` is of the newest request.
    """

    result: Picture | None = None
    plate: Picture | None = None
    matte: Picture | None = None
    busy: bool = False
    behind: bool = False
    blocked: str = ""
    error: FaceplateError | None = None


RESULT, PLATE, MATTE = "result", "plate", "matte"
DRAG_SIZE = 384
# A full picture that took no longer is asked for during a drag, too.
FAST_S = 0.1
TIMEOUT_S = 180.0
KEPT_PLATES = 12


class Preview:
    """`changed`: state or viewer are others. It follows document, plate, frame, face and viewer by itself."""

    def __init__(self, home: Home, connection: Connection, work: Work) -> None:
        self.state = PreviewState()
        self.viewer = Viewer()
        self.wanted = frozenset({RESULT})
        self.live = True
        self.changed = Topic()
        self._home = home
        self._connection = connection
        self._work = work
        self._held = False
        self._scheduled = False
        self._stamp = 0
        self._flying: PreviewSpec | None = None
        self._shown: dict[str, PreviewSpec] = {}
        self._refused: dict[str, tuple[PreviewSpec, FaceplateError]] = {}
        self._plates: OrderedDict[str, Picture] = OrderedDict()
        self._full_seconds = FAST_S * 10

    # what views do

    def set_viewer(self, **fields: Any) -> None:
        """Change fields of `viewer`."""
        self.viewer = replace(self.viewer, **fields)
        self.changed.emit()
        self.update()

    def want(self, *pictures: str) -> None:
        """Say which pictures are looked at: result, plate (compare), matte; none stops asking."""
        self.wanted = frozenset(pictures) & {RESULT, PLATE, MATTE}
        self.update()

    def set_live(self, live: bool) -> None:
        """Stop asking, or go on."""
        self.live = live
        self.changed.emit()
        self.update()

    def set_dragging(self, dragging: bool) -> None:
        """While a slider is held (of frames, or the viewer's) pictures are small; on release a full one follows.

        Values that are set with `dragging` say so by themselves.
        """
        self._held = dragging
        self.update()

    def refresh(self) -> None:
        """Ask again, whatever is shown (after an error, a repair, a model's import)."""
        self._shown.clear()
        self._refused.clear()
        self._plates.clear()
        self.update()

    def retry(self) -> None:
        """Ask again for what was refused (a server is back, a model has come)."""
        self._refused.clear()
        self.update()

    def update(self) -> None:
        """Something has changed: look what is to be asked for once the present event has been dealt with."""
        if not self._scheduled:
            self._scheduled = True
            self._home.post(self._look)

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nothing is to be asked for."""
        return self._flying is None and not self._scheduled and not self.dragging

    @property
    def dragging(self) -> bool:
        return self._held or self._work.history.dragging

    # deciding

    def _look(self) -> None:
        self._scheduled = False
        self._forget_others()
        blocked = self._blocked()
        if blocked:
            self._put(blocked=blocked, behind=self.state.result is not None or self.state.matte is not None)
            return
        plate = self._plate_for(self.state.result)
        self._put(blocked="", behind=self._behind(), plate=plate, error=self._error())
        if self._flying is None:
            spec = self._next()
            if spec is not None:
                self._ask(spec)

    def _blocked(self) -> str:
        """What keeps pictures from being made, in words; "" = nothing."""
        plate = self._work.plate.state
        if not plate.spec.pattern:
            return "Choose a plate."
        if not self._connection.ready:
            link = self._connection.state.link
            return "Waiting for the server." if link in (STARTING, CONNECTING) else "There is no server."
        if plate.error is not None:
            return plate.error.message
        if plate.found is None:
            return "Looking at the plate."
        return "" if self._work.effects.current is not None else "Choose an effect."

    def _behind(self) -> bool:
        """Whether a picture that is looked at is not of what is set now (the plate does not depend on values)."""
        pictures = {RESULT: self.state.result, MATTE: self.state.matte}
        for show in self.wanted & set(pictures):
            shown = self._shown.get(show)
            if pictures[show] is not None and (shown is None or not _same_picture(shown, self._spec(show))):
                return True
        return False

    def _next(self) -> PreviewSpec | None:
        """What to ask for now: the result first; plate and matte only when no drag is in the way."""
        if not self.live:
            return None
        for show in (RESULT, PLATE, MATTE):
            if show not in self.wanted or (self.dragging and show != RESULT and RESULT in self.wanted):
                continue
            spec = self._spec(show)
            if show == PLATE and self._plate_fits():
                continue
            if spec != self._shown.get(show) and not self._was_refused(spec):
                return spec
        return None

    def _was_refused(self, spec: PreviewSpec) -> bool:
        return spec.show in self._refused and self._refused[spec.show][0] == spec

    def _error(self) -> FaceplateError | None:
        """Why there is no picture of what is set now."""
        refused = (
            self._refused[show] for show in (RESULT, PLATE, MATTE) if show in self._refused and show in self.wanted
        )
        return next((error for spec, error in refused if spec == self._spec(spec.show)), None)

    def _spec(self, show: str) -> PreviewSpec:
        viewer = self.viewer
        size = min(viewer.size, self._connection.state.max_preview)
        if self.dragging and self._full_seconds > FAST_S:
            size = min(size, DRAG_SIZE)
        return PreviewSpec(
            self._work.job(),
            self._work.plate.frame,
            max(16, size),
            viewer.crop,
            show,
            viewer.display,
            viewer.view,
            viewer.exposure,
            viewer.gamma,
        )

    def _forget_others(self) -> None:
        """A picture of another plate or effect says nothing about this one; it goes at once."""
        shown = self._shown.get(RESULT)
        job = self._work.job()
        if shown is not None and (shown.job.plate, shown.job.effect) != (job.plate, job.effect):
            self._shown.clear()
            self._put(result=None, plate=None, matte=None)

    # asking

    def _ask(self, spec: PreviewSpec) -> None:
        client = self._connection.client
        if client is None:
            return
        self._stamp += 1
        stamp = self._stamp
        self._flying = spec
        self._put(busy=True)
        future = client.preview(spec, stamp=stamp, timeout_s=TIMEOUT_S)
        self._connection.hand_over(future, picture_of, lambda outcome: self._answered(spec, outcome))

    def _answered(self, spec: PreviewSpec, outcome: Picture | FaceplateError | None) -> None:
        self._flying = None
        self._put(busy=False)
        if isinstance(outcome, FaceplateError):
            if not self._connection.lost(outcome):
                self._refused[spec.show] = (spec, outcome)
        elif outcome is not None:
            self._take(spec, outcome)
        self.update()

    def _take(self, spec: PreviewSpec, picture: Picture) -> None:
        """Show a picture, or drop it because it is not of what is looked at any more."""
        wanted = self._spec(spec.show)
        if spec.show == PLATE:
            self._plates[_plate_key(spec, picture)] = picture
            while len(self._plates) > KEPT_PLATES:
                self._plates.popitem(last=False)
        if _context(spec) != _context(wanted):
            return
        if spec.show == RESULT and spec.max_size > DRAG_SIZE:
            self._full_seconds = picture.seconds
        if not _same_picture(spec, wanted) and not (self.dragging and spec.show == RESULT):
            return
        self._shown[spec.show] = spec
        self._refused.pop(spec.show, None)
        if spec.show == RESULT:
            self._put(result=picture, plate=self._plate_for(picture))
        elif spec.show == MATTE:
            self._put(matte=picture)
        elif RESULT not in self.wanted:
            self._put(plate=picture)

    # the plate beside the result

    def _plate_for(self, result: Picture | None) -> Picture | None:
        """The kept plate that lies where the result does; without a result wanted, the plate that was asked for."""
        shown = self._shown.get(RESULT)
        if RESULT not in self.wanted or result is None or shown is None:
            return self.state.plate
        key = _plate_key(shown, result)
        if key in self._plates:
            self._plates.move_to_end(key)
        return self._plates.get(key)

    def _plate_fits(self) -> bool:
        """Whether the plate that is there does for the result that is shown."""
        result, plate = self.state.result, self.state.plate
        if RESULT not in self.wanted:
            return False
        return result is not None and plate is not None and (plate.width, plate.height) == (result.width, result.height)

    def _put(self, **fields: Any) -> None:
        state = replace(self.state, **fields)
        if state != self.state:
            self.state = state
            self.changed.emit()


def picture_of(answer: PreviewPixels) -> Picture | None:
    """The picture in an answer; None where a newer request took its place."""
    found = answer.result
    if found.state != "made":
        return None
    height, width, _ = found.shape
    x0, y0, x1, y1 = found.region if len(found.region) == 4 else (0, 0, width, height)
    return Picture(
        answer.pixels,
        width,
        height,
        (x0, y0, x1, y1),
        found.frame,
        found.final,
        found.note,
        found.seconds,
        found.stamp,
    )


def _context(spec: PreviewSpec) -> PreviewSpec:
    """What is looked at and how, apart from the values and the size."""
    return replace(spec, job=replace(spec.job, params={}, edits=[]), max_size=0)


def _same_picture(first: PreviewSpec, second: PreviewSpec) -> bool:
    """Whether two specifications differ in size at most."""
    return replace(first, max_size=0) == replace(second, max_size=0)


def _plate_key(spec: PreviewSpec, picture: Picture) -> str:
    """What a picture of the plate depends on."""
    job = spec.job
    seen = (spec.frame, spec.crop, spec.display, spec.view, spec.exposure, spec.gamma, picture.region)
    return repr((job.plate, job.ocio, *seen))
