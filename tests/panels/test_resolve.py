"""The panel beside a (fake) Resolve: the clip under the playhead is its plate, and the result comes above the clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from host_bridge.hosts import resolve_render
from panels.bridge import Bridge
from tests.host_bridge.hosts.resolve_desk import RECORD, open_suite
from tests.panels.conftest import Desk, Studio


def test_a_movie_in_resolve_is_the_plate_and_the_result_stands_above_it(
    desk: Desk,
    studio: Studio,
    open_panel: Callable[..., Bridge],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve_render, "POLL_S", 0.001)
    suite = open_suite(studio.plate("resolve", seed=31), last=1006, left=1, count=3)
    suite.movie()
    control = open_panel(suite.host(), colorspace="").controller
    desk.wait(lambda: control.plate.state.found)
    assert control.plate.state.numbers == (1001, 1002, 1003)
    assert control.plate.state.spec.colorspace == "Linear Rec.2020"
    assert control.plate.frame == 1002
    assert "without its grade" in control.notices.kept[0].text
    control.show_frame_in_host()
    desk.wait(lambda: suite.timeline._timecode == "01:00:00:21")
    assert control.render.settings.output
    control.render.set(output=str(tmp_path / "out.%04d.exr"))
    desk.wait(lambda: not control.render.problems())
    control.render.render()
    desk.wait(lambda: len(suite.timeline._tracks) == 2)
    desk.wait(lambda: suite.timeline._tracks[1])
    (item,) = suite.timeline._tracks[1]
    assert (item._start, item._duration, item._left) == (RECORD, 3, 0)
    desk.wait(lambda: any("V2 at 01:00:00:20" in n.text for n in control.notices.kept))
