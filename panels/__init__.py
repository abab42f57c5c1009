"""The Faceplate panel: Qt widgets over a controller without Qt. PySide6 or PySide2, no numpy, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host_bridge.hosts.base import Host
    from panels.controller import PanelOptions
    from panels.qt import QtWidgets


def create_panel(host: Host | None = None, options: PanelOptions | None = None) -> QtWidgets.QWidget:
    """The panel as a widget, to be docked or shown by itself; there has to be a QApplication.

    Nothing is connected and nothing asked before it is shown. `close()` ends everything it began. Raises PanelError
    (`panel.qt`) where there is no Qt binding.
    """
    from panels.bridge import open_bridge
    from panels.window import PanelWindow

    return PanelWindow(open_bridge(host, options))
