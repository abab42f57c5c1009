"""The keys: one table that does them, explains them, and fills the sheet.

They act when the widget that has the keyboard does not want the key: arrows move a slider that has the focus, and step
frames everywhere else. A host's own shortcut of the same key stays asleep while the panel has the keyboard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panels import style
from panels.qt import QtCore, QtGui, QtWidgets
from panels.views.parts import delete_on_close, label, scrolled


@dataclass(frozen=True)
class Key:
    """`keys` as `QKeySequence` reads them, the first as people are told it."""

    keys: tuple[str, ...]
    text: str
    do: Callable[[], object]
    group: str


class Keys:
    """Finds what a key event means."""

    def __init__(self, table: Sequence[Key]) -> None:
        self.table = tuple(table)
        self._by_code = {_code_of(text): key for key in table for text in key.keys}

    def find(self, event: QtGui.QKeyEvent) -> Key | None:
        """The key's entry, if there is one."""
        modifiers = event.modifiers() & ~QtCore.Qt.KeyboardModifier.KeypadModifier
        return self._by_code.get((int(event.key()), _bits(modifiers)))


class KeySheet(QtWidgets.QDialog):
    """All keys on one sheet."""

    def __init__(self, table: Sequence[Key], parent: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        delete_on_close(self)
        self.setWindowTitle("Keys")
        inside = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(inside)
        grid.setHorizontalSpacing(4 * style.GAP)
        grid.setVerticalSpacing(style.GAP)
        grid.setColumnStretch(1, 1)
        group = ""
        for key in table:
            if key.group != group:
                group = key.group
                grid.addWidget(label(group, "head"), grid.rowCount(), 0, 1, 2)
            at = grid.rowCount()
            grid.addWidget(label(", ".join(dict.fromkeys(_spoken(k) for k in key.keys)), "warn"), at, 0)
            grid.addWidget(label(key.text), at, 1)
        for keys, text in _MOUSE:
            at = grid.rowCount()
            if keys == _MOUSE[0][0]:
                grid.addWidget(label("Mouse", "head"), at, 0, 1, 2)
                at += 1
            grid.addWidget(label(keys, "warn"), at, 0)
            grid.addWidget(label(text), at, 1)
        column = QtWidgets.QVBoxLayout(self)
        column.addWidget(scrolled(inside))
        wanted = inside.sizeHint()
        self.resize(wanted.width() + 5 * style.em(self), min(wanted.height() + 3 * style.em(self), 700))


_MOUSE = (
    ("Wheel", "Zoom the picture around the pointer"),
    ("Middle drag, Alt+drag", "Pan the picture"),
    ("Drag the orange line", "Wipe between plate and result"),
    ("Double-click a slider", "Back to the default"),
    ("Right click on a value", "Keys and reset"),
)


def _code_of(text: str) -> tuple[int, int]:
    """Key and modifiers of a key sequence's text."""
    *held, last = text.split("+") if text != "+" else [text]
    modifiers = 0
    names = {
        "Ctrl": QtCore.Qt.KeyboardModifier.ControlModifier,
        "Shift": QtCore.Qt.KeyboardModifier.ShiftModifier,
        "Alt": QtCore.Qt.KeyboardModifier.AltModifier,
    }
    for name in held:
        modifiers |= _bits(names[name])
    return int(getattr(QtCore.Qt.Key, f"Key_{_NAMES.get(last, last)}")), modifiers


_NAMES = {",": "Comma", ".": "Period"}


def _bits(modifiers: object) -> int:
    """Modifiers as a number: Qt 6 has flags, Qt 5 numbers."""
    return int(getattr(modifiers, "value", modifiers))  # type: ignore[call-overload, no-any-return]


def _spoken(text: str) -> str:
    return text.replace("Return", "Enter").replace("PageUp", "Page up").replace("PageDown", "Page down")
