"""Effects and their values: which effect is chosen, what its parameters and edits are at the current frame, keyframes.

A target is a parameter's name or an edit's index in the list. Only what was touched is sent: an untouched parameter
takes its default, or the first choice its controlling parameter offers, as on the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from host_bridge import messages as m
from host_bridge.curves import Curve, Value
from host_bridge.effects import EffectDescriptor, Param, check_curve, check_values, descriptor_from_json
from host_bridge.errors import FaceplateError, unknown_name
from panels.controller.connection import Connection
from panels.controller.document import EditRow, EffectState, History, Setting
from panels.controller.observe import Topic

Target = str | int


class Effects:
    """The effects the server has. `changed`: the list, the error or whether it loads; the choice is in the document.
    `listed(descriptors)`: the server has said what it has."""

    def __init__(self, connection: Connection, history: History) -> None:
        self.descriptors: tuple[EffectDescriptor, ...] = ()
        self.error: FaceplateError | None = None
        self.loading = False
        self.changed = Topic()
        self.listed = Topic()
        self.wanted = ""  # chosen as soon as it is listed
        self._connection = connection
        self._history = history

    @property
    def current(self) -> EffectDescriptor | None:
        """The chosen effect; None before one is chosen, or where the server does not have it."""
        return self.find(self._history.document.effect)

    def find(self, identifier: str) -> EffectDescriptor | None:
        return next((d for d in self.descriptors if d.identifier == identifier), None)

    def refresh(self) -> None:
        """Ask for the list."""
        self.loading = True
        self.changed.emit()
        self._connection.ask(m.ListEffects(), m.Effects, self._listed, timeout_s=60.0)

    def choose(self, identifier: str) -> None:
        """Choose an effect. EffectError (`effect.unknown`) where the server has no such."""
        if self.find(identifier) is None:
            raise unknown_name("effect.unknown", "effect", identifier, [d.identifier for d in self.descriptors])
        document = self._history.document
        self._history.change(f"Choose {identifier}", replace(document, effect=identifier))

    def _listed(self, outcome: m.Effects | FaceplateError) -> None:
        self.loading = False
        if isinstance(outcome, FaceplateError):
            self.error = outcome
        else:
            self.error = None
            self.descriptors = tuple(descriptor_from_json(d) for d in outcome.effects)
            self._choose_first()
            self.listed.emit(outcome.effects)
        self.changed.emit()

    def remembered(self, descriptors: tuple[EffectDescriptor, ...]) -> None:
        """What the last session's server had, until one is asked."""
        self.descriptors = descriptors
        if self.find(self.wanted) is not None or not self.wanted:
            self._choose_first()
        self.changed.emit()

    def _choose_first(self) -> None:
        """What was asked for at the start, else the first: not a step to undo."""
        wanted, self.wanted = self.wanted, ""
        if wanted and self.find(wanted) is None:
            allowed = [d.identifier for d in self.descriptors]
            self.error = unknown_name("effect.unknown", "effect", wanted, allowed)
        name = wanted if self.find(wanted) else self._history.document.effect
        if self.find(name) is None and self.descriptors:
            name = self.descriptors[0].identifier
        if name != self._history.document.effect:
            self._history.change("Choose an effect", replace(self._history.document, effect=name))
            self._history.forget()


