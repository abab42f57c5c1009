"""The controller's home in Qt: order, threads, failures, timers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from panels.bridge import Bridge, QtHome, image_of
from panels.controller import Picture
from panels.qt import QtGui
from tests.panels.conftest import Desk


def test_work_from_any_thread_is_done_here_in_order(desk: Desk) -> None:
    home = QtHome()
    done: list[tuple[int, int]] = []

    def give(who: int) -> None:
        for count in range(200):
            home.post(lambda count=count: done.append((who, count)))  # type: ignore[misc]

    threads = [threading.Thread(target=give, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == []  # never at once
    desk.wait(lambda: len(done) == 800)
    for who in range(4):
        assert [count for giver, count in done if giver == who] == list(range(200))
    home.close()


def test_work_that_posts_work_lets_events_through(desk: Desk) -> None:
    home = QtHome()
    rounds = 0

    def again() -> None:
        nonlocal rounds
        rounds += 1
        home.post(again)

    home.post(again)
    ticks: list[int] = []
    home.later(0.02, lambda: ticks.append(rounds))
    desk.wait(lambda: ticks)
    home.close()
    at_end = rounds
    desk.spin(0.02)
    assert rounds <= at_end + 1


def test_work_that_fails_does_not_take_the_rest_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = QtHome()
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("on purpose")

    for work in (lambda: done.append("a"), fail, lambda: done.append("b")):
        home.post(work)
    desk.wait(lambda: done == ["a", "b"])
    assert "on purpose" in capsys.readouterr().err  # Qt prints what a slot raises
    home.close()


def test_timers_are_called_off(desk: Desk) -> None:
    home = QtHome()
    rung: list[str] = []
    off = home.later(0.01, lambda: rung.append("off"))
    home.later(0.02, lambda: rung.append("on"))
    late = home.later(0.03, lambda: rung.append("closed"))
    off()
    off()
    desk.wait(lambda: rung)
    home.close()
    desk.spin(0.05)
    assert rung == ["on"]
    late()


def test_a_picture_becomes_an_image_of_its_own(desk: Desk) -> None:
    image = image_of(Picture(bytes(range(18)), 3, 2))
    assert (image.width(), image.height()) == (3, 2)
    assert image.pixelColor(2, 1) == QtGui.QColor(15, 16, 17)


def test_nothing_happens_before_it_is_opened(desk: Desk, open_panel: Callable[..., Bridge]) -> None:
    from panels.bridge import open_bridge

    before = threading.active_count()
    bridge = open_bridge()
    desk.spin(0.05)
    assert bridge.controller.connection.state.link == "offline"
    assert threading.active_count() == before
    bridge.close()
    bridge.close()


def test_topics_are_signals(desk: Desk, open_panel: Callable[..., Bridge]) -> None:
    bridge = open_panel(connect="none")
    told: list[object] = []
    bridge.frame_changed.connect(told.append)
    bridge.noticed.connect(lambda notice: told.append(notice.text))
    bridge.controller.plate.set_frame(7)
    bridge.controller.render.render()
    assert told == [7, "no plate is chosen", "no effect is chosen", "no output is chosen"]
    assert all(notice.remedy for notice in bridge.controller.notices.kept)


def test_closing_while_a_server_starts_does_not_wait_for_it(
    desk: Desk, open_panel: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    from host_bridge import launcher

    let_go = threading.Event()
    monkeypatch.setattr(launcher, "serve_detached", lambda: let_go.wait(30))
    bridge = open_panel()
    desk.spin(0.01)
    assert bridge.controller.connection.state.link == "starting"
    began = time.monotonic()
    bridge.close()
    assert time.monotonic() - began < 2.0
    let_go.set()
