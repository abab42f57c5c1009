"""Decides what a pickle may contain, and reads the ones that torch's own restricted reader does not.

A pickle is a program for a small stack machine. `scan` walks that program without running it: it follows the stack
symbolically, so that every class a pickle would import is known by name beforehand, whatever way it is asked for, and
refuses what is not on the list given, nesting deep enough to exhaust the C stack, and memo numbers that would allocate
gigabytes. `load_records` then runs it on inert stand-ins: no name is ever imported, a call only stores its arguments.
What those arguments mean is decided by the caller, after the pickle machine has stopped.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, ClassVar

MAX_DEPTH = 200
MAX_OPERATIONS = 20_000_000

# Opcodes that no file this package reads has a use for, and that would escape the list of names.
_NEVER = frozenset({"EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER"})

# Opcodes that put their operands into the object below them.
_FILLS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})


class RefusedGlobal(Exception):
    """The pickle asks for a class or function that is not on the list. `name` is "module.name"."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class MalformedPickle(Exception):
    """The bytes are not a pickle, end early, or are built to exhaust memory or stack."""


@dataclass
class _Item:
    """A value on the symbolic stack: how deep it is nested, and its text when it is a string."""

    depth: int = 0
    text: str | None = None


def scan(stream: IO[bytes], allowed: frozenset[str], *, persistent_ids: bool = False, indirect: bool = True) -> int:
    """Walk one pickle of `stream` up to its STOP without running it; the number of operations.

    `allowed` are "module.name" strings. `persistent_ids` permits references to outside storage (torch files).
    `indirect` permits names taken from the stack, which protocol 4 uses. Raises RefusedGlobal, MalformedPickle.
    """
    stack: list[_Item | None] = []  # None is a mark
    memo: dict[int, _Item] = {}
    count = 0

    def pop() -> _Item:
        if not stack:
            raise MalformedPickle("the stack runs empty")
        item = stack.pop()
        if item is None:
            raise MalformedPickle("a mark where a value must be")
        return item

    def pop_to_mark() -> int:
        depth = -1
        while stack:
            item = stack.pop()
            if item is None:
                return depth
            depth = max(depth, item.depth)
        raise MalformedPickle("a mark is missing")

    try:
        for op, argument, _ in pickletools.genops(stream):
            count += 1
            name = op.name
            if count > MAX_OPERATIONS:
                raise MalformedPickle(f"more than {MAX_OPERATIONS} operations")
            if name in _NEVER or (name in ("PERSID", "BINPERSID") and not persistent_ids):
                raise RefusedGlobal(f"pickle.{name}")
            if name in ("PROTO", "FRAME"):
                continue
            if name == "MARK":
                stack.append(None)
            elif name == "STOP":
                pop()
            elif name == "POP":
                if not stack:
                    raise MalformedPickle("the stack runs empty")
                stack.pop()
            elif name == "DUP":
                stack.append(item := pop())
                stack.append(item)
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                if argument not in memo:
                    raise MalformedPickle(f"memo {argument} is read before it is written")
                stack.append(memo[argument])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                index = len(memo) if name == "MEMOIZE" else int(str(argument))
                if index > count:
                    raise MalformedPickle(f"memo number {index} after {count} operations")
                stack.append(item := pop())
                memo[index] = item
            elif name == "STACK_GLOBAL":
                attribute, module = pop(), pop()
                _check(f"{module.text}.{attribute.text}", allowed, indirect)
                stack.append(_Item())
            elif name in ("GLOBAL", "INST"):
                if name == "INST":
                    pop_to_mark()
                _check(".".join(str(argument).split(" ", 1)), allowed, True)
                stack.append(_Item())
            else:
                before, after = op.stack_before, op.stack_after
                depth = -1
                if pickletools.markobject in before:
                    depth = pop_to_mark()
                    before = before[: before.index(pickletools.markobject)]
                for _object in before[1:] if name in _FILLS else before:
                    depth = max(depth, pop().depth)
                if depth >= MAX_DEPTH:
                    raise MalformedPickle(f"values nested more than {MAX_DEPTH} deep")
                if name in _FILLS:
                    stack.append(item := pop())
                    item.depth = max(item.depth, depth + 1)
                else:
                    text = argument if isinstance(argument, str) and not before else None
                    stack.extend(_Item(depth + 1, text) for _object in after)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise MalformedPickle(str(error)) from error
    return count


def _check(name: str, allowed: frozenset[str], indirect: bool) -> None:
    if name not in allowed or not indirect:
        raise RefusedGlobal(name)


class Record:
    """A stand-in for a class or function of a pickle: called, it keeps `args`; restored, `state`; filled, `items`."""

    __slots__ = ("args", "items", "state")
    global_name: ClassVar[str] = ""
    args: tuple[Any, ...]
    items: list[tuple[Any, Any]]
    state: Any

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.items, record.state = args, [], None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


class _RecordUnpickler(pickle.Unpickler):
    """Hands out fresh stand-in classes, so that nothing a pickle does to one outlives the load."""

    def __init__(self, stream: IO[bytes], allowed: frozenset[str]) -> None:
        super().__init__(stream)
        self._allowed = allowed
        self._classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise RefusedGlobal(full)
        if full not in self._classes:
            self._classes[full] = type("Record", (Record,), {"__slots__": (), "global_name": full})
        return self._classes[full]


def load_records(stream: IO[bytes], allowed: Iterable[str]) -> Any:
    """Scan and run one pickle of a seekable stream on stand-ins; plain values come back as they are.

    Raises RefusedGlobal, MalformedPickle.
    """
    names = frozenset(allowed)
    start = stream.tell()
    scan(stream, names)
    stream.seek(start)
    try:
        return _RecordUnpickler(stream, names).load()
    except RefusedGlobal:
        raise
    except Exception as error:  # the C unpickler raises whatever the malformed program runs into
        raise MalformedPickle(f"{type(error).__name__}: {error}") from error
