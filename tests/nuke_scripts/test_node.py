"""The node in the script: its knobs, its marks, its errors, copies; the real scripts in a fake Nuke."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from host_bridge.effects import descriptor_from_json
from inference_server.effects.registry import descriptor
from tests.nuke_scripts.conftest import ROOT, SCRIPTS, node, press, read, start
from tests.portrait import write_shot

KINDS = {
    "double": "Double_Knob",
    "integer": "Int_Knob",
    "boolean": "Boolean_Knob",
    "choice": "Enumeration_Knob",
    "string": "String_Knob",
    "rgb": "Color_Knob",
}


@pytest.fixture(scope="session")
def plate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three frames; nothing here looks for a face in them."""
    return write_shot(tmp_path_factory.mktemp("plate"), range(1001, 1004), size=16)


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_knobs_are_built_from_the_descriptor(nuke: Any, plate: str, effect: str) -> None:
    group = node(nuke, effect, read(nuke, plate))
    found = descriptor(effect)
    for prefix, params in (("p_", found.settable), ("e_", found.edits)):
        for param in params:
            knob = group[prefix + param.name]
            assert knob.Class() == KINDS[param.type], param.name
            assert (knob.label(), knob.tooltip()) == (param.label, param.hint)
            wanted = list(param.default) if isinstance(param.default, tuple) else param.default
            assert knob.value() == wanted, param.name
            assert knob.getFlag(nuke.NO_ANIMATION) != (param.animates and param.type not in ("choice", "string"))
            if param.display_min is not None and param.display_max is not None and param.type != "rgb":
                assert knob._range == (param.display_min, param.display_max)
            if param.type == "choice":
                assert tuple(knob.values()) == param.choices
    assert group.input(0).Class() == "Read"
    inputs = [n.name() for n in group.nodes() if n.Class() == "Input"]
    assert inputs == [c.name for c in found.clips if c.name != "Output"]
    groups = [k._label for k in group.knobs().values() if k.Class() == "Tab_Knob"]
    assert ("Edits" in groups) == bool(found.edits)
    assert {p.label for p in found.params if p.type == "group"} <= set(groups)


def test_the_plate_passes_until_there_is_a_result(nuke: Any, plate: str) -> None:
    source = read(nuke, plate)
    group = node(nuke, "look", source)
    assert set(nuke._picture(group, 1002)) == {"rgba.red", "rgba.green", "rgba.blue"}
    assert (nuke._picture(group, 1002)["rgba.red"] == nuke._picture(source, 1002)["rgba.red"]).all()
    assert "not rendered" in nuke._autolabel(group)
    assert nuke._autolabel(source) == source.name()


START_UP = """
import socket, sys
from pathlib import Path
from tests.fakes import nuke
from tests.fakes.nuke_nodes import Session, now

def refuse(*_, **__):
    raise AssertionError("a connection at start-up")

socket.socket.connect = socket.socket.bind = refuse
before = set(sys.modules)
now.session = Session()
sys.modules["nuke"], sys.modules["nukescripts"] = nuke, nuke._nukescripts()
nuke.pluginAddPath("nuke_scripts")
nuke.nodes.Group().setInput(0, nuke.nodes.Read())
new = {name.partition(".")[0] for name in set(sys.modules) - before}
commands = nuke.menu("Nuke")._items["Faceplate"]._items
print(sorted(new & {"zmq", "panels", "PySide6", "PySide2", "asyncio"}), sorted(commands))
"""


