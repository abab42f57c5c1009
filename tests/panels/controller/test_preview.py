"""The live preview with a real server: newest only, nothing stale, the GUI's thread never waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge import launcher
from panels.bridge import Bridge
from panels.controller import Controller, Picture
from panels.controller.preview import DRAG_SIZE
from tests.panels.conftest import COLORSPACE, Desk, Studio

# One turn of the event loop, handling of a picture included. What a call on the GUI's thread costs while a slider is
# dragged; the machine that runs the tests is shared, so it is many times what is measured (some 5 ms).
TURN_S = 0.25


@pytest.fixture
def control(desk: Desk, open_panel: Callable[..., Bridge], plate: str) -> Controller:
    """A panel that shows a picture."""
    control = open_panel(plate=plate).controller
    desk.wait(lambda: control.preview.state.result is not None and control.preview.idle)
    return control


def _fresh(control: Controller) -> bytes:
    """What a client of its own is shown of the panel's present state."""
    spec = control.preview._spec("result")
    with launcher.connect(start=False) as client:
        return client.preview(spec).result(60).pixels


def _settled(desk: Desk, control: Controller) -> Picture:
    desk.spin()
    preview = control.preview
    desk.wait(lambda: preview.idle and preview.state.result is not None and not preview.state.behind)
    assert control.preview.state.result is not None
    return control.preview.state.result


def test_a_flood_of_slider_moves_ends_with_the_newest_and_nobody_waits(desk: Desk, control: Controller) -> None:
    shown: list[Picture] = []
    in_flight: list[int] = []
    asked = control.preview._stamp

    def look() -> None:
        state = control.preview.state
        if state.result is not None and (not shown or shown[-1] is not state.result):
            shown.append(state.result)
        in_flight.append(control.preview._stamp - asked)

    control.preview.changed.connect(look)
    desk.longest_s = 0.0
    moves = 400
    slowest = 0.0
    for step in range(moves):
        began = time.perf_counter()
        control.values.set("degree", (step + 1) / moves, dragging=True)
        slowest = max(slowest, time.perf_counter() - began)
        desk.spin()
    during = len(shown)
    control.values.release()
    last = _settled(desk, control)
    assert slowest < TURN_S
    assert desk.longest_s < TURN_S
    stamps = [picture.stamp for picture in shown]
    assert stamps == sorted(set(stamps))  # never an older one after a newer one
    assert during >= 1
    assert control.preview._stamp - asked < moves / 2  # most moves were never asked for
    assert last.pixels == _fresh(control)
    assert control.values.value("degree") == 1.0


