"""The picture: wipe, zoom, pan, what is written over it."""

from __future__ import annotations

from PySide6.QtTest import QTest

from host_bridge.errors import PlateError
from panels.controller import Viewer
from panels.qt import Qt, QtCore, QtGui
from panels.views.picture import PictureView
from tests.panels.views.conftest import FIRST, HEIGHT, LAST, WIDTH, Table, flat

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def opened(table: Table) -> PictureView:
    table.effects("look")
    table.plate()
    table.show()
    table.pictures()
    table.desk.spin()
    return table.window.viewer.picture


def seen(view: PictureView, x: float, y: float = 0.25) -> tuple[int, int, int]:
    """The colour at a share of the widget's width and height."""
    image = view.grab().toImage()
    colour = QtGui.QColor(image.pixel(int(x * (image.width() - 1)), int(y * (image.height() - 1))))
    return colour.red(), colour.green(), colour.blue()


def test_the_wipe_is_dragged_in_the_picture(table: Table) -> None:
    view = opened(table)
    assert seen(view, 0.45) == GREEN
    QTest.keyClick(view, Qt.Key.Key_W)
    assert (seen(view, 0.45), seen(view, 0.55)) == (RED, GREEN)
    assert table.control.preview.wanted == {"plate", "result"}
    wide, middle = view.width(), view.height() // 2
    table.drag(view, QtCore.QPoint(wide // 2, middle), *(QtCore.QPoint(int(wide * t), middle) for t in (0.45, 0.4)))
    assert (seen(view, 0.38), seen(view, 0.45)) == (RED, GREEN)
    table.drag(view, QtCore.QPoint(int(wide * 0.7), middle), QtCore.QPoint(int(wide * 0.6), middle))
    assert view.wipe is not None
    assert abs(view.wipe - 0.4) < 0.01, "a drag beside the line moves nothing"
    QTest.keyClick(view, Qt.Key.Key_W)
    assert seen(view, 0.45) == GREEN
    assert table.control.preview.wanted == {"result"}


def test_keys_change_what_is_looked_at(table: Table) -> None:
    view = opened(table)
    QTest.keyClick(view, Qt.Key.Key_M)
    assert seen(view, 0.5) == WHITE
    assert table.control.preview.wanted == {"matte"}
    QTest.keyClick(view, Qt.Key.Key_P)
    assert seen(view, 0.5) == RED
    assert table.window.viewer.modes["plate"].isChecked()
    QTest.keyClick(view, Qt.Key.Key_P)
    assert seen(view, 0.5) == GREEN
    QTest.mouseClick(table.window.viewer.modes["matte"], Qt.MouseButton.LeftButton)
    assert seen(view, 0.5) == WHITE


def test_zoom_keeps_the_point_under_the_pointer_and_f_fits_again(table: Table) -> None:
    view = opened(table)
    fitted, at = view.scale, QtCore.QPointF(140, 90)
    held = view.to_plate(at)
    view.zoom_to(fitted * 4, at)
    assert view.scale == fitted * 4
    assert (view.to_plate(at) - held).manhattanLength() < 1e-6
    assert table.control.preview.viewer.size < 2048
    before = view.to_plate(at)
    QTest.mousePress(view, Qt.MouseButton.MiddleButton, Qt.KeyboardModifier.NoModifier, at.toPoint())
    QTest.mouseMove(view, QtCore.QPoint(180, 60))
    table.desk.spin()
    QTest.mouseRelease(view, Qt.MouseButton.MiddleButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(180, 60))
    moved = view.to_plate(QtCore.QPointF(180, 60))
    assert (moved - before).manhattanLength() < 1e-6
    QTest.keyClick(view, Qt.Key.Key_F)
    assert view.scale == fitted


def test_a_wide_pixel_is_shown_wide(table: Table) -> None:
    view = opened(table)
    view.show_plate(WIDTH, HEIGHT, 2.0)
    origin, corner = view.to_view(QtCore.QPointF(0, 0)), view.to_view(QtCore.QPointF(10, 10))
    assert abs((corner.x() - origin.x()) - 2 * (corner.y() - origin.y())) < 1e-9
    there = view.to_plate(corner)
    assert (there - QtCore.QPointF(10, 10)).manhattanLength() < 1e-9


def test_an_error_and_a_preview_that_is_not_final_are_told(table: Table) -> None:
    view = opened(table)
    clean = view.grab().toImage()
    rough = flat(0, 255, 0).__class__(**{**flat(0, 255, 0).__dict__, "final": False, "note": "not analysed yet"})
    table.pictures(result=rough)
    assert view.badge == "Not final: not analysed yet"
    assert view.grab().toImage() != clean
    error = PlateError("plate.missing_frame", "the frame is not on disk", remedy="Choose another.", frame=1007)
    table.pictures(error=error)
    assert "Choose another." in view.accessibleDescription()
    assert seen(view, 0.5, 0.5) != GREEN, "the box lies over the picture"
    table.pictures()
    assert view.accessibleDescription() == ""


def test_pictures_that_show_different_regions_are_not_compared(table: Table) -> None:
    view = opened(table)
    table.window.viewer.set_wipe(True)
    table.pictures(plate=flat(255, 0, 0, (0, 0, WIDTH, HEIGHT)))
    assert (seen(view, 0.45), seen(view, 0.55)) == (GREEN, GREEN)


def test_another_plate_takes_the_old_pictures_away(table: Table) -> None:
    view = opened(table)
    table.control.plate.open("elsewhere.%04d.exr")
    table.desk.spin()
    assert seen(view, 0.5) not in (RED, GREEN)


def test_the_frame_is_scrubbed_typed_and_stepped(table: Table) -> None:
    view = opened(table)
    ruler, plate = table.window.viewer.timeline.ruler, table.control.plate
    y = ruler.height() // 2
    table.drag(ruler, *(QtCore.QPoint(int(ruler.x_of(f)), y) for f in (1003, 1008, 1012)))
    assert plate.frame == 1012
    number = table.window.viewer.timeline.number
    assert number.text() == "1012"
    number.selectAll()
    QTest.keyClicks(number, "1005")
    QTest.keyClick(number, Qt.Key.Key_Return)
    assert plate.frame == 1005
    view.setFocus()
    for key, frame in (
        (Qt.Key.Key_Right, 1006),
        (Qt.Key.Key_L, 1007),
        (Qt.Key.Key_J, 1006),
        (Qt.Key.Key_End, LAST),
        (Qt.Key.Key_Home, FIRST),
    ):
        QTest.keyClick(view, key)
        assert plate.frame == frame
    table.control.values.set_key("degree")
    plate.set_frame(1010)
    QTest.keyClick(view, Qt.Key.Key_PageUp)
    assert plate.frame == FIRST
    assert ruler.shot == (FIRST, LAST)


def test_exposure_and_gamma_are_the_viewer_s_own(table: Table) -> None:
    opened(table)
    viewer, document = table.window.viewer, table.control.history.document
    viewer.exposure.setFocus()
    QTest.keyClick(viewer.exposure, Qt.Key.Key_Right)
    assert table.control.preview.viewer.exposure > 0
    viewer.gamma_number.selectAll()
    QTest.keyClicks(viewer.gamma_number, "2.2")
    QTest.keyClick(viewer.gamma_number, Qt.Key.Key_Return)
    assert table.control.preview.viewer.gamma == 2.2
    QTest.mouseDClick(viewer.exposure, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QtCore.QPoint(20, 8))
    assert table.control.preview.viewer.exposure == Viewer().exposure
    assert table.control.history.document == document