def test_start_up_loads_no_pyzmq_no_qt_and_connects_to_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "FACEPLATE_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", START_UP],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stderr == ""
    assert said.stdout.startswith("[] ")
    assert {"Look", "Retouch", "Panel"} <= set(eval(said.stdout[3:]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["init.py", "menu.py"])
def test_start_up_survives_anything(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nuke = start(monkeypatch, scripts=None)
    broken = "addBeforeRender" if name == "init.py" else "menu"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("this Nuke is another one")

    monkeypatch.setattr(nuke, broken, fail)
    nuke.pluginAddPath(str(SCRIPTS))
    said = capsys.readouterr().err
    assert "this Nuke is another one" in said
    assert "Nuke goes on without it" in said


def test_without_windows_there_is_no_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    nuke = start(monkeypatch, gui=False)
    assert not nuke._session.menus
    assert nuke._session.callbacks.keys() == {"beforeRender"}


def test_a_script_opens_without_a_server_and_knows_its_effect(nuke: Any, plate: str, tmp_path: Path) -> None:
    from host_bridge.hosts import nuke_read

    group = node(nuke, "retouch", read(nuke, plate))
    group["e_smile"].setValue(0.5)
    nuke.scriptSave()
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    nuke.scriptOpen(str(tmp_path / "shot.nk"))
    (again,) = nuke_read.faceplate_nodes()
    facts = nuke_read.read_node(again)
    assert facts.edits == [["smile", 0.5]]
    assert facts.effect == descriptor_from_json(descriptor("retouch").to_json())


def test_copies_in_other_scripts_share_results_and_touch_nothing(nuke: Any, plate: str, tmp_path: Path) -> None:
    from host_bridge.hosts import nuke_job, nuke_read

    group = node(nuke, "look", read(nuke, plate))
    group["fp_folder"].setValue(str(tmp_path / "results"))
    group["p_degree"].setValue(0.3)
    before = nuke_job.plan(nuke_read.read_node(group))
    nuke._session.selected = [group]
    nuke.nodeCopy(str(tmp_path / "clipboard"))
    listing = sorted(tmp_path.rglob("*"))
    nuke.scriptClear()
    nuke.scriptSaveAs(str(tmp_path / "other.nk"))
    other = read(nuke, plate)
    copy = nuke.nodePaste(str(tmp_path / "clipboard"))
    copy.setInput(0, other)
    assert nuke_job.plan(nuke_read.read_node(copy)) == before
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "other.nk") == listing
    second = nuke.nodePaste(str(tmp_path / "clipboard"))
    second.setInput(0, other)
    assert second.name() != copy.name()
    assert nuke_job.plan(nuke_read.read_node(second)).made == before.made


def test_the_graph_above_is_known_by_what_it_does(nuke: Any, plate: str) -> None:
    """Names, places and labels do not matter; values, connections and groups do. However deep it is."""
    from host_bridge.hosts.nuke_read import graph_text, upstream

    def build(white: float = 0.5, depth: int = 3, swap: bool = False, name: str = "Grade1") -> str:
        nuke.scriptClear()
        top = read(nuke, plate)
        below = top
        for _ in range(depth):
            below, above = nuke.nodes.Dot(), below
            below.setInput(0, above)
        grade = nuke.nodes.Grade(name=name, white=white)
        grade.setInput(0, below)
        copy = nuke.nodes.Copy()
        copy.setInput(int(swap), grade)
        copy.setInput(int(not swap), top)
        grade.setXYpos(len(name), 7)
        group = nuke.nodes.Group()
        with group:
            inside = nuke.nodes.Input()
            out = nuke.nodes.Output()
            out.setInput(0, inside)
        group.setInput(0, copy)
        assert {n.Class() for n in upstream(group)} >= {"Read", "Grade", "Copy", "Input", "Output"}
        return str(graph_text(group))

    plain = build()
    assert build(name="Other7") == plain
    assert len({plain, build(white=0.6), build(depth=4), build(swap=True)}) == 4
    assert build(depth=1500).count("Dot") == 1500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size 5\nlabel {}", ["size", "5", "label", "{}"]),
        ('size {{curve x1 0 x2 {a b}}} b "c d"', ["size", "{{curve x1 0 x2 {a b}}}", "b", '"c d"']),
        (r"file {/a\}b c} d\ e", ["file", r"{/a\}b c}", r"d\ e"]),
    ],
)
def test_knobs_are_split_as_tcl_lists(nuke: Any, text: str, words: list[str]) -> None:
    from host_bridge.hosts.nuke_read import tcl_words

    assert tcl_words(text) == words


