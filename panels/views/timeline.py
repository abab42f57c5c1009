"""The time line: the plate's frames, the shot's range, keyframes, and the current frame, dragged or typed."""

from __future__ import annotations

import math
from collections.abc import Collection

from panels import style
from panels.qt import QtCore, QtGui, QtWidgets, Signal, event_position
from panels.views.icons import icon
from panels.views.numbers import NumberField


class Ruler(QtWidgets.QWidget):
    """The strip that is scrubbed. `frame_wanted` while it is dragged."""

    frame_wanted = Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.first, self.last, self.frame = 0, 0, 0
        self.shot: tuple[int, int] | None = None
        self.keys: frozenset[int] = frozenset()
        self.corrected: frozenset[int] = frozenset()
        self.missing: frozenset[int] = frozenset()
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Frame")
        self.setToolTip(
            "Drag to scrub. Left and right arrows: one frame; Home and End: first and last; "
            "Page up and down, or , and .: keyframes"
        )
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(12 * style.em(self), round(1.9 * style.em(self)) + 6)

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(5 * style.em(self), self.sizeHint().height())

    def x_of(self, frame: float) -> float:
        """Where a frame stands."""
        span = max(1, self.last - self.first)
        return self._inset() + (self.width() - 2 * self._inset()) * (frame - self.first) / span

    def frame_at(self, x: float) -> int:
        """The frame nearest to a position."""
        inside = max(1.0, self.width() - 2 * self._inset())
        exact = self.first + (self.last - self.first) * (x - self._inset()) / inside
        return min(self.last, max(self.first, round(exact)))

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.button() == QtCore.Qt.MouseButton.LeftButton:
            self._scrub(event)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.buttons() & QtCore.Qt.MouseButton.LeftButton:
            self._scrub(event)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        metrics = self.fontMetrics()
        base = self.height() - 6.0
        painter.fillRect(QtCore.QRectF(0, 0, self.width(), self.height()), style.color(style.FIELD))
        if self.shot is not None:
            x0, x1 = self.x_of(self.shot[0]), self.x_of(self.shot[1])
            painter.fillRect(QtCore.QRectF(x0, base - 3, max(2.0, x1 - x0), 3), style.color(style.SELECTED))
        step = self._label_step(metrics.horizontalAdvance(str(self.last)) + 12)
        head = self._head()
        painter.setFont(self.font())
        for frame in range(math.ceil(self.first / step) * step, self.last + 1, step):
            x = self.x_of(frame)
            painter.setPen(QtGui.QPen(style.color(style.FAINT), 1))
            painter.drawLine(QtCore.QPointF(x, base), QtCore.QPointF(x, base - 6))
            painter.setPen(style.color(style.DIM))
            self._number(painter, x, str(frame), head)
        painter.setPen(QtGui.QPen(style.color(style.LINE), 1))
        painter.drawLine(QtCore.QPointF(0, base), QtCore.QPointF(self.width(), base))
        for frame in self.missing:
            painter.fillRect(QtCore.QRectF(self.x_of(frame) - 1, base - 5, 2, 5), style.color(style.BAD))
        for frames, tint in ((self.corrected, style.MARK), (self.keys, style.ACCENT)):
            painter.setPen(QtCore.Qt.PenStyle.NoPen)
            painter.setBrush(style.color(tint))
            for frame in frames:
                self._diamond(painter, self.x_of(frame), base)
        self._cursor(painter, base)

    def _cursor(self, painter: QtGui.QPainter, base: float) -> None:
        if not self.first <= self.frame <= self.last:
            return
        x, text, head = self.x_of(self.frame), str(self.frame), self._head()
        painter.fillRect(QtCore.QRectF(x - 0.75, 0, 1.5, self.height()), style.color(style.TEXT))
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        painter.setBrush(style.color(style.TEXT))
        painter.drawRoundedRect(head, 2, 2)
        painter.setPen(style.color(style.BORDER))
        painter.drawText(head, int(QtCore.Qt.AlignmentFlag.AlignCenter), text)

    def _head(self) -> QtCore.QRectF:
        """Where the current frame's number stands."""
        if not self.first <= self.frame <= self.last:
            return QtCore.QRectF()
        wide = self.fontMetrics().horizontalAdvance(str(self.frame)) + 8
        left = min(max(0.0, self.x_of(self.frame) - wide / 2), max(0.0, self.width() - wide))
        return QtCore.QRectF(left, 0, wide, self.fontMetrics().height() + 1)

    def _number(self, painter: QtGui.QPainter, x: float, text: str, head: QtCore.QRectF) -> None:
        wide = self.fontMetrics().horizontalAdvance(text)
        left = min(max(1.0, x - wide / 2), self.width() - wide - 1.0)
        if left + wide + 4 > head.left() and left - 4 < head.right():
            return
        painter.drawText(QtCore.QPointF(left, self.fontMetrics().ascent()), text)

    def _diamond(self, painter: QtGui.QPainter, x: float, y: float) -> None:
        points = [QtCore.QPointF(x + dx, y + dy) for dx, dy in ((0, -4), (4, 0), (0, 4), (-4, 0))]
        painter.drawPolygon(QtGui.QPolygonF(points))

    def _label_step(self, room: float) -> int:
        """How many frames lie between two numbers, so that each has `room` pixels."""
        most = max(1.0, (self.width() - 2 * self._inset()) / room)
        exact = max(1.0, (self.last - self.first) / most)
        power = 10 ** math.floor(math.log10(exact))
        return int(next(m * power for m in (1, 2, 5, 10) if m * power >= exact))

    def _inset(self) -> float:
        return 8.0

    def _scrub(self, event: QtGui.QMouseEvent) -> None:
        frame = self.frame_at(event_position(event).x())
        if frame != self.frame:
            self.frame_wanted.emit(frame)


