"""Preset files: round trip, what is wrong with them, what does not fit the effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host_bridge.errors import PanelError
from panels.bridge import Bridge
from panels.presets import Preset, file_name, list_presets, load_preset, save_preset
from tests.panels.conftest import Desk

PRESET = Preset(
    "Soft cartoon",
    "look",
    "1.0",
    {"style": "cartoon", "degree": {"keys": [[1001.0, 0.0], [1024.0, 1.0]]}},
    (("smile", 0.6),),
    "für Anna",
)


def test_a_file_holds_a_preset_and_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "deep" / file_name(PRESET.name)
    save_preset(path, PRESET)
    assert load_preset(path) == PRESET
    assert "für Anna" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["Soft_cartoon.faceplate.json"]
    with pytest.raises(PanelError, match="is there already"):
        save_preset(path, PRESET)
    save_preset(path, PRESET, replace=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ("[]", 'lacks "faceplate_preset"'),
        ('{"faceplate_preset": 2, "effect": "look"}', "version 2, this Faceplate reads 1"),
        ('{"faceplate_preset": 1, "effect": "look", "parms": {}}', 'unknown field "parms"'),
        ('{"faceplate_preset": 1, "effect": 3}', '"effect" is 3'),
        ('{"faceplate_preset": 1}', 'does not name its "effect"'),
        ('{"faceplate_preset": 1, "effect": "look", "params": {"degree": {"keys": [[1]]}}}', "params.degree"),
        ('{"faceplate_preset": 1, "effect": "look", "edits": [["smile"]]}', "edits[0]"),
        ('{"faceplate_preset": 1, "effect": "look", "edits": [["smile", null]]}', "edits[0]"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.faceplate.json"
    path.write_text(text)
    with pytest.raises(PanelError) as caught:
        load_preset(path)
    assert says in caught.value.message
    assert caught.value.remedy
    assert caught.value.path == str(path)
    listed = list_presets(tmp_path)
    assert [(f.name, f.preset, f.error.code if f.error else "") for f in listed] == [("bad", None, "panel.preset")]


def test_other_files_and_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.faceplate.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PanelError, match="not UTF-8"):
        load_preset(tmp_path / "x.faceplate.json")
    with pytest.raises(PanelError, match="cannot be read"):
        load_preset(tmp_path / "none.faceplate.json")
    with pytest.raises(PanelError, match="needs a name"):
        file_name("/../")


def _write(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps({"faceplate_preset": 1, "effect": "look", **fields}))
    return path


def test_the_panel_saves_applies_and_undoes_presets(
    desk: Desk, open_panel: Callable[..., Bridge], tmp_path: Path, plate: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    bridge = open_panel(preset_folder=str(tmp_path / "own"), shared_presets=(str(shared),))
    control = bridge.controller
    desk.wait(lambda: control.effects.current)
    control.plate.set_frame(1001)
    control.values.set("style", "pencil")
    control.values.set("degree", 0.25)
    control.values.set_key("degree")  # one key: a constant to the server, a keyframe to the artist
    path = control.presets.save("Mine")
    control.presets.save("Ours", shared=True)
    desk.wait(lambda: [f.name for f in control.presets.files] == ["Mine", "Ours"])
    assert [f.shared for f in control.presets.files] == [False, True]
    state = control.history.document.state
    control.values.reset_all()
    assert control.presets.apply(path) == ()
    assert control.history.document.state == state
    control.history.undo()
    assert control.values.as_json() == ({}, [])
    with pytest.raises(PanelError, match="is not yours"):
        control.presets.remove(shared / "Ours.faceplate.json")
    control.presets.remove(path)
    desk.wait(lambda: [f.name for f in control.presets.files] == ["Ours"])
    # What does not fit is left out and said.
    odd = _write(tmp_path / "odd.faceplate.json", params={"degre": 0.5, "degree": 7, "color": 0.5}, edits=[["smil", 1]])
    problems = control.presets.apply(odd)
    assert len(problems) == 3
    assert "degree" in problems[0].remedy
    assert control.values.as_json() == ({"color": 0.5}, [])
    added = control.presets.add(odd)
    assert load_preset(added).params == {"degre": 0.5, "degree": 7, "color": 0.5}
    with pytest.raises(Exception, match="unknown effect 'nope'"):
        control.presets.apply(_write(tmp_path / "n.faceplate.json", effect="nope"))
