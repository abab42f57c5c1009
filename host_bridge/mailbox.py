"""Hands objects from any thread to the one thread that polls sockets."""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar

import zmq

T = TypeVar("T")


class Mailbox(Generic[T]):
    """`put` from any thread; the owner polls `socket` and calls `drain` when it is readable.

    The bell is rung once per drain, so it never fills up, and no wake-up is ever left out.
    """

    def __init__(self, context: zmq.Context[Any]) -> None:
        address = f"inproc://mailbox-{id(self)}"
        self._items: list[T] = []
        self._rung = False
        self._lock = threading.Lock()
        self.socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        for end in (self.socket, self._bell):
            end.linger = 0
        self.socket.bind(address)
        self._bell.connect(address)

    def put(self, item: T) -> bool:
        """Leave an item and wake the owner; False when the mailbox is closed and nobody will take it."""
        with self._lock:
            if self._bell.closed:
                return False
            self._items.append(item)
            if not self._rung:
                self._bell.send(b"", zmq.NOBLOCK)
                self._rung = True
            return True

    def drain(self) -> list[T]:
        """Everything left so far; owner's thread only."""
        with self._lock:
            if self._rung:
                self.socket.recv()
                self._rung = False
            items, self._items = self._items, []
            return items

    def close(self) -> list[T]:
        """Refuse further items and return those never taken; owner's thread only."""
        with self._lock:
            self._bell.close()
            self.socket.close()
            left, self._items = self._items, []
            return left
