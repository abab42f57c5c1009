"""The edit list: added, moved by the grip and by keys, removed, keyed."""

from __future__ import annotations

from PySide6.QtTest import QTest

from panels.qt import Qt, QtCore
from panels.views.edits import EditList
from tests.panels.views.conftest import FIRST, Table


def opened(table: Table) -> EditList:
    table.effects("retouch")
    table.plate()
    for name in ("smile", "age", "jaw"):
        table.control.values.add_edit(name)
    table.show().show_page(2)
    table.desk.spin()
    return table.window.adjust.edits


def order(table: Table) -> list[str]:
    return [edit.name for edit in table.control.values.edits]


def test_a_row_is_carried_to_another_place(table: Table) -> None:
    edits = opened(table)
    table.control.values.set(0, 0.5)
    grip = edits.rows[0].grip
    start = grip.rect().center()
    below = QtCore.QPoint(start.x(), start.y() + edits.rows[2].y() - edits.rows[0].y() + edits.rows[2].height())
    table.drag(grip, start, (start + below) / 2, below)
    assert order(table) == ["age", "jaw", "smile"]
    assert [row.row.param.name for row in edits.rows] == ["age", "jaw", "smile"]
    moved = edits.rows[2].row.field
    assert moved is not None
    assert moved.text() == "0.5"
    table.drag(edits.rows[2].grip, start, QtCore.QPoint(start.x(), start.y() - 500))
    assert order(table) == ["smile", "age", "jaw"]


def test_a_click_on_the_grip_moves_nothing_and_alt_arrows_do(table: Table) -> None:
    edits = opened(table)
    QTest.mouseClick(edits.rows[1].grip, Qt.MouseButton.LeftButton)
    assert order(table) == ["smile", "age", "jaw"]
    QTest.keyClick(edits.rows[1].grip, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert order(table) == ["smile", "jaw", "age"]
    QTest.keyClick(edits.rows[2].grip, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert order(table) == ["smile", "jaw", "age"]
    QTest.keyClick(edits.rows[2].grip, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    assert order(table) == ["smile", "age", "jaw"]


def test_removing_and_adding_the_same_direction_twice(table: Table) -> None:
    edits = opened(table)
    QTest.mouseClick(edits.rows[1].remove, Qt.MouseButton.LeftButton)
    assert order(table) == ["smile", "jaw"]
    table.control.values.add_edit("smile")
    assert [row.row.param.label for row in edits.rows] == ["Smile", "Jaw", "Smile"]
    slider = edits.rows[2].row.slider
    assert slider is not None
    slider.setFocus()
    QTest.keyClick(slider, Qt.Key.Key_Right)
    assert [table.control.values.value(i) for i in range(3)] == [0.0, 0.0, 0.02]
    for _ in range(3):
        QTest.mouseClick(edits.rows[0].remove, Qt.MouseButton.LeftButton)
    assert edits.empty.isVisible()


def test_k_keys_the_value_in_hand(table: Table) -> None:
    edits = opened(table)
    field = edits.rows[1].row.field
    assert field is not None
    field.setFocus()
    QTest.keyClick(field, Qt.Key.Key_K)
    assert table.control.values.keys(1) == (float(FIRST),)
    QTest.keyClick(field, Qt.Key.Key_K)
    assert table.control.values.keys(1) == ()
    table.window.viewer.picture.setFocus()
    QTest.keyClick(table.window.viewer.picture, Qt.Key.Key_K)
    assert "first" in table.window.notices.text.text()
