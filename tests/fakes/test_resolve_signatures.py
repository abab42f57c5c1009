"""The fake's classes, methods and signatures are those of the published stubs: what the tests call, Resolve has."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import resolve

STUB = Path(str(distribution("fusionscript-stubs").locate_file("fusionscript-stubs"))) / "fusionscript.pyi"
CLASSES = {c.name: c for c in ast.parse(STUB.read_text(encoding="utf-8")).body if isinstance(c, ast.ClassDef)}
OWN = [c for c in vars(resolve).values() if inspect.isclass(c) and c.__module__ == resolve.__name__]


def stubbed(kind: str, method: str) -> list[ast.FunctionDef]:
    """A method's signatures, deprecated ones left out."""
    return [
        item
        for item in CLASSES[kind].body
        if isinstance(item, ast.FunctionDef)
        and item.name == method
        and "deprecated" not in [d.id for d in item.decorator_list if isinstance(d, ast.Name)]
    ]


def fits(call: Any, stub: ast.FunctionDef) -> bool:
    """Whether the arguments are those of the stub: names, order and which may be left out."""
    names = [a.arg for a in stub.args.args][1:]
    optional = names[len(names) - len(stub.args.defaults) :]
    mine = list(inspect.signature(call).parameters.values())[1:]
    return [p.name for p in mine] == names and [p.name for p in mine if p.default is not p.empty] == optional


@pytest.mark.parametrize("kind", OWN, ids=lambda c: str(c.__name__))
def test_classes(kind: Any) -> None:
    assert kind.__name__ in CLASSES
    calls = {n: f for n, f in vars(kind).items() if inspect.isfunction(f) and not n.startswith("_")}
    assert calls
    for name, call in calls.items():
        stubs = stubbed(kind.__name__, name)
        assert stubs, f"{kind.__name__}.{name} is not in the stubs"
        assert any(fits(call, stub) for stub in stubs), f"{kind.__name__}.{name}{inspect.signature(call)}"


def test_a_typo_fails() -> None:
    def GetStart(self: object, precision: bool) -> int:
        return 0

    assert not stubbed("TimelineItem", "GetStrat")
    assert not any(fits(GetStart, stub) for stub in stubbed("TimelineItem", "GetStart"))
