"""`faceplate panel`: the panel as a program of its own."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from host_bridge.errors import PanelError
from host_bridge.hosts.base import Host
from panels.controller import PanelOptions
from panels.qt import PYSIDE2, QtCore, QtWidgets, run_application

_GLANCE_MS = 200  # Python looks for Ctrl-C this often while Qt waits


def run(options: PanelOptions, host: Host | None = None) -> int:
    """Show the panel until its window is closed, beside `host` if there is one; the exit status.

    Raises PanelError (`panel.qt`) without a screen.
    """
    application = QtWidgets.QApplication.instance()
    if not isinstance(application, QtWidgets.QApplication):
        _check_screen()
        if PYSIDE2:  # Qt 6 does this by itself
            QtWidgets.QApplication.setAttribute(QtCore.Qt.ApplicationAttribute.AA_EnableHighDpiScaling)
            QtWidgets.QApplication.setAttribute(QtCore.Qt.ApplicationAttribute.AA_UseHighDpiPixmaps)
        application = QtWidgets.QApplication(sys.argv[:1])
    application.setApplicationName("faceplate")
    application.setApplicationDisplayName("Faceplate")
    from panels import create_panel

    panel = create_panel(host, options)
    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    glance = QtCore.QTimer()
    glance.timeout.connect(_nothing)
    glance.start(_GLANCE_MS)
    try:
        panel.show()
        return run_application(application)
    finally:
        glance.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
        panel.close()
        panel.deleteLater()
        QtCore.QCoreApplication.sendPostedEvents(None, 0)  # the deletion included


def _check_screen() -> None:
    """Qt ends the process where it finds no screen; say so before."""
    unix = sys.platform.startswith("linux")
    if unix and not any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        raise PanelError(
            "panel.qt",
            "there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set",
            remedy="Run it in a desktop session; `faceplate render` and `faceplate preview` need none.",
        )


def _end(number: int, frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM close the window as the artist would."""
    QtWidgets.QApplication.closeAllWindows()
    QtCore.QCoreApplication.quit()


def _nothing() -> None:
    """Waking up is enough."""
