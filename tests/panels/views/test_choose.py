"""Choosing: search, thumbnails as they come, directions ticked, models that are missing."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtTest import QTest

from inference_server.effects.look.descriptor import LOOK
from panels.controller import ModelCard, Picture
from panels.qt import Qt, QtCore, QtGui
from tests.panels.views.conftest import Table, flat

NEEDY = replace(LOOK, identifier="needy", label="Needy", models=("net-a", "net-b"))


def card(model: str, *, present: bool, commercial: bool = True) -> ModelCard:
    licences = (("S-Lab", "research only", "https://example.org/licence"),)
    return ModelCard(
        id=model,
        label=f"Model {model}",
        present=present,
        commercial=commercial,
        licences=licences,
        summary="Does it.",
        family="nets",
        how="Download x.pt.",
        url="",
        size=5,
        raw={},
    )


def listed(table: Table) -> list[str]:
    grid = table.window.choose.grid
    return [grid.item(i).text() for i in range(grid.count()) if not grid.item(i).isHidden()]


def test_search_leaves_what_has_all_its_words(table: Table) -> None:
    table.effects("look")
    choose = table.show().choose
    assert len(listed(table)) == len(LOOK.param("style").choices)
    choose.search.setFocus()
    QTest.keyClicks(choose.search, "ink")
    assert listed(table) == ["Comic ink"]
    QTest.keyClicks(choose.search, " com")
    assert listed(table) == ["Comic ink"]
    QTest.keyClicks(choose.search, "zzz")
    assert listed(table) == []
    assert choose.nothing.isVisible()
    choose.search.clear()
    assert not choose.nothing.isVisible()


def test_a_click_on_a_thumbnail_sets_the_style(table: Table) -> None:
    table.effects("look")
    grid = table.show().choose.grid
    table.desk.spin(0.02)
    place = grid.visualItemRect(grid.item(2)).center()
    QTest.mouseClick(grid.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
    assert table.control.values.value("style") == LOOK.param("style").choices[2]
    table.control.history.undo()
    assert grid.currentRow() == 0


def test_thumbnails_in_sight_are_asked_for_and_fill_in(table: Table) -> None:
    table.effects("look")
    wanted: list[tuple[str, ...]] = []
    window = table.show()
    window.choose.grid.visible_changed.connect(wanted.append)
    table.desk.wait(lambda: wanted, 5.0)
    choices = LOOK.param("style").choices
    assert wanted[0] == choices
    shown: dict[str, Picture] = {choices[1]: flat(0, 0, 255)}
    table.control.thumbnails._pictures = shown
    table.bridge.thumbnail_ready.emit(choices[1])

    def colour(index: int) -> QtGui.QColor:
        return QtGui.QColor(window.choose.grid.item(index).icon().pixmap(32, 32).toImage().pixel(16, 16))

    assert colour(1).blue() == 255
    assert colour(0).blue() < 60
    window.show_page(2)
    table.desk.wait(lambda: wanted[-1] == (), 5.0)


def test_directions_are_ticked_into_the_edit_list_and_out_of_it(table: Table) -> None:
    table.effects("retouch")
    directions = table.show().choose.directions
    assert not table.window.choose.grid.isVisible()
    for index in (0, 9):
        item = directions.item(index)
        rect = directions.visualItemRect(item)
        box = QtCore.QPoint(rect.left() + 10, rect.center().y())
        QTest.mouseClick(directions.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, box)
    assert [edit.name for edit in table.control.values.edits] == ["smile", "age"]
    table.control.values.add_edit("smile")
    directions.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert [edit.name for edit in table.control.values.edits] == ["age"]
    table.window.choose.search.setText("wrinkles")
    assert [directions.item(i).text() for i in range(directions.count()) if not directions.item(i).isHidden()] == [
        "Age"
    ]


def test_a_missing_model_is_named_with_its_licence_and_the_way_to_it(table: Table) -> None:
    table.effects("needy", NEEDY)
    table.control.models.cards = (card("net-a", present=True), card("net-b", present=False, commercial=False))
    choose = table.show().choose
    assert choose.model.text() == "Missing: Model net-b"
    assert "S-Lab (no commercial use)" in choose.licence.text()
    QTest.mouseClick(choose.get, Qt.MouseButton.LeftButton)
    assert table.window.tabs.currentWidget() is table.window.models
    assert table.window.models.how.text() == "Download x.pt."
    table.control.models.cards = (card("net-a", present=True), card("net-b", present=True))
    table.control.models.changed.emit()
    table.window.show_page(0)
    assert choose.model.text() == "All models are present."
    assert not choose.get.isVisible()
