"""A slider spans the display range, a field takes more; what is shown is never told back."""

from __future__ import annotations

from PySide6.QtTest import QTest

from panels.qt import Qt, QtCore, QtGui, QtWidgets
from panels.views.numbers import NumberField, Slider
from tests.panels.conftest import Desk
from tests.panels.views.conftest import Table


def shown(desk: Desk, widget: QtWidgets.QWidget) -> None:
    widget.resize(210, 24)
    widget.show()
    desk.spin()


def done(widget: QtWidgets.QWidget) -> None:
    widget.close()
    widget.deleteLater()


def test_a_drag_tells_every_value_and_the_last_one_once_more(desk: Desk) -> None:
    slider = Slider(0.0, 2.0, 1.0)
    said: list[float] = []
    ended: list[float] = []
    slider.edited.connect(said.append)
    slider.committed.connect(ended.append)
    shown(desk, slider)
    middle = slider.height() // 2
    QTest.mousePress(slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(55, middle))
    QTest.mouseMove(slider, QtCore.QPoint(105, middle))
    desk.spin()
    assert [round(v, 1) for v in said] == [0.5, 1.0]
    assert ended == []
    slider.show_value(0.1)  # an answer that comes while the hand holds on
    assert slider.number() == 1.0
    QTest.mouseRelease(slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(105, middle))
    assert ended == [1.0]
    done(slider)


def test_a_double_click_asks_for_the_default_and_keys_step(desk: Desk) -> None:
    slider = Slider(0.0, 1.0, 0.0)
    resets: list[bool] = []
    said: list[float] = []
    slider.reset.connect(lambda: resets.append(True))
    shown(desk, slider)
    QTest.mouseDClick(slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(50, 8))
    assert resets == [True]
    slider.show_value(0.5)
    slider.edited.connect(said.append)
    QTest.keyClick(slider, Qt.Key.Key_Right)
    assert said == [0.51]
    done(slider)


def test_whole_numbers_stay_whole(desk: Desk) -> None:
    slider = Slider(0.0, 12.0, 0.0, whole=True)
    slider.show_value(7)
    assert slider.number() == 7.0
    done(slider)


def test_a_field_takes_a_comma_keeps_to_its_range_and_leaves_letters_alone(desk: Desk) -> None:
    field = NumberField(-1.0, 2.0)
    said: list[float] = []
    field.committed.connect(said.append)
    shown(desk, field)
    field.setFocus()
    field.selectAll()
    QTest.keyClicks(field, "0,25k")
    assert field.text() == "0.25"
    QTest.keyClick(field, Qt.Key.Key_Return)
    field.selectAll()
    QTest.keyClicks(field, "7")
    QTest.keyClick(field, Qt.Key.Key_Return)
    field.selectAll()
    QTest.keyClicks(field, "-")
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert said == [0.25, 2.0]
    assert field.text() == "2"
    QTest.keyClick(field, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert said[-1] == 2.0 - 10 * 0.05
    field.show_value(-0.0)
    assert field.text() == "0"
    done(field)


def test_the_wheel_turns_only_what_has_the_keyboard(desk: Desk, table: Table) -> None:
    table.effects("look")
    window = table.show()
    window.show_page(2)
    row = window.adjust.form.rows["degree"]
    assert row.slider is not None
    assert row.field is not None
    for widget in (row.slider, row.field, window.adjust.form.rows["style"].editor):
        window.viewer.picture.setFocus()
        before = table.control.history.document
        wheel = QtGui.QWheelEvent(
            QtCore.QPointF(5, 5),
            QtCore.QPointF(widget.mapToGlobal(QtCore.QPoint(5, 5))),
            QtCore.QPoint(0, 0),
            QtCore.QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QtWidgets.QApplication.sendEvent(widget, wheel)
        assert table.control.history.document == before
