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
from tests.fakes.nuke_nodes import (
    TO_SCRIPT,
    WRITE_NON_DEFAULT_ONLY,
    Group,
    Menu,
    Node,
    ProgressTask,
    Root,
    call_back,
    now,
)

__all__ = [
    "INVISIBLE",
    "LINEAR",
    "NO_ANIMATION",
    "STARTLINE",
    "TO_SCRIPT",
    "WRITE_NON_DEFAULT_ONLY",
    "AnimationCurve",
    "Array_Knob",
    "Boolean_Knob",
    "Color_Knob",
    "Double_Knob",
    "Enumeration_Knob",
    "EvalString_Knob",
    "File_Knob",
    "Group",
    "Int_Knob",
    "Knob",
    "Menu",
    "Node",
    "ProgressTask",
    "PyScript_Knob",
    "Root",
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


class Nodes:
    def __getattr__(self, item: str) -> Callable[..., Node]:
        def make(**knobs: Any) -> Node:
            _main()
            node = Group() if item == "Group" else Node(item)
            node._parent = now.session.scope[-1] if now.session.scope else now.session.script
            node._parent._children.append(node)
            node.setName(knobs.pop("name", f"{item}1"))
            for name, value in knobs.items():
                node[name].setValue(value)
            return node

        return make


nodes = Nodes()


def _main() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"Nuke was used from the thread {threading.current_thread().name}")


def root() -> Root:
    _main()
    return now.session.script


def thisNode() -> Node:
    _main()
    found: Node = now.session.this[-1][0] if now.session.this else now.session.script
    return found


def thisKnob() -> Knob:
    _main()
    found: Knob = now.session.this[-1][1]
    return found


def toNode(s: str) -> Node | None:
    _main()
    found: Node | None = now.session.script
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
    return list(now.session.selected)


def allNodes(filter: str = "", group: Group | None = None, recurseGroups: bool = False) -> list[Node]:
    _main()
    found: list[Node] = []
    for node in (group or now.session.script)._children:
        found += [node] if filter in ("", node._kind) else []
        if recurseGroups and isinstance(node, Group):
            found += allNodes(filter, node, True)
    return found


def frame(f: int | None = None) -> int:
    _main()
    if f is not None:
        now.session.frame = int(f)
    return now.session.frame


def views() -> list[str]:
    return list(now.session.views)


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
    if now.session.executing:
        raise RuntimeError("I'm already executing something else")
    if node is None or node._kind != "Write":
        raise RuntimeError(f"{nameOrNode} is not a Write")
    if node._knobs["disable"]._value:
        raise RuntimeError(f"{node._label()} is disabled")
    now.session.executing = True
    try:
        call_back("beforeRender", node)
        now.session.executed.append((node.fullName(), start, end))
        for number in range(start, end + 1, incr):
            for view in views or now.session.views:
                nuke_picture.write(node, number, view)
    finally:
        now.session.executing = False


def executeInMainThread(call: Callable[..., Any], args: Any = (), kwargs: Any = None) -> None:
    now.session.calls.put((call, args, kwargs or {}, None))


def executeInMainThreadWithResult(call: Callable[..., Any], args: Any = (), kwargs: Any = None) -> Any:
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("executeInMainThreadWithResult would wait for itself")
    answer: queue.Queue[Any] = queue.Queue()
    now.session.calls.put((call, args, kwargs or {}, answer))
    return answer.get(timeout=60)


def addBeforeRender(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "Write") -> None:
    now.session.callbacks.setdefault("beforeRender", []).append((call, nodeClass))


def addKnobChanged(
    call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*", node: Any = None
) -> None:
    now.session.callbacks.setdefault("knobChanged", []).append((call, nodeClass))


def addAutolabel(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*") -> None:
    now.session.callbacks.setdefault("autolabel", []).append((call, nodeClass))


def addFilenameFilter(call: Callable[..., Any], args: Any = (), kwargs: Any = None, nodeClass: str = "*") -> None:
    now.session.callbacks.setdefault("filenameFilter", []).append((call, nodeClass))


def filenameFilter(filename: str) -> str:
    for call, _ in now.session.callbacks.get("filenameFilter", []):
        filename = call(filename) or filename
    return filename


def message(prompt: str) -> None:
    _main()
    now.session.messages.append(prompt)


def choice(title: str, prompt: str, options: list[str], default: int = 0) -> int | None:
    _main()
    return now.session.choice


def tprint(*args: Any, sep: str = " ", end: str = "\n", file: IO[str] | None = None) -> None:
    out = io.StringIO()
    print(*args, sep=sep, end=end, file=out)
    now.session.printed.append(out.getvalue())


def menu(name: str) -> Menu:
    _main()
    return now.session.menus.setdefault(name, Menu(name))


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
    now.session.script._knobs["name"]._value = path
    with open(path, "w", encoding="utf-8") as file:
        json.dump(_dump(now.session.script), file)


def scriptSave(filename: str | None = None) -> bool:
    scriptSaveAs(filename or now.session.script._label(), 1)
    return True


def scriptClear() -> None:
    _main()
    now.session.script = Root()


def scriptOpen(filename: str | None = None) -> None:
    _main()
    path = str(filename)
    if not os.path.isfile(path):
        raise RuntimeError(f"{path}: No such file")
    scriptClear()
    with open(path, encoding="utf-8") as file:
        _load(json.load(file), now.session.script)
    now.session.script._knobs["name"]._value = path


def nodeCopy(s: str) -> None:
    """The selected nodes to a file (`%clipboard%` in Nuke)."""
    with open(s, "w", encoding="utf-8") as file:
        json.dump([_dump(n) for n in now.session.selected], file)


def nodePaste(s: str) -> Node | None:
    with open(s, encoding="utf-8") as file:
        made = [_make(data, now.session.script) for data in json.load(file)]
    now.session.selected = made
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
            call, args, kwargs, answer = now.session.calls.get(timeout=0.02)
            result = call(*args, **kwargs)
            if answer is not None:
                answer.put(result)
        assert time.monotonic() < deadline, "it did not happen in time"


def _autolabel(node: Node) -> str:
    """What the graph shows on a node."""
    return str(call_back("autolabel", node) or node._label())


def _show_panel(node: Node) -> None:
    """A person opens a node's panel."""
    shown = Knob("showPanel")
    shown._node = node
    call_back("knobChanged", node, shown)


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


def __getattr__(name: str) -> Any:
    """`_session`: what a person would see, and all that changes."""
    if name == "_session":
        return now.session
    raise AttributeError(name)
