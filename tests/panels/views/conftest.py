"""The real window over the real controller; where no server is needed, the state a server would have brought."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from host_bridge import messages as m
from host_bridge.effects import EffectDescriptor, descriptor_from_json
from inference_server.effects.look.descriptor import LOOK
from inference_server.effects.retouch.descriptor import RETOUCH
from panels.bridge import Bridge
from panels.controller import FacesState, Picture, PreviewState
from panels.qt import Qt, QtCore, QtWidgets
from panels.window import PanelWindow
from tests.panels.conftest import Desk

WIDTH, HEIGHT = 640, 480
FIRST, LAST = 1001, 1020
BOX = (200.0, 100.0, 300.0, 240.0)
REGION = (100.0, 40.0, 400.0, 340.0)


class Table:
    """A window, its controller, and the state a server would have told it."""

    def __init__(self, desk: Desk, bridge: Bridge) -> None:
        self.desk = desk
        self.bridge = bridge
        self.control = bridge.controller
        self.window = PanelWindow(bridge)

    def show(self, width: int = 1100, height: int = 760) -> PanelWindow:
        self.window.resize(width, height)
        self.window.show()
        self.desk.spin(0.01)
        return self.window

    def effects(self, chosen: str, *more: EffectDescriptor) -> None:
        """The server's effects, one of them chosen."""
        there = [descriptor_from_json(d.to_json()) for d in (LOOK, RETOUCH, *more)]
        self.control.effects.remembered(tuple(there))
        self.control.effects.choose(chosen)
        self.control.history.forget()

    def plate(self) -> None:
        """A plate of 20 frames, the first one looked at."""
        plate = self.control.plate
        found = m.Plate(f"{FIRST}-{LAST}", FIRST, LAST, WIDTH, HEIGHT, 1.0, "lin_rec709", "zip", shots=["s1"])
        plate.state = replace(plate.state, spec=replace(plate.state.spec, pattern="sh.%04d.exr"), found=found)
        plate.changed.emit()
        plate.set_frame(FIRST)

    def pictures(self, **state: Any) -> None:
        """A red plate, a green result, a white matte, all of the crop."""
        self.control.preview.state = PreviewState(
            **{"result": flat(0, 255, 0), "plate": flat(255, 0, 0), "matte": flat(255, 255, 255), **state}
        )
        self.control.preview.changed.emit()

    def faces(self, *, locked: bool = False, shot: str = "s1") -> None:
        """Two faces, the first one chosen; the points of its mesh on a grid in its box."""
        x0, y0, x1, y1 = BOX
        points = [[x0 + (x1 - x0) * (i % 22 + 0.5) / 22, y0 + (y1 - y0) * (i // 22 + 0.5) / 22] for i in range(478)]
        first = {"track": 1, "state": "detected", "score": 0.9, "chosen": True, "box": list(BOX), "points": points}
        second = {**first, "track": 2, "chosen": False, "box": [450.0, 150.0, 520.0, 240.0], "points": []}
        found = m.Faces(
            frame=self.control.plate.frame,
            shot=shot,
            locked=locked,
            faces=[{**first, "region": list(REGION)}, {**second, "region": [400.0, 100.0, 570.0, 290.0]}],
            tracks=[
                {"track": 1, "enabled": True, "chosen": True, "frames": "1001-1020"},
                {"track": 2, "enabled": True, "chosen": False, "frames": "1001-1010"},
            ],
            repairs={"version": 1},
        )
        self.control.faces.state = FacesState(found=found)
        self.control.faces.changed.emit()

    def drag(self, widget: QtWidgets.QWidget, *path: QtCore.QPointF | QtCore.QPoint) -> None:
        """Press at the first point, move through the others, let go at the last."""
        from PySide6.QtTest import QTest

        points = [p.toPoint() if isinstance(p, QtCore.QPointF) else p for p in path]
        QTest.mousePress(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, points[0])
        for point in points[1:]:
            QTest.mouseMove(widget, point)
            self.desk.spin()
        QTest.mouseRelease(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, points[-1])
        self.desk.spin()


def flat(red: int, green: int, blue: int, region: tuple[int, int, int, int] = (100, 40, 400, 340)) -> Picture:
    """A picture of one colour."""
    return Picture(bytes((red, green, blue)) * (30 * 30), 30, 30, region, FIRST)


@pytest.fixture
def table(desk: Desk, open_panel: Callable[..., Bridge]) -> Iterator[Table]:
    """A window that is not connected to anything."""
    there = Table(desk, open_panel(connect="none"))
    yield there
    there.window.close()
    there.window.deleteLater()
