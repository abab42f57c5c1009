"""Faces over the plate: chosen by a click, crop dragged, boxes and points corrected, nothing in a locked shot."""

from __future__ import annotations

import pytest
from PySide6.QtTest import QTest

from panels import style
from panels.controller import FaceView
from panels.qt import Qt, QtCore, QtGui
from panels.views.overlay import BOX, POINTS, crop_anchor
from panels.views.picture import PictureView
from tests.panels.views.conftest import BOX as FACE
from tests.panels.views.conftest import FIRST, HEIGHT, REGION, WIDTH, Table

PADDING = {"left": 200.0, "right": 200.0, "top": 200.0, "bottom": 200.0}


def opened(table: Table, **faces: object) -> PictureView:
    table.effects("look")
    table.plate()
    window = table.show()
    table.pictures(plate=None, result=None)
    window.show_page(1)
    table.faces(**faces)  # type: ignore[arg-type]
    table.desk.spin()
    return window.viewer.picture


def at(view: PictureView, x: float, y: float) -> QtCore.QPointF:
    return view.to_view(QtCore.QPointF(x, y))


def test_the_page_shows_the_whole_plate_and_gives_the_picture_back(table: Table) -> None:
    opened(table)
    viewer = table.window.viewer
    assert (viewer.what, table.control.preview.viewer.crop) == ("plate", "frame")
    table.window.show_page(2)
    assert (viewer.what, table.control.preview.viewer.crop) == ("result", "face")
    assert viewer.picture.overlay is None


def test_a_click_chooses_a_face(table: Table) -> None:
    view = opened(table)
    QTest.mouseClick(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at(view, 485.0, 195.0).toPoint())
    assert table.control.faces.state.choice == "2"
    assert table.window.face.choice.currentData() == "track"


def test_dragging_an_edge_of_the_crop_changes_that_padding(table: Table) -> None:
    view = opened(table)
    x0, _, _, y1 = REGION  # 300 pixels for 400 units of padding
    table.drag(view, at(view, x0, 190.0), at(view, x0 - 10, 190.0), at(view, x0 - 30, 190.0))
    values = table.control.values
    left = values.value("padding_left")
    assert isinstance(left, float)
    assert left == pytest.approx(240.0, abs=1.5)
    assert [values.value(f"padding_{side}") for side in ("right", "top", "bottom")] == [200.0] * 3
    crop = table.window.face.overlay.crop(view)
    assert crop is not None
    assert crop[1][0] == pytest.approx(x0 - 30, abs=1.0)
    table.control.history.undo()
    assert values.value("padding_left") == 200.0, "the drag is one step"
    table.drag(view, at(view, 250.0, y1), at(view, 250.0, y1 + 10))
    assert values.value("padding_bottom") == pytest.approx(200 + 10 / 0.75, abs=1.5)
    row = table.window.face.padding[3]
    assert row.field is not None
    assert row.field.value() == values.value("padding_bottom")


def test_a_crop_cut_by_the_plate_is_measured_from_its_free_edges() -> None:
    view = FaceView(1, "detected", 1.0, True, True, FACE, (), (0.0, 40.0, 350.0, 340.0), {}, False)
    anchor = crop_anchor(view, PADDING, WIDTH, HEIGHT, 1.0)
    assert anchor.unit == pytest.approx(0.75)
    assert (anchor.x, anchor.y) == pytest.approx((200.0, 190.0))
    assert anchor.region(PADDING) == pytest.approx((50.0, 40.0, 350.0, 340.0))
    assert anchor.padding("right", (380.0, 0.0)) == pytest.approx(240.0)
    wide = crop_anchor(view, PADDING, WIDTH, HEIGHT, 2.0)
    assert wide.region(PADDING)[0] == pytest.approx(350.0 - 400 * 0.75 / 2)


def test_a_box_is_dragged_and_keyed_at_the_frame(table: Table) -> None:
    view = opened(table)
    QTest.mouseClick(table.window.face.tools[BOX], Qt.MouseButton.LeftButton)
    x0, y0, x1, y1 = FACE
    table.drag(view, at(view, x1, y1), at(view, x1 + 5, y1 + 5), at(view, x1 + 20, y1 + 10))
    box = table.control.faces.corrections.box_at(1, FIRST)
    assert box is not None
    assert box == pytest.approx((x0, y0, x1 + 20, y1 + 10), abs=1.5)
    table.drag(view, at(view, 240, 160), at(view, 250, 160))
    moved = table.control.faces.corrections.box_at(1, FIRST)
    assert moved is not None
    assert moved == pytest.approx((x0 + 10, y0, x1 + 30, y1 + 10), abs=2.5)
    assert table.window.viewer.timeline.ruler.corrected == {FIRST}
    assert table.window.face.apply.isEnabled()
    QTest.mouseClick(table.window.face.unkey, Qt.MouseButton.LeftButton)
    assert not table.control.faces.dirty


def test_the_selected_box_shows_its_handles(table: Table) -> None:
    view = opened(table)
    corner = at(view, FACE[2], FACE[1])

    def colour() -> str:
        image = view.grab().toImage()
        ratio = image.devicePixelRatio()
        inside = (corner + QtCore.QPointF(2, -2)) * ratio
        return QtGui.QColor(image.pixel(inside.toPoint())).name()

    before = colour()
    table.window.face.set_tool(BOX)
    assert before != style.ACCENT
    assert colour() == style.ACCENT


def test_a_point_is_dragged(table: Table) -> None:
    view = opened(table)
    table.window.face.set_tool(POINTS)
    view.zoom_to(4.0, at(view, 250, 170))
    x, y = table.control.faces.views[0].points[240]
    table.drag(view, at(view, x, y), at(view, x + 3, y + 2), at(view, x + 6, y + 4))
    keys = table.control.faces.corrections.points[(1, 240)].keys
    assert keys[FIRST] == pytest.approx((x + 6, y + 4), abs=0.5)
    table.control.history.undo()
    assert not table.control.faces.dirty


def test_a_face_that_was_not_found_is_drawn(table: Table) -> None:
    view = opened(table)
    QTest.mouseClick(table.window.face.tools["new"], Qt.MouseButton.LeftButton)
    table.drag(view, at(view, 20, 300), at(view, 60, 350), at(view, 80, 400))
    new = table.control.faces.corrections.box_at(3, FIRST)
    assert new is not None
    assert new == pytest.approx((20, 300, 80, 400), abs=1.5)
    assert len(table.control.faces.views) == 3


def test_a_locked_shot_says_so_and_takes_no_correction(table: Table) -> None:
    view = opened(table, locked=True)
    assert "locked" in table.window.face.state.text()
    assert not table.window.face.tools[BOX].isEnabled()
    table.window.face.overlay.tool = BOX
    table.drag(view, at(view, 300, 240), at(view, 320, 260))
    assert not table.control.faces.dirty


def test_a_shot_that_is_not_analysed_offers_to_analyse_it(table: Table) -> None:
    opened(table, shot="")
    assert table.window.face.analyse.isVisible()
    assert not table.window.face.tools[BOX].isEnabled()


def test_a_face_is_switched_off_in_the_list(table: Table) -> None:
    opened(table)
    item = table.window.face.tracks.topLevelItem(1)
    assert item is not None
    item.setCheckState(0, Qt.CheckState.Unchecked)
    table.desk.wait(lambda: 2 in table.control.faces.corrections.tracks)
    assert not table.control.faces.corrections.tracks[2].enabled
    assert [v.enabled for v in table.control.faces.views] == [True, False]
