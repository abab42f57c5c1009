"""Numbers: a field that is typed in and a slider that is dragged.

Decides how a compositor's hand meets a number: the slider spans the display range and never limits what may be typed;
a double-click goes back to the default; the wheel only turns what has the focus, so that scrolling a form changes
nothing; a slider says `edited` while it is dragged and `committed` when the hand lets go.
"""

from __future__ import annotations

import math

from panels import style
from panels.qt import QtCore, QtGui, QtWidgets, Signal, event_position

_STEPS = 2000
_DECIMALS = 4


class NumberField(QtWidgets.QLineEdit):
    """A number typed, or stepped with Up and Down (Shift: ten steps, Ctrl: a tenth). Shown without trailing zeros.

    A line, not a spin box: letters are left to the window's keys, and a decimal comma is read as a point.
    """

    committed = Signal(float)

    def __init__(
        self,
        minimum: float | None,
        maximum: float | None,
        *,
        whole: bool = False,
        step: float = 0.0,
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._whole = whole
        self._value = 0.0
        self.set_range(minimum, maximum)
        self._step = step or (1.0 if whole else _nice_step(self._high - self._low))
        self.setAlignment(QtCore.Qt.AlignmentFlag.AlignRight)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)
        self.editingFinished.connect(self._typed)
        self.show_value(self._value)

    def value(self) -> float:
        return self._value

    def set_range(self, minimum: float | None, maximum: float | None) -> None:
        """What may be typed; None = anything."""
        self._low = -1e9 if minimum is None else float(minimum)
        self._high = 1e9 if maximum is None else float(maximum)

    def show_value(self, value: float) -> None:
        """Show a value without telling anybody. What is being typed stays."""
        self._value = float(value)
        if not (self.isModified() and self.hasFocus()):
            self._show()

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(self.fontMetrics().horizontalAdvance("-0000.00") + 14, super().sizeHint().height())

    def minimumSizeHint(self) -> QtCore.QSize:
        # An interpolated value shows all its decimals.
        return QtCore.QSize(self.fontMetrics().horizontalAdvance("-0.0000") + 14, super().minimumSizeHint().height())

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        if event.key() in (QtCore.Qt.Key.Key_Up, QtCore.Qt.Key.Key_Down):
            self._step_by(1 if event.key() == QtCore.Qt.Key.Key_Up else -1, event)
        elif event.key() == QtCore.Qt.Key.Key_Escape and self.isModified():
            self._show()
        elif event.text() and event.text() in ",.":
            self.insert(".")
        elif event.text().isprintable() and event.text() and event.text() not in "0123456789+-":
            event.ignore()
        else:
            super().keyPressEvent(event)

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        if self.hasFocus() and event.angleDelta().y():
            self._step_by(1 if event.angleDelta().y() > 0 else -1, event)
        else:
            event.ignore()

    def _step_by(self, steps: int, event: QtGui.QKeyEvent | QtGui.QWheelEvent) -> None:
        self._typed()
        modifiers = event.modifiers()
        size = self._step
        if modifiers & QtCore.Qt.KeyboardModifier.ShiftModifier:
            size *= 10
        elif modifiers & QtCore.Qt.KeyboardModifier.ControlModifier and not self._whole:
            size /= 10
        self._commit(self._value + steps * size)

    def _typed(self) -> None:
        """Take what was typed; what is no number goes back to what was shown."""
        if not self.isModified():
            return
        try:
            number = float(self.text())
        except ValueError:
            number = self._value
        self._commit(number if math.isfinite(number) else self._value)

    def _commit(self, number: float) -> None:
        number = min(self._high, max(self._low, round(number, 0 if self._whole else _DECIMALS)))
        changed, self._value = number != self._value, number
        self._show()
        if changed:
            self.committed.emit(number)

    def _show(self) -> None:
        text = f"{self._value:.{0 if self._whole else _DECIMALS}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        self.setText("0" if text == "-0" else text)
        self.setModified(False)


