"""Nuke's Python module as far as Faceplate uses it, with signatures from the published stubs and real EXR files.

It refuses what Nuke refuses: nodes touched from another thread, knobs and node classes that do not exist, values of the
wrong type, a Write executed while another one renders or while it is disabled. Names that begin with an underscore are
the tests' own. Every test has a session of its own (`tests/nuke_scripts/conftest.py`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import IO, Any

from tests.fakes import nuke_picture
from tests.fakes.nuke_knobs import (
    INVISIBLE,
    LINEAR,
    NO_ANIMATION,
    STARTLINE,
    AnimationCurve,
    Array_Knob,
    Boolean_Knob,
    Color_Knob,
    Double_Knob,
    Enumeration_Knob,
    EvalString_Knob,
    File_Knob,
    Int_Knob,
    Knob,
    PyScript_Knob,
    Script_Knob,
    String_Knob,
    Tab_Knob,
    Text_Knob,
    XY_Knob,
)

__all__ = [
    "INVISIBLE",
    "LINEAR",
    "NO_ANIMATION",
    "STARTLINE",
    "AnimationCurve",
    "Array_Knob",
    "Boolean_Knob",
    "Color_Knob",
    "Double_Knob",
    "Enumeration_Knob",
    "EvalString_Knob",
    "File_Knob",
    "Int_Knob",
    "Knob",
    "PyScript_Knob",
    "Script_Knob",
    "String_Knob",
    "Tab_Knob",
    "Text_Knob",
    "XY_Knob",
]

NUKE_VERSION_STRING = "15.1v3"
EXE_PATH = "/opt/Nuke15.1v3/Nuke15.1"
GUI = True
TABBEGINGROUP, TABENDGROUP, TABBEGINCLOSEDGROUP = 1, -1, 2
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


class _Session:
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
    def _session(self) -> _Session:
        return _session

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
        if self._parent is None and self is not _session.script:
            return  # not in a script yet
        _call("knobChanged", self, knob)

    def _execute(self, knob: Script_Knob) -> None:
        _session.this.append((self, knob))
        try:
            exec(compile(knob.command(), f"{self._label()}.{knob._name}", "exec"), {"nuke": sys.modules["nuke"]})
        finally:
            _session.this.pop()

    def Class(self) -> str:
        return self._kind

    def name(self) -> str:
        self._touch()
        return self._label()

    def fullName(self) -> str:
        self._touch()
        above = self._parent
        return self._label() if above is None or above is _session.script else f"{above.fullName()}.{self._label()}"

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
            _call("knobChanged", self, changed)
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
        root = _session.script
        return above._range() if above else (root.firstFrame(), root.lastFrame())

    def error(self) -> bool:
        """Whether its picture cannot be made at the current frame."""
        self._touch()
        try:
            nuke_picture.pull(self, _session.frame, _session.views[0])
        except RuntimeError:
            return True
        return False

    def selectOnly(self) -> None:
        _session.selected = [self]

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
        _session.scope.append(self)
        return self

    def end(self) -> None:
        _session.scope.pop()

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


class Nodes:
    def __getattr__(self, item: str) -> Callable[..., Node]:
        def make(**knobs: Any) -> Node:
            _main()
            node = Group() if item == "Group" else Node(item)
            node._parent = _session.scope[-1] if _session.scope else _session.script
            node._parent._children.append(node)
            node.setName(knobs.pop("name", f"{item}1"))
            for name, value in knobs.items():
                node[name].setValue(value)
            return node

        return make


nodes = Nodes()


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
        _session.tasks.append(self)

    def isCancelled(self) -> bool:
        return self._cancelled

    def setMessage(self, message: str) -> None:
        self._messages.append(message)

    def setProgress(self, percent: int) -> None:
        if not isinstance(percent, int):
            raise TypeError("an integer is required")
        self._percent = percent


def _main() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"Nuke was used from the thread {threading.current_thread().name}")


def _call(event: str, node: Node, knob: Knob | None = None) -> Any:
    """Run an event's callbacks; one that changes knobs does not call itself."""
    if _session.in_callback and event == "knobChanged":
        return None
    before, _session.in_callback = _session.in_callback, True
    _session.this.append((node, knob))
    try:
        answers = [f() for f, kind in _session.callbacks.get(event, []) if kind in ("*", node._kind)]
    finally:
        _session.this.pop()
        _session.in_callback = before
    return next((a for a in answers if a is not None), None)


