"""The controller in Qt: its home is the GUI's thread, its topics are signals.

Widgets connect to the signals here; Qt ends these connections with the widget. Nothing is polled: work handed over
from another thread wakes the event loop.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from host_bridge.hosts.base import Host
from panels.controller import Controller, PanelOptions, Picture
from panels.qt import QObject, Qt, QtCore, QtGui, Signal


class QtHome(QObject):
    """`Home` on the thread that makes it. Needs a running event loop to do anything."""

    _rung = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._ringing = self._closed = False
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap of deadlines
        self._numbers = itertools.count()
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._ring)
        self._rung.connect(self._work, Qt.ConnectionType.QueuedConnection)

    def post(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                return
            self._waiting.append(work)
            ring, self._ringing = not self._ringing, True
        if ring:
            self._rung.emit()

    def later(self, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        entry = (time.monotonic() + seconds, next(self._numbers), work)
        heapq.heappush(self._due, entry)
        self._wind()

        def call_off() -> None:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)
                self._wind()

        return call_off

    def close(self) -> None:
        """Drop what waits; nothing is done any more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
        self._due.clear()
        self._timer.stop()

    def _wind(self) -> None:
        """One timer for all: it rings for the next deadline."""
        if not self._due or self._closed:
            self._timer.stop()
            return
        self._timer.start(max(0, math.ceil((self._due[0][0] - time.monotonic()) * 1000)))

    def _ring(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            self.post(heapq.heappop(self._due)[2])
        self._wind()

    def _work(self) -> None:
        """Do what was there at the ring; what comes meanwhile waits for the next, so that events are handled between.

        Work that fails does not take the rest with it.
        """
        with self._lock:
            count, self._ringing = len(self._waiting), False
        for done in range(1, count + 1):
            with self._lock:
                if not self._waiting:
                    return  # closed by what was just done
                work = self._waiting.popleft()
            try:
                work()
            except BaseException:
                with self._lock:
                    ring = done < count and not self._ringing and not self._closed
                    self._ringing = self._ringing or ring
                if ring:
                    self._rung.emit()
                raise


class Bridge(QObject):
    """A controller's topics as signals. Make it on the GUI's thread; `close` ends the controller, too."""

    connection_changed = Signal()
    effects_changed = Signal()
    document_changed = Signal()  # effect, values, edits, corrections, what can be undone
    plate_changed = Signal()
    frame_changed = Signal(int)
    preview_changed = Signal()
    thumbnail_ready = Signal(str)  # a choice of the style parameter
    faces_changed = Signal()
    jobs_changed = Signal()
    job_ended = Signal(str)  # job id
    render_changed = Signal()
    models_changed = Signal()
    server_changed = Signal()
    presets_changed = Signal()
    noticed = Signal(object)  # Notice

    def __init__(self, controller: Controller, home: QtHome) -> None:
        super().__init__()
        self.controller = controller
        self._home = home
        topics = (
            (controller.connection.changed, self.connection_changed),
            (controller.effects.changed, self.effects_changed),
            (controller.history.changed, self.document_changed),
            (controller.plate.changed, self.plate_changed),
            (controller.plate.frame_changed, self.frame_changed),
            (controller.preview.changed, self.preview_changed),
            (controller.thumbnails.ready, self.thumbnail_ready),
            (controller.faces.changed, self.faces_changed),
            (controller.jobs.changed, self.jobs_changed),
            (controller.jobs.ended, self.job_ended),
            (controller.render.changed, self.render_changed),
            (controller.models.changed, self.models_changed),
            (controller.server.changed, self.server_changed),
            (controller.presets.changed, self.presets_changed),
            (controller.notices.noticed, self.noticed),
        )
        self._ends = [topic.connect(signal.emit) for topic, signal in topics]

    def close(self) -> None:
        """End the controller, its connections and threads. Harmless when done twice."""
        for end in self._ends:
            end()
        self._ends = []
        self.controller.close()
        self._home.close()


def open_bridge(host: Host | None = None, options: PanelOptions | None = None) -> Bridge:
    """A controller living on this thread, and its bridge."""
    home = QtHome()
    return Bridge(Controller(home, host, options), home)


def image_of(picture: Picture) -> QtGui.QImage:
    """A picture as Qt shows it; the pixels are copied."""
    image = QtGui.QImage(
        picture.pixels, picture.width, picture.height, picture.width * 3, QtGui.QImage.Format.Format_RGB888
    )
    return image.copy()
