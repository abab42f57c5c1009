"""What the panel says at its edge: a banner while the server is away, and notices that can be dismissed."""

from __future__ import annotations

from panels import style
from panels.bridge import Bridge
from panels.controller import Notice
from panels.qt import QtCore, QtWidgets, Signal
from panels.views.parts import label, push, sentence, tool
from panels.views.server import LINKS

_BACK_MS = 4000
_INFO_MS = 6000


class Strip(QtWidgets.QFrame):
    """A coloured line of words, with what can be done about them."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = label(wrap=True)
        self.line = QtWidgets.QHBoxLayout(self)
        self.line.setContentsMargins(8, 4, 6, 4)
        self.line.setSpacing(style.GAP)
        self.line.addWidget(self.text, 1)
        self.timer = QtCore.QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.timeout.connect(self.hide)
        self.hide()

    def say(self, text: str, tint: str, for_ms: int = 0) -> None:
        """Show a text; for so long, or (0) until something else is said."""
        self.text.setText(text)
        self.setStyleSheet(f"Strip {{ background: #262626; border: none; border-left: 3px solid {tint}; }}")
        self.show()
        self.timer.stop()
        if for_ms:
            self.timer.start(for_ms)


class Banner(Strip):
    """Tells that the server is away, and when it is back. `server_wanted`: the artist asks for the tab Server."""

    server_wanted = Signal()

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._connection = bridge.controller.connection
        self._away = False
        self.start = push("Start", "Start this machine's server", self._connection.start)
        self.more = push("Server", "Show the tab Server", self.server_wanted.emit)
        self.line.addWidget(self.start)
        self.line.addWidget(self.more)
        bridge.connection_changed.connect(self.refresh)

    def refresh(self) -> None:
        """Show how things stand."""
        state = self._connection.state
        self.start.setVisible(state.link in ("offline", "unreachable", "refused"))
        self.more.setVisible(state.link != "ready")
        if state.link == "ready":
            if self._away:
                self.say("The server is back. What was asked for goes on.", style.GOOD, _BACK_MS)
            else:
                self.hide()
            self._away = False
            return
        text = LINKS[state.link][0] if state.link in LINKS else state.link
        if state.error is not None:
            text = f"{sentence(state.error.message)} {state.error.remedy}"
        if state.link in ("unreachable", "refused"):
            self._away = True
        waiting = state.link in ("starting", "connecting")
        self.say(f"{text}." if state.error is None else text, style.ACCENT if waiting else style.BAD)


class NoticeStrip(Strip):
    """The newest notice; good news goes by itself, the rest stays until it is dismissed."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._notices = bridge.controller.notices
        self.all = tool("down", "Earlier notices", self._show_all)
        self.close_button = tool("remove", "Dismiss (Escape)", self.hide)
        self.line.addWidget(self.all)
        self.line.addWidget(self.close_button)
        bridge.noticed.connect(self.show_notice)

    def show_notice(self, notice: Notice) -> None:
        """Show a notice with its remedy."""
        tint = {"error": style.BAD, "warning": style.ACCENT}.get(notice.level, style.GOOD)
        text = f"{notice.text}\n{notice.remedy}" if notice.remedy else notice.text
        self.all.setVisible(len(self._notices.kept) > 1)
        self.say(text, tint, 0 if notice.level == "error" else _INFO_MS)

    def _show_all(self) -> None:
        menu = QtWidgets.QMenu(self)
        menu.setAttribute(QtCore.Qt.WidgetAttribute.WA_DeleteOnClose)
        for notice in self._notices.kept[:12]:
            action = menu.addAction(self.fontMetrics().elidedText(notice.text, QtCore.Qt.TextElideMode.ElideRight, 420))
            action.triggered.connect(lambda _=False, notice=notice: self.show_notice(notice))
        menu.popup(self.all.mapToGlobal(QtCore.QPoint(0, self.all.height())))
