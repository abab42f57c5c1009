"""Faces over the plate: boxes, points and the crop, and what a hand does to them.

With the tool `choose` a click chooses a face and the crop's edges are dragged; `box` and `points` correct, each drag a
key at the current frame; `new` draws the box of a face that was not found. A right-hand rule of all of them: nothing
is corrected by accident, and nothing at all in a locked shot.
"""

from __future__ import annotations

from dataclasses import dataclass

from host_bridge.repairs import Box
from panels import style
from panels.bridge import Bridge
from panels.controller import FaceView
from panels.controller.corrections import Point
from panels.qt import QtCore, QtGui
from panels.views.picture import PictureView

CHOOSE, BOX, POINTS, NEW = "choose", "box", "points", "new"
_EYES = ((33, 133), (362, 263))  # corners of both eyes in the 478-point mesh, picture left to right
_EYE_FRAME = 64.0
_GRAB = 8.0  # screen pixels
_LEAST = 8.0  # plate pixels of a box
SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class CropAnchor:
    """What paddings are measured from: the point between the eyes (plate pixels) and one unit of padding in pixels."""

    x: float
    y: float
    unit: float
    aspect: float

    def region(self, padding: dict[str, float]) -> Box:
        """The crop of a set of paddings."""
        across = self.unit / self.aspect
        return (
            self.x - padding["left"] * across,
            self.y - padding["top"] * self.unit,
            self.x + padding["right"] * across,
            self.y + padding["bottom"] * self.unit,
        )

    def padding(self, side: str, at: Point) -> float:
        """The padding that puts an edge at a point."""
        if side in ("left", "right"):
            away = at[0] - self.x if side == "right" else self.x - at[0]
            return away * self.aspect / self.unit
        return (at[1] - self.y if side == "bottom" else self.y - at[1]) / self.unit


def crop_anchor(face: FaceView, padding: dict[str, float], width: float, height: float, aspect: float) -> CropAnchor:
    """Worked out from the region the server gave, where the plate's edge does not cut it; else from the eyes."""
    eyes = [[(face.points[a][i] + face.points[b][i]) / 2 for i in (0, 1)] for a, b in _EYES] if face.points else None
    if eyes is None:
        x0, y0, x1, y1 = face.box
        eyes = [[x0 + (x1 - x0) * t, y0 + (y1 - y0) * 0.4] for t in (0.3, 0.7)]
    x, y = (eyes[0][0] + eyes[1][0]) / 2, (eyes[0][1] + eyes[1][1]) / 2
    apart = (((eyes[1][0] - eyes[0][0]) * aspect) ** 2 + (eyes[1][1] - eyes[0][1]) ** 2) ** 0.5
    unit = max(apart, 1e-3) / _EYE_FRAME
    x0, y0, x1, y1 = face.region
    free = {"left": x0 > 0, "right": x1 < width, "top": y0 > 0, "bottom": y1 < height}
    if free["left"] and free["right"]:
        unit = (x1 - x0) * aspect / (padding["left"] + padding["right"])
    elif free["top"] and free["bottom"]:
        unit = (y1 - y0) / (padding["top"] + padding["bottom"])
    across = unit / aspect
    x = x0 + padding["left"] * across if free["left"] else x1 - padding["right"] * across if free["right"] else x
    y = y0 + padding["top"] * unit if free["top"] else y1 - padding["bottom"] * unit if free["bottom"] else y
    return CropAnchor(x, y, unit, aspect)


