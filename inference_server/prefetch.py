"""Doing one thing while the next is being fetched: an ordered, bounded look-ahead over a thread pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    pool: ThreadPoolExecutor, load: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Yield each item with its finished or running load, in order, at most `depth` loads ahead.

    Loads that have not begun are cancelled when the iterator is closed.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    source = iter(items)
    try:
        for item in source:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()
