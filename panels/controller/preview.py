"""The live preview: one picture of the current frame with the current values, never late, never blocking.

At most one request is under way; of what changes meanwhile only the newest state is asked for next. A result is shown
when it belongs to what is looked at (plate, frame, effect, face, viewer) and is newer than the one shown; during a drag
that may be a value the slider has just left (`behind` says so), after it the last one shown is always the last one set.
The plate for comparing comes through the same path (region, size, display, view, exposure, gamma) and is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from host_bridge.errors import FaceplateError
from panels.controller.observe import Topic


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


class Preview:
    """`changed`: state or viewer are others. It follows document, plate, frame, face and viewer by itself."""

    state: PreviewState
    viewer: Viewer
    wanted: frozenset[str]  # which pictures: any of result, plate, matte
    live: bool  # False: nothing is asked for until `refresh`
    changed: Topic

    def set_viewer(self, **fields: Any) -> None:
        """Change fields of `viewer`."""
        raise NotImplementedError

    def want(self, *pictures: str) -> None:
        """Say which pictures are looked at: result, plate (compare), matte."""
        raise NotImplementedError

    def set_live(self, live: bool) -> None:
        """Stop asking, or go on."""
        raise NotImplementedError

    def set_dragging(self, dragging: bool) -> None:
        """While a slider is held, pictures are small; on release a full one follows."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Ask again, whatever is shown (also after an error)."""
        raise NotImplementedError