def test_at_most_one_request_is_under_way(desk: Desk, control: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    client = control.connection.client
    assert client is not None
    flying = most = 0
    real = client.preview

    def counted(*args: object, **named: object) -> object:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        future = real(*args, **named)  # type: ignore[arg-type]

        def landed(_: object) -> None:
            nonlocal flying
            flying -= 1

        future.add_done_callback(landed)
        return future

    monkeypatch.setattr(client, "preview", counted)
    control.preview.want("result", "plate", "matte")
    for step in range(60):
        control.values.set("degree", step / 60, dragging=True)
        desk.spin(0.005)
    control.values.release()
    _settled(desk, control)
    assert most == 1


def test_a_drag_is_shown_small_and_its_end_in_full(desk: Desk, control: Controller) -> None:
    control.preview._full_seconds = 1.0  # as if full pictures were slow
    control.preview.set_viewer(size=640, crop="frame")
    sizes = []
    for value in (0.1, 0.2):
        control.values.set("degree", value, dragging=True)
        sizes.append(control.preview._spec("result").max_size)
    control.values.release()
    sizes.append(control.preview._spec("result").max_size)
    assert sizes == [DRAG_SIZE, DRAG_SIZE, 640]
    _settled(desk, control)


def test_a_late_picture_of_another_frame_is_dropped(desk: Desk, control: Controller) -> None:
    frames: list[int] = []
    control.preview.changed.connect(
        lambda: frames.append(control.preview.state.result.frame if control.preview.state.result else 0)
    )
    for frame in (1002, 1003, 1004, 1005):
        control.plate.set_frame(frame)
        desk.spin()  # the first is asked for, the others find it under way
    assert _settled(desk, control).frame == 1005
    assert set(frames) <= {1001, 1002, 1005}
    assert control.preview.state.result is not None


def test_the_plate_beside_the_result_is_made_once_for_each_frame(desk: Desk, control: Controller) -> None:
    control.preview.want("result", "plate")
    _settled(desk, control)
    first = control.preview.state.plate
    assert first is not None
    assert control.preview.state.result is not None
    assert first.region == control.preview.state.result.region
    assert first.pixels != control.preview.state.result.pixels
    asked = control.preview._stamp
    for name in ("degree", "structure", "color"):
        control.values.set(name, 0.0)
    result = _settled(desk, control)
    assert control.preview._stamp == asked + 1  # the result only
    assert control.preview.state.plate is first
    assert result.pixels == first.pixels  # no change: both came through the same viewer
    control.preview.set_viewer(exposure=1.0)
    _settled(desk, control)
    brighter = control.preview.state.plate
    assert brighter is not None
    assert sum(brighter.pixels) > sum(first.pixels)
    control.preview.set_viewer(exposure=0.0)
    _settled(desk, control)
    assert control.preview.state.plate is first


def test_the_matte_and_the_whole_frame(desk: Desk, control: Controller) -> None:
    control.preview.want("matte")
    desk.wait(lambda: control.preview.state.matte is not None and control.preview.idle)
    matte = control.preview.state.matte
    assert matte is not None
    assert max(matte.pixels) == 255
    control.preview.want("result")
    control.preview.set_viewer(crop="frame")
    whole = _settled(desk, control)
    assert whole.region == (0, 0, 144, 144)
    assert "not analysed" in whole.note
    assert not whole.final


def test_an_error_is_shown_once_with_its_remedy_and_goes_with_its_cause(
    desk: Desk, control: Controller, tmp_path: Path
) -> None:
    before = control.preview._stamp
    control.plate.set_style_image(str(tmp_path / "none.png"))
    desk.wait(lambda: control.preview.state.error)
    error = control.preview.state.error
    assert error is not None
    assert error.remedy
    desk.spin(0.1)
    assert control.preview._stamp == before + 1  # what was refused is not asked for again by itself
    assert control.preview.state.behind
    control.plate.set_style_image("")
    _settled(desk, control)
    assert control.preview.state.error is None


def test_another_plate_takes_the_picture_away_and_brings_its_own(
    desk: Desk, control: Controller, studio: Studio
) -> None:
    other = studio.plate("other", seed=5)
    control.plate.open(other)
    desk.wait(lambda: control.preview.state.result is None)
    _settled(desk, control)
    control.plate.open("/nowhere/p.%04d.exr")
    desk.wait(lambda: control.plate.state.error)
    assert control.plate.state.error is not None
    assert control.plate.state.error.code == "plate.no_frames"
    desk.wait(lambda: control.preview.state.result is None)
    desk.spin()
    assert control.preview.state.blocked == control.plate.state.error.message


def test_a_preview_that_is_not_live_waits(desk: Desk, control: Controller) -> None:
    control.preview.set_live(False)
    shown = control.preview.state.result
    control.values.set("degree", 0.123)
    desk.spin(0.1)
    assert control.preview.state.result is shown
    assert control.preview.state.behind
    control.preview.set_live(True)
    assert _settled(desk, control).pixels != (shown.pixels if shown else b"")


def test_colours_are_offered_and_a_wrong_colourspace_is_said(desk: Desk, control: Controller) -> None:
    color = control.plate.state.color
    assert color is not None
    assert COLORSPACE in color.colorspaces or color.displays
    control.plate.set(colorspace="No such space")
    desk.wait(lambda: control.plate.state.error)
    assert control.plate.state.error is not None
    assert control.plate.state.error.code == "color.unknown_space"
    control.plate.set(colorspace=COLORSPACE)
    desk.wait(lambda: control.plate.state.found)
    assert replace(control.plate.state.spec) == control.plate.state.spec
