"""The one place that chooses the Qt binding: PySide6, or PySide2 where a host (Nuke 15) brings that.

A binding that the host has loaded already is taken; a second one in the same process would crash it. Everything in
`panels` takes Qt from here and uses only what both bindings have: enumerations by their full names
(`Qt.AlignmentFlag.AlignLeft`), positions of events through `event_position`, `exec_` through `run_application`.
Type checking is done twice, the second time against PySide2's stubs (`mypy --always-true PYSIDE2`).

Raises PanelError (`panel.qt`) when imported where there is no binding.
"""

from __future__ import annotations

import importlib.util
import sys

from host_bridge.errors import PanelError


def _choose() -> bool:
    """Whether PySide2 is to be used. PanelError (`panel.qt`) if there is neither."""
    for name in ("PySide6", "PySide2"):
        if name in sys.modules:
            return name == "PySide2"
    for name in ("PySide6", "PySide2"):
        if importlib.util.find_spec(name):
            return name == "PySide2"
    raise PanelError(
        "panel.qt",
        f"the panel needs Qt, and {sys.executable} has neither PySide6 nor PySide2",
        value=sys.executable,
        remedy="Run: pip install 'faceplate[panel]'.",
    )


PYSIDE2 = _choose()

if PYSIDE2:
    from PySide2 import QtCore, QtGui, QtWidgets
    from PySide2.QtCore import QObject, Qt, Signal, Slot
    from PySide2.QtWidgets import QAction, QActionGroup, QShortcut

    ModelIndex = QtCore.QModelIndex
else:
    from PySide6 import QtCore, QtGui, QtWidgets
    from PySide6.QtCore import QObject, Qt, Signal, Slot
    from PySide6.QtGui import QAction, QActionGroup, QShortcut

    ModelIndex = QtCore.QModelIndex | QtCore.QPersistentModelIndex  # what delegates are handed

__all__ = [
    "PYSIDE2",
    "ModelIndex",
    "QAction",
    "QActionGroup",
    "QObject",
    "QShortcut",
    "Qt",
    "QtCore",
    "QtGui",
    "QtWidgets",
    "Signal",
    "Slot",
    "event_position",
    "global_position",
    "run_application",
    "run_dialog",
]


def event_position(event: QtGui.QMouseEvent | QtGui.QWheelEvent | QtGui.QDropEvent) -> QtCore.QPointF:
    """Where in the widget a mouse, wheel or drop event happened, in fractions of logical pixels."""
    if PYSIDE2:
        if isinstance(event, QtGui.QMouseEvent):
            return event.localPos()
        return event.posF()
    return event.position()


def global_position(event: QtGui.QMouseEvent) -> QtCore.QPoint:
    """Where on the screen a mouse event happened."""
    if PYSIDE2:
        return event.globalPos()
    return event.globalPosition().toPoint()


def run_application(application: QtWidgets.QApplication) -> int:
    """Run the event loop until the last window is closed."""
    if PYSIDE2:
        return int(application.exec_())
    return int(application.exec())


def run_dialog(dialog: QtWidgets.QDialog | QtWidgets.QMenu) -> object:
    """Run a dialogue or a menu modally."""
    if PYSIDE2:
        return dialog.exec_()
    return dialog.exec()
