"""What the artist has set, as one frozen document, and its undo history.

The document holds the chosen effect, every effect's parameters and edits (so that coming back to an effect finds them
as they were) and corrections of faces that have not been applied yet. Changes made in one drag are one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from host_bridge.curves import Curve, Value
from panels.controller.corrections import Corrections
from panels.controller.observe import Topic

HISTORY = 200


@dataclass(frozen=True)
class Setting:
    """A parameter's or edit's value over time. `keyed` tells one keyframe from a constant."""

    curve: Curve
    keyed: bool = False

    @classmethod
    def constant(cls, value: Value) -> Setting:
        return cls(Curve.constant(value))

    def to_json(self) -> Any:
        """As presets have it: keyframes stay keyframes, also where a job would be sent a constant."""
        plain = self.curve.to_json()
        if not self.keyed or (isinstance(plain, dict) and "keys" in plain):
            return plain
        return {"keys": [[f, list(v) if isinstance(v, tuple) else v] for f, v in self.curve.keys]}

    @property
    def frames(self) -> tuple[float, ...]:
        """Frames that have a keyframe."""
        return tuple(frame for frame, _ in self.curve.keys) if self.keyed else ()

    def with_key(self, frame: float, value: Value) -> Setting:
        keys = dict(self.curve.keys) if self.keyed else {}
        return Setting(Curve(tuple(sorted({**keys, float(frame): value}.items(), key=lambda key: key[0]))), True)

    def without_key(self, frame: float) -> Setting:
        """Without the keyframe; the last one leaves a constant."""
        keys = tuple(key for key in self.curve.keys if key[0] != float(frame))
        return Setting(Curve(keys), True) if keys else Setting.constant(self.curve.at(frame))


@dataclass(frozen=True)
class EditRow:
    """One step of the ordered edit list: an attribute direction and its strength."""

    name: str
    setting: Setting


@dataclass(frozen=True)
class EffectState:
    """An effect's values: only parameters that were touched, and the edits in order."""

    params: Mapping[str, Setting] = field(default_factory=dict)
    edits: tuple[EditRow, ...] = ()

    def with_param(self, name: str, setting: Setting | None) -> EffectState:
        """With a parameter set, or (None) as if it had never been touched."""
        params = {k: v for k, v in self.params.items() if k != name}
        return replace(self, params={**params, name: setting} if setting is not None else params)


@dataclass(frozen=True)
class Document:
    """Everything that undo goes back over."""

    effect: str = ""
    effects: Mapping[str, EffectState] = field(default_factory=dict)
    corrections: Corrections = field(default_factory=Corrections)

    @property
    def state(self) -> EffectState:
        """The chosen effect's values."""
        return self.effects.get(self.effect, EffectState())

    def with_state(self, state: EffectState) -> Document:
        return replace(self, effects={**self.effects, self.effect: state})


@dataclass(frozen=True)
class _Step:
    label: str
    before: Document


class History:
    """The document and the ways back and forth. `changed`: the document or what can be undone is another."""

    def __init__(self) -> None:
        self.document = Document()
        self.changed = Topic()
        self._past: list[_Step] = []
        self._future: list[_Step] = []
        self._merging = ""

    @property
    def undo_label(self) -> str:
        """What `undo` takes back; "" when there is nothing."""
        return self._past[-1].label if self._past else ""

    @property
    def redo_label(self) -> str:
        """What `redo` does again; "" when there is nothing."""
        return self._future[-1].label if self._future else ""

    def change(self, label: str, document: Document, *, merge: str = "") -> None:
        """Take the next document. Changes with the same non-empty `merge` are one step until `release`."""
        if document == self.document:
            return
        if not merge or merge != self._merging:
            self._past = [*self._past[-HISTORY + 1 :], _Step(label, self.document)]
        self._merging = merge
        self._future = []
        self.document = document
        self.changed.emit()

    @property
    def dragging(self) -> bool:
        """Whether changes are merged just now: a slider is held."""
        return bool(self._merging)

    def release(self) -> None:
        """The drag is over: what comes next is a step of its own."""
        if self._merging:
            self._merging = ""
            self.changed.emit()

    def undo(self) -> None:
        self._go(self._past, self._future)

    def redo(self) -> None:
        self._go(self._future, self._past)

    def rebase(self, change: Callable[[Document], Document]) -> None:
        """Change where the artist starts from: every document, those that can be gone back to included."""
        for steps in (self._past, self._future):
            steps[:] = [replace(step, before=change(step.before)) for step in steps]
        document = change(self.document)
        if document != self.document:
            self.document = document
            self.changed.emit()

    def forget(self) -> None:
        """Nothing can be taken back any more (another plate)."""
        self._past, self._future, self._merging = [], [], ""
        self.changed.emit()

    def _go(self, source: list[_Step], target: list[_Step]) -> None:
        if source:
            step = source.pop()
            target.append(_Step(step.label, self.document))
            self._merging = ""
            self.document = step.before
            self.changed.emit()