class Values:
    """The chosen effect's values. Changes go through the history, whose `changed` tells of them."""

    def __init__(self, effects: Effects, history: History, frame: Callable[[], int]) -> None:
        self._effects = effects
        self._history = history
        self._frame = frame

    # reading

    @property
    def params(self) -> tuple[Param, ...]:
        """All controls of the chosen effect in order, groups and buttons included."""
        return self._effects.current.params if self._effects.current else ()

    @property
    def directions(self) -> tuple[Param, ...]:
        """The attribute directions the effect offers for the edit list."""
        return self._effects.current.edits if self._effects.current else ()

    @property
    def edits(self) -> tuple[EditRow, ...]:
        """The edit list in order."""
        return self._history.document.state.edits

    def param(self, target: Target) -> Param:
        """The description of a parameter or of an edit's direction. EffectError (`effect.parameter`)."""
        descriptor = self._descriptor()
        return descriptor.param(target) if isinstance(target, str) else descriptor.edit(self.edits[target].name)

    def setting(self, target: Target) -> Setting:
        """A target's value over time."""
        if not isinstance(target, str):
            return self.edits[target].setting
        touched = self._history.document.state.params.get(target)
        return touched if touched is not None else Setting.constant(self.default(target))

    def default(self, name: str) -> Value:
        """What an untouched parameter is: its default, or what the controlling parameter offers first."""
        param = self._descriptor().param(name)
        if param.choices_for and param.depends:
            allowed = self.choices(name)
            if allowed and param.default not in allowed:
                return allowed[0]
        return param.default

    def value(self, target: Target, frame: float | None = None) -> Value:
        """A target's value at a frame (None = the current one)."""
        return self.setting(target).curve.at(self._frame() if frame is None else frame)

    def touched(self, name: str) -> bool:
        """Whether a parameter was set to something else than its default."""
        setting = self._history.document.state.params.get(name)
        return setting is not None and setting != Setting.constant(self.default(name))

    def acts(self, name: str) -> bool:
        """Whether the control does anything while the others are as they are."""
        param = self._descriptor().param(name)
        return param.acts(self._controlling(param))

    def choices(self, name: str) -> tuple[str, ...]:
        """A choice parameter's choices while the others are as they are."""
        param = self._descriptor().param(name)
        return param.choices_at(self._controlling(param))

    def can_key(self, target: Target) -> bool:
        return self.param(target).animates

    def keys(self, target: Target) -> tuple[float, ...]:
        """Frames with a keyframe; () for a constant."""
        return self.setting(target).frames

    def has_key(self, target: Target, frame: float | None = None) -> bool:
        """Whether a keyframe is at the frame."""
        return float(self._frame() if frame is None else frame) in self.keys(target)

    def previous_key(self, target: Target | None = None) -> int | None:
        """The nearest keyframe before the current frame, of one target or (None) of all."""
        before = [f for f in self._all_keys(target) if f < self._frame()]
        return int(max(before)) if before else None

    def next_key(self, target: Target | None = None) -> int | None:
        """The nearest keyframe after the current frame, of one target or (None) of all."""
        after = [f for f in self._all_keys(target) if f > self._frame()]
        return int(min(after)) if after else None

    def problem(self) -> FaceplateError | None:
        """What the server would refuse about the values, None when nothing."""
        params, edits = self.as_json()
        try:
            check_values(self._descriptor(), params, [(name, value) for name, value in edits])
        except FaceplateError as error:
            return error
        return None

    def as_json(self) -> tuple[dict[str, Any], list[list[Any]]]:
        """`params` and `edits` of a job."""
        state = self._history.document.state
        params = {name: setting.curve.to_json() for name, setting in state.params.items()}
        return params, [[row.name, row.setting.curve.to_json()] for row in state.edits]

    # setting

    def set(self, target: Target, value: Value, *, dragging: bool = False) -> None:
        """Set a value: a constant, or where keyframes exist one at the current frame.

        `dragging` makes this and the following changes of the target one step until `release`. EffectError
        (`effect.parameter`) for a value that the parameter does not take.
        """
        setting = self.setting(target)
        if setting.keyed:
            new = setting.with_key(self._frame(), value)
        else:
            new = Setting.constant(value)
        self._put(target, new, f"Set {self.param(target).label}", f"set {target}" if dragging else "")

    def release(self) -> None:
        """A drag is over."""
        self._history.release()

    def set_key(self, target: Target) -> None:
        """Put a keyframe with the present value at the current frame."""
        new = self.setting(target).with_key(self._frame(), self.value(target))
        self._put(target, new, f"Key {self.param(target).label}")

    def remove_key(self, target: Target) -> None:
        """Remove the keyframe at the current frame, if there is one."""
        if self.has_key(target):
            new = self.setting(target).without_key(self._frame())
            self._put(target, new, f"Remove key of {self.param(target).label}")

    def make_constant(self, target: Target) -> None:
        """Remove all keyframes; the value at the current frame stays."""
        new = Setting.constant(self.value(target))
        self._put(target, new, f"Remove keys of {self.param(target).label}")

    def set_curve(self, target: Target, curve: Curve) -> None:
        """Set a whole curve."""
        self._put(target, Setting(curve, len(curve.keys) > 1), f"Set {self.param(target).label}")

    def reset(self, target: Target) -> None:
        """Back to the default (an edit: no change)."""
        label = f"Reset {self.param(target).label}"
        if isinstance(target, str):
            self._change(label, self._history.document.state.with_param(target, None))
        else:
            self._put(target, Setting.constant(self.param(target).default), label)

    def reset_all(self) -> None:
        """Every parameter back to its default and no edits."""
        self._change("Reset all", EffectState())

    def replace_all(self, state: EffectState, label: str) -> None:
        """Other values at once (a preset)."""
        self._change(label, state)

    def add_edit(self, name: str, strength: float = 0.0) -> int:
        """Append a direction to the edit list; its index. EffectError (`effect.parameter`) for an unknown one."""
        param = self._descriptor().edit(name)
        row = EditRow(name, Setting(check_curve(param, Curve.constant(float(strength)))))
        self._change(f"Add {param.label}", replace(self._history.document.state, edits=(*self.edits, row)))
        return len(self.edits) - 1

    def remove_edit(self, index: int) -> None:
        label = f"Remove {self.param(index).label}"
        edits = (*self.edits[:index], *self.edits[index + 1 :])
        self._change(label, replace(self._history.document.state, edits=edits))

    def move_edit(self, index: int, to: int) -> None:
        """Move a row of the edit list; the order is the order of application."""
        label = f"Move {self.param(index).label}"
        edits = list(self.edits)
        edits.insert(max(0, min(to, len(edits) - 1)), edits.pop(index))
        self._change(label, replace(self._history.document.state, edits=tuple(edits)))

    # inside

    def _put(self, target: Target, setting: Setting, label: str, merge: str = "") -> None:
        param = self.param(target)
        setting = replace(setting, curve=check_curve(param, setting.curve))
        state = self._history.document.state
        if isinstance(target, str):
            state = state.with_param(target, setting)
            state = self._followed(target, state)
        else:
            rows = list(state.edits)
            rows[target] = replace(rows[target], setting=setting)
            state = replace(state, edits=tuple(rows))
        self._change(label, state, merge)

    def _followed(self, controlling: str, state: EffectState) -> EffectState:
        """With choices that the controlling parameter's new value does not offer untouched again."""
        values = {p.name: p.default for p in self._descriptor().settable}
        values.update({name: setting.curve.at(0) for name, setting in state.params.items()})
        for param in self._descriptor().settable:
            if param.depends == controlling and param.choices_for and param.name in state.params:
                allowed = param.choices_at(values)
                if allowed and any(v not in allowed for _, v in state.params[param.name].curve.keys):
                    state = state.with_param(param.name, None)
        return state

    def _change(self, label: str, state: EffectState, merge: str = "") -> None:
        self._history.change(label, self._history.document.with_state(state), merge=merge)

    def _controlling(self, param: Param) -> dict[str, Value]:
        """The value of what `param` depends on; constant by definition, so any frame will do."""
        return {param.depends: self.value(param.depends, 0)} if param.depends else {}

    def _all_keys(self, target: Target | None) -> frozenset[float]:
        if target is not None:
            return frozenset(self.keys(target))
        state = self._history.document.state
        settings = [*state.params.values(), *(row.setting for row in state.edits)]
        return frozenset(frame for setting in settings for frame in setting.frames)

    def _descriptor(self) -> EffectDescriptor:
        current = self._effects.current
        if current is None:
            allowed = [d.identifier for d in self._effects.descriptors]
            raise unknown_name("effect.unknown", "effect", self._history.document.effect, allowed)
        return current
