"""Installing into Nuke's folder: one line, our own files, everything else byte for byte as it was."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from host_bridge.cli import main
from host_bridge.cli.install import diagnose
from host_bridge.errors import HostError
from host_bridge.hosts.base import Finding
from host_bridge.hosts.nuke_install import pip_words, read_installed

FOREIGN = {
    "none": None,
    "empty": b"",
    "plain": b"import nuke\nnuke.pluginAddPath('./gizmos')\n",
    "no newline at the end": b"# -*- coding: latin-1 -*-\n# caf\xe9\nimport nuke",
    "windows": b"import nuke\r\nif nuke.GUI:\r\n    pass",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artist's home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NUKE_PATH", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels that pip takes for pyzmq of Nuke's Pythons."""
    folder = tmp_path_factory.mktemp("wheels")
    for tag in ("cp310", "cp311"):
        for platform in ("manylinux2014_x86_64", "manylinux2014_aarch64", "win_amd64", "macosx_10_15_universal2"):
            info = "pyzmq-26.9.9.dist-info"
            with zipfile.ZipFile(folder / f"pyzmq-26.9.9-{tag}-{tag}-{platform}.whl", "w") as wheel:
                wheel.writestr("zmq/__init__.py", f"TAG = {tag!r}\n")
                wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pyzmq\nVersion: 26.9.9\n")
                wheel.writestr(
                    f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}-{tag}-{platform}\n"
                )
                wheel.writestr(f"{info}/RECORD", "")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("foreign", list(FOREIGN))
def test_uninstall_leaves_what_was_there_byte_for_byte(foreign: str, home: Path) -> None:
    nuke = home / ".nuke"
    content = FOREIGN[foreign]
    if content is not None:
        nuke.mkdir()
        (nuke / "init.py").write_bytes(content)
        (nuke / "menu.py").write_bytes(b"mine")
    before = tree(nuke)

    assert main(["install", "nuke", "--no-pyzmq"]) == 0
    once = tree(nuke)
    lines = once["init.py"].splitlines()
    assert once["init.py"].startswith(content or b"")
    assert sum(b"faceplate" in line for line in lines) == 1
    assert b"nuke.pluginAddPath" in lines[-1]
    assert "faceplate/lib/nuke_scripts/__init__.py" in once
    compile(once["init.py"], "init.py", "exec")

    assert main(["install", "nuke", "--no-pyzmq"]) == 0
    assert tree(nuke) == once, "installing twice is installing once"
    code = nuke / "faceplate/lib/host_bridge/__pycache__"
    code.mkdir()
    (code / "errors.cpython-311.pyc").write_bytes(b"made by Nuke")

    assert main(["uninstall", "nuke"]) == 0
    assert tree(nuke) == before
    assert main(["uninstall", "nuke"]) == 0


def test_lines_added_after_ours_and_files_put_beside_ours_stay(home: Path) -> None:
    nuke = home / ".nuke"
    nuke.mkdir()
    (nuke / "init.py").write_bytes(b"first = 1")
    main(["install", "nuke", "--no-pyzmq"])
    (nuke / "init.py").write_bytes((nuke / "init.py").read_bytes() + b"later = 2\n")
    (nuke / "faceplate/notes.txt").write_bytes(b"an artist's")
    assert main(["uninstall", "nuke"]) == 0
    assert tree(nuke) == {"init.py": b"first = 1\nlater = 2\n", "faceplate/notes.txt": b"an artist's"}


def test_a_folder_of_ours_that_is_not_ours_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".nuke/faceplate").mkdir(parents=True)
    (home / ".nuke/faceplate/mine.py").write_text("x = 1")
    before = tree(home)
    assert main(["install", "nuke"]) == 7
    assert "host.install" in capsys.readouterr().err
    assert tree(home) == before


def test_a_list_that_names_files_outside_removes_nothing_outside(home: Path) -> None:
    main(["install", "nuke", "--no-pyzmq"])
    (home / "precious.txt").write_text("precious")
    manifest = home / ".nuke/faceplate/installed.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "files": [*data["files"], "../../precious.txt"]}))
    assert main(["uninstall", "nuke"]) == 0
    assert (home / "precious.txt").read_text() == "precious"
    assert not (home / ".nuke/faceplate").exists()