class FaceOverlay:
    """See the module. Positions are plate pixels."""

    def __init__(self, bridge: Bridge) -> None:
        self._control = bridge.controller
        self.tool = CHOOSE
        self.selected: int | None = None  # the track whose points are shown and corrected
        self._grabbed: tuple[str, ...] = ()
        self._start: Point = (0.0, 0.0)
        self._box: Box = (0.0, 0.0, 0.0, 0.0)
        self._landmark = -1
        self._anchors: tuple[object, dict[int, CropAnchor]] = (None, {})

    # reading

    def face(self) -> FaceView | None:
        """The face that is selected, else the one the effect takes, else the first."""
        views = self._control.faces.views
        ranked = sorted(views, key=lambda v: (v.track != self.selected, not v.chosen))
        return ranked[0] if ranked else None

    def padding(self) -> dict[str, float]:
        """The effect's paddings at this frame; {} where it has none."""
        values = self._control.values
        names = {p.name for p in values.params}
        if not all(f"padding_{side}" in names for side in SIDES):
            return {}
        found = {side: values.value(f"padding_{side}") for side in SIDES}
        return {side: float(v) for side, v in found.items() if isinstance(v, (int, float))}

    def crop(self, view: PictureView) -> tuple[FaceView, Box] | None:
        """The chosen face and its crop at the present paddings."""
        face, padding = self.face(), self.padding()
        if face is None or not padding:
            return None
        x0, y0, x1, y1 = self._anchor(face, padding, view).region(padding)
        size = view.plate_size
        return face, (max(0.0, x0), max(0.0, y0), min(size.width(), x1), min(size.height(), y1))

    def _anchor(self, face: FaceView, padding: dict[str, float], view: PictureView) -> CropAnchor:
        """Taken once from each answer of the server: the crop follows the paddings without asking again."""
        found = self._control.faces.state.found
        if self._anchors[0] is not found:
            self._anchors = (found, {})
        known = self._anchors[1]
        if face.track not in known:
            size = view.plate_size
            known[face.track] = crop_anchor(face, padding, size.width(), size.height(), view.pixel_aspect)
        return known[face.track]

    # painting

    def paint(self, painter: QtGui.QPainter, view: PictureView) -> None:
        chosen = self.face()
        for face in self._control.faces.views:
            self._paint_box(painter, view, face, chosen is not None and face.track == chosen.track)
        crop = self.crop(view)
        if crop is not None and self.tool == CHOOSE:
            rect = view.rect_to_view(_rect(crop[1]))
            painter.setBrush(QtCore.Qt.BrushStyle.NoBrush)
            for pen in (  # dark below, so that the dashes are seen on light ground, too
                QtGui.QPen(style.color(style.SURROUND, 170), 2.5),
                QtGui.QPen(style.color(style.TEXT), 1.2, QtCore.Qt.PenStyle.DashLine),
            ):
                painter.setPen(pen)
                painter.drawRect(rect)
            painter.setPen(QtGui.QPen(style.color(style.SURROUND), 1))
            painter.setBrush(style.color(style.TEXT))
            for middle in (_middle(rect, side) for side in SIDES):
                painter.drawRect(QtCore.QRectF(middle.x() - 3.5, middle.y() - 3.5, 7, 7))
        if chosen is not None and self.tool in (CHOOSE, POINTS):
            self._paint_points(painter, view, chosen)
        if self._grabbed[:1] == ("new",):
            painter.setPen(QtGui.QPen(style.color(style.ACCENT), 1.5))
            painter.setBrush(QtCore.Qt.BrushStyle.NoBrush)
            painter.drawRect(view.rect_to_view(_rect(self._box)))

    def _paint_box(self, painter: QtGui.QPainter, view: PictureView, face: FaceView, selected: bool) -> None:
        rect = view.rect_to_view(_rect(face.box))
        tint = style.ACCENT if face.chosen else style.MARK
        if not face.enabled:
            tint = style.FAINT
        pen = QtGui.QPen(style.color(tint), 2.0 if selected else 1.2)
        if face.state == "interpolated":
            pen.setStyle(QtCore.Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.setBrush(QtCore.Qt.BrushStyle.NoBrush)
        painter.drawRect(rect)
        said = (
            f"{face.track}" + ("" if face.state == "detected" else f"  {face.state}") + ("  off" * (not face.enabled))
        )
        if face.box_key:
            said += "  ◆"
        wide = painter.fontMetrics().horizontalAdvance(said) + 8
        tall = painter.fontMetrics().height()
        tag = QtCore.QRectF(rect.left() - 1, rect.top() - tall, wide, tall)
        painter.fillRect(tag, style.color(tint))
        painter.setPen(style.color(style.BORDER))
        painter.drawText(tag, int(QtCore.Qt.AlignmentFlag.AlignCenter), said)
        if selected and self.tool == BOX and not self._control.faces.locked:
            painter.setPen(QtGui.QPen(style.color(style.BORDER), 1))
            painter.setBrush(style.color(tint))
            for corner in _corners(rect):
                painter.drawRect(QtCore.QRectF(corner.x() - 4, corner.y() - 4, 8, 8))

    def _paint_points(self, painter: QtGui.QPainter, view: PictureView, face: FaceView) -> None:
        big = 1.8 if self.tool == POINTS else 1.1
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        painter.setBrush(style.color(style.MARK, 240 if self.tool == POINTS else 170))
        for index, (x, y) in enumerate(face.points):
            if index not in face.moved:
                painter.drawEllipse(view.to_view(QtCore.QPointF(x, y)), big, big)
        painter.setPen(QtGui.QPen(style.color(style.BORDER), 1))
        painter.setBrush(style.color(style.ACCENT))
        for x, y in face.moved.values():
            painter.drawEllipse(view.to_view(QtCore.QPointF(x, y)), 3.5, 3.5)

    # taking hold

    def press(self, at: QtCore.QPointF, view: PictureView, extend: bool) -> bool:
        point = (at.x(), at.y())
        self._start = point
        if self.tool == CHOOSE:
            side = self._side_at(at, view)
            if side:
                self._grabbed = ("crop", side)
                return True
            face = self._face_at(at)
            if face is not None:
                self.selected = face.track
                self._control.faces.choose(str(face.track))
                return True
            return False
        if self._control.faces.locked:
            return False
        if self.tool == NEW:
            self._grabbed, self._box = ("new",), (*point, *point)
            return True
        return self._hold_box(at, view) if self.tool == BOX else self._hold_point(at, view)

    def drag(self, at: QtCore.QPointF, view: PictureView) -> None:
        point = (at.x(), at.y())
        kind = self._grabbed[0] if self._grabbed else ""
        if kind == "crop":
            self._drag_crop(point, view)
        elif kind == "box" and self.selected is not None:
            self._control.faces.move_box(self.selected, self._dragged_box(point), dragging=True)
        elif kind == "point" and self.selected is not None:
            self._control.faces.move_point(self.selected, self._landmark, point, dragging=True)
        elif kind == "new":
            self._box = (*self._start, *point)
        view.update()

    def release(self, at: QtCore.QPointF, view: PictureView) -> None:
        kind = self._grabbed[0] if self._grabbed else ""
        self._grabbed = ()
        if kind == "new":
            x0, x1 = sorted((self._start[0], at.x()))
            y0, y1 = sorted((self._start[1], at.y()))
            if x1 - x0 >= _LEAST and y1 - y0 >= _LEAST:
                self.selected = self._control.faces.add_box((x0, y0, x1, y1))
        elif kind:
            self._control.faces.release()
        view.update()

    def hover(self, at: QtCore.QPointF, view: PictureView) -> QtCore.Qt.CursorShape | None:
        shape = QtCore.Qt.CursorShape
        if self.tool == NEW:
            return None if self._control.faces.locked else shape.CrossCursor
        if self.tool == CHOOSE:
            side = self._side_at(at, view)
            if side:
                return shape.SizeHorCursor if side in ("left", "right") else shape.SizeVerCursor
            return shape.PointingHandCursor if self._face_at(at) is not None else None
        if self._control.faces.locked:
            return shape.ForbiddenCursor
        if self.tool == BOX:
            handle = self._handle_at(at, view)
            if handle is None:
                return None
            return shape.SizeAllCursor if handle[1] == "inside" else shape.SizeFDiagCursor
        return shape.CrossCursor if self.point_at(at, view) >= 0 else None

    # inside

    def _face_at(self, at: QtCore.QPointF) -> FaceView | None:
        """The smallest face whose box holds the point."""
        hit = [v for v in self._control.faces.views if _rect(v.box).contains(at)]
        return min(hit, key=lambda v: _rect(v.box).width() * _rect(v.box).height(), default=None)

    def _side_at(self, at: QtCore.QPointF, view: PictureView) -> str:
        """The crop's edge under the point, "" for none."""
        crop = self.crop(view)
        if crop is None:
            return ""
        rect, here = view.rect_to_view(_rect(crop[1])), view.to_view(at)
        near = rect.adjusted(-_GRAB, -_GRAB, _GRAB, _GRAB)
        if not near.contains(here):
            return ""
        away = {
            "left": abs(here.x() - rect.left()),
            "right": abs(here.x() - rect.right()),
            "top": abs(here.y() - rect.top()),
            "bottom": abs(here.y() - rect.bottom()),
        }
        side = min(away, key=lambda s: away[s])
        return side if away[side] <= _GRAB else ""

    def _drag_crop(self, point: Point, view: PictureView) -> None:
        face, side = self.face(), self._grabbed[1]
        if face is None:
            return
        name = f"padding_{side}"
        param = self._control.values.param(name)
        wanted = self._anchor(face, self.padding(), view).padding(side, point)
        low = param.minimum if param.minimum is not None else wanted
        high = param.maximum if param.maximum is not None else wanted
        self._control.values.set(name, round(min(high, max(low, wanted)), 1), dragging=True)

    def _handle_at(self, at: QtCore.QPointF, view: PictureView) -> tuple[FaceView, str] | None:
        """The face and the part of its box under the point: a corner's number, or `inside`."""
        here = view.to_view(at)
        face = self.face()
        if face is not None:
            for index, corner in enumerate(_corners(view.rect_to_view(_rect(face.box)))):
                if max(abs(corner.x() - here.x()), abs(corner.y() - here.y())) <= _GRAB:
                    return face, str(index)
        hit = self._face_at(at)
        return (hit, "inside") if hit is not None else None

    def _hold_box(self, at: QtCore.QPointF, view: PictureView) -> bool:
        found = self._handle_at(at, view)
        if found is None:
            return False
        self.selected, self._box = found[0].track, found[0].box
        self._grabbed = ("box", found[1])
        view.update()
        return True

    def _dragged_box(self, point: Point) -> Box:
        x0, y0, x1, y1 = self._box
        dx, dy = point[0] - self._start[0], point[1] - self._start[1]
        part = self._grabbed[1]
        if part == "inside":
            return x0 + dx, y0 + dy, x1 + dx, y1 + dy
        left, top = part in ("0", "3"), part in ("0", "1")
        return (
            min(x0 + dx, x1 - _LEAST) if left else x0,
            min(y0 + dy, y1 - _LEAST) if top else y0,
            x1 if left else max(x1 + dx, x0 + _LEAST),
            y1 if top else max(y1 + dy, y0 + _LEAST),
        )

    def point_at(self, at: QtCore.QPointF, view: PictureView) -> int:
        """The landmark of the selected face under the point, -1 for none."""
        face = self.face()
        if face is None or not face.points:
            return -1
        here = view.to_view(at)
        places = [face.moved.get(i, p) for i, p in enumerate(face.points)]
        away = []
        for x, y in places:
            there = view.to_view(QtCore.QPointF(x, y))
            away.append(max(abs(there.x() - here.x()), abs(there.y() - here.y())))
        best = min(range(len(away)), key=lambda i: away[i])
        return best if away[best] <= _GRAB else -1

    def _hold_point(self, at: QtCore.QPointF, view: PictureView) -> bool:
        landmark, face = self.point_at(at, view), self.face()
        if landmark < 0 or face is None:
            hit = self._face_at(at)
            if hit is not None:
                self.selected = hit.track
                view.update()
            return hit is not None
        self.selected, self._landmark = face.track, landmark
        self._grabbed = ("point",)
        return True


def _rect(box: Box) -> QtCore.QRectF:
    x0, y0, x1, y1 = box
    return QtCore.QRectF(QtCore.QPointF(x0, y0), QtCore.QPointF(x1, y1)).normalized()


def _corners(rect: QtCore.QRectF) -> tuple[QtCore.QPointF, ...]:
    """Upper left, upper right, lower right, lower left."""
    return rect.topLeft(), rect.topRight(), rect.bottomRight(), rect.bottomLeft()


def _middle(rect: QtCore.QRectF, side: str) -> QtCore.QPointF:
    centre = rect.center()
    return {
        "left": QtCore.QPointF(rect.left(), centre.y()),
        "right": QtCore.QPointF(rect.right(), centre.y()),
        "top": QtCore.QPointF(centre.x(), rect.top()),
        "bottom": QtCore.QPointF(centre.x(), rect.bottom()),
    }[side]
