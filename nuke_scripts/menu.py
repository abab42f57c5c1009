"""Run by Nuke's windowed start-up: the menu, the panel and the marks on nodes. Prints what goes wrong, never raises."""

from __future__ import annotations

import sys
import traceback

import nuke


def _set_up() -> None:
    from host_bridge.hosts.base import remembered_effects
    from nuke_scripts import callbacks, panel

    for name in ("Nuke", "Nodes"):
        menu = nuke.menu(name).addMenu("Faceplate")
        effects = remembered_effects()
        for identifier, label in [(e.identifier, e.label) for e in effects] or [
            ("look", "Look"),
            ("retouch", "Retouch"),
        ]:
            menu.addCommand(label, f"from nuke_scripts import buttons; buttons.create({identifier!r})")
    menu = nuke.menu("Nuke").addMenu("Faceplate")
    menu.addSeparator()
    menu.addCommand("All effects...", "from nuke_scripts import buttons; buttons.choose()")
    menu.addCommand("Panel", "from nuke_scripts import panel; panel.show()")
    menu.addCommand("Write render passes...", "from nuke_scripts import buttons; buttons.write_passes()")
    nuke.addKnobChanged(callbacks.knob_changed, nodeClass="Group")
    nuke.addAutolabel(callbacks.autolabel, nodeClass="Group")
    panel.register()


try:
    _set_up()
except Exception:  # noqa: BLE001 - a fault of ours must not keep Nuke from starting
    traceback.print_exc()
    print("Faceplate's menu could not be made; Nuke goes on without it.", file=sys.stderr)  # noqa: T201
