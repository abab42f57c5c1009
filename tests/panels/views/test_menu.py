"""Presets from the menu: saved under a name that is free, applied as one step, written and read as files."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtTest import QTest

from panels.qt import QAction, Qt, QtWidgets
from panels.views.menu import SaveDialog
from tests.panels.views.conftest import Table


def saved(table: Table, name: str, *, over: bool = False) -> SaveDialog:
    """The dialogue after its Save."""
    dialog = SaveDialog(table.bridge, table.window)
    dialog.open()
    QTest.keyClicks(dialog.name, name)
    dialog.over.setChecked(over)
    QTest.mouseClick(dialog.buttons.buttons()[0], Qt.MouseButton.LeftButton)
    return dialog


def actions(menu: QtWidgets.QMenu) -> dict[str, QAction]:
    return {action.text().split("\t")[0].strip(): action for action in menu.actions()}


def test_a_preset_is_saved_applied_and_deleted(table: Table) -> None:
    table.effects("look")
    window, values = table.show(), table.control.values
    values.set("degree", 0.25)
    assert not saved(table, "Quarter").isVisible()
    table.desk.wait(lambda: table.control.presets.files, 10.0)
    taken = saved(table, "Quarter")
    assert taken.isVisible()
    assert "Quarter" in taken.error.text()
    taken.reject()
    values.reset("degree")
    table.control.effects.choose("retouch")

    def chosen(menu: str, entry: str) -> None:
        built = window.menu.build()
        inner = next(m for m in built.findChildren(QtWidgets.QMenu) if m.title() == menu)
        actions(inner)[entry].trigger()
        built.deleteLater()

    chosen("Presets", "Quarter")
    assert (table.control.history.document.effect, values.value("degree")) == ("look", 0.25)
    table.control.history.undo()
    assert table.control.history.document.effect == "retouch"
    chosen("Delete preset", "Quarter")
    table.desk.wait(lambda: not table.control.presets.files, 10.0)


def test_a_preset_file_is_written_and_one_that_is_none_is_told(table: Table, tmp_path: Path) -> None:
    table.effects("look")
    window, values = table.show(), table.control.values
    values.set("structure", 1.5)
    window.menu._write(str(tmp_path / "strong"))
    written = tmp_path / "strong.faceplate.json"
    assert written.exists()
    values.reset("structure")
    window.menu._apply(written)
    assert values.value("structure") == 1.5
    (tmp_path / "bad.faceplate.json").write_text("no preset")
    window.menu._apply(tmp_path / "bad.faceplate.json")
    assert window.notices.isVisible()
    assert "bad.faceplate.json" in window.notices.text.text()
