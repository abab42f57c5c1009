"""The whole way in the window, over a real server: look, drag, compare, analyse, render; a server that dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtTest import QTest

from panels.bridge import Bridge
from panels.controller import Picture
from panels.qt import Qt, QtCore
from panels.window import PanelWindow
from tests.panels.conftest import Desk, Studio


def test_from_a_plate_to_frames_on_disk(
    desk: Desk, own_studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    plate = own_studio.plate()
    bridge = open_panel(plate=plate)
    window, control = PanelWindow(bridge), bridge.controller
    window.resize(1000, 700)
    window.show()

    def settled() -> Picture | None:
        state = control.preview.state
        return None if state.busy or state.behind else state.result

    desk.wait(settled, 120.0)
    first = settled()
    assert first is not None
    assert "not analysed" in window.viewer.picture.badge
    window.show_page(2)
    slider = window.adjust.form.rows["degree"].slider
    assert slider is not None
    middle = slider.height() // 2
    QTest.mousePress(slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(90, middle))
    for x in range(90, 4, -3):
        QTest.mouseMove(slider, QtCore.QPoint(x, middle))
        desk.spin()
    QTest.mouseRelease(slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(5, middle))
    assert control.values.value("degree") == 0.0
    desk.wait(settled)
    plain = settled()
    assert plain is not None
    assert plain.pixels != first.pixels
    assert desk.longest_s < 1.0, "the hand never waits for a picture"

    QTest.keyClick(window.viewer.picture, Qt.Key.Key_W)
    desk.wait(lambda: settled() and control.preview.state.plate)
    assert window.viewer.picture.under is not None
    assert window.viewer.picture.over is not None
    assert window.viewer.picture.under.region == window.viewer.picture.over.region

    window.show_page(1)
    desk.wait(lambda: control.faces.state.found)
    QTest.mouseClick(window.face.analyse, Qt.MouseButton.LeftButton)
    desk.wait(lambda: control.faces.state.found and control.faces.state.found.shot)
    desk.wait(lambda: window.face.tools["box"].isEnabled())

    control.values.reset("degree")
    window.show_page(3)
    control.render.set(output=str(tmp_path / "out.%04d.exr"), frames="1001-1002")
    window.viewer.picture.setFocus()
    QTest.keyClick(window.viewer.picture, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: "finished: 2 frames" in window.render_page.said.text(), 120.0)
    assert sorted(p.name for p in tmp_path.glob("*.exr")) == ["out.1001.exr", "out.1002.exr"]
    window.show_page(4)
    assert window.jobs.list.topLevelItemCount() == 2
    assert window.jobs.open.isEnabled()

    own_studio.kill()
    desk.wait(lambda: window.banner.isVisible() and window.banner.start.isVisible(), 30.0)
    QTest.mouseClick(window.banner.start, Qt.MouseButton.LeftButton)
    desk.wait(lambda: control.connection.ready, 60.0)
    assert control.values.value("style") == "cartoon"
    window.close()
    window.deleteLater()
