"""Hands objects from any thread to the one thread that polls sockets."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import zmq

T = TypeVar("T")


class Mailbox(Generic[T]):
    """`put` from any thread; the owner polls `socket` and calls `drain` when it is readable."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        address = f"inproc://mailbox-{id(self)}"
        self._items: SimpleQueue[T] = SimpleQueue()
        self._lock = threading.Lock()
        self.socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        for end in (self.socket, self._bell):
            end.linger = 0
            end.sndhwm = 1
            end.rcvhwm = 1
        self.socket.bind(address)
        self._bell.connect(address)

    def put(self, item: T) -> bool:
        """Leave an item and wake the owner; False when the mailbox is closed and nobody will take it."""
        with self._lock:
            if self._bell.closed:
                return False
            self._items.put(item)
            with suppress(zmq.Again):  # a wake-up is under way already
                self._bell.send(b"", zmq.NOBLOCK)
            return True

    def drain(self) -> list[T]:
        """Everything left so far; owner's thread only."""
        while True:
            try:
                self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
        items: list[T] = []
        while True:
            try:
                items.append(self._items.get_nowait())
            except Empty:
                return items

    def close(self) -> list[T]:
        """Refuse further items and return those never taken; owner's thread only."""
        with self._lock:
            self._bell.close()
        left = self.drain()
        self.socket.close()
        return left