def test_animated_knobs_are_sampled_at_every_frame_with_handles(nuke: Any, plate: str) -> None:
    from host_bridge.hosts import nuke_read

    group = node(nuke, "look", read(nuke, plate))
    group["fp_handles"].setValue(2)
    degree = group["p_degree"]
    degree.setAnimated()
    degree.setValueAt(0.0, 1001)
    degree.setValueAt(1.0, 1003)
    group["p_detail"]._expression = lambda frame: (frame - 990) / 100
    facts = nuke_read.read_node(group)
    assert facts.frames == (999, 1000, 1001, 1002, 1003, 1004, 1005)
    curve = facts.params["degree"]["keys"]
    assert curve == [[999, 0.0], [1001, 0.0], [1002, 0.5], [1003, 1.0], [1005, 1.0]]
    assert facts.params["detail"]["keys"] == [[f, (f - 990) / 100] for f in facts.frames]
    assert set(facts.params) == {"degree", "detail"}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda nuke, g: g.setInput(0, None), "host.no_source", "Connect the plate to Source"),
        (lambda nuke, g: g["fp_handles"].setValue(-1), "request.frame_range", "handles of 0 or more"),
        (lambda nuke, g: _custom(g, 1010, 1001), "request.frame_range", "first not after last"),
        (lambda nuke, g: g["p_degree"].setValue(4.0), "effect.parameter", "between 0 and 1"),
        (lambda nuke, g: g["fp_mattes"].setValue("skinn"), "request.unknown_name", "Did you mean 'skin'"),
        (lambda nuke, g: g["fp_views"].setValue("left"), "request.unknown_name", "Allowed: main"),
        (lambda nuke, g: g["fp_folder"].setValue("results"), "request.bad_value", "Save the script"),
        (lambda nuke, g: g["fp_descriptor"].setValue("{"), "host.failed", "Make a new node"),
    ],
)
def test_what_cannot_be_done_is_an_error_of_the_node_with_its_remedy(
    nuke: Any, plate: str, change: Any, code: str, words: str
) -> None:
    group = node(nuke, "look", read(nuke, plate))
    change(nuke, group)
    press(nuke, group, "render")
    assert f"({code})" in group["fp_status"].value()
    assert words in group["fp_status"].value()
    with pytest.raises(RuntimeError, match=r"Guard|not connected"):
        nuke._picture(group.node("Guard"), 1001)
    assert group.error()


def _custom(group: Any, first: int, last: int) -> None:
    group["fp_range"].setValue("custom")
    group["fp_first"].setValue(first)
    group["fp_last"].setValue(last)


def test_an_error_goes_when_something_changes(nuke: Any, plate: str) -> None:
    group = node(nuke, "look", read(nuke, plate))
    group["p_degree"].setValue(4.0)
    press(nuke, group, "render")
    assert group.error()
    assert "(error)" in nuke._autolabel(group)
    group["p_degree"].setValue(0.5)
    assert not group.error()


def test_nodes_are_never_touched_from_a_thread(nuke: Any, plate: str) -> None:
    """The rule that the fake enforces for every other test here."""
    from host_bridge.hosts.nuke_run import in_main

    group = node(nuke, "look", read(nuke, plate))
    seen: list[object] = []

    def work() -> None:
        for call in (lambda: group["p_degree"].value(), lambda: in_main(group["p_degree"].value)):
            try:
                seen.append(call())
            except RuntimeError as error:
                seen.append(str(error))

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    nuke._run_until(lambda: not thread.is_alive())
    assert "touched from the thread worker" in str(seen[0])


