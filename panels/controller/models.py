"""Models: which there are, under which licence, how to get those that are missing, and importing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from host_bridge.errors import FaceplateError
from panels.controller.observe import Topic


@dataclass(frozen=True)
class ModelCard:
    """A model as the artist sees it. `licences`: (name, summary, url). `how` says how to get a missing one."""

    id: str
    label: str
    present: bool
    commercial: bool
    licences: tuple[tuple[str, str, str], ...]
    summary: str
    how: str
    url: str
    size: int
    raw: dict[str, Any]


@dataclass(frozen=True)
class ModelImport:
    """An import since the server's start: `state` is running, finished or failed; `done` 0..1."""

    path: str
    model: str
    state: str
    done: float
    message: str
    error: FaceplateError | None


@dataclass(frozen=True)
class LicenceQuestion:
    """An import waits for the artist to accept a licence; `error` says which, and what it forbids."""

    path: str
    model: str
    error: FaceplateError


class Models:
    """`changed`: anything below is another. Imports are followed while one runs."""

    cards: tuple[ModelCard, ...]
    imports: tuple[ModelImport, ...]
    question: LicenceQuestion | None
    loading: bool
    error: FaceplateError | None
    changed: Topic

    def refresh(self) -> None:
        """Ask for the cards."""

    def import_file(self, path: str, model: str = "", *, accept_licence: bool = False) -> None:
        """Import a file that lies on the server's machine. A licence to be accepted becomes `question`."""

    def accept(self) -> None:
        """Accept the licence in question and go on."""

    def decline(self) -> None:
        """Drop the import in question."""
