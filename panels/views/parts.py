"""Small things every page is made of: labels and buttons with a role, a layout that wraps, words for numbers."""

from __future__ import annotations

from collections.abc import Callable

from host_bridge.errors import FaceplateError
from panels import style
from panels.qt import QtCore, QtGui, QtWidgets
from panels.views.icons import icon

ADAPT = "Adapt the shot"
ADAPT_TIP = "Learn this actor in this shot with the values as they are. Takes minutes; a render with them needs it once"


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
    side = max(16, style.em(button))
    button.setIconSize(QtCore.QSize(side, side))
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


class Page(QtWidgets.QWidget):
    """A page that costs nothing while it is not looked at: signals go to `changed`, `refresh` shows the state."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._stale = True

    def refresh(self) -> None:
        """Show how things stand."""
        raise NotImplementedError

    def changed(self) -> None:
        """Something is another: show it now, or when the page is shown."""
        if self.isVisible():
            self.refresh()
        else:
            self._stale = True

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._stale = False
            self.refresh()


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


class Flow(QtWidgets.QWidget):
    """Widgets in a line that goes on below where it does not fit.

    A widget that places its children, not a QLayout: a layout written in Python would hold items that Qt deletes.
    """

    def __init__(self, spacing: int = style.GAP, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._spacing = spacing
        self._widgets: list[QtWidgets.QWidget] = []
        policy = QtWidgets.QSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def add(self, *widgets: QtWidgets.QWidget) -> None:
        """Append widgets."""
        for widget in widgets:
            widget.setParent(self)
            self._widgets.append(widget)
        self.updateGeometry()

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._place(width, move=False)

    def sizeHint(self) -> QtCore.QSize:
        widest = sum(w.sizeHint().width() + self._spacing for w in self._there())
        return QtCore.QSize(widest, self._place(widest, move=False))

    def minimumSizeHint(self) -> QtCore.QSize:
        widest = max((_wanted(w).width() for w in self._there()), default=0)
        return QtCore.QSize(widest, self._place(max(widest, self.width()), move=False))

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Type.LayoutRequest:
            self._place(self.width(), move=True)
            self.updateGeometry()
        return super().event(event)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place(self.width(), move=True)

    def _there(self) -> list[QtWidgets.QWidget]:
        return [widget for widget in self._widgets if not widget.isHidden()]

    def _place(self, width: int, *, move: bool) -> int:
        """Lay the widgets out line by line, centred in their line; the height it takes."""
        lines: list[list[tuple[QtWidgets.QWidget, QtCore.QSize]]] = []
        x = width + 1
        for widget in self._there():
            size = _wanted(widget)
            if not lines or x + size.width() > width:
                lines.append([])
                x = 0
            lines[-1].append((widget, size))
            x += size.width() + self._spacing
        y = 0
        for line in lines:
            tall = max(size.height() for _, size in line)
            x = 0
            for widget, size in line:
                if move:
                    top = y + (tall - size.height()) // 2
                    widget.setGeometry(x, top, min(size.width(), max(1, width)), size.height())
                x += size.width() + self._spacing
            y += tall + self._spacing
        return max(0, y - self._spacing)


def _wanted(widget: QtWidgets.QWidget) -> QtCore.QSize:
    """How large a widget is to be, within its own bounds."""
    return widget.sizeHint().expandedTo(widget.minimumSize()).boundedTo(widget.maximumSize())


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
