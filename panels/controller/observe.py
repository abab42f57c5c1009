"""How the controller tells its observers, and on which thread it lives.

Everything of the controller happens on one thread, its home: the GUI's thread in a panel. What arrives elsewhere (the
client's thread, a blocking call's thread) is handed over with `Home.post`. Observers are called there, too, after the
state has changed, without arguments or with what happened; they read what they need.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from host_bridge.errors import FaceplateError, ServerError

R = TypeVar("R")
Disconnect = Callable[[], None]


class Home(Protocol):
    """The thread the controller lives on."""

    def post(self, work: Callable[[], None]) -> None:
        """Do `work` on the home thread, in order of arrival, never at once. From any thread."""
        ...

    def later(self, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        """Do `work` once after `seconds`; the returned function calls it off. Home thread only."""
        ...


class Topic:
    """Something observers are told of. `connect` returns the function that ends it; home thread only."""

    def __init__(self) -> None:
        self._observers: list[Callable[..., None]] = []

    def connect(self, observer: Callable[..., None]) -> Disconnect:
        self._observers.append(observer)

        def disconnect() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return disconnect

    def emit(self, *what: object) -> None:
        """Tell every observer; one that another has just disconnected is left out."""
        for observer in list(self._observers):
            if observer in self._observers:
                observer(*what)


class Errands:
    """Blocking calls on threads of their own, their outcome on the home thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def run(self, work: Callable[[], R], done: Callable[[R | FaceplateError], None]) -> None:
        """Do `work` elsewhere, then `done` with its result or error on the home thread."""

        def go() -> None:
            outcome: R | FaceplateError
            try:
                outcome = work()
            except FaceplateError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 - shown to the artist like any other error
                outcome = unexpected(error)
            with self._lock:
                self._threads.discard(thread)
            self._home.post(lambda: done(outcome))

        thread = threading.Thread(target=go, name="faceplate-errand", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for those under way, at most so long in all; what takes longer ends by itself, unheard."""
        end = time.monotonic() + timeout_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def unexpected(error: BaseException) -> FaceplateError:
    """An exception nobody foresaw, as the artist sees it."""
    return ServerError(
        "server.internal",
        f"{type(error).__name__}: {error}",
        remedy="Please report this, with what you did.",
    )
