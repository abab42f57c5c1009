"""Server: how things stand, devices and memory, the queue; start one, connect to one on another machine."""

from __future__ import annotations

from host_bridge import messages as m
from host_bridge.errors import FaceplateError
from panels import style
from panels.bridge import Bridge
from panels.qt import QtCore, QtGui, QtWidgets
from panels.views.fields import in_words
from panels.views.parts import Flow, Labelled, Page, label, push, row, set_role, size_in_words, told

LINKS = {
    "offline": ("Not connected", "dim"),
    "starting": ("Starting a server", "warn"),
    "connecting": ("Connecting", "warn"),
    "ready": ("Connected", "good"),
    "unreachable": ("No answer; trying again", "bad"),
    "refused": ("Refused", "bad"),
}


class DeviceBox(QtWidgets.QWidget):
    """One worker: device, what it does, memory."""

    def __init__(self) -> None:
        super().__init__()
        self.name = label(role="head")
        self.state = label(role="dim")
        self.memory = QtWidgets.QProgressBar()
        self.memory.setAccessibleName("Memory")
        self.activity = QtWidgets.QProgressBar()
        self.activity.setAccessibleName("Activity")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row(self.name, self.state, 1))
        column.addWidget(self.memory)
        column.addWidget(self.activity)

    def show_status(self, status: m.DeviceStatus) -> None:
        self.name.setText(status.name or status.device)
        words = [in_words(status.state)]
        if status.job_id:
            words.append(f"job {status.job_id[:8]}")
        if status.restarts:
            words.append(f"restarted {status.restarts} times")
        self.state.setText(", ".join(words))
        set_role(self.state, {"failed": "bad", "restarting": "warn"}.get(status.state, "dim"))
        used, total = status.memory_used or status.rss, status.memory_total
        self.memory.setVisible(used > 0)
        self.memory.setRange(0, 1000)
        self.memory.setValue(round(1000 * used / total) if total else 0)
        whole = f" of {size_in_words(total)}" if total else ""
        self.memory.setFormat(f"{size_in_words(used)}{whole}")
        self.activity.setVisible(bool(status.activity))
        self.activity.setRange(0, 100 if status.activity_done > 0 else 0)
        self.activity.setValue(round(100 * status.activity_done))
        self.activity.setFormat(f"{in_words(status.activity)}  %p %")


class ServerPage(Page):
    """Asks for the status only while it is looked at."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._connection = bridge.controller.connection
        self.link = label(role="head")
        self.where = label(role="dim", wrap=True)
        self.error = label(role="bad", wrap=True)
        self.queue = label("")
        self.devices: list[DeviceBox] = []
        self._boxes = QtWidgets.QVBoxLayout()
        self._boxes.setSpacing(2 * style.GAP)
        self.start = push(
            "Start", "Start this machine's server, or attach to the one that runs", self._connection.start
        )
        self.stop = push("Stop", "Stop the server; unfinished jobs go on at its next start", self._stop)
        self.leave = push("Disconnect", "Forget the server; it goes on by itself", self._connection.disconnect)
        self.log = push("Open log", "Show the server's log file", self._open_log)
        self.address = QtWidgets.QLineEdit()
        self.address.setPlaceholderText("tcp://host:port, or the path of a connection file")
        self.address.returnPressed.connect(self._connect)
        self.connect_to = push("Connect", "Use the server of another machine", self._connect)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(2 * style.GAP)
        for widget in (self.link, self.where, self.error):
            column.addWidget(widget)
        buttons = Flow()
        for button in (self.start, self.stop, self.leave, self.log):
            buttons.add(button)
        column.addWidget(buttons)
        other = Labelled()
        other.add("Another machine", self.address, self.connect_to)
        column.addLayout(other)
        column.addWidget(self.queue)
        column.addLayout(self._boxes)
        column.addStretch(1)
        bridge.connection_changed.connect(self.changed)
        bridge.server_changed.connect(self.changed)

    def refresh(self) -> None:
        """Show how things stand."""
        state, status = self._connection.state, self._control.server.status
        text, role = LINKS.get(state.link, (in_words(state.link), "dim"))
        self.link.setText(text)
        set_role(self.link, role)
        lines = [part for part in (state.server, state.endpoint or state.wanted) if part]
        self.where.setText("\n".join(lines))
        self.where.setVisible(bool(lines))
        self.error.setText(told(state.error) if state.error else "")
        self.error.setVisible(state.error is not None)
        self.start.setEnabled(state.link in ("offline", "unreachable", "refused"))
        self.stop.setEnabled(state.ready)
        self.leave.setEnabled(state.link not in ("offline", "starting"))
        self.log.setEnabled(bool(state.log))
        shown = status if state.ready else None
        self.queue.setVisible(shown is not None)
        if shown is not None:
            self.queue.setText(f"{_count(shown.running, 'job')} running, {shown.queued} waiting")
        self._show_devices(shown.devices if shown is not None else [])

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        self._control.server.watch(True)

    def hideEvent(self, event: QtGui.QHideEvent) -> None:
        super().hideEvent(event)
        self._control.server.watch(False)

    # inside

    def _show_devices(self, devices: list[m.DeviceStatus]) -> None:
        while len(self.devices) > len(devices):
            old = self.devices.pop()
            self._boxes.removeWidget(old)
            old.hide()
            old.deleteLater()
        while len(self.devices) < len(devices):
            self.devices.append(DeviceBox())
            self._boxes.addWidget(self.devices[-1])
        for box, device in zip(self.devices, devices, strict=True):
            box.show_status(device)

    def _connect(self) -> None:
        self._connection.connect_to(self.address.text().strip())

    def _stop(self) -> None:
        def stopped(outcome: m.Bye | FaceplateError) -> None:
            if isinstance(outcome, FaceplateError):
                self._control.notices.error(outcome)

        self._connection.stop_server(stopped)

    def _open_log(self) -> None:
        QtGui.QDesktopServices.openUrl(QtCore.QUrl.fromLocalFile(self._connection.state.log))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
