"""Faceplate's panel inside Nuke: docked where panes dock. Qt is imported when the panel is opened, not before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import nuke

from host_bridge.errors import FaceplateError

PANEL_ID = "org.faceplate.panel"


def register() -> None:
    """Let Nuke offer the panel in its pane menus and restore it with a workspace. Nothing is made yet.

    A restored panel appears while Nuke starts, so this one connects when the artist says so.
    """
    scripts: Any = importlib.import_module("nukescripts")
    scripts.panels.registerWidgetAsPanel(_expression("", "none"), "Faceplate", PANEL_ID)


def show(node: str = "") -> None:
    """Open the panel for a node, or for whatever is selected; a box says what is missing."""
    words = missing()
    if words:
        nuke.message(words)
        return
    scripts: Any = importlib.import_module("nukescripts")
    made = scripts.panels.registerWidgetAsPanel(_expression(node, "start"), "Faceplate", PANEL_ID, True)
    made.addToPane(nuke.getPaneFor("Properties.1"))


def factory(node: str = "", connect: str = "start") -> Callable[[], Any]:
    """What Nuke calls for a widget: the panel, bound to a node or ("") following the selection.

    `connect` as in panels.controller.PanelOptions.
    """

    def make() -> Any:
        panels: Any = importlib.import_module("panels")
        options = importlib.import_module("panels.controller").PanelOptions(connect=connect)
        return panels.create_panel(importlib.import_module("host_bridge.hosts.nuke").NukeHost(node), options)

    return make


def missing() -> str:
    """What the panel lacks here and how to get it; "" where it can be opened."""
    try:
        for name in ("panels", "panels.qt", "zmq"):
            importlib.import_module(name)
    except (FaceplateError, ImportError) as error:
        if isinstance(error, FaceplateError) or (error.name or "").startswith("PySide"):
            return (
                f"Faceplate's panel needs Qt: {getattr(error, 'message', error)}.\n\nNuke 15 brings PySide2, Nuke 16 "
                "and later PySide6: start Nuke with windows, and without a PYTHONPATH that hides its own packages."
            )
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            f"Faceplate is not whole in this Nuke: {error}.\n\n"
            f"Run, outside Nuke: faceplate install nuke --python {version}"
        )
    return ""


def _expression(node: str, connect: str) -> str:
    """Nuke evaluates this text where it needs the widget."""
    return f"__import__('nuke_scripts.panel', fromlist=['panel']).factory({node!r}, {connect!r})"
