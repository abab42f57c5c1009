"""Both Qt bindings: all of `panels` fits PySide6 (checked with the rest) and PySide2; having neither is said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs the command line with imports of the named packages failing as where they are not installed.
_WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None
sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names!r} else found(name, package)
from host_bridge.cli import main
sys.exit(main({words!r}))
"""


def test_everything_type_checks_against_pyside2_too(tmp_path: Path) -> None:
    """PySide2 itself is not there for this Python; its published stubs say which names, overloads and types it has."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nalways_true = PYSIDE2\n")
    cache = ROOT / ".mypy_cache" / "pyside2"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, "-p", "panels"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    assert "no issues found" in checked.stdout


def test_the_check_finds_what_pyside2_does_not_have(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nalways_true = PYSIDE2\n")
    (tmp_path / "only_six.py").write_text(
        "from panels.qt import QtGui\n\ndef where(event: QtGui.QMouseEvent) -> object:\n    return event.position()\n"
    )
    cache = ROOT / ".mypy_cache" / "pyside2"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, tmp_path / "only_six.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert '"QMouseEvent" has no attribute "position"' in checked.stdout


def test_only_one_module_chooses_the_binding() -> None:
    choosing = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "panels").rglob("*.py")
        if re.search(r"^\s*(from|import) (PySide|shiboken)", path.read_text(encoding="utf-8"), re.M)
    ]
    assert choosing == ["panels/qt.py"]


def test_the_controller_needs_no_qt() -> None:
    code = "import sys, panels, panels.controller; print([n for n in sys.modules if 'PySide' in n or n == 'panels.qt'])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("without", "words", "status", "says"),
    [
        ({"PySide6", "PySide2"}, ["panel"], 5, "pip install 'faceplate[panel]'"),
        ({"PySide6", "PySide2"}, ["panel", "--help"], 0, ""),
        ({"panels"}, ["panel"], 5, "pip install 'faceplate[panel]'"),
    ],
)
def test_without_qt_the_command_says_what_to_install(
    without: set[str], words: list[str], status: int, says: str
) -> None:
    code = _WITHOUT.format(names=without, words=words)
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == status, said.stderr
    assert says in said.stderr
    assert "Traceback" not in said.stderr
