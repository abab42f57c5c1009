"""What the node's buttons and the Faceplate menu call. A node's errors are shown on it, the menu's in a box."""

from __future__ import annotations

import nuke

from host_bridge.errors import FaceplateError
from host_bridge.hosts import nuke_actions
from nuke_scripts import panel, passes


def press(name: str) -> None:
    """A button of the node whose button it is."""
    node = nuke.thisNode()
    if not isinstance(node, nuke.Group):
        raise TypeError(f"{node.name()} has no Faceplate buttons")
    if name == "panel":
        panel.show(node.fullName())
    else:
        nuke_actions.press(node, name)


def create(effect: str) -> nuke.Group | None:
    """A new node of an effect; None where there is no server and the effect is not known from before."""
    try:
        group = nuke_actions.create_node(effect)
    except FaceplateError as error:
        _say(error)
        return None
    if nuke.GUI:
        group.showControlPanel()
    return group


def choose() -> None:
    """Ask the server what there is, and make a node of the chosen one."""
    try:
        effects = nuke_actions.effects()
    except FaceplateError as error:
        _say(error)
        return
    index: object = nuke.choice("Faceplate", "Effect", [effect.label for effect in effects])
    if isinstance(index, int):
        create(effects[index].identifier)


def write_passes() -> None:
    """Write the commands that render this script without windows, beside it."""
    name = nuke.root().name()
    try:
        path = passes.write_beside(name)
    except FaceplateError as error:
        _say(error)
        return
    nuke.message(f"Written: {path}")


def _say(error: FaceplateError) -> None:
    nuke.message(f"{error.message}\n\n{error.remedy}")
