from __future__ import annotations

import threading
from pathlib import Path

import zmq

from host_bridge.locks import FileLock
from host_bridge.mailbox import Mailbox


def test_no_item_and_no_wake_up_is_lost() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    box: Mailbox[int] = Mailbox(context)
    threads = [threading.Thread(target=lambda: [box.put(n) for n in range(2000)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    taken: list[int] = []
    while len(taken) < 6000:
        assert box.socket.poll(2000), f"asleep with {len(taken)} taken"
        taken += box.drain()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted([*range(2000)] * 3)
    box.put(7)
    assert box.close() == [7]
    assert box.put(8) is False
    context.term()


def test_a_lock_excludes_and_is_freed(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with first:
        assert second.acquire(0.05) is False
        assert not second.held
    assert second.acquire() is True
    second.release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
