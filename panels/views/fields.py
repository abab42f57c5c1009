"""Fields for everything that is no single number: a choice, a line of text, a colour, several numbers, a label that
gives way. `show_value` shows without telling; `committed` and `chosen` tell what the artist did.
"""

from __future__ import annotations

from collections.abc import Sequence

from panels import style
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.numbers import NumberField
from panels.views.parts import delete_on_close


class Choice(QtWidgets.QComboBox):
    """One of several; `chosen` tells the stable name, the list shows it in words."""

    chosen = Signal(str)

    def __init__(self, names: Sequence[str] = (), parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)
        self.show_names(names)
        self.activated.connect(self._activated)

    def show_names(self, names: Sequence[str], labels: Sequence[str] = ()) -> None:
        """Offer other names; the shown one stays where it is still there."""
        labels = list(labels) or [in_words(name) for name in names]
        if [(self.itemData(i), self.itemText(i)) for i in range(self.count())] == list(zip(names, labels, strict=True)):
            return
        current = self.currentData()
        self.clear()
        for name, label in zip(names, labels, strict=True):
            self.addItem(label, name)
        self.updateGeometry()
        self.show_value(current)

    def show_value(self, name: object) -> None:
        self.setCurrentIndex(self.findData(name))

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def sizeHint(self) -> QtCore.QSize:
        """As wide as its longest entry, within reason."""
        wide = max((self.fontMetrics().horizontalAdvance(self.itemText(i)) for i in range(self.count())), default=0)
        unit = style.em(self)
        return QtCore.QSize(min(14 * unit, max(4 * unit, wide)) + 26, super().sizeHint().height())

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(4 * style.em(self) + 26, super().minimumSizeHint().height())

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        painter.setPen(QtGui.QPen(style.color(style.DIM if self.isEnabled() else style.FAINT), 1.3))
        x, y = self.width() - 10.0, self.height() / 2.0
        painter.drawPolyline(
            QtGui.QPolygonF(
                [QtCore.QPointF(x - 3, y - 1.5), QtCore.QPointF(x, y + 1.5), QtCore.QPointF(x + 3, y - 1.5)]
            )
        )

    def _activated(self, index: int) -> None:
        self.chosen.emit(str(self.itemData(index)))


class TextField(QtWidgets.QLineEdit):
    """A line of text; `committed` when the artist presses Return or leaves, and only if it changed."""

    committed = Signal(str)

    def __init__(self, placeholder: str = "", parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setPlaceholderText(placeholder)
        self._shown = ""
        self.editingFinished.connect(self._finished)

    def show_value(self, text: str) -> None:
        """Show a text without telling anybody. What is being typed stays."""
        self._shown = text
        if not (self.isModified() and self.hasFocus()) and self.text() != text:
            self.setText(text)

    def _finished(self) -> None:
        self.setModified(False)
        if self.text() != self._shown:
            self._shown = self.text()
            self.committed.emit(self._shown)


class ColorField(QtWidgets.QWidget):
    """Three numbers and a swatch that opens the colour dialog. Values are display-encoded, 0..1."""

    committed = Signal(object)

    def __init__(self, minimum: float | None, maximum: float | None, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._value = (0.0, 0.0, 0.0)
        self.swatch = QtWidgets.QToolButton()
        self.swatch.setAccessibleName("Pick a colour")
        self.swatch.setToolTip("Pick a colour")
        self.swatch.clicked.connect(self._pick)
        self.numbers = VectorField(3, ("Red", "Green", "Blue"), minimum, maximum)
        self.numbers.committed.connect(self._take)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(style.GAP)
        row.addWidget(self.swatch)
        row.addWidget(self.numbers, 1)
        self.setFocusProxy(self.swatch)

    def show_value(self, value: Sequence[float]) -> None:
        self._value = (float(value[0]), float(value[1]), float(value[2]))
        self.numbers.show_value(self._value)
        size = style.em(self)
        pixmap = QtGui.QPixmap(2 * size, size)
        pixmap.fill(QtGui.QColor.fromRgbF(*(min(1.0, max(0.0, v)) for v in self._value)))
        self.swatch.setIcon(QtGui.QIcon(pixmap))
        self.swatch.setIconSize(QtCore.QSize(size, size - 2))

    def _take(self, value: tuple[float, ...]) -> None:
        self.show_value(value)
        self.committed.emit(self._value)

    def _pick(self) -> None:
        dialog = QtWidgets.QColorDialog(QtGui.QColor.fromRgbF(*self._value), self)
        delete_on_close(dialog)
        dialog.colorSelected.connect(lambda c: self._take((c.redF(), c.greenF(), c.blueF())))
        dialog.open()


class VectorField(QtWidgets.QWidget):
    """Several numbers side by side."""

    committed = Signal(object)

    def __init__(
        self,
        size: int,
        names: Sequence[str],
        minimum: float | None,
        maximum: float | None,
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        self.fields = [NumberField(minimum, maximum) for _ in range(size)]
        for field, name in zip(self.fields, names, strict=True):
            field.setAccessibleName(name)
            field.setToolTip(name)
            field.committed.connect(self._committed)
            row.addWidget(field, 1)
        self.setFocusProxy(self.fields[0])

    def show_value(self, value: Sequence[float]) -> None:
        for field, number in zip(self.fields, value, strict=True):
            field.show_value(number)

    def _committed(self, _: float) -> None:
        self.committed.emit(tuple(field.value() for field in self.fields))


class ElidedLabel(QtWidgets.QLabel):
    """A label that gives way: what does not fit ends in an ellipsis and is told by the tooltip."""

    def __init__(
        self,
        text: str = "",
        where: QtCore.Qt.TextElideMode = QtCore.Qt.TextElideMode.ElideRight,
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(text, parent)
        self._where = where
        self.setMinimumWidth(2 * style.em(self))
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(3 * style.em(self), super().minimumSizeHint().height())

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        inside = self.contentsRect()
        shown = self.fontMetrics().elidedText(self.text(), self._where, inside.width())
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(inside, int(self.alignment()), shown)

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Type.ToolTip and not self.toolTip():
            inside = self.contentsRect().width()
            if self.fontMetrics().horizontalAdvance(self.text()) > inside and isinstance(event, QtGui.QHelpEvent):
                QtWidgets.QToolTip.showText(event.globalPos(), self.text(), self)
                return True
        return super().event(event)


def in_words(name: str) -> str:
    """`comic_ink` as people read it."""
    return name.replace("_", " ").capitalize() if name else ""
