"""A Nuke for every test: a fresh fake, with Faceplate's scripts loaded as Nuke loads them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from host_bridge.hosts.base import remember_effects
from inference_server.effects.registry import descriptors
from tests.fakes import nuke as fake
from tests.fakes.nuke_nodes import Session, now

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "nuke_scripts"


def start(monkeypatch: pytest.MonkeyPatch, *, gui: bool = True, scripts: Path | None = SCRIPTS) -> Any:
    """Start a Nuke: the fake with a session of its own, after the start-up scripts in `scripts` have run."""
    monkeypatch.setattr(now, "session", Session(), raising=False)
    monkeypatch.setattr(fake, "GUI", gui)
    monkeypatch.setitem(sys.modules, "nuke", fake)
    monkeypatch.setitem(sys.modules, "nukescripts", fake._nukescripts())
    if scripts is not None:
        fake.pluginAddPath(str(scripts))
    return fake


@pytest.fixture
def nuke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A Nuke with windows; its script is saved as `shot.nk` in the test's folder; the effects are known from before."""
    monkeypatch.setenv("FACEPLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FACEPLATE_RUNTIME", str(tmp_path / "run"))
    monkeypatch.delenv("FACEPLATE_SERVER", raising=False)
    monkeypatch.delenv("OCIO", raising=False)
    remember_effects([d.to_json() for d in descriptors()])
    module = start(monkeypatch)
    module.scriptSaveAs(str(tmp_path / "shot.nk"))
    return module


def read(nuke: Any, pattern: str, first: int = 1001, last: int = 1003, **knobs: Any) -> Any:
    """A Read of a sequence."""
    return nuke.nodes.Read(
        file=pattern, first=first, last=last, origfirst=first, origlast=last, colorspace="linear", **knobs
    )


def node(nuke: Any, effect: str = "look", source: Any = None) -> Any:
    """A Faceplate node below `source`, made by the menu's command."""
    from nuke_scripts import buttons

    nuke._session.selected = [source] if source is not None else []
    group = buttons.create(effect)
    assert group is not None, nuke._session.messages
    return group


def press(nuke: Any, group: Any, button: str, *, wait: bool = True) -> None:
    """Press a node's button, and let Nuke's event loop run until the node is not busy any more."""
    group[f"fp_{button}"].execute()
    if wait:
        nuke._run_until(lambda: group["fp_state"].value() != "busy")
