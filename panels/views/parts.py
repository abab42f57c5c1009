"""Small things every page is made of: labels and buttons with a role, a layout that wraps, words for numbers."""

from __future__ import annotations

from collections.abc import Callable

from host_bridge.errors import FaceplateError
from panels import style
from panels.qt import QtCore, QtWidgets
from panels.views.icons import icon


def label(text: str = "", role: str = "", *, wrap: bool = False) -> QtWidgets.QLabel:
    """A label; `role` is dim, head, bad, good or warn. Its text can be copied where it wraps."""
    result = QtWidgets.QLabel(text)
    result.setTextFormat(QtCore.Qt.TextFormat.PlainText)
    result.setWordWrap(wrap)
    if wrap:
        result.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextSelectableByMouse)
    if role:
        result.setProperty("role", role)
    return result


def set_role(widget: QtWidgets.QWidget, role: str) -> None:
    """Give a widget another role of the style sheet."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def push(text: str, tip: str, clicked: Callable[[], object], *, role: str = "") -> QtWidgets.QPushButton:
    """A button with words."""
    button = QtWidgets.QPushButton(text)
    button.setToolTip(tip)
    button.setAccessibleDescription(tip)
    if role:
        button.setProperty("role", role)
    button.clicked.connect(lambda: clicked())
    return button


def tool(
    name: str,
    tip: str,
    clicked: Callable[[], object] | None = None,
    *,
    text: str = "",
    checkable: bool = False,
    flat: bool = True,
) -> QtWidgets.QToolButton:
    """A button with an icon. It takes the keyboard by Tab only, so that a click leaves the picture's keys working."""
    button = QtWidgets.QToolButton()
    button.setIcon(icon(name))
    button.setToolTip(tip)
    button.setAccessibleName(text or tip.partition(" (")[0])
    button.setCheckable(checkable)
    button.setFocusPolicy(QtCore.Qt.FocusPolicy.TabFocus)
    if flat:
        button.setProperty("role", "flat")
    if text:
        button.setText(text)
        button.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    if clicked is not None:
        button.clicked.connect(lambda: clicked())
    return button


def row(*widgets: QtWidgets.QWidget | int, spacing: int = style.GAP) -> QtWidgets.QHBoxLayout:
    """Widgets side by side; a number is a stretch."""
    layout = QtWidgets.QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        layout.addStretch(widget) if isinstance(widget, int) else layout.addWidget(widget)
    return layout


def scrolled(inside: QtWidgets.QWidget) -> QtWidgets.QScrollArea:
    """A widget in an area that scrolls up and down only."""
    area = QtWidgets.QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(QtCore.Qt.FocusPolicy.NoFocus)
    area.setWidget(inside)
    return area


class Labelled(QtWidgets.QGridLayout):
    """Fields under each other, each with its name in front."""

    def __init__(self) -> None:
        super().__init__()
        self.setContentsMargins(0, 0, 0, 0)
        self.setHorizontalSpacing(6)
        self.setVerticalSpacing(style.GAP)
        self.setColumnStretch(1, 1)

    def add(self, text: str, field: QtWidgets.QWidget, *more: QtWidgets.QWidget, tip: str = "") -> QtWidgets.QLabel:
        """Add a row; its label."""
        name = label(text, "dim")
        name.setBuddy(field)
        at = self.rowCount()
        self.addWidget(name, at, 0)
        if more:
            self.addLayout(row(field, *more), at, 1)
        else:
            self.addWidget(field, at, 1)
        if not field.accessibleName():
            field.setAccessibleName(text)
        if tip:
            field.setToolTip(tip)
            name.setToolTip(tip)
        return name


class Flow(QtWidgets.QLayout):
    """Items in a line that goes on below where it does not fit."""

    def __init__(self, spacing: int = style.GAP) -> None:
        super().__init__()
        self._items: list[QtWidgets.QLayoutItem] = []
        self.setSpacing(spacing)
        self.setContentsMargins(0, 0, 0, 0)

    def addItem(self, item: QtWidgets.QLayoutItem) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QtWidgets.QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QtWidgets.QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        margins = self.contentsMargins()
        around = margins.top() + margins.bottom()
        return around + self._place(QtCore.QRect(0, 0, width - margins.left() - margins.right(), 0), move=False)

    def sizeHint(self) -> QtCore.QSize:
        return self.minimumSize()

    def minimumSize(self) -> QtCore.QSize:
        size = QtCore.QSize(0, 0)
        for item in self._items:
            if not item.isEmpty():
                size = size.expandedTo(item.minimumSize())
        margins = self.contentsMargins()
        return size + QtCore.QSize(margins.left() + margins.right(), margins.top() + margins.bottom())

    def setGeometry(self, rect: QtCore.QRect) -> None:
        super().setGeometry(rect)
        self._place(self.contentsRect(), move=True)

    def _place(self, rect: QtCore.QRect, *, move: bool) -> int:
        """Lay the items out line by line, centred in their line; the height it takes."""
        lines: list[list[QtWidgets.QLayoutItem]] = []
        x = rect.width() + 1
        for item in self._items:
            if item.isEmpty():
                continue
            wide = item.sizeHint().width()
            if not lines or x + wide > rect.width():
                lines.append([])
                x = 0
            lines[-1].append(item)
            x += wide + self.spacing()
        y = rect.top()
        for line in lines:
            tall = max(item.sizeHint().height() for item in line)
            x = rect.left()
            for item in line:
                hint = item.sizeHint()
                if move:
                    wide = min(hint.width(), rect.width())
                    above = (tall - hint.height()) // 2
                    item.setGeometry(QtCore.QRect(x, y + above, wide, hint.height()))
                x += hint.width() + self.spacing()
            y += tall + self.spacing()
        return max(0, y - self.spacing() - rect.top())


def items_of(tree: QtWidgets.QTreeWidget) -> list[QtWidgets.QTreeWidgetItem]:
    """The rows of a list."""
    rows = (tree.topLevelItem(index) for index in range(tree.topLevelItemCount()))
    return [item for item in rows if item is not None]


def told(error: FaceplateError) -> str:
    """An error with place and remedy, for a label."""
    where = f" Frame {error.frame}." if error.frame is not None else ""
    path = f"\n{error.path}" if error.path else ""
    return f"{sentence(error.message)}{where}{path}\n{error.remedy}".strip()


def sentence(text: str) -> str:
    """A message as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def size_in_words(count: float) -> str:
    """Bytes as people read them: `1.4 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def time_in_words(seconds: float) -> str:
    """A duration: `8 s`, `3:05`, `1:02:05`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def delete_on_close(window: QtWidgets.QWidget) -> None:
    """Let a dialogue or menu go when it is closed."""
    window.setAttribute(QtCore.Qt.WidgetAttribute.WA_DeleteOnClose)
