"""Resolve's menu, Workspace > Scripts > Faceplate Status. `faceplate install resolve` fills in the two paths."""

import importlib.util
import os

PYTHON = ""  # the Python that Faceplate is installed in
RELAY = ""  # relay.py of that installation


def main() -> None:
    """Start `faceplate resolve status` beside this Resolve."""
    for what in (PYTHON, RELAY):
        if not os.path.exists(what):
            print("Faceplate is not where it was when it was installed into Resolve: " + (what or "(no path)"))
            print("Install it again, then run: faceplate install resolve")
            return
    spec = importlib.util.spec_from_file_location("faceplate_relay", RELAY)
    if spec is None or spec.loader is None:
        print("Faceplate: this cannot be loaded: " + RELAY)
        return
    relay = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(relay)
    names = globals()
    resolve = names.get("resolve") or (names["app"].GetResolve() if "app" in names else None)
    relay.run(resolve, PYTHON, ["resolve", "status"])


main()