class TimeLine(QtWidgets.QWidget):
    """Ruler, buttons and frame number. `frame_wanted`: go to that frame; `key_wanted`: -1 or 1, to the next key."""

    frame_wanted = Signal(int)
    key_wanted = Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.ruler = Ruler()
        self.ruler.frame_wanted.connect(self.frame_wanted)
        self.number = NumberField(0, 0, whole=True)
        self.number.setAccessibleName("Current frame")
        self.number.setToolTip("Current frame")
        self.number.committed.connect(lambda value: self.frame_wanted.emit(int(value)))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        self.buttons = {
            name: self._button(name, tip)
            for name, tip in (
                ("key-previous", "Previous keyframe (Page up, or ,)"),
                ("back", "One frame back (left arrow, J)"),
                ("forward", "One frame forward (right arrow, L)"),
                ("key-next", "Next keyframe (Page down, or .)"),
            )
        }
        self.buttons["back"].clicked.connect(lambda: self.frame_wanted.emit(self.ruler.frame - 1))
        self.buttons["forward"].clicked.connect(lambda: self.frame_wanted.emit(self.ruler.frame + 1))
        self.buttons["key-previous"].clicked.connect(lambda: self.key_wanted.emit(-1))
        self.buttons["key-next"].clicked.connect(lambda: self.key_wanted.emit(1))
        row.addWidget(self.ruler, 1)
        for name in ("key-previous", "back"):
            row.addWidget(self.buttons[name])
        row.addWidget(self.number)
        for name in ("forward", "key-next"):
            row.addWidget(self.buttons[name])

    def show_range(
        self, first: int, last: int, shot: tuple[int, int] | None = None, missing: Collection[int] = ()
    ) -> None:
        """The plate's frames, those of the analysed shot, and those that are not on disk."""
        self.ruler.first, self.ruler.last, self.ruler.shot = first, max(first, last), shot
        self.ruler.missing = frozenset(missing)
        self.number.set_range(first, max(first, last))
        self.setEnabled(last > first)
        self.ruler.update()

    def show_frame(self, frame: int) -> None:
        self.ruler.frame = frame
        self.number.show_value(frame)
        self.ruler.update()

    def show_keys(self, keys: Collection[float], corrected: Collection[int] = ()) -> None:
        """Frames with keyframes of parameters, and with corrections of faces."""
        self.ruler.keys = frozenset(int(f) for f in keys)
        self.ruler.corrected = frozenset(corrected)
        self.ruler.update()

    def _button(self, name: str, tip: str) -> QtWidgets.QToolButton:
        button = QtWidgets.QToolButton()
        button.setProperty("role", "flat")
        button.setIcon(icon(name))
        button.setToolTip(tip)
        button.setAccessibleName(tip.partition(" (")[0])
        return button