def root() -> Root:
    _main()
    return _session.script


def thisNode() -> Node:
    _main()
    found: Node = _session.this[-1][0] if _session.this else _session.script
    return found


def thisKnob() -> Knob:
    _main()
    found: Knob = _session.this[-1][1]
    return found


def toNode(s: str) -> Node | None:
    _main()
    found: Node | None = _session.script
    for part in s.split("."):
        found = found.node(part) if isinstance(found, Group) else None
    return found


def delete(n: Node | None) -> None:
    _main()
    if n is not None and n._parent is not None:
        n._parent._children.remove(n)
        n._parent = None


def selectedNodes(filter: str = "") -> list[Node]:
    _main()
    return list(_session.selected)


def allNodes(filter: str = "", group: Group | None = None, recurseGroups: bool = False) -> list[Node]:
    _main()
    found: list[Node] = []
    for node in (group or _session.script)._children:
        found += [node] if filter in ("", node._kind) else []
        if recurseGroups and isinstance(node, Group):
            found += allNodes(filter, node, True)
    return found


def frame(f: int | None = None) -> int:
    _main()
    if f is not None:
        _session.frame = int(f)
    return _session.frame


def views() -> list[str]:
    return list(_session.views)


def execute(
    nameOrNode: Node | str,
    start: int,
    end: int,
    incr: int = 1,
    views: list[str] | None = None,
    continueOnError: bool = False,
) -> None:
    _main()
    node = toNode(nameOrNode) if isinstance(nameOrNode, str) else nameOrNode
    if _session.executing:
        raise RuntimeError("I'm already executing something else")
    if node is None or node._kind != "Write":
        raise RuntimeError(f"{nameOrNode} is not a Write")
    if node._knobs["disable"]._value:
        raise RuntimeError(f"{node._label()} is disabled")
    _session.executing = True
    try:
        _call("beforeRender", node)
        _session.executed.append((node.fullName(), start, end))
        for number in range(start, end + 1, incr):
            for view in views or _session.views:
                nuke_picture.write(node, number, view)
    finally:
        _session.executing = False


def executeInMainThread(call: Callable[..., Any], args: Any = (), kwargs: Any = None) -> None:
    _session.calls.put((call, args, kwargs or {}, None))


def executeInMainThreadWithResult(call: Callable[..., Any], args: Any = (), kwargs: Any = None) -> Any:
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("executeInMainThreadWithResult would wait for itself")
    answer: queue.Queue[Any] = queue.Queue()
    _session.calls.put((call, args, kwargs or {}, answer))
    return answer.get(timeout=60)


def addBeforeRender(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "Write") -> None:
    _session.callbacks.setdefault("beforeRender", []).append((call, nodeClass))


def addKnobChanged(
    call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*", node: Any = None
) -> None:
    _session.callbacks.setdefault("knobChanged", []).append((call, nodeClass))


