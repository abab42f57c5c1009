"""The ordered edit list: directions and their strengths, moved by the grip or by Alt+Up and Alt+Down."""

from __future__ import annotations

from collections.abc import Callable

from panels import style
from panels.controller.values import Values
from panels.qt import QtCore, QtGui, QtWidgets, Signal, global_position
from panels.views.icons import icon
from panels.views.parts import delete_on_close
from panels.views.rows import ParamRow, align_labels


class _Grip(QtWidgets.QToolButton):
    """What a row is carried by."""

    carried = Signal(int)  # y on the screen
    dropped = Signal(int)
    nudged = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "flat")
        self.setIcon(icon("grip", style.FAINT))
        self.setCursor(QtCore.Qt.CursorShape.SizeVerCursor)
        self.setToolTip("Drag to change the order (Alt+Up, Alt+Down)")
        self._from: int | None = None

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._from = global_position(event).y()
        self.setFocus(QtCore.Qt.FocusReason.MouseFocusReason)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        if self._from is not None:
            self.carried.emit(global_position(event).y())

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        if self._from is not None:
            self._from = None
            self.dropped.emit(global_position(event).y())

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        alt = bool(event.modifiers() & QtCore.Qt.KeyboardModifier.AltModifier)
        if alt and event.key() in (QtCore.Qt.Key.Key_Up, QtCore.Qt.Key.Key_Down):
            self.nudged.emit(-1 if event.key() == QtCore.Qt.Key.Key_Up else 1)
        else:
            super().keyPressEvent(event)


class _EditRow(QtWidgets.QWidget):
    """One edit: grip, the parameter row of its direction, remove."""

    def __init__(self, values: Values, index: int, go_to: Callable[[int], None]) -> None:
        super().__init__()
        self.grip = _Grip()
        self.row = ParamRow(values, values.param(index), lambda: index, go_to)
        self.grip.setAccessibleName(f"Move {self.row.param.label}")
        self.remove = QtWidgets.QToolButton()
        self.remove.setProperty("role", "flat")
        self.remove.setIcon(icon("remove", style.DIM))
        self.remove.setToolTip(f"Remove {self.row.param.label}")
        self.remove.setAccessibleName(f"Remove {self.row.param.label}")
        line = QtWidgets.QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        line.addWidget(self.grip)
        line.addWidget(self.row, 1)
        line.addWidget(self.remove)


class EditList(QtWidgets.QWidget):
    """Applied from top to bottom. `refused` and `held` are those of its rows."""

    refused = Signal(object)
    held = Signal(bool)

    def __init__(self, values: Values, go_to: Callable[[int], None], parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._values, self._go_to = values, go_to
        self._built: tuple[str, ...] | None = None
        self._insertion = -1
        self.rows: list[_EditRow] = []
        self.title = QtWidgets.QLabel("Edits, in order")
        self.title.setProperty("role", "head")
        self.add = QtWidgets.QToolButton()
        self.add.setText("Add")
        self.add.setIcon(icon("add"))
        self.add.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.add.setToolTip("Add an attribute direction to the end of the list")
        self.add.clicked.connect(self._offer)
        head = QtWidgets.QHBoxLayout()
        head.addWidget(self.title, 1)
        head.addWidget(self.add)
        self.empty = QtWidgets.QLabel("No edits yet. Add a direction, or pick several on the page Choose.")
        self.empty.setProperty("role", "dim")
        self.empty.setWordWrap(True)
        self._column = QtWidgets.QVBoxLayout()
        self._column.setSpacing(2)
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(style.GAP)
        outer.addLayout(head)
        outer.addWidget(self.empty)
        outer.addLayout(self._column)

    def refresh(self) -> None:
        """Show how things stand."""
        self.setVisible(bool(self._values.directions))
        names = tuple(row.name for row in self._values.edits)
        if names != self._built:
            self._build(names)
        for row in self.rows:
            row.row.refresh()
        self.empty.setVisible(not self.rows)

    def focused(self) -> ParamRow | None:
        """The row that has the keyboard."""
        return next((r.row for r in self.rows if r.isAncestorOf(self.window().focusWidget() or self)), None)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        align_labels([r.row for r in self.rows], self.width())

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        if self._insertion >= 0 and self.rows:
            edge = self.rows[self._insertion] if self._insertion < len(self.rows) else self.rows[-1]
            y = edge.geometry().top() - 1 if self._insertion < len(self.rows) else edge.geometry().bottom() + 1
            painter = QtGui.QPainter(self)
            painter.fillRect(QtCore.QRect(0, y - 1, self.width(), 2), style.color(style.ACCENT))

    def _build(self, names: tuple[str, ...]) -> None:
        for old in self.rows:
            self._column.removeWidget(old)
            old.hide()
            old.deleteLater()
        self.rows = []
        self._built = names
        for index in range(len(names)):
            row = _EditRow(self._values, index, self._go_to)
            row.row.refused.connect(self.refused)
            row.row.held.connect(self.held)
            row.remove.clicked.connect(lambda _=False, index=index: self._values.remove_edit(index))
            row.grip.carried.connect(self._carry)
            row.grip.dropped.connect(lambda y, index=index: self._drop(index, y))
            row.grip.nudged.connect(lambda by, index=index: self._nudge(index, by))
            self._column.addWidget(row)
            self.rows.append(row)
        align_labels([r.row for r in self.rows], self.width())

    def _offer(self) -> None:
        """A menu of directions; one may be in the list more than once."""
        menu = QtWidgets.QMenu(self)
        delete_on_close(menu)
        menu.setToolTipsVisible(True)
        for param in self._values.directions:
            action = menu.addAction(param.label)
            action.setToolTip(param.hint)
            action.triggered.connect(lambda _=False, name=param.name: self._values.add_edit(name))
        menu.popup(self.add.mapToGlobal(QtCore.QPoint(0, self.add.height())))

    def _gap_at(self, y: int) -> int:
        """Before which row something let go at this height of the screen would come."""
        here = self.mapFromGlobal(QtCore.QPoint(0, y)).y()
        return sum(1 for row in self.rows if row.geometry().center().y() < here)

    def _carry(self, y: int) -> None:
        self._insertion = self._gap_at(y)
        self.update()

    def _drop(self, index: int, y: int) -> None:
        gap, self._insertion = self._gap_at(y), -1
        self.update()
        to = gap - 1 if gap > index else gap
        if to != index:
            self._move(index, to)

    def _nudge(self, index: int, by: int) -> None:
        if 0 <= index + by < len(self.rows):
            self._move(index, index + by)

    def _move(self, index: int, to: int) -> None:
        self._values.move_edit(index, to)
        if to < len(self.rows):
            self.rows[to].grip.setFocus(QtCore.Qt.FocusReason.OtherFocusReason)
