"""The picture: zoom, pan, a wipe between plate and result, what lies over it, and what is wrong with it.

Decides the mapping between plate pixels (display window, upper left corner (0, 0), pixel aspect honoured) and the
widget. Pictures come finished from the server, each with the region of the plate it shows; nothing is graded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from host_bridge.errors import FaceplateError
from panels import style
from panels.qt import QtCore, QtGui, QtWidgets, Signal, event_position
from panels.views.parts import sentence

_NEAREST_FROM = 3.0  # screen pixels per picture pixel from which the picture's pixels are shown as squares
_GRAB = 7.0
_ZOOM = (0.02, 32.0)


@dataclass(frozen=True)
class Shown:
    """Pixels and the region of the plate they show, plate pixels x0, y0, x1, y1."""

    image: QtGui.QImage
    region: QtCore.QRectF


class Overlay(Protocol):
    """Something over the picture that can be taken hold of. Positions are plate pixels."""

    def paint(self, painter: QtGui.QPainter, view: PictureView) -> None: ...

    def press(self, at: QtCore.QPointF, view: PictureView, extend: bool) -> bool:
        """Whether it takes the mouse until it is let go."""
        ...

    def drag(self, at: QtCore.QPointF, view: PictureView) -> None: ...

    def release(self, at: QtCore.QPointF, view: PictureView) -> None: ...

    def hover(self, at: QtCore.QPointF, view: PictureView) -> QtCore.Qt.CursorShape | None: ...


class PictureView(QtWidgets.QWidget):
    """See the module. Left drag on the wipe moves it; middle drag, or Alt and left drag, pans; the wheel zooms."""

    wiped = Signal(float)
    zoomed = Signal(float)
    menu_wanted = Signal(QtCore.QPoint)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMouseTracking(True)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.ClickFocus)
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
        self.setAccessibleName("Picture")
        self.plate_size = QtCore.QSizeF(0, 0)
        self.pixel_aspect = 1.0
        self.under: Shown | None = None  # what lies below: usually the plate
        self.over: Shown | None = None  # what is judged: result, matte
        self.wipe: float | None = None  # 0..1 of the view's width; left of it `under` shows
        self.badge = ""
        self.hint = ""
        self.error: FaceplateError | None = None
        self.busy = False
        self.overlay: Overlay | None = None
        self._scale = 1.0
        self._offset = QtCore.QPointF(0, 0)
        self._fitted = True
        self._fit_region: QtCore.QRectF | None = None
        self._holding = ""
        self._last = QtCore.QPointF(0, 0)

    # mapping

    @property
    def scale(self) -> float:
        """Screen pixels per plate pixel."""
        return self._scale

    def to_view(self, point: QtCore.QPointF) -> QtCore.QPointF:
        """Plate pixels to the widget's."""
        x = point.x() * self.pixel_aspect * self._scale + self._offset.x()
        return QtCore.QPointF(x, point.y() * self._scale + self._offset.y())

    def to_plate(self, point: QtCore.QPointF) -> QtCore.QPointF:
        """The widget's pixels to plate pixels."""
        x = (point.x() - self._offset.x()) / (self._scale * self.pixel_aspect)
        return QtCore.QPointF(x, (point.y() - self._offset.y()) / self._scale)

    def rect_to_view(self, rect: QtCore.QRectF) -> QtCore.QRectF:
        return QtCore.QRectF(self.to_view(rect.topLeft()), self.to_view(rect.bottomRight()))

    def fit(self, region: QtCore.QRectF | None = None) -> None:
        """Show a region of the plate (None = what there is of pictures, else the plate) as large as it goes.

        It stays fitted while the widget is resized, until the artist zooms or pans.
        """
        self._fitted, self._fit_region = True, region
        whole = region or self._extent()
        if whole.isEmpty() or self.width() < 8 or self.height() < 8:
            return
        aspect = self.pixel_aspect
        self._scale = min(self.width() / (whole.width() * aspect), self.height() / whole.height()) * 0.98
        centre = whole.center()
        self._offset = QtCore.QPointF(
            self.width() / 2.0 - centre.x() * aspect * self._scale, self.height() / 2.0 - centre.y() * self._scale
        )
        self.zoomed.emit(self._scale)
        self.update()

    def zoom_to(self, scale: float, at: QtCore.QPointF | None = None) -> None:
        """Zoom to so many screen pixels per plate pixel around a point of the widget (None = the middle)."""
        at = at if at is not None else QtCore.QPointF(self.width() / 2.0, self.height() / 2.0)
        held = self.to_plate(at)
        self._scale = min(_ZOOM[1], max(_ZOOM[0], scale))
        moved = self.to_view(held)
        self._offset += at - moved
        self._fitted = False
        self.zoomed.emit(self._scale)
        self.update()

    # what is shown

    def show_plate(self, width: int, height: int, pixel_aspect: float) -> None:
        """Another plate: its size in pixels and the shape of a pixel."""
        size = QtCore.QSizeF(width, height)
        if size == self.plate_size and pixel_aspect == self.pixel_aspect:
            return
        self.plate_size, self.pixel_aspect = size, pixel_aspect or 1.0
        self.under = self.over = None
        self.fit()

    def show_pictures(self, under: Shown | None, over: Shown | None) -> None:
        """Other pictures; while fitted, the view follows their region."""
        before = self._extent()
        self.under, self.over = under, over
        if self._fitted and self._fit_region is None and self._extent() != before:
            self.fit()
        self.update()

    def say(self, *, badge: str = "", hint: str = "", error: FaceplateError | None = None, busy: bool = False) -> None:
        """What is written over the picture: a badge in its corner, an error with its remedy, or a hint if empty."""
        if (badge, hint, error, busy) != (self.badge, self.hint, self.error, self.busy):
            self.badge, self.hint, self.error, self.busy = badge, hint, error, busy
            self.setAccessibleDescription(str(error) if error else badge or hint)
            self.update()

    def set_wipe(self, share: float | None) -> None:
        """Put the wipe at a share of the view's width, or take it away."""
        self.wipe = None if share is None else min(1.0, max(0.0, share))
        self.update()

    def _extent(self) -> QtCore.QRectF:
        if self.over is not None and self.wipe is None:
            return self.over.region
        if self.under is not None or self.over is not None:
            rects = [p.region for p in (self.under, self.over) if p is not None]
            return rects[0].united(rects[-1])
        return QtCore.QRectF(QtCore.QPointF(0, 0), self.plate_size)

    # Qt

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(30 * style.em(self), 20 * style.em(self))

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(12 * style.em(self), 9 * style.em(self))

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        if self._fitted:
            self.fit(self._fit_region)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), style.color(style.SURROUND))
        if not self.plate_size.isEmpty():
            frame = self.rect_to_view(QtCore.QRectF(QtCore.QPointF(0, 0), self.plate_size))
            painter.setPen(QtGui.QPen(style.color(style.LINE), 1))
            painter.drawRect(frame)
        if self.wipe is None:
            self._draw(painter, self.over or self.under)
        else:
            x = self.wipe * self.width()
            painter.save()
            painter.setClipRect(QtCore.QRectF(0, 0, x, self.height()))
            self._draw(painter, self.under or self.over)
            painter.setClipRect(QtCore.QRectF(x, 0, self.width() - x, self.height()))
            self._draw(painter, self.over)
            painter.restore()
            self._draw_wipe(painter, x)
        if self.overlay is not None:
            painter.save()
            painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
            self.overlay.paint(painter, self)
            painter.restore()
        self._draw_words(painter)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        at, button = event_position(event), event.button()
        alt = bool(event.modifiers() & QtCore.Qt.KeyboardModifier.AltModifier)
        left = button == QtCore.Qt.MouseButton.LeftButton
        shift = bool(event.modifiers() & QtCore.Qt.KeyboardModifier.ShiftModifier)
        self._last = at
        if button == QtCore.Qt.MouseButton.MiddleButton or (left and alt):
            self._holding = "pan"
            self.setCursor(QtCore.Qt.CursorShape.ClosedHandCursor)
        elif left and self._on_wipe(at):
            self._holding = "wipe"
        elif left and self.overlay is not None and self.overlay.press(self.to_plate(at), self, shift):
            self._holding = "overlay"
        else:
            super().mousePressEvent(event)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        at = event_position(event)
        if self._holding == "pan":
            self._offset += at - self._last
            self._fitted = False
            self.update()
        elif self._holding == "wipe":
            self.set_wipe(at.x() / max(1, self.width()))
            self.wiped.emit(self.wipe)
        elif self._holding == "overlay" and self.overlay is not None:
            self.overlay.drag(self.to_plate(at), self)
        else:
            self._show_cursor(at)
        self._last = at

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        holding, self._holding = self._holding, ""
        if holding == "overlay" and self.overlay is not None:
            self.overlay.release(self.to_plate(event_position(event)), self)
        self._show_cursor(event_position(event))

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        self.zoom_to(self._scale * 1.2 ** (event.angleDelta().y() / 120.0), event_position(event))
        event.accept()

    def contextMenuEvent(self, event: QtGui.QContextMenuEvent) -> None:
        self.menu_wanted.emit(event.globalPos())

    # inside

    def _draw(self, painter: QtGui.QPainter, picture: Shown | None) -> None:
        if picture is None:
            return
        target = self.rect_to_view(picture.region)
        density = target.width() * self.devicePixelRatioF() / max(1, picture.image.width())
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform, density < _NEAREST_FROM)
        painter.drawImage(target, picture.image)

    def _draw_wipe(self, painter: QtGui.QPainter, x: float) -> None:
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        painter.setPen(QtGui.QPen(style.color(style.BORDER, 160), 3))
        painter.drawLine(QtCore.QPointF(x, 0), QtCore.QPointF(x, self.height()))
        painter.setPen(QtGui.QPen(style.color(style.ACCENT), 1))
        painter.drawLine(QtCore.QPointF(x, 0), QtCore.QPointF(x, self.height()))
        middle = self.height() / 2.0
        painter.setBrush(style.color(style.ACCENT))
        for sign in (-1, 1):
            tip = QtCore.QPointF(x + sign * 8, middle)
            top, bottom = QtCore.QPointF(x + sign * 3, middle - 4), QtCore.QPointF(x + sign * 3, middle + 4)
            painter.drawPolygon(QtGui.QPolygonF([tip, top, bottom]))

    def _draw_words(self, painter: QtGui.QPainter) -> None:
        line = style.em(self)
        if self.busy:
            painter.fillRect(QtCore.QRectF(0, 0, self.width(), 2), style.color(style.ACCENT))
        if self.error is not None:
            self._draw_error(painter, line)
        elif self.hint and self.over is None and self.under is None:
            painter.setPen(style.color(style.DIM))
            inside = QtCore.QRectF(self.rect()).adjusted(line, line, -line, -line)
            painter.drawText(inside, _flags(QtCore.Qt.AlignmentFlag.AlignCenter), self.hint)
        if self.badge:
            space = QtCore.QRectF(0, 0, self.width() - 2 * line, 10 * line)
            flags = _flags(QtCore.Qt.AlignmentFlag.AlignLeft)
            box = QtCore.QRectF(painter.boundingRect(space, flags, self.badge)).adjusted(-6, -3, 6, 3)
            box.moveBottomLeft(QtCore.QPointF(6, self.height() - 6))
            painter.setPen(QtCore.Qt.PenStyle.NoPen)
            painter.setBrush(style.color(style.SURROUND, 215))
            painter.drawRoundedRect(box, 2, 2)
            painter.setPen(style.color(style.ACCENT))
            painter.drawText(box.adjusted(6, 3, -6, -3), flags, self.badge)

    def _draw_error(self, painter: QtGui.QPainter, line: int) -> None:
        error = self.error
        if error is None:
            return
        where = f" Frame {error.frame}." if error.frame is not None else ""
        path = f"\n{error.path}" if error.path else ""
        said, remedy = f"{sentence(error.message)}{where}{path}", error.remedy
        wide = min(self.width() - 2 * line, 46 * line)
        space = QtCore.QRectF(0, 0, wide - 2 * line, 40 * line)
        flags = _flags(QtCore.Qt.AlignmentFlag.AlignLeft)
        first = painter.boundingRect(space, flags, said)
        second = painter.boundingRect(space, flags, remedy)
        box = QtCore.QRectF(0, 0, wide, first.height() + second.height() + 2.0 * line)
        box.moveCenter(QtCore.QPointF(self.width() / 2.0, self.height() / 2.0))
        painter.setPen(QtGui.QPen(style.color(style.BAD), 1))
        painter.setBrush(style.color(style.WINDOW, 240))
        painter.drawRoundedRect(box, 3, 3)
        at = box.topLeft() + QtCore.QPointF(line, 0.7 * line)
        painter.setPen(style.color(style.BAD))
        painter.drawText(QtCore.QRectF(at, QtCore.QSizeF(space.width(), first.height())), flags, said)
        painter.setPen(style.color(style.TEXT))
        at += QtCore.QPointF(0, first.height() + 0.4 * line)
        painter.drawText(QtCore.QRectF(at, QtCore.QSizeF(space.width(), second.height() + 2)), flags, remedy)

    def _on_wipe(self, at: QtCore.QPointF) -> bool:
        return self.wipe is not None and abs(at.x() - self.wipe * self.width()) <= _GRAB

    def _show_cursor(self, at: QtCore.QPointF) -> None:
        shape: QtCore.Qt.CursorShape | None = None
        if self._on_wipe(at):
            shape = QtCore.Qt.CursorShape.SplitHCursor
        elif self.overlay is not None:
            shape = self.overlay.hover(self.to_plate(at), self)
        if shape is None:
            self.unsetCursor()
        else:
            self.setCursor(shape)


def _flags(alignment: QtCore.Qt.AlignmentFlag) -> int:
    """Alignment with word wrap, as QPainter.drawText takes it."""
    return int(alignment) | int(QtCore.Qt.TextFlag.TextWordWrap)