class Slider(QtWidgets.QSlider):
    """A horizontal slider over the display range, filled from the default (or 0) to the value.

    `sliderPressed` and `sliderReleased` tell that a hand holds it.
    """

    edited = Signal(float)
    committed = Signal(float)
    reset = Signal()

    def __init__(
        self, low: float, high: float, origin: float, *, whole: bool = False, parent: QtWidgets.QWidget | None = None
    ) -> None:
        super().__init__(QtCore.Qt.Orientation.Horizontal, parent)
        self.low, self.high, self.origin, self.whole = low, max(high, low + 1e-9), origin, whole
        steps = round(self.high - self.low) if whole and self.high - self.low < _STEPS else _STEPS
        self.setRange(0, max(1, steps))
        self.setSingleStep(max(1, steps // 100))
        self.setPageStep(max(1, steps // 10))
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self._quiet = False
        self._dragging = False
        self.valueChanged.connect(self._moved)

    def show_value(self, value: float) -> None:
        """Show a value without telling anybody; while a hand drags, the hand is right."""
        if self._dragging:
            return
        self._quiet = True
        try:
            self.setValue(self._to_step(value))
        finally:
            self._quiet = False

    def number(self) -> float:
        """The value the handle stands at, rounded to what one step can tell apart."""
        value = self.low + (self.high - self.low) * self.value() / self.maximum()
        if self.whole:
            return float(round(value))
        digits = max(0, 1 - math.floor(math.log10((self.high - self.low) / 200.0)))
        return round(value, digits)

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(8 * style.em(self), style.em(self) + 4)

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(3 * style.em(self), style.em(self) + 4)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.button() != QtCore.Qt.MouseButton.LeftButton:
            event.ignore()
            return
        self._dragging = True
        self.sliderPressed.emit()
        self._follow(event)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        if self._dragging:
            self._follow(event)

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        if self._dragging:
            self._follow(event)
            self._let_go()
            self.committed.emit(self.number())

    def mouseDoubleClickEvent(self, event: QtGui.QMouseEvent) -> None:
        self._let_go()
        self.reset.emit()

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        middle, enabled = self.height() / 2.0, self.isEnabled()
        groove = QtCore.QRectF(self._inset(), middle - 1.5, self.width() - 2 * self._inset(), 3)
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        painter.setBrush(style.color(style.FIELD))
        painter.drawRoundedRect(groove, 1.5, 1.5)
        x0, x1 = self._x(self._to_step(self.origin)), self._x(self.value())
        painter.setBrush(style.color("#8a8a8a" if enabled else style.LINE))
        painter.drawRect(QtCore.QRectF(min(x0, x1), middle - 1.5, abs(x1 - x0), 3))
        painter.setBrush(style.color(style.FAINT if enabled else style.LINE))
        painter.drawRect(QtCore.QRectF(x0 - 0.5, middle - 4, 1, 8))
        ring = style.ACCENT if self.hasFocus() else style.BORDER
        painter.setPen(QtGui.QPen(style.color(ring), 1))
        painter.setBrush(style.color(style.TEXT if enabled else style.RAISED))
        painter.drawRoundedRect(QtCore.QRectF(x1 - 3.5, middle - 6.5, 7, 13), 2, 2)

    def _let_go(self) -> None:
        if self._dragging:
            self._dragging = False
            self.sliderReleased.emit()

    def _inset(self) -> float:
        return 5.0

    def _x(self, step: int) -> float:
        return self._inset() + (self.width() - 2 * self._inset()) * step / self.maximum()

    def _to_step(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return round(min(1.0, max(0.0, share)) * self.maximum())

    def _follow(self, event: QtGui.QMouseEvent) -> None:
        inside = max(1.0, self.width() - 2 * self._inset())
        share = (event_position(event).x() - self._inset()) / inside
        self.setValue(round(min(1.0, max(0.0, share)) * self.maximum()))

    def _moved(self, _: int) -> None:
        if self._quiet:
            return
        self.edited.emit(self.number())
        if not self._dragging:
            self.committed.emit(self.number())


def _nice_step(span: float) -> float:
    """About a hundredth of a span, as 1, 2 or 5 times a power of ten; 0.1 where the span is endless."""
    if span > 1e6:
        return 0.1
    exact = span / 100.0
    power: float = 10.0 ** math.floor(math.log10(exact))
    return next((m * power for m in (1.0, 2.0, 5.0) if m * power >= exact * 0.99), 10.0 * power)
