"""Nuke as the panel's host: what is selected, values to and from knobs with their keyframes, results brought in."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_bridge.errors import HostError
from host_bridge.hosts.base import Host
from host_bridge.jobspec import MaskSpec
from tests.nuke_scripts.conftest import node, read
from tests.portrait import write_shot


@pytest.fixture(scope="session")
def plate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shot(tmp_path_factory.mktemp("plate"), range(1001, 1004), size=16)


def host(name: str = "") -> Host:
    from host_bridge.hosts.nuke import NukeHost

    made = NukeHost(name)
    assert isinstance(made, Host)
    return made


def test_the_selected_node_is_the_shot(nuke: Any, plate: str) -> None:
    source = read(nuke, plate, frame_mode="start at", frame="1")
    group = node(nuke, "retouch", source)
    group["e_smile"].setValue(0.25)
    nuke.frame(2)
    nuke._session.selected = [source, group]
    shot = host().shot()
    assert (shot.name, shot.frame, shot.offset) == (group.fullName(), 1002, -1000)
    assert (shot.job.plate.pattern, shot.job.frames, shot.job.edits) == (plate, "1001-1003", [["smile", 0.25]])
    host().go_to(1003)
    assert nuke.frame() == 3
    assert host().name == "Nuke 15.1v3"


def test_a_selected_read_is_a_shot_and_nothing_selected_is_an_error(nuke: Any, plate: str) -> None:
    nuke._session.selected = [read(nuke, plate)]
    shot = host().shot()
    assert (shot.job.effect, shot.job.plate.pattern, shot.job.plate.colorspace) == ("", plate, "lin_rec709")
    nuke._session.selected = [read(nuke, plate, frame="frame/2")]
    with pytest.raises(HostError, match="Put a Faceplate node below"):
        host().shot()
    nuke._session.selected = []
    with pytest.raises(HostError, match="Faceplate menu"):
        host().shot()


def test_values_come_back_as_they_were_kept(nuke: Any, plate: str) -> None:
    group = node(nuke, "retouch", read(nuke, plate, frame_mode="start at", frame="1"))
    group.setInput(1, group.input(0))
    group["e_jaw"].setValue(0.9)
    bound = host(group.fullName())
    params = {"lip_tint": {"keys": [[1001.0, [0.0, 0.5, 0.25]], [1003.0, [1.0, 0.5, 0.25]]]}, "mix": 0.5}
    edits = [["smile", {"keys": [[1001.0, 0.0], [1003.0, 1.0]]}], ["age", -0.5], ["mouth_open", 0.25]]
    job = replace(bound.shot().job, params=params, edits=edits, face="all", mask=MaskSpec("/roto.exr", mode="subtract"))
    bound.keep(job)
    assert group["e_jaw"].value() == 0
    assert group["e_smile"].getValueAt(2) == 0.5
    assert {c._interpolation for c in group["e_smile"]._curves.values()} == {nuke.LINEAR}
    assert group["fp_order"].value() == "smile, age, mouth_open"
    again = bound.shot().job
    assert again.mask is not None
    assert (again.face, again.mask.mode) == ("all", "subtract")
    assert again.edits[1:] == edits[1:]
    keys = again.edits[0][1]["keys"]
    assert [k for k in keys if k[0] != 1002] == edits[0][1]["keys"]
    assert dict(map(tuple, keys)).get(1002, 0.5) == 0.5
    assert again.params["mix"] == 0.5
    assert again.params["lip_tint"]["keys"][-1] == [1003.0, [1.0, 0.5, 0.25]]
    bound.keep(replace(again, edits=[], params={}, effect="look"))
    assert bound.shot().job == again, "another effect's values are not this node's"
    bound.keep(replace(again, edits=[], params={}))
    assert (bound.shot().job.edits, bound.shot().job.params) == ([], {})


def test_the_panel_renders_into_the_node(nuke: Any, plate: str, tmp_path: Path) -> None:
    """From the panel's thread, with a pre-comp that Nuke has to write."""
    grade = nuke.nodes.Grade(white=0.5)
    grade.setInput(0, read(nuke, plate))
    group = node(nuke, "look", grade)
    bound = host(group.fullName())
    made: list[Any] = []

    def work() -> None:
        shot = bound.shot()
        made.append(bound.prepare(replace(shot.job, params={"degree": 0.25})))
        made.append(bound.import_result(made[0]))
        made.append(bound.import_result(replace(made[0], output=str(tmp_path / "own.%04d.exr"))))

    thread = threading.Thread(target=work)
    thread.start()
    nuke._run_until(lambda: not thread.is_alive())
    job, shown, other = made
    assert Path(job.plate.pattern % 1003).is_file()
    assert group["p_degree"].value() == 0.25
    assert shown == group.fullName()
    assert group.node("Result")["file"].value() == job.output
    assert "3 of 3 frames are not rendered" in group["fp_status"].value()
    assert nuke.toNode(other)["file"].value() == str(tmp_path / "own.%04d.exr")
