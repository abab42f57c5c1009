"""Menu scripts: where they go, what they leave alone, and what they say and do when Resolve runs them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from host_bridge.cli import main
from host_bridge.cli.install import diagnose
from host_bridge.errors import HostError
from host_bridge.hosts import resolve_install
from host_bridge.hosts.base import Finding
from host_bridge.hosts.resolve_api import Relay
from host_bridge.hosts.resolve_install import scripts_folder
from host_bridge.hosts.resolve_scripts import relay
from tests.fakes import resolve as fake
from tests.host_bridge.hosts.resolve_desk import FIRST, LAST, open_suite

NAMES = [f"{page}/{name}" for page in ("Comp", "Edit") for name in ("Faceplate Panel.py", "Faceplate Status.py")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script folder of an artist's home."""
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    return scripts_folder("")


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def ours() -> list[Finding]:
    return [f for f in diagnose() if f.topic == "resolve"]


def test_install_again_and_uninstall_touch_our_files_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ours()[0].state == "note"
    (folder / "Edit").mkdir(parents=True)
    (folder / "Edit" / "Theirs.py").write_text("print(1)")
    assert main(["install", "resolve"]) == 0
    assert files(folder) == sorted([*NAMES, "Edit/Theirs.py"])
    before = {n: (folder / n).read_text() for n in NAMES}
    assert ours()[0].state == "ok"
    assert main(["install", "resolve"]) == 0
    assert {n: (folder / n).read_text() for n in NAMES} == before
    assert main(["uninstall", "resolve"]) == 0
    assert files(folder) == ["Edit/Theirs.py"]
    assert main(["uninstall", "resolve"]) == 0
    assert "nothing of Faceplate's" in capsys.readouterr().out


def test_a_script_of_somebody_else_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Comp").mkdir(parents=True)
    (folder / "Comp" / "Faceplate Panel.py").write_text("print('mine')")
    assert main(["install", "resolve"]) == 7
    assert "did not write" in capsys.readouterr().err
    assert files(folder) == ["Comp/Faceplate Panel.py"]
    assert main(["uninstall", "resolve"]) == 0
    assert (folder / "Comp" / "Faceplate Panel.py").read_text() == "print('mine')"


def test_a_folder_of_the_studio(tmp_path: Path, folder: Path) -> None:
    assert main(["install", "resolve", "--scripts", str(tmp_path / "studio")]) == 0
    assert files(tmp_path / "studio") == NAMES
    assert not folder.exists()


def test_each_platform_has_its_folder() -> None:
    home = Path("/h")
    assert scripts_folder("", {}, "linux", home) == home / ".local/share/DaVinciResolve/Fusion/Scripts"
    assert "Application Support" in str(scripts_folder("", {}, "darwin", home))
    assert str(scripts_folder("", {"APPDATA": "R:/roaming"}, "win32", home)).startswith("R:/roaming")


def test_diagnosis(folder: Path) -> None:
    main(["install", "resolve"])
    script = folder / "Edit" / "Faceplate Panel.py"
    whole = script.read_text()
    script.write_text(whole.replace("relay.py", "gone.py"))
    assert (ours()[0].state, "gone.py" in ours()[0].detail) == ("missing", True)
    script.write_text(whole + "\n# edited\n")
    assert ours()[0].state == "note"
    script.unlink()
    assert (ours()[0].state, "3 of 4" in ours()[0].detail) == ("missing", True)


@pytest.mark.parametrize("source", ["relay.py", "faceplate_panel.py", "faceplate_status.py"])
def test_what_resolve_runs_is_python_3_6_of_the_standard_library(source: str) -> None:
    text = (Path(relay.__file__).parent / source).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 6))
    named = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    named |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.partition(".")[0] for n in named} <= {"importlib", "json", "os", "subprocess", "threading", "typing"}


def run_script(script: Path, resolve: object) -> None:
    """As Resolve runs it: no `__file__`, `resolve` among the globals."""
    exec(compile(script.read_text(encoding="utf-8"), "<menu>", "exec"), {"__name__": "__main__", "resolve": resolve})


def test_a_script_talks_to_resolve_through_a_child(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in range(FIRST, LAST + 1):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(b"exr")
    suite = open_suite(str(tmp_path / "sh010.%04d.exr"))
    main(["install", "resolve"])
    capsys.readouterr()
    run_script(folder / "Edit" / "Faceplate Status.py", suite.resolve)
    out = capsys.readouterr().out
    assert "DaVinci Resolve Studio 21.0.0" in out
    assert "Edit v1, V1, 01:00:00:20 (86420), 5 frames" in out
    assert "frames 1004-1008" in out
    suite.timeline._current, suite.timeline._timecode = None, "01:00:00:00"
    run_script(folder / "Comp" / "Faceplate Status.py", suite.resolve)
    out = capsys.readouterr().out
    assert "no video clip under the playhead" in out
    assert "ended with status 3" in out


def test_a_script_says_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/gone/python")
    main(["install", "resolve"])
    capsys.readouterr()
    run_script(folder / "Edit" / "Faceplate Panel.py", fake.Resolve(None))
    out = capsys.readouterr().out
    assert "/gone/python" in out
    assert "faceplate install resolve" in out
    assert relay.run(None, "/gone/python", []) == 5
    assert relay.run(fake.Resolve(None), "/gone/python", []) == 5
    assert "cannot be started" in capsys.readouterr().out


def test_an_end_of_resolve_is_told_and_a_refused_call_names_it(tmp_path: Path) -> None:
    def root(answers: str) -> None:
        (tmp_path / "answers").write_text(answers)
        with (tmp_path / "calls").open("w") as calls, (tmp_path / "answers").open() as said:
            Relay(calls, said).root()

    with pytest.raises(HostError, match="has ended"):
        root("")
    with pytest.raises(HostError, match="no GetVersion"):
        root('{"id": 1, "value": null}\n{"id": 2, "error": "AttributeError: this Resolve has no GetVersion"}\n')
    with pytest.raises(HostError, match="no GetVersion"):  # the first answer is of a call that was interrupted
        root('{"id": 0, "value": 7}\n{"id": 1, "value": null}\n{"id": 2, "error": "no GetVersion"}\n')


def test_the_scripts_are_shipped() -> None:
    shipped = {p.name for p in (Path(resolve_install.__file__).parent / "resolve_scripts").glob("*.py")}
    assert {*resolve_install.SCRIPTS.values(), "relay.py"} <= shipped
    assert '"resolve_scripts/*.py"' in (Path(__file__).parents[3] / "pyproject.toml").read_text()