def test_errors_on_the_main_thread_reach_the_thread_that_asked(nuke: Any) -> None:
    from host_bridge.hosts.nuke_run import in_main

    seen: list[object] = []

    def fail() -> None:
        raise ValueError("what happened")

    def work() -> None:
        try:
            in_main(fail)
        except ValueError as error:
            seen.append(str(error))
        seen.append(in_main(lambda: threading.current_thread() is threading.main_thread()))

    thread = threading.Thread(target=work)
    thread.start()
    nuke._run_until(lambda: not thread.is_alive())
    assert seen == ["what happened", True]


@pytest.mark.parametrize(("lost", "words"), [("PySide6", "start Nuke with windows"), ("zmq", "faceplate install nuke")])
def test_the_panel_says_what_is_missing(
    lost: str, words: str, nuke: Any, plate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = node(nuke, "look", read(nuke, plate))
    for name in [n for n in sys.modules if n == "panels" or n.startswith("panels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, lost, None)
    press(nuke, group, "panel", wait=False)
    (said,) = nuke._session.messages
    assert words in said
    assert not [m for m in sys.modules["nukescripts"].made if m[0] == "shown"]


def test_the_panel_opens_bound_to_its_node(nuke: Any, plate: str) -> None:
    group = node(nuke, "look", read(nuke, plate))
    press(nuke, group, "panel", wait=False)
    assert not nuke._session.messages
    made = sys.modules["nukescripts"].made
    widget, shown = made[-2:]
    assert shown == ("shown", "Properties.1")
    assert repr(group.fullName()) in widget[0]
    assert callable(eval(widget[0]))


def test_a_button_where_faceplate_is_not_installed_says_so(
    nuke: Any, plate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = node(nuke, "look", read(nuke, plate))
    monkeypatch.setitem(sys.modules, "nuke_scripts", None)
    group["fp_render"].execute()
    assert nuke._session.messages == ["Faceplate is not installed here. Run: faceplate install nuke"]


def test_pyzmq_missing_is_an_error_with_the_command(nuke: Any, plate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group = node(nuke, "look", read(nuke, plate))
    monkeypatch.setitem(sys.modules, "host_bridge.launcher", None)
    press(nuke, group, "render")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"faceplate install nuke --python {version}" in group["fp_status"].value()


def test_no_server_is_an_error_with_the_remedy(nuke: Any, plate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPLATE_PYTHON", "/nonexistent/python3")
    group = node(nuke, "look", read(nuke, plate))
    press(nuke, group, "render")
    assert "(server.python)" in group["fp_status"].value()
    assert "FACEPLATE_PYTHON" in group["fp_status"].value()
    assert group.error()


def test_a_wrong_certificate_is_an_error_with_the_remedy(
    nuke: Any, plate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEPLATE_CERTIFICATES", str(tmp_path / "certificates"))
    group = node(nuke, "look", read(nuke, plate))
    group["fp_server"].setValue("tcp://render01:7070")
    press(nuke, group, "render")
    assert "(server.wrong_key)" in group["fp_status"].value()
    assert "client.key_secret" in group["fp_status"].value()


def test_a_render_that_needs_a_missing_result_is_an_error(nuke: Any, plate: str, tmp_path: Path) -> None:
    group = node(nuke, "look", read(nuke, plate))
    grade = nuke.nodes.Grade()
    grade.setInput(0, group)
    write = nuke.nodes.Write(file=str(tmp_path / "final.%04d.exr"), channels="rgba")
    write.setInput(0, grade)
    with pytest.raises(RuntimeError, match=r"it has not been rendered.*Press Render"):
        nuke.execute(write, 1001, 1001)
    assert group.error(), "the node shows why"
    assert not list(tmp_path.glob("final*"))
    group["disable"].setValue(True)
    group["p_degree"].setValue(0.1)  # any change takes the error away
    nuke.execute(write, 1001, 1001)
    assert os.path.isfile(tmp_path / "final.1001.exr")
