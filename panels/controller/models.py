"""Models: which there are, under which licence, how to get those that are missing, and importing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from host_bridge import messages as m
from host_bridge.errors import FaceplateError, from_wire
from panels.controller.connection import Connection
from panels.controller.notices import Notices
from panels.controller.observe import Home, Topic

POLL_S = 0.5


@dataclass(frozen=True)
class ModelCard:
    """A model as the artist sees it. `licences`: (name, summary, url). `how` says how to get a missing one, `url` is
    the page its authors publish it on; `size` in bytes, 0 = not known. `usable` is False for what is only listed."""

    id: str
    label: str
    present: bool
    commercial: bool
    licences: tuple[tuple[str, str, str], ...] = ()
    summary: str = ""
    family: str = ""
    how: str = ""
    url: str = ""
    size: int = 0
    usable: bool = True
    raw: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class ModelImport:
    """An import since the server's start: `state` is running, finished or failed; `done` 0..1."""

    path: str
    model: str
    state: str
    done: float = 0.0
    message: str = ""
    error: FaceplateError | None = None


@dataclass(frozen=True)
class LicenceQuestion:
    """An import waits for the artist to accept a licence; `error` says which, and what it forbids."""

    path: str
    model: str
    error: FaceplateError


class Models:
    """`changed`: anything below is another; `imported`: a model has come. Imports are followed while one runs."""

    def __init__(self, home: Home, connection: Connection, notices: Notices) -> None:
        self.cards: tuple[ModelCard, ...] = ()
        self.imports: tuple[ModelImport, ...] = ()
        self.question: LicenceQuestion | None = None
        self.loading = False
        self.error: FaceplateError | None = None
        self.changed = Topic()
        self.imported = Topic()
        self._home = home
        self._connection = connection
        self._notices = notices
        self._pending: list[tuple[str, str]] = []  # path and model of imports of this panel that have not ended
        self._poll: Callable[[], None] | None = None

    @property
    def missing(self) -> tuple[ModelCard, ...]:
        """Cards whose weights are not here."""
        return tuple(card for card in self.cards if not card.present)

    def find(self, model: str) -> ModelCard | None:
        return next((card for card in self.cards if card.id == model), None)

    def refresh(self) -> None:
        """Ask for the cards and the imports."""
        if self._connection.ready:
            self.loading = True
            self.changed.emit()
            self._connection.ask(m.ListModels(), m.Models, self._listed, timeout_s=60.0)

    def import_file(self, path: str, model: str = "", *, accept_licence: bool = False) -> None:
        """Import a file that lies on the server's machine. A licence to be accepted becomes `question`."""
        self.question = None
        self.changed.emit()

        def answered(outcome: m.Models | FaceplateError) -> None:
            if not isinstance(outcome, FaceplateError):
                self._pending.append((path, model))
            self._answered(path, model, outcome)

        self._connection.ask(m.ImportModel(path, model, accept_licence), m.Models, answered, timeout_s=60.0)

    def accept(self) -> None:
        """Accept the licence in question and go on."""
        if self.question is not None:
            self.import_file(self.question.path, self.question.model, accept_licence=True)

    def decline(self) -> None:
        """Drop the import in question."""
        self.question = None
        self.changed.emit()

    def welcomed(self, restarted: bool) -> None:
        """A server is there; another process knows nothing of former imports."""
        if restarted:
            for path, _ in self._pending:
                self._notices.warning(f"The server was restarted while it imported {path}.", "Import it again.")
            self._pending.clear()
        self.refresh()

    def _answered(self, path: str, model: str, outcome: m.Models | FaceplateError) -> None:
        if isinstance(outcome, FaceplateError):
            if outcome.code == "model.licence":
                self.question = LicenceQuestion(path, model, outcome)
                self.changed.emit()
            else:
                self._notices.error(outcome)
            return
        self._listed(outcome)

    def _listed(self, outcome: m.Models | FaceplateError) -> None:
        self.loading = False
        if isinstance(outcome, FaceplateError):
            self.error = outcome
            self.changed.emit()
            return
        self.error = None
        self.cards = tuple(card_of(body) for body in outcome.models)
        self.imports = tuple(import_of(body) for body in outcome.imports)
        self._look_after()
        self.changed.emit()
        if self._poll is None and any(i.state == "running" for i in self.imports):
            self._poll = self._home.later(POLL_S, self._again)

    def _again(self) -> None:
        self._poll = None
        self.refresh()

    def _look_after(self) -> None:
        """Say how imports of this panel have ended."""
        for path, model in list(self._pending):
            found = next((i for i in self.imports if i.path == path), None)
            if found is None or found.state == "running":
                continue
            self._pending.remove((path, model))
            if found.state == "finished":
                self._notices.info(f"{found.model or path} was imported.")
                self.imported.emit()
            elif found.error is not None and found.error.code == "model.licence":
                self.question = LicenceQuestion(path, model or found.model, found.error)
            elif found.error is not None:
                self._notices.error(found.error)


def card_of(body: dict[str, Any]) -> ModelCard:
    """A card of `models` (inference_server/models/cards.py) as the panel shows it."""
    licences = [entry for entry in body.get("licences", []) if isinstance(entry, dict)]
    sources = [entry for entry in body.get("sources", []) if isinstance(entry, dict)]
    name, present = str(body.get("id", "")), bool(body.get("present"))
    how = str(body.get("not_imported", ""))
    if not how and not present:
        if any(s.get("host") == "huggingface" and s.get("repo") for s in sources):
            how = f"Run `faceplate models pull {name}`, or download {body.get('file', 'it')} and import it here."
        else:
            notes = " ".join(str(s.get("note", "")) for s in sources if s.get("note"))
            how = f"Download {body.get('file', 'it')} from its authors and import it here. {notes}".strip()
    return ModelCard(
        name,
        str(body.get("title") or name),
        present,
        not any(entry.get("noncommercial") for entry in licences),
        tuple((str(e.get("name", "")), str(e.get("summary", "")), str(e.get("url", ""))) for e in licences),
        str(body.get("purpose", "")),
        str(body.get("family", "")),
        how,
        _page(sources),
        int(body.get("bytes") or body.get("approximate_bytes") or 0),
        not body.get("not_imported"),
        body,
    )


def import_of(body: dict[str, Any]) -> ModelImport:
    """An entry of `imports` of `models`."""
    error = body.get("error")
    return ModelImport(
        str(body.get("path", "")),
        str(body.get("model", "")),
        str(body.get("state", "")),
        float(body.get("done", 0.0)),
        str(body.get("message", "")),
        from_wire(error) if isinstance(error, dict) and error else None,
    )


def _page(sources: list[dict[str, Any]]) -> str:
    """A page to open in a browser."""
    for source in sources:
        if source.get("url"):
            return str(source["url"])
        if source.get("host") == "huggingface" and source.get("repo"):
            return f"https://huggingface.co/{source['repo']}"
    return ""
