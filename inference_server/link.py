"""A worker's end of its connection to the gateway, on a thread of its own.

Decides that what needs no device does not wait for one: questions about files and colours are answered on a side
thread as they come, while a frame renders or a model loads. Everything else waits in order for the worker's main
thread to look (`next`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import zmq

from host_bridge.envelope import Envelope, Pen, pack, unpack
from host_bridge.errors import FaceplateError
from host_bridge.mailbox import Mailbox
from inference_server import worklink as w

_log = logging.getLogger("faceplate.link")
_ASIDE_THREADS = 2


class Link:
    """Construct, `send` from any thread, `next` from one, `close`.

    `aside` is called on a side thread for every `Aside` message, and answers it with `send`.
    """

    def __init__(self, hello: dict[str, Any], aside: Callable[[w.Aside], None]) -> None:
        self._aside = aside
        self._pen = Pen(str(hello["session"]))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.sndtimeo = 30_000
        self._socket.curve_serverkey = str(hello["server_key"]).encode()
        self._socket.curve_publickey = str(hello["public_key"]).encode()
        self._socket.curve_secretkey = str(hello["secret_key"]).encode()
        self._socket.connect(str(hello["endpoint"]))
        self._outbox: Mailbox[tuple[w.LinkMessage, tuple[bytes, ...]] | None] = Mailbox(self._context)
        self._inbox: queue.SimpleQueue[w.LinkMessage] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(_ASIDE_THREADS, "faceplate-aside")
        self._broken = threading.Event()
        self._orphaned = False
        self._thread = threading.Thread(target=self._serve, name="faceplate-link", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        """Whether the connection has failed for good: nothing this worker says is heard any more."""
        return self._broken.is_set()

    def send(self, message: w.LinkMessage, buffers: tuple[bytes, ...] = ()) -> None:
        """Say something; in the order of the calls. Any thread."""
        self._outbox.put((message, buffers))

    def next(self, wait_s: float) -> w.LinkMessage | None:
        """The next message for the main thread, None when there is none within `wait_s`."""
        try:
            return self._inbox.get(wait_s > 0, wait_s)
        except queue.Empty:
            return None

    def close(self, *, orphaned: bool = False) -> None:
        """Send what was left to send, unless nobody is there to hear it, and disconnect."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._orphaned = orphaned
        self._outbox.put(None)
        self._thread.join()
        self._context.term()

    def _serve(self) -> None:
        try:
            poller = zmq.Poller()
            for sock in (self._socket, self._outbox.socket):
                poller.register(sock, zmq.POLLIN)
            while True:
                ready = dict(poller.poll())
                if self._outbox.socket in ready:
                    for item in self._outbox.drain():
                        if item is None:
                            return
                        self._transmit(*item)
                if self._socket in ready:
                    self._receive()
        except (zmq.ZMQError, FaceplateError, msgspec.ValidationError, KeyError):
            _log.exception("the connection to the server has failed")
            self._broken.set()
        finally:
            self._outbox.close()
            self._socket.close(linger=0 if self._orphaned else 2000)

    def _transmit(self, message: w.LinkMessage, buffers: tuple[bytes, ...]) -> None:
        envelope = Envelope(self._pen.header(message.TYPE), None, message.body(), buffers)
        self._socket.send_multipart(pack(envelope, w.LINK_LIMITS))

    def _receive(self) -> None:
        envelope = unpack(self._socket.recv_multipart(), w.LINK_LIMITS)
        message = msgspec.convert(envelope.body, w.TO_WORKER[envelope.header.type])
        if isinstance(message, w.Aside):
            self._pool.submit(self._aside, message)
        else:
            self._inbox.put(message)