def test_without_wheels_the_rest_is_installed_and_the_way_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["install", "nuke", "--python", "3.11", "--wheels", str(tmp_path / "empty")]) == 5
    said = capsys.readouterr().out
    assert "pip download" in said
    assert "--python-version 3.11" in said
    assert read_installed(home / ".nuke/faceplate") is not None


def test_pyzmq_is_fetched_for_nukes_pythons_and_doctor_sees_what_is_wrong(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [f.state for f in _nuke()] == ["note"]
    studio = home / "studio"
    assert main(["install", "nuke", "--nuke-path", str(studio), "--wheels", str(wheels)]) == 0
    assert (studio / "faceplate/vendor/cp310/zmq/__init__.py").read_text() == "TAG = 'cp310'\n"
    monkeypatch.setenv("NUKE_PATH", str(studio))
    (found,) = _nuke()
    assert (found.state, "pyzmq for cp310, cp311" in found.detail, found.remedy) == ("ok", True, "")
    for harm, detail in (
        ("faceplate/vendor/cp311/zmq/__init__.py", "1 files are gone"),
        ("faceplate/lib/host_bridge/errors.py", "2 files are gone"),
        ("init.py", "2 files are gone"),
    ):
        (studio / harm).unlink()
        (found,) = _nuke()
        assert (found.state, detail in found.detail) == ("missing", True), found
        assert f"--nuke-path {studio}" in found.remedy
    main(["install", "nuke", "--nuke-path", str(studio), "--no-pyzmq"])
    (studio / "init.py").write_text("nothing = 0")
    assert "lost Faceplate's line" in _nuke()[0].detail


def _nuke() -> list[Finding]:
    return [f for f in diagnose() if f.topic == "nuke"]


INSTALLED = """
import json, sys, types
nuke = types.ModuleType("nuke")
def add(path):
    with open(path + "/init.py") as file:
        exec(compile(file.read(), path + "/init.py", "exec"), {"nuke": nuke})
nuke.pluginAddPath, nuke.addBeforeRender = add, lambda call, nodeClass: None
sys.modules["nuke"] = nuke
before = list(sys.path)
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), {})
import zmq, host_bridge.hosts.nuke_job, nuke_scripts
print(json.dumps([before == sys.path[:len(before)], sys.path[len(before):], zmq.__file__, nuke_scripts.__file__]))
"""


def test_nuke_finds_what_was_installed_and_what_it_had_comes_first(home: Path, wheels: Path) -> None:
    """A Python without site-packages runs the init.py that was written, as Nuke does."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    tag = f"cp{version.replace('.', '')}"
    if tag not in ("cp310", "cp311"):
        pytest.skip("the test's wheels are for Nuke's Pythons")
    main(["install", "nuke", "--python", version, "--wheels", str(wheels)])
    words = [sys.executable, "-I", "-S", "-c", INSTALLED, str(home / ".nuke/init.py")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    kept, added, zmq, scripts = json.loads(said.stdout)
    root = home / ".nuke/faceplate"
    assert (kept, added) == (True, [str(root / "lib"), str(root / "vendor" / tag)])
    assert zmq == str(root / "vendor" / tag / "zmq/__init__.py")
    assert scripts == str(root / "lib/nuke_scripts/__init__.py")


def test_a_damaged_list_is_said(home: Path) -> None:
    (home / ".nuke/faceplate").mkdir(parents=True)
    (home / ".nuke/faceplate/installed.json").write_text("{")
    with pytest.raises(HostError, match="by hand"):
        list(diagnose())


@pytest.mark.parametrize(
    ("system", "machine", "tag"),
    [
        ("Linux", "x86_64", "manylinux2014_x86_64"),
        ("Windows", "AMD64", "win_amd64"),
        ("Darwin", "arm64", "macosx_11_0_arm64"),
    ],
)
def test_pip_is_asked_for_nukes_platform(system: str, machine: str, tag: str) -> None:
    words = pip_words("3.11", Path("there"), machine={"system": system, "machine": machine})
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert tag in words
    assert words[words.index("--python-version") + 1] == "3.11"
    assert "--only-binary=:all:" in words
