"""What Nuke calls by itself: before renders, when knobs change, when a node is drawn."""

from __future__ import annotations

import sys

import nuke

from host_bridge.errors import FaceplateError
from host_bridge.hosts.base import one_line
from host_bridge.hosts.nuke_actions import check_inputs
from host_bridge.hosts.nuke_node import BUSY, DONE, ERROR, grey_out, refresh, set_state
from host_bridge.hosts.nuke_read import is_faceplate, text

_OWN = ("fp_state", "fp_status", "fp_made", "fp_made_inputs")


def before_render() -> None:
    """Abort a render that would read a Faceplate result that is missing or out of date, with the remedy."""
    try:
        check_inputs(nuke.thisNode())
    except FaceplateError as error:
        if not nuke.GUI:
            print(f"Faceplate: {one_line(error)}", file=sys.stderr, flush=True)  # noqa: T201
        raise RuntimeError(one_line(error)) from error


def knob_changed() -> None:
    """Mark a node whose inputs or values have changed since it was rendered; any change takes an error away."""
    node, knob = nuke.thisNode(), nuke.thisKnob()
    if not (isinstance(node, nuke.Group) and is_faceplate(node)) or knob.name() in _OWN:
        return
    name = knob.name()
    if not (name.startswith(("p_", "e_", "fp_")) or name in ("inputChange", "showPanel")):
        return
    if text(node, "fp_state") == ERROR and name != "showPanel":
        set_state(node, "", "")
    if name.startswith("p_"):
        grey_out(node)
    refresh(node, inputs=name in ("inputChange", "showPanel"))


def autolabel() -> str | None:
    """A Faceplate node's name in the graph with how it stands; None leaves other nodes to Nuke."""
    node = nuke.thisNode()
    if not is_faceplate(node):
        return None
    state, label = text(node, "fp_state"), text(node, "label")
    words = {BUSY: text(node, "fp_status")}.get(state, state)
    return "\n".join(part for part in (node.name(), label, f"({words})" if words and state != DONE else "") if part)
