"""The form is the descriptor's; sliders, key buttons, groups and what does nothing."""

from __future__ import annotations

from PySide6.QtTest import QTest

from host_bridge.effects import EffectDescriptor, Param
from inference_server.effects.look.descriptor import LOOK
from panels.controller import Setting
from panels.qt import Qt, QtCore, QtWidgets
from panels.views.rows import ParamRow
from tests.panels.views.conftest import FIRST, Table

MODEL = Param("model", "choice", "Model", "small", choices=("small", "large"), animates=False)
DEPENDING = EffectDescriptor(
    "depending",
    "Depending",
    "1.0",
    "stylize",
    "For tests.",
    params=(
        MODEL,
        Param(
            "look",
            "choice",
            "Look",
            "plain",
            choices=("plain", "rich", "richer"),
            depends="model",
            choices_for=(("small", ("plain",)), ("large", ("rich", "richer"))),
            animates=False,
        ),
        Param("depth", "double", "Depth", 0.5, "How deep", 0.0, 1.0, 0.0, 1.0, depends="model", acts_for=("large",)),
        Param("at", "double2d", "At", (0.0, 0.0), "", -10.0, 10.0),
        Param("word", "string", "Word", "none"),
    ),
)


def row_of(table: Table, name: str) -> ParamRow:
    row = table.window.adjust.form.rows[name]
    if row.param.parent:
        table.window.adjust.form.folds[row.param.parent].open(True)
    table.desk.spin()
    return row


def opened(table: Table, effect: str) -> None:
    table.effects(effect, DEPENDING)
    table.plate()
    table.show().show_page(2)
    table.desk.spin()


def test_every_parameter_has_a_row_with_its_value_and_its_hint(table: Table) -> None:
    opened(table, "look")
    form = table.window.adjust.form
    assert list(form.rows) == [p.name for p in LOOK.settable]
    assert list(form.folds) == [p.name for p in LOOK.params if p.type == "group"]
    assert all(row.param.hint in row.toolTip() for row in form.rows.values())
    assert not form.rows["line_weight"].isVisible()
    QTest.mouseClick(form.folds["line"].head, Qt.MouseButton.LeftButton)
    assert form.rows["line_weight"].isVisible()
    field = form.rows["line_weight"].field
    assert field is not None
    assert field.text() == "1"


def test_a_slider_sets_the_value_and_one_undo_takes_the_drag_back(table: Table) -> None:
    opened(table, "look")
    row = row_of(table, "structure")
    assert row.slider is not None
    middle = row.slider.height() // 2
    table.drag(row.slider, *(QtCore.QPoint(x, middle) for x in (60, 70, 80)))
    value = table.control.values.value("structure")
    assert isinstance(value, float)
    assert 0.5 < value < 2.0
    assert row.field is not None
    assert row.field.value() == value
    table.control.history.undo()
    assert table.control.values.value("structure") == 0.5
    assert table.control.history.undo_label == ""
    assert row.field.text() == "0.5"


def test_the_key_button_sets_and_removes_and_the_arrows_go_there(table: Table) -> None:
    opened(table, "look")
    row, values = row_of(table, "degree"), table.control.values
    assert not row.keys.next.isVisible()
    QTest.mouseClick(row.keys.key, Qt.MouseButton.LeftButton)
    assert values.keys("degree") == (float(FIRST),)
    table.control.plate.set_frame(FIRST + 9)
    table.desk.spin()
    assert row.keys.previous.isVisible()
    assert "Between" in row.keys.key.toolTip()
    values.set("degree", 0.25)
    assert values.keys("degree") == (float(FIRST), float(FIRST + 9))
    assert set(table.window.viewer.timeline.ruler.keys) == {FIRST, FIRST + 9}
    QTest.mouseClick(row.keys.previous, Qt.MouseButton.LeftButton)
    assert table.control.plate.frame == FIRST
    assert not row.keys.previous.isEnabled()
    QTest.mouseClick(row.keys.key, Qt.MouseButton.LeftButton)
    assert values.keys("degree") == (float(FIRST + 9),)
    assert row.field is not None
    assert row.field.text() == "0.25"


def test_the_context_menu_removes_all_keys_and_resets(table: Table) -> None:
    opened(table, "look")
    row, values = row_of(table, "degree"), table.control.values
    values.set("degree", 0.5)
    values.set_key("degree")

    def choose(words: str) -> None:
        menu = row.keys.menu(row)
        next(a for a in menu.actions() if words in a.text()).trigger()
        menu.deleteLater()

    choose("Remove all keys")
    assert values.setting("degree") == Setting.constant(0.5)
    choose("Reset")
    assert not values.touched("degree")
    menu = row_of(table, "style").keys.menu(row)
    assert [a.text() for a in menu.actions()] == ["Reset to default"]
    menu.deleteLater()


def test_what_does_nothing_is_grey_and_choices_follow_what_they_depend_on(table: Table) -> None:
    opened(table, "depending")
    depth, look = row_of(table, "depth"), row_of(table, "look")
    assert not depth.isEnabled()
    model = row_of(table, "model").editor
    assert isinstance(model, QtWidgets.QComboBox)
    model.setFocus()
    QTest.keyClick(model, Qt.Key.Key_Down)
    table.desk.spin()
    assert table.control.values.value("model") == "large"
    assert depth.isEnabled()
    assert isinstance(look.editor, QtWidgets.QComboBox)
    assert [look.editor.itemData(i) for i in range(look.editor.count())] == ["rich", "richer"]
    assert look.editor.currentText() == "Rich"


def test_other_types_are_written_and_a_group_tells_what_was_changed(table: Table) -> None:
    opened(table, "look")
    box = row_of(table, "auto_exposure").editor
    assert isinstance(box, QtWidgets.QCheckBox)
    QTest.mouseClick(
        box, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(8, box.height() // 2)
    )
    assert table.control.values.value("auto_exposure") is False
    assert "(1 changed)" in table.window.adjust.form.folds["output"].head.text()
    regions = row_of(table, "regions").editor
    assert isinstance(regions, QtWidgets.QLineEdit)
    regions.selectAll()
    QTest.keyClicks(regions, "face,-hair")
    QTest.keyClick(regions, Qt.Key.Key_Return)
    assert table.control.values.value("regions") == "face,-hair"
    levels = row_of(table, "levels").slider
    assert levels is not None
    levels.setFocus()
    QTest.keyClick(levels, Qt.Key.Key_Right)
    assert table.control.values.value("levels") == 1
    assert type(table.control.values.value("levels")) is int


def test_pairs_and_colours_are_written_by_their_parts(table: Table) -> None:
    opened(table, "depending")
    pair = row_of(table, "at").editor.findChildren(QtWidgets.QLineEdit)
    pair[1].selectAll()
    QTest.keyClicks(pair[1], "3.5")
    QTest.keyClick(pair[1], Qt.Key.Key_Return)
    assert table.control.values.value("at") == (0.0, 3.5)
    table.control.effects.choose("retouch")
    colour = row_of(table, "lip_tint").editor.findChildren(QtWidgets.QLineEdit)
    colour[0].selectAll()
    QTest.keyClicks(colour[0], "0.5")
    QTest.keyClick(colour[0], Qt.Key.Key_Return)
    assert table.control.values.value("lip_tint") == (0.5, 0.13, 0.20)
