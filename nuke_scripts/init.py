"""Run by every Nuke at start-up, with and without windows. Whatever goes wrong here is printed, and Nuke starts.

Puts Faceplate and pyzmq for this Python at the end of `sys.path` and registers the check that a render does not use a
result that is out of date. Imports nothing of Faceplate and connects to nothing.
"""

from __future__ import annotations

import os
import sys
import traceback

import nuke


def _folders() -> list[str]:
    """The packages, and what `faceplate install nuke` fetched for this Python."""
    lib = os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename)))
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    return [lib, os.path.join(os.path.dirname(lib), "vendor", version)]


def _before_render() -> None:
    from nuke_scripts import callbacks

    callbacks.before_render()


try:
    sys.path.extend(folder for folder in _folders() if os.path.isdir(folder) and folder not in sys.path)
    nuke.addBeforeRender(_before_render, nodeClass="Write")
except Exception:  # noqa: BLE001 - a fault of ours must not keep Nuke from starting
    traceback.print_exc()
    print("Faceplate could not be set up; Nuke goes on without it.", file=sys.stderr)  # noqa: T201
