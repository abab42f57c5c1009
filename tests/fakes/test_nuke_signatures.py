"""The fake's names and signatures are those of the published stubs: what the tests call, Nuke has."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import nuke, nuke_knobs, nuke_nodes

STUBS = Path(str(distribution("types-nuke").locate_file("nuke-stubs")))
FUNCTIONS: dict[str, list[ast.FunctionDef]] = {}
CLASSES: dict[str, ast.ClassDef] = {}
NAMES: set[str] = set()
for _file in sorted(STUBS.glob("*.pyi")):
    for _item in ast.parse(_file.read_text()).body:
        if isinstance(_item, ast.FunctionDef):
            FUNCTIONS.setdefault(_item.name, []).append(_item)
        elif isinstance(_item, ast.ClassDef):
            CLASSES[_item.name] = _item
        elif isinstance(_item, ast.AnnAssign) and isinstance(_item.target, ast.Name):
            NAMES.add(_item.target.id)


def stubbed(kind: str, method: str) -> list[ast.FunctionDef]:
    """A method's signatures in the stubs, looked for in the bases, too."""
    found = [i for i in CLASSES[kind].body if isinstance(i, ast.FunctionDef) and i.name == method]
    for base in CLASSES[kind].bases:
        if not found and isinstance(base, ast.Name) and base.id in CLASSES:
            found = stubbed(base.id, method)
    return found


def fits(call: Any, stub: ast.FunctionDef, *, method: bool) -> bool:
    """Whether everything `call` accepts is accepted by the stub's signature."""
    wanted = [a.arg for a in (*stub.args.posonlyargs, *stub.args.args)]
    optional = wanted[len(wanted) - len(stub.args.defaults) :]
    if stub.args.vararg:
        return True  # the stub does not say
    mine = list(inspect.signature(call).parameters.values())
    if method:
        wanted, mine = wanted[1:], mine[1:]
    names = [p.name for p in mine if p.kind is not p.VAR_POSITIONAL]
    needed = [p.name for p in mine if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    required = [n for n in wanted if n not in optional]
    known = [*wanted, *(a.arg for a in stub.args.kwonlyargs)]
    return names == known[: len(names)] and needed == required[: len(needed)] and set(required) <= set(names)


_MODULES = (nuke.__name__, nuke_knobs.__name__, nuke_nodes.__name__)
OWN = [
    (name, found)
    for name, found in vars(nuke).items()
    if not name.startswith("_") and getattr(found, "__module__", "") in _MODULES and name != "call_back"
]


@pytest.mark.parametrize(("name", "found"), [i for i in OWN if inspect.isfunction(i[1])], ids=lambda v: str(v)[:30])
def test_functions(name: str, found: Any) -> None:
    assert name in FUNCTIONS, f"nuke.{name} is not in the stubs"
    assert any(fits(found, stub, method=False) for stub in FUNCTIONS[name]), inspect.signature(found)


@pytest.mark.parametrize(("name", "found"), [i for i in OWN if inspect.isclass(i[1])], ids=lambda v: str(v)[:30])
def test_classes(name: str, found: Any) -> None:
    assert name in CLASSES, f"nuke.{name} is not in the stubs"
    for method, call in vars(found).items():
        if inspect.isfunction(call) and (not method.startswith("_") or method == "__getitem__"):
            stubs = stubbed(name, method)
            assert stubs, f"nuke.{name}.{method} is not in the stubs"
            assert any(fits(call, stub, method=True) for stub in stubs), f"{name}.{method}{inspect.signature(call)}"


def test_constants() -> None:
    constants = [n for n, v in vars(nuke).items() if n.isupper() and isinstance(v, int | str)]
    assert constants
    assert set(constants) <= NAMES, set(constants) - NAMES


def test_a_typo_fails() -> None:
    def execut(nameOrNode: object) -> None: ...
    def setValue(self: object, value: object) -> None: ...

    assert execut.__name__ not in FUNCTIONS
    assert not any(fits(setValue, stub, method=True) for stub in stubbed("Knob", "setValue"))
