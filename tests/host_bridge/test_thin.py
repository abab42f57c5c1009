"""The thin client is the standard library and pyzmq: Nuke's and Resolve's Pythons have nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BLOCKER = """
import importlib.abc, sys, sysconfig

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("zmq", "host_bridge", "_cffi_backend"):
            return None
        raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import host_bridge.client, host_bridge.launcher, host_bridge.paths, host_bridge.liveness
import host_bridge.endpoint, host_bridge.effects, host_bridge.jobspec, host_bridge.curves
foreign = {m.partition(".")[0] for m in sys.modules} - set(sys.stdlib_module_names)
print(sorted(n for n in foreign if sys.modules[n].__spec__ is not None and n != "__main__"))
"""


def test_the_client_imports_with_the_standard_library_and_pyzmq_only() -> None:
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", BLOCKER], capture_output=True, text=True, cwd=root, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    names = {n.strip(" '[]\n") for n in answer.stdout.split(",")}
    allowed = {"host_bridge", "zmq", "sitecustomize", "usercustomize"}
    assert {n for n in names if not n.startswith(("_", "distutils"))} <= allowed, names
