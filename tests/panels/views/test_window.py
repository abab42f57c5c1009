"""The one window: narrow and wide, pages, keys, banner, notices; everything named, nothing cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtTest import QTest

from host_bridge.errors import ServerError
from panels import style
from panels.qt import Qt, QtCore, QtGui, QtWidgets
from panels.views.fields import Choice, ElidedLabel
from panels.views.shortcuts import KeySheet
from tests.panels.views.conftest import Table

PAGES = ["Choose", "Face", "Adjust", "Render", "Jobs", "Models", "Server"]


def full(table: Table, effect: str = "retouch") -> None:
    table.effects(effect)
    table.plate()
    if effect == "retouch":
        table.control.values.add_edit("smile")
        table.control.values.set_key(0)


def test_pages_stand_beside_the_viewer_or_below_it(table: Table) -> None:
    full(table)
    window = table.show(1100, 760)
    assert window.splitter.orientation() == Qt.Orientation.Horizontal
    assert [window.tabs.tabText(i) for i in range(window.tabs.count())] == PAGES
    window.resize(420, 860)
    table.desk.spin()
    assert window.width() == 420
    assert window.splitter.orientation() == Qt.Orientation.Vertical


def test_ctrl_and_a_number_go_to_the_pages(table: Table) -> None:
    full(table)
    window = table.show()
    for index in (2, 4, 6, 1, 0):
        QTest.keyClick(window.viewer.picture, getattr(Qt.Key, f"Key_{index + 1}"), Qt.KeyboardModifier.ControlModifier)
        assert window.tabs.currentIndex() == index


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_no_words_are_cut_off_in_a_narrow_panel(table: Table, times: float) -> None:
    full(table)
    font = QtGui.QFont(table.window.font())
    font.setPointSizeF(font.pointSizeF() * times)
    table.window.setFont(font)
    window = table.show(round(420 * times), round(860 * times))
    for fold in window.adjust.form.folds.values():
        fold.open(True)
    for page in range(window.tabs.count()):
        window.show_page(page)
        table.desk.spin(0.02)
        cut = [w for w in window.findChildren(QtWidgets.QWidget) if w.isVisible() and cut_off(w)]
        assert not cut, [(type(w).__name__, w.property("text"), w.size(), w.sizeHint()) for w in cut]


def cut_off(widget: QtWidgets.QWidget) -> bool:
    """Whether a widget with words is smaller than they need. What elides or wraps by design is looked at by height."""
    if isinstance(widget, ElidedLabel):
        return widget.height() < widget.fontMetrics().height()
    if isinstance(widget, QtWidgets.QLabel):
        if widget.wordWrap():
            return widget.height() < widget.heightForWidth(widget.width())
        return widget.width() < widget.sizeHint().width() or widget.height() < widget.fontMetrics().height()
    if isinstance(widget, (QtWidgets.QLineEdit, Choice)):
        return widget.height() < widget.fontMetrics().height()
    if isinstance(widget, QtWidgets.QAbstractButton) and widget.text():
        wanted = widget.sizeHint()
        return widget.width() < wanted.width() or widget.height() < wanted.height()
    return False


def test_whoever_listens_hears_what_everything_is(table: Table) -> None:
    full(table)
    window = table.show()
    kinds = (QtWidgets.QAbstractButton, QtWidgets.QLineEdit, QtWidgets.QComboBox, QtWidgets.QAbstractSlider)
    nameless = []
    for page in range(window.tabs.count()):
        window.show_page(page)
        table.desk.spin()
        for kind in kinds:
            for widget in window.findChildren(kind):
                named = widget.accessibleName() or widget.property("text") or widget.toolTip()
                if widget.isVisible() and not named and not isinstance(widget, QtWidgets.QScrollBar):
                    nameless.append((PAGES[page], type(widget).__name__, widget.parent()))
    assert not nameless


def test_the_sheet_lists_every_key_and_tooltips_name_theirs(table: Table) -> None:
    window = table.show()
    QTest.keyClick(window, Qt.Key.Key_F1)
    sheet = next(w for w in table.desk.app.topLevelWidgets() if isinstance(w, KeySheet))
    lines = {w.text() for w in sheet.findChildren(QtWidgets.QLabel)}
    words = lines | {text for line in lines for text in line.split(", ")}
    for key in window.keys.table:
        assert key.text in words
    for named in ("M", "P", "W", "K", "F", "J", "L", "Home", "End", "Ctrl+Z", "Ctrl+Y", "Ctrl+Enter"):
        assert named in words
    sheet.close()
    tips = " ".join(w.toolTip() for w in window.findChildren(QtWidgets.QWidget))
    for said in ("(M)", "(P)", "(W)", "(F)", "(R)", "(C)", "(Ctrl+Return)", "left arrow, J", "right arrow, L"):
        assert said in tips


def test_undo_and_redo_by_keys_and_menu(table: Table) -> None:
    full(table, "look")
    window, values = table.show(), table.control.values
    values.set("degree", 0.25)
    ctrl = Qt.KeyboardModifier.ControlModifier
    QTest.keyClick(window.viewer.picture, Qt.Key.Key_Z, ctrl)
    assert values.value("degree") == 1.0
    QTest.keyClick(window.viewer.picture, Qt.Key.Key_Y, ctrl)
    assert values.value("degree") == 0.25
    menu = window.menu.build()
    undo, redo = menu.actions()[:2]
    assert "set Style degree" in undo.text()
    assert not redo.isEnabled()
    undo.trigger()
    assert values.value("degree") == 1.0
    menu.deleteLater()


def test_a_host_s_shortcut_does_not_take_a_key_of_the_panel(table: Table) -> None:
    window = table.show()
    for key, ours in ((Qt.Key.Key_M, True), (Qt.Key.Key_Q, False)):
        event = QtGui.QKeyEvent(QtCore.QEvent.Type.ShortcutOverride, key, Qt.KeyboardModifier.NoModifier)
        event.ignore()
        QtWidgets.QApplication.sendEvent(window.viewer.picture, event)
        assert event.isAccepted() is ours


def test_the_banner_tells_that_the_server_is_away_and_back(table: Table) -> None:
    window, connection = table.show(), table.control.connection
    away = ServerError("server.unreachable", "no answer", remedy="It is tried again.")
    connection.state = replace(connection.state, link="unreachable", error=away)
    connection.changed.emit()
    assert window.banner.isVisible()
    assert "It is tried again." in window.banner.text.text()
    assert window.banner.start.isVisible()
    QTest.mouseClick(window.banner.more, Qt.MouseButton.LeftButton)
    assert window.tabs.currentIndex() == PAGES.index("Server")
    connection.state = replace(connection.state, link="ready", error=None)
    connection.changed.emit()
    assert "back" in window.banner.text.text()
    assert not window.banner.start.isVisible()
    connection.changed.emit()
    assert not window.banner.isVisible()


def test_notices_carry_their_remedy_and_are_dismissed(table: Table) -> None:
    window = table.show()
    table.control.notices.error(ServerError("server.busy", "the queue is full", remedy="Wait for a job to end."))
    assert window.notices.isVisible()
    assert "Wait for a job to end." in window.notices.text.text()
    QTest.keyClick(window, Qt.Key.Key_Escape)
    assert not window.notices.isVisible()


def test_the_look_is_the_panel_s_own(table: Table) -> None:
    table.show()
    assert table.window.styleSheet() == style.STYLE_SHEET
    assert table.desk.app.styleSheet() == ""
