"""Nodes of the fake Nuke, the script they are in, and what changes while it is open."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.fakes import nuke_picture
from tests.fakes.nuke_knobs import (
    Boolean_Knob,
    Double_Knob,
    Enumeration_Knob,
    File_Knob,
    Int_Knob,
    Knob,
    PyScript_Knob,
    Script_Knob,
    String_Knob,
)

TO_SCRIPT, WRITE_NON_DEFAULT_ONLY = 1, 2

_SPACES = ["default (linear)", "linear", "sRGB", "AlexaV3LogC", "scene_linear (ACES - ACEScg)", "ACES - ACEScg"]
_TIME = [
    (Int_Knob, "first", 1),
    (Int_Knob, "last", 1),
    (Int_Knob, "origfirst", 1),
    (Int_Knob, "origlast", 1),
    (Enumeration_Knob, "before", ["hold", "loop", "bounce", "black"]),
    (Enumeration_Knob, "after", ["hold", "loop", "bounce", "black"]),
    (Enumeration_Knob, "frame_mode", ["expression", "start at", "offset"]),
    (String_Knob, "frame", ""),
]
_COLOR = [(Enumeration_Knob, "colorspace", _SPACES), (Boolean_Knob, "raw", False)]
_COMMON = [(String_Knob, "name", ""), (String_Knob, "label", ""), (Boolean_Knob, "disable", False)]
_CLASSES: dict[str, list[tuple[type[Knob], str, Any]]] = {
    "Read": [
        (File_Knob, "file", ""),
        *_TIME,
        *_COLOR,
        (Boolean_Knob, "premultiplied", False),
        (Enumeration_Knob, "on_error", ["error", "black", "nearest frame"]),
        (PyScript_Knob, "reload", ""),
    ],
    "Write": [
        (File_Knob, "file", ""),
        (Enumeration_Knob, "file_type", ["", "exr", "dpx"]),
        (Enumeration_Knob, "channels", ["rgb", "rgba", "alpha", "all"]),
        (Enumeration_Knob, "datatype", ["16 bit half", "32 bit float"]),
        *_COLOR,
    ],
    "Copy": [(String_Knob, "from0", "rgba.alpha"), (String_Knob, "to0", "rgba.alpha")],
    "Switch": [(Int_Knob, "which", 0)],
    "FrameRange": [(Int_Knob, "first_frame", 1), (Int_Knob, "last_frame", 100)],
    "Assert": [(Int_Knob, "expression", 1), (String_Knob, "message", "")],
    "Input": [(Int_Knob, "number", 0)],
    "Grade": [(Double_Knob, "white", 1.0)],
    "TimeOffset": [(Int_Knob, "time_offset", 0)],
    "Group": [],
    "Output": [],
    "Dot": [],
    "NoOp": [],
    "Constant": [],
    "Viewer": [],
    "Root": [
        (Int_Knob, "first_frame", 1),
        (Int_Knob, "last_frame", 100),
        (Enumeration_Knob, "colorManagement", ["Nuke", "OCIO"]),
        (Enumeration_Knob, "OCIO_config", ["nuke-default", "custom", "fn-nuke_cg-config-v1.0.0"]),
        (File_Knob, "customOCIOConfigPath", ""),
        (String_Knob, "workingSpaceLUT", "scene_linear (ACES - ACEScg)"),
        (Boolean_Knob, "proxy", False),
    ],
}


class Session:
    """All that changes: the open script, callbacks, and what a person would see."""

    def __init__(self) -> None:
        self.views = ["main"]
        self.frame = 1
        self.selected: list[Node] = []
        self.this: list[tuple[Any, Any]] = []
        self.scope: list[Group] = []
        self.callbacks: dict[str, list[tuple[Callable[..., Any], str]]] = {}
        self.in_callback = False
        self.executing = False
        self.calls: queue.Queue[tuple[Callable[..., Any], Any, Any, queue.Queue[Any] | None]] = queue.Queue()
        self.messages: list[str] = []
        self.printed: list[str] = []
        self.tasks: list[ProgressTask] = []
        self.menus: dict[str, Menu] = {}
        self.choice: int | None = 0
        self.executed: list[tuple[str, int, int]] = []
        self.script = Root()

    def root(self) -> Root:
        return self.script


class Node:
    def __init__(self, kind: str) -> None:
        if kind not in _CLASSES:
            raise RuntimeError(f"{kind}: Unknown command")
        self._kind, self._parent = kind, None
        self._pipes: list[Node | None] = []
        self._knobs: dict[str, Knob] = {}
        self._place = (0, 0)
        self._panel_shown = False
        for knob, name, value in [*_COMMON, *_CLASSES[kind]]:
            self._add(knob(name, None, value))

    @property
    def _session(self) -> Session:
        return now.session

    def _add(self, knob: Knob) -> None:
        knob._node = self
        self._knobs[knob._name] = knob

    def _touch(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self._label()} was touched from the thread {threading.current_thread().name}")

    def _label(self) -> str:
        return str(self._knobs["name"]._value)

    def _input(self, index: int) -> Node | None:
        return self._pipes[index] if index < len(self._pipes) else None

    def _count(self) -> int:
        return len(self._pipes)

    def _knob_changed(self, knob: Knob) -> None:
        if self._parent is None and self is not now.session.script:
            return  # not in a script yet
        call_back("knobChanged", self, knob)

    def _execute(self, knob: Script_Knob) -> None:
        now.session.this.append((self, knob))
        try:
            exec(compile(knob.command(), f"{self._label()}.{knob._name}", "exec"), {"nuke": sys.modules["nuke"]})
        finally:
            now.session.this.pop()

    def Class(self) -> str:
        return self._kind

    def name(self) -> str:
        self._touch()
        return self._label()

    def fullName(self) -> str:
        self._touch()
        above = self._parent
        return self._label() if above is None or above is now.session.script else f"{above.fullName()}.{self._label()}"

    def setName(self, name: str, uncollide: bool = True, updateExpressions: bool = False) -> None:
        self._touch()
        siblings = {n._label() for n in self._parent._children if n is not self} if self._parent else set()
        stem = name.rstrip("0123456789")
        number = int(name[len(stem) :] or 1)
        while name in siblings:
            number += 1
            name = f"{stem}{number}"
        self._knobs["name"]._value = name

    def parent(self) -> Group | None:
        return self._parent

    def knob(self, p: str, follow_link: bool = False) -> Knob | None:
        self._touch()
        return self._knobs.get(p)

    def knobs(self) -> dict[str, Knob]:
        self._touch()
        return dict(self._knobs)

    def addKnob(self, knob: Knob) -> None:
        self._touch()
        if knob._name in self._knobs:
            raise RuntimeError(f"{self._label()} has a knob {knob._name} already")
        knob._user = True
        self._add(knob)

    def input(self, index: int) -> Node | None:
        self._touch()
        return self._input(index)

    def inputs(self) -> int:
        self._touch()
        return self._count()

    def setInput(self, i: int, node: Node | None) -> bool:
        self._touch()
        while len(self._pipes) <= i:
            self._pipes.append(None)
        self._pipes[i] = node
        if self._parent is not None:
            changed = Knob("inputChange")
            changed._node = self
            call_back("knobChanged", self, changed)
        return True

    def firstFrame(self) -> int:
        self._touch()
        return self._range()[0]

    def lastFrame(self) -> int:
        self._touch()
        return self._range()[1]

    def _range(self) -> tuple[int, int]:
        if self._kind == "Read":
            first, last = self._knobs["first"]._value, self._knobs["last"]._value
            mode, text = self._knobs["frame_mode"]._value, self._knobs["frame"]._value
            shift = int(text) - first if mode == "start at" else int(text or 0) if mode == "offset" else 0
            return first + shift, last + shift
        above = self._input(0)
        root = now.session.script
        return above._range() if above else (root.firstFrame(), root.lastFrame())

    def error(self) -> bool:
        """Whether its picture cannot be made at the current frame."""
        self._touch()
        try:
            nuke_picture.pull(self, now.session.frame, now.session.views[0])
        except RuntimeError:
            return True
        return False

    def selectOnly(self) -> None:
        now.session.selected = [self]

    def xpos(self) -> int:
        return self._place[0]

    def ypos(self) -> int:
        return self._place[1]

    def setXYpos(self, x: int, y: int) -> None:
        self._touch()
        self._place = (x, y)

    def showControlPanel(self, forceFloat: bool = False) -> None:
        self._panel_shown = True

    def writeKnobs(self, flags: int = 0) -> str:
        self._touch()
        assert flags == TO_SCRIPT | WRITE_NON_DEFAULT_ONLY
        words = [f"xpos {self._place[0]}\nypos {self._place[1]}"]
        for name, knob in self._knobs.items():
            if knob._value != knob._default or knob._curves or knob._user:
                words.append(f"{name} {knob._text()}")
        return "\n".join(words)

    def __getitem__(self, name: str) -> Knob:
        self._touch()
        if name not in self._knobs:
            raise NameError(f"knob {name} does not exist")
        return self._knobs[name]


class Group(Node):
    def __init__(self, kind: str = "Group") -> None:
        self._children: list[Node] = []
        super().__init__(kind)

    def begin(self) -> Group:
        now.session.scope.append(self)
        return self

    def end(self) -> None:
        now.session.scope.pop()

    def __enter__(self) -> Group:
        return self.begin()

    def __exit__(self, type: Any, value: Any, traceback: Any) -> None:
        self.end()

    def node(self, s: str) -> Node | None:
        self._touch()
        return next((n for n in self._children if n._label() == s), None)

    def nodes(self) -> list[Node]:
        self._touch()
        return list(self._children)


class Root(Group):
    def __init__(self) -> None:
        super().__init__("Root")
        self._knobs["name"]._value = ""

    def firstFrame(self) -> int:
        return int(self._knobs["first_frame"]._value)

    def lastFrame(self) -> int:
        return int(self._knobs["last_frame"]._value)


class Menu:
    def __init__(self, name: str = "") -> None:
        self._name = name
        self._items: dict[str, Any] = {}

    def addMenu(self, name: str, *args: Any) -> Menu:
        found: Menu = self._items.setdefault(name, Menu(name))
        return found

    def addCommand(self, name: str, command: str, *args: Any) -> None:
        self._items[name] = command

    def addSeparator(self) -> None:
        self._items[f"-{len(self._items)}"] = None

    def name(self) -> str:
        return self._name


class ProgressTask:
    """A progress bar; the one thing that a worker thread may use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._messages: list[str] = []
        self._cancelled = False
        self._percent = 0
        now.session.tasks.append(self)

    def isCancelled(self) -> bool:
        return self._cancelled

    def setMessage(self, message: str) -> None:
        self._messages.append(message)

    def setProgress(self, percent: int) -> None:
        if not isinstance(percent, int):
            raise TypeError("an integer is required")
        self._percent = percent


def call_back(event: str, node: Node, knob: Knob | None = None) -> Any:
    """Run an event's callbacks; one that changes knobs does not call itself."""
    if now.session.in_callback and event == "knobChanged":
        return None
    before, now.session.in_callback = now.session.in_callback, True
    now.session.this.append((node, knob))
    try:
        answers = [f() for f, kind in now.session.callbacks.get(event, []) if kind in ("*", node._kind)]
    finally:
        now.session.this.pop()
        now.session.in_callback = before
    return next((a for a in answers if a is not None), None)


class _Now:
    """The session that is open."""

    session: Session


now = _Now()
