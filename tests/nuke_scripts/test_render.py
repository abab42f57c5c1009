"""From a button to the picture: a fake Nuke, and everything else real: the server, the client, EXR files, faces."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.auth
from numpy.typing import NDArray

from host_bridge import launcher
from host_bridge.cli import main
from host_bridge.endpoint import read_connection
from tests.nuke_scripts.conftest import node, press, read
from tests.portrait import write_shot

FRAMES = range(1001, 1004)
SIZE = 144


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server's folders. The first button that is pressed starts it."""
    root = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        _environment(patch, root)
        yield root
        assert launcher.stop(), "the server that the buttons started"


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shot(tmp_path_factory.mktemp("plate"), FRAMES, size=SIZE)


@pytest.fixture
def here(nuke: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Nuke whose Faceplate finds the module's server."""
    _environment(monkeypatch, place)
    return nuke


def _environment(patch: pytest.MonkeyPatch, root: Path) -> None:
    for name, value in {
        "FACEPLATE_RUNTIME": str(root / "run"),
        "FACEPLATE_STATE": str(root / "state"),
        "FACEPLATE_SHOTS": str(root / "shots"),
        "FACEPLATE_CONFIG": str(root / "config"),
        "FACEPLATE_DEVICES": "cpu",
        "FACEPLATE_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }.items():
        patch.setenv(name, value)


def rgb(nuke: Any, shown: Any, frame: int = 1002) -> NDArray[np.float32]:
    """[H, W, 3] of what a node shows."""
    picture = nuke._picture(shown, frame)
    return np.stack([picture[f"rgba.{c}"].astype(np.float32) for c in ("red", "green", "blue")], axis=-1)


def files(folder: Path) -> list[str]:
    """Names of all files below, hidden ones too."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_render_shows_the_result_and_marks_it_when_it_is_out_of_date(here: Any, plate: str, tmp_path: Path) -> None:
    source = read(here, plate)
    group = node(here, "retouch", source)
    group["e_smile"].setAnimated()
    group["e_smile"].setValueAt(0.0, 1001)
    group["e_smile"].setValueAt(0.8, 1003)
    press(here, group, "render")
    assert group["fp_status"].value() == "up to date"
    assert here._autolabel(group) == group.name()
    assert not here._session.executed, "a file on disk is used as it is"
    assert files(tmp_path / "faceplate") == ["shot.1001.exr", "shot.1002.exr", "shot.1003.exr"]

    change = [np.abs(rgb(here, group, f) - rgb(here, source, f)).max() for f in FRAMES]
    assert change[0] == 0, "no smile yet"
    assert 0 < change[1] < change[2]
    corner = np.s_[:12, :12]
    assert (rgb(here, group)[corner] == rgb(here, source)[corner]).all()
    result = group.node("Result")
    assert {n: result[n].value() for n in ("colorspace", "raw", "premultiplied", "first", "last")} == {
        "colorspace": "linear",
        "raw": False,
        "premultiplied": False,
        "first": 1001,
        "last": 1003,
    }
    (task,) = here._session.tasks
    assert any("rendering" in words for words in task._messages)

    write = here.nodes.Write(file=str(tmp_path / "final.%04d.exr"), channels="rgba")
    write.setInput(0, group)
    here.execute(write, 1001, 1003)

    group["e_smile"].setValueAt(0.5, 1003)
    assert "its values" in group["fp_status"].value()
    assert "(out of date)" in here._autolabel(group)
    assert (rgb(here, group, 1003) != rgb(here, source, 1003)).any(), "the former result is still shown"
    with pytest.raises(RuntimeError, match=r"values or range have changed.*Press Render"):
        here.execute(write, 1001, 1001)
    group["fp_use_stale"].setValue(True)
    here.execute(write, 1001, 1001)
    group["e_smile"].setValueAt(0.8, 1003)
    assert group["fp_status"].value() == "up to date"


def test_what_is_not_a_file_is_written_by_nuke_and_comes_back_raw(here: Any, plate: str, tmp_path: Path) -> None:
    grade, off = here.nodes.Grade(white=0.5), here.nodes.Grade(white=9.0, disable=True)
    off.setInput(0, read(here, plate))
    grade.setInput(0, off)
    matte = here.nodes.Copy(from0="rgba.red", to0="rgba.alpha")
    matte.setInput(0, grade)
    matte.setInput(1, grade)
    group = node(here, "look", grade)
    group.setInput(1, matte)
    group.setInput(2, grade)
    group["fp_mask_channel"].setValue("rgba.green")
    group["fp_folder"].setValue(str(tmp_path / "results"))
    press(here, group, "render")
    assert group["fp_status"].value() == "up to date"
    name = group.name()
    assert here._session.executed == [
        (f"{name}.Write_source", 1001, 1003),
        (f"{name}.Write_mask", 1001, 1003),
        (f"{name}.Write_style", 1001, 1001),
    ]
    assert all(group.node(f"Write_{n}")["disable"].value() for n in ("source", "mask", "style"))
    written = files(tmp_path / "results")
    assert [w for w in written if w.startswith("mask")] == [f"mask.{f}.exr" for f in FRAMES]
    assert not [w for w in written if w.startswith(".")]
    mask = next((tmp_path / "results").rglob("mask.1002.exr"))
    reader = here.nodes.Read(file=str(mask))
    found = here._picture(reader, 1)
    assert set(found) == {"rgba.alpha"}, "its own channel and no other"
    assert np.array_equal(found["rgba.alpha"], here._picture(grade, 1002)["rgba.green"].astype(np.float16))
    result = group.node("Result")
    assert (result["raw"].value(), result["frame"].value(), group.lastFrame()) == (True, "", 1003)
    assert (rgb(here, group)[:12, :12] == rgb(here, grade)[:12, :12]).all()
    with pytest.raises(RuntimeError, match=r"1004.*No such file"):
        rgb(here, group, 1004)

    group["p_degree"].setValue(0.2)
    press(here, group, "render")
    assert len(here._session.executed) == 3, "the pre-comps were there"
    grade["white"].setValue(0.6)
    here._show_panel(group)
    assert "inputs have changed" in group["fp_status"].value()
    group["p_degree"].setValue(0.3)
    group["p_degree"].setValue(0.2)
    assert "inputs have changed" in group["fp_status"].value()
    grade["white"].setValue(0.5)
    here._show_panel(group)
    assert group["fp_status"].value() == "up to date"


def test_preview_renders_the_current_frame_only(here: Any, plate: str, tmp_path: Path) -> None:
    group = node(here, "look", read(here, plate, frame_mode="start at", frame="1"))
    here.frame(2)
    press(here, group, "preview")
    assert files(tmp_path / "faceplate") == ["shot.1002.exr"]
    assert "2 of 3 frames are not rendered: 1,3" in group["fp_status"].value()
    rgb(here, group, 2)
    with pytest.raises(RuntimeError, match=r"1003.*No such file"):
        rgb(here, group, 3)
    here.frame(9)
    press(here, group, "preview")
    assert "outside the node's range 1-3" in group["fp_status"].value()


def test_analyse_says_the_shot(here: Any, plate: str, tmp_path: Path) -> None:
    group = node(here, "look", read(here, plate))
    press(here, group, "analyse")
    assert group["fp_status"].value().startswith("analysed: shot ")
    assert not (tmp_path / "faceplate").exists()
    assert not group.error()


def test_cancel_cancels_and_keeps_nothing_busy(here: Any, tmp_path: Path) -> None:
    """A long shot, cancelled as soon as its bar is there: from the button, and from the bar."""
    long = write_shot(tmp_path / "long", range(1, 31), size=SIZE, seed=7)
    group = node(here, "look", read(here, long, 1, 30))
    tasks = here._session.tasks
    for count, by in enumerate(("button", "bar")):
        press(here, group, "render", wait=False)
        here._run_until(lambda n=count: len(tasks) > n and tasks[n]._percent > 0)
        assert group["fp_state"].value() == "busy"
        if by == "button":
            press(here, group, "cancel", wait=False)
        else:
            tasks[-1]._cancelled = True
        here._run_until(lambda: group["fp_state"].value() != "busy")
        assert group["fp_status"].value() == "cancelled; finished frames stay"
        assert not group.error()


def test_a_node_that_is_deleted_while_it_renders_is_left_alone(here: Any, plate: str) -> None:
    from host_bridge.hosts.nuke_run import running

    group = node(here, "look", read(here, plate))
    name = group.fullName()
    press(here, group, "analyse", wait=False)
    run = running(name)
    assert run is not None
    here.delete(group)
    here._run_until(lambda: not run.is_alive())
    assert group["fp_state"].value() == "busy"


def test_a_plate_on_a_drive_the_server_does_not_know(here: Any) -> None:
    group = node(here, "look", read(here, "Z:/shots/sh010.%04d.exr"))
    press(here, group, "render")
    assert "Z:/shots/sh010.%04d.exr" in group["fp_status"].value()
    assert "path_maps" in group["fp_status"].value()
    assert group.error()


def test_a_certificate_of_another_server(
    here: Any, plate: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("server", "client"):
        zmq.auth.create_certificates(folder, name)
    monkeypatch.setenv("FACEPLATE_CERTIFICATES", str(folder))
    press(here, node(here, "look", read(here, plate)), "analyse")  # a server runs
    group = node(here, "look", read(here, plate))
    group["fp_server"].setValue(read_connection(place / "run/connection.json").endpoint)
    press(here, group, "render")
    assert "(server.wrong_key)" in group["fp_status"].value()
    assert group.error()


def test_a_frame_that_is_missing_is_an_error_that_names_it(here: Any, plate: str, tmp_path: Path) -> None:
    group = node(here, "look", read(here, plate, 1001, 1004))
    press(here, group, "render")
    assert "(plate.missing_frame)" in group["fp_status"].value()
    assert "1004" in group["fp_status"].value()
    assert group.error()


def test_what_nuke_cannot_write_is_an_error_with_its_words(here: Any, plate: str, tmp_path: Path) -> None:
    grade = here.nodes.Grade()
    grade.setInput(0, read(here, plate, 1001, 1004))
    group = node(here, "look", grade)
    press(here, group, "render")
    assert "shot.1004.exr: No such file" in group["fp_status"].value()
    assert "Look at the source input" in group["fp_status"].value()
    assert group.node("Write_source")["disable"].value()
    assert files(tmp_path / "faceplate") == []


def test_every_view_is_rendered(here: Any, tmp_path: Path) -> None:
    here._session.views = ["left", "right"]
    for seed, view in enumerate(here.views()):
        write_shot(tmp_path / "plate", [1001], size=SIZE, name=f"stereo.{view}.%04d.exr", seed=seed)
    group = node(here, "look", read(here, str(tmp_path / "plate/stereo.%V.%04d.exr"), 1001, 1001))
    press(here, group, "render")
    assert group["fp_status"].value() == "up to date"
    assert files(tmp_path / "faceplate") == ["stereo.left.1001.exr", "stereo.right.1001.exr"]
    left, right = (here._picture(group, 1001, view)["rgba.red"] for view in here.views())
    assert (left != right).any()


def test_passes_render_a_script_without_windows(
    here: Any, plate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes in a row: pre-comp, render, pre-comp, render, final; each pass as its own Nuke would run it."""
    from nuke_scripts import passes

    grade = here.nodes.Grade(white=0.8)
    grade.setInput(0, read(here, plate))
    first = node(here, "retouch", grade)
    first["e_jaw"].setValue(0.7)
    second = node(here, "look", first)
    write = here.nodes.Write(name="Final", file=str(tmp_path / "final.%04d.exr"), channels="rgba")
    write.setInput(0, second)
    here.root()["first_frame"].setValue(1001)
    here.root()["last_frame"].setValue(1003)
    here.scriptSave()
    names = [first.fullName(), second.fullName()]
    script = str(tmp_path / "shot.nk")
    before = Path(script).read_bytes()

    monkeypatch.setattr(here, "GUI", False)
    words = ["write", script, "--final", "Final", "--out", str(tmp_path / "passes.sh"), "--nuke", "nuke"]
    assert passes.main(words) == 0, here._session.printed
    assert Path(script).read_bytes() == before
    lines = [shlex.split(line) for line in (tmp_path / "passes.sh").read_text().splitlines()[2:]]
    assert [line[0] for line in lines] == ["nuke", "faceplate", "nuke", "faceplate", "nuke"]
    copy = str(tmp_path / "shot_faceplate.nk")
    assert lines[-1] == ["nuke", "-x", "-X", "Final", "-F", "1001-1003", copy]

    def final() -> None:
        here.scriptOpen(copy)
        here.execute(here.toNode("Final"), 1001, 1003)

    with pytest.raises(RuntimeError, match=f"{names[0]}.*3 of 3 frames are not rendered"):
        final()
    for line in lines[:-1]:
        if line[0] == "nuke":
            assert line[1:3] == ["-t", passes.__file__]
            assert passes.main(line[3:]) == 0, here._session.printed
        else:
            assert line[-1] == "--local"
            assert main(line[1:-1]) == 0  # by the server that runs here
    final()
    assert [f for f in files(tmp_path) if f.startswith("final")] == [f"final.{f}.exr" for f in FRAMES]
    path = Path(plate % 1002)
    stat = path.stat()
    try:
        os.utime(path, (stat.st_atime, stat.st_mtime + 10))
        with pytest.raises(RuntimeError, match="inputs have changed"):
            final()
    finally:
        os.utime(path, (stat.st_atime, stat.st_mtime))
    assert passes.main(["precomp", copy, "Faceplate_X"]) == 3
    assert f"The script has: {', '.join(names)}" in "".join(here._session.printed)


def test_what_a_command_line_cannot_say_goes_into_a_job_file(here: Any, plate: str, tmp_path: Path) -> None:
    from nuke_scripts import passes

    group = node(here, "retouch", read(here, plate))
    tint = group["p_lip_tint"]
    tint.setAnimated(0)
    tint.setValueAt(0.1, 1001, 0)
    tint.setValueAt(0.9, 1003, 0)
    group["e_lip_color"].setValue(1.0)
    here.scriptSave()
    assert (
        passes.main(["write", str(tmp_path / "shot.nk"), "--out", str(tmp_path / "passes.bat"), "--nuke", "nuke"]) == 0
    )
    text = (tmp_path / "passes.bat").read_text()
    assert text.startswith("@echo off\n")
    (line,) = [line for line in text.splitlines() if line.startswith("faceplate run ")]
    assert main([*line.split(" --local")[0].split(" ")[1:]]) == 0
    assert len(files(tmp_path / "faceplate")) == 4, "three frames and the job"


def test_submit_hands_the_range_to_a_farm_and_shows_its_frames_as_they_come(
    here: Any, plate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadline's command is a script of the test's that says what a farm says."""
    command = tmp_path / "bin/deadlinecommand"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho Result=Success\necho JobID=5f0\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    group = node(here, "look", read(here, plate))
    group["fp_farm"].setValue("deadline")
    press(here, group, "submit")
    assert "5f0" in group["fp_status"].value(), group["fp_status"].value()
    with pytest.raises(RuntimeError, match=r"1002.*No such file"):
        rgb(here, group)
    (job,) = (tmp_path / "faceplate").rglob("job.json")
    assert main(["run", str(job), "--chunk", "1002"]) == 0
    rgb(here, group)
    monkeypatch.setenv("PATH", "/nonexistent")
    group["fp_farm"].setValue("openjd")
    press(here, group, "submit")
    assert "(farm." in group["fp_status"].value()


def test_without_windows_a_button_names_the_passes(here: Any, plate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group = node(here, "look", read(here, plate))
    monkeypatch.setattr(here, "GUI", False)
    press(here, group, "render")
    assert "passes.py write" in group["fp_status"].value()


def test_the_menu_writes_passes_beside_the_script(here: Any, plate: str, tmp_path: Path) -> None:
    from nuke_scripts import buttons

    node(here, "look", read(here, plate))
    buttons.write_passes()
    assert here._session.messages == [f"Written: {tmp_path / 'shot_passes.sh'}"]
    assert os.access(tmp_path / "shot_passes.sh", os.X_OK)
    assert here.root().name() == str(tmp_path / "shot.nk")
    assert [n.Class() for n in here.allNodes("Group")] == ["Group"]


def test_effects_are_fetched_when_a_server_runs(here: Any, plate: str, tmp_path: Path) -> None:
    from host_bridge.hosts.base import remember_effects, remembered_effects
    from nuke_scripts import buttons

    press(here, node(here, "look", read(here, plate)), "analyse")
    remember_effects([])
    buttons.choose()
    assert {"look", "retouch"} <= {e.identifier for e in remembered_effects()}
    assert not here._session.messages
    assert "zmq" in sys.modules
