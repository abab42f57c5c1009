"""The parameter form of an effect, built from its descriptor: groups fold, and tell what was changed inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from host_bridge.effects import Param
from panels import style
from panels.controller.values import Values
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.icons import icon
from panels.views.rows import ParamRow, align_labels


class Fold(QtWidgets.QWidget):
    """A titled part that opens and closes."""

    toggled = Signal(bool)

    def __init__(self, title: str, hint: str = "", parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = title
        self.head = QtWidgets.QToolButton()
        self.head.setProperty("role", "fold")
        self.head.setText(title)
        self.head.setToolTip(hint)
        self.head.setAccessibleName(title)
        self.head.setCheckable(True)
        self.head.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.head.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self.body = QtWidgets.QWidget()
        self.column = QtWidgets.QVBoxLayout(self.body)
        self.column.setContentsMargins(2 * style.GAP, 2, 0, 2)
        self.column.setSpacing(2)
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(self.head)
        outer.addWidget(self.body)
        self.head.toggled.connect(self._toggle)
        self._toggle(False)

    def open(self, wide: bool) -> None:
        self.head.setChecked(wide)

    def note(self, text: str) -> None:
        """Say something beside the title."""
        self.head.setText(f"{self.title}   {text}" if text else self.title)

    def _toggle(self, wide: bool) -> None:
        self.body.setVisible(wide)
        self.head.setIcon(icon("unfolded" if wide else "folded", style.DIM))
        self.toggled.emit(wide)


class ParamForm(QtWidgets.QWidget):
    """All parameters of the chosen effect but those named in `without`.

    `refresh` shows the values at the current frame and builds the rows anew when the effect is another.
    """

    refused = Signal(object)
    held = Signal(bool)

    def __init__(
        self,
        values: Values,
        go_to: Callable[[int], None],
        without: tuple[str, ...] = (),
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._values, self._go_to, self._without = values, go_to, without
        self._built: tuple[Param, ...] | None = None
        self.rows: dict[str, ParamRow] = {}
        self.folds: dict[str, Fold] = {}
        self._open: set[str] = set()
        self._column = QtWidgets.QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)

    def refresh(self) -> None:
        """Show how things stand."""
        if self._values.params != self._built:
            self._build()
        for row in self.rows.values():
            if row.param.parent not in self.folds or self.folds[row.param.parent].head.isChecked():
                row.refresh()
        for name, fold in self.folds.items():
            changed = sum(1 for row in self.rows.values() if row.param.parent == name and self._touched(row))
            fold.note(f"({changed} changed)" if changed else "")

    def focused(self) -> ParamRow | None:
        """The row that has the keyboard."""
        return next((row for row in self.rows.values() if row.isAncestorOf(self.window().focusWidget() or self)), None)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._align()

    def _touched(self, row: ParamRow) -> bool:
        return self._values.touched(row.param.name)

    def _build(self) -> None:
        while self._column.count():
            item = self._column.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self.rows, self.folds = {}, {}
        self._built = self._values.params
        for param in self._built:
            if param.name in self._without:
                continue
            if param.type == "group":
                self._column.addWidget(self._fold(param))
            elif param.type == "pushbutton":
                continue  # nothing on the wire presses a button of an effect
            else:
                self._place(param)
        self._align()

    def _fold(self, param: Param) -> Fold:
        fold = Fold(param.label, param.hint)
        fold.open(param.name in self._open)
        fold.toggled.connect(partial(self._folded, param.name))
        self.folds[param.name] = fold
        return fold

    def _folded(self, name: str, wide: bool) -> None:
        """What is folded is not kept up to date, and is when it unfolds."""
        if not wide:
            self._open.discard(name)
            return
        self._open.add(name)
        for row in self.rows.values():
            if row.param.parent == name:
                row.refresh()

    def _place(self, param: Param) -> None:
        row = ParamRow(self._values, param, partial(str, param.name), self._go_to)
        row.refused.connect(self.refused)
        row.held.connect(self.held)
        self.rows[param.name] = row
        (self.folds[param.parent].column if param.parent in self.folds else self._column).addWidget(row)

    def _align(self) -> None:
        align_labels(list(self.rows.values()), self.width())