def addAutolabel(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*") -> None:
    _session.callbacks.setdefault("autolabel", []).append((call, nodeClass))


def addFilenameFilter(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*") -> None:
    _session.callbacks.setdefault("filenameFilter", []).append((call, nodeClass))


def filenameFilter(filename: str) -> str:
    for call, _ in _session.callbacks.get("filenameFilter", []):
        filename = call(filename) or filename
    return filename


def message(prompt: str) -> None:
    _main()
    _session.messages.append(prompt)


def choice(title: str, prompt: str, options: list[str], default: int = 0) -> int | None:
    _main()
    return _session.choice


def tprint(*args: Any, sep: str = " ", end: str = "\n", file: IO[str] | None = None) -> None:
    out = io.StringIO()
    print(*args, sep=sep, end=end, file=out)
    _session.printed.append(out.getvalue())


def menu(name: str) -> Menu:
    _main()
    return _session.menus.setdefault(name, Menu(name))


def getPaneFor(panelName: str) -> str:
    return panelName


def pluginAddPath(args: str, addToSysPath: bool = True) -> None:
    """Run the folder's init.py, and with windows its menu.py, as start-up does."""
    for name in ("init.py", "menu.py") if GUI else ("init.py",):
        path = os.path.join(args, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                exec(compile(file.read(), path, "exec"), {"nuke": sys.modules["nuke"]})


def scriptSaveAs(filename: str | None = None, overwrite: int | bool = -1) -> None:
    _main()
    path = str(filename)
    if os.path.exists(path) and overwrite != 1:
        raise RuntimeError(f"{path} exists")
    _session.script._knobs["name"]._value = path
    with open(path, "w", encoding="utf-8") as file:
        json.dump(_dump(_session.script), file)


def scriptSave(filename: str | None = None) -> bool:
    scriptSaveAs(filename or _session.script._label(), 1)
    return True


def scriptClear() -> None:
    _main()
    _session.script = Root()


def scriptOpen(filename: str | None = None) -> None:
    _main()
    path = str(filename)
    if not os.path.isfile(path):
        raise RuntimeError(f"{path}: No such file")
    scriptClear()
    with open(path, encoding="utf-8") as file:
        _load(json.load(file), _session.script)
    _session.script._knobs["name"]._value = path


def nodeCopy(s: str) -> None:
    """The selected nodes to a file (`%clipboard%` in Nuke)."""
    with open(s, "w", encoding="utf-8") as file:
        json.dump([_dump(n) for n in _session.selected], file)


def nodePaste(s: str) -> Node | None:
    with open(s, encoding="utf-8") as file:
        made = [_make(data, _session.script) for data in json.load(file)]
    _session.selected = made
    return made[0] if made else None


def _dump(node: Node) -> dict[str, Any]:
    children = node._children if isinstance(node, Group) else []
    pipes = [n._label() if n else None for n in node._pipes]
    users = {
        k._name: [type(k).__name__, k._label, k._flags, getattr(k, "_values", None)]
        for k in node._knobs.values()
        if k._user
    }
    return {
        "class": node._kind,
        "place": node._place,
        "user": users,
        "knobs": {n: k._state() for n, k in node._knobs.items()},
        "inputs": pipes,
        "children": [_dump(n) for n in children],
    }


def _make(data: dict[str, Any], parent: Group) -> Node:
    node = Group() if data["class"] == "Group" else Node(data["class"])
    _fill(node, data)
    node._parent = parent
    parent._children.append(node)
    node.setName(node._label())
    return node


def _fill(node: Node, data: dict[str, Any]) -> None:
    node._place = tuple(data["place"])
    for name, (kind, label, flags, values) in data["user"].items():
        made = globals()[kind](name, label, values) if values else globals()[kind](name, label)
        made._flags, made._user = flags, True
        node._add(made)
    for name, state in data["knobs"].items():
        node._knobs[name]._restore(state)
    if isinstance(node, Group):
        _load(data, node)


def _load(data: dict[str, Any], group: Group) -> None:
    if group._kind == "Root":
        for name, state in data["knobs"].items():
            group._knobs[name]._restore(state)
    made = [_make(child, group) for child in data["children"]]
    by_name = {n._label(): n for n in made}
    for node, child in zip(made, data["children"], strict=True):
        node._pipes = [by_name.get(name) for name in child["inputs"]]


# -- what only tests use -----------------------------------------------------------------------------------------------


def _run_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Nuke's event loop: do what worker threads ask for until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        with contextlib.suppress(queue.Empty):
            call, args, kwargs, answer = _session.calls.get(timeout=0.02)
            result = call(*args, **kwargs)
            if answer is not None:
                answer.put(result)
        assert time.monotonic() < deadline, "it did not happen in time"


def _autolabel(node: Node) -> str:
    """What the graph shows on a node."""
    return str(_call("autolabel", node) or node._label())


def _show_panel(node: Node) -> None:
    """A person opens a node's panel."""
    shown = Knob("showPanel")
    shown._node = node
    _call("knobChanged", node, shown)


def _picture(node: Node, frame: int, view: str = "main") -> nuke_picture.Picture:
    """What a viewer shows."""
    return nuke_picture.pull(node, frame, view)


def _nukescripts() -> types.ModuleType:
    """The module `nukescripts`, with the panels that were registered."""
    module = types.ModuleType("nukescripts")
    made: list[tuple[str, str]] = []

    class _Panel:
        def addToPane(self, pane: Any) -> None:
            made.append(("shown", str(pane)))

    def register(widget: str, name: str, id: str, create: bool = False) -> Any:
        made.append((widget, id))
        return _Panel() if create else None

    module.panels = types.SimpleNamespace(registerWidgetAsPanel=register)  # type: ignore[attr-defined]
    module.made = made  # type: ignore[attr-defined]
    return module


_session = _Session()
