"""OFX-style effect descriptors: what an effect is called, which clips it takes, which controls it has.

Every host builds its controls from these (CLI flags, Nuke knobs, Qt widgets), and the server checks what a job
sends against the same description. The vocabulary is OpenFX's, but hosts that load compiled `.ofx` bundles
do not load Python: a descriptor is OFX-style, not an OFX plug-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from host_bridge.curves import Curve, Value
from host_bridge.errors import EffectError, unknown_name

PARAM_TYPES = ("double", "integer", "boolean", "choice", "string", "rgb", "double2d", "group", "pushbutton")


@dataclass(frozen=True)
class Clip:
    """An input or output: `Source`, `Mask`, `Style`, `Output`."""

    name: str
    optional: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Param:
    """One control. `default` fits `type`; `choices` are stable names, shown in this order.

    `minimum`/`maximum` bound what is accepted, `display_min`/`display_max` what a slider spans. A control may depend on
    another, constant one (`depends`, say `model`): `choices_for` then has the choices for each of its values, a part
    of `choices`, and `acts_for` the values for which this control does anything; empty means all. Hosts grey out what
    does nothing; the server refuses a choice that the other control's value does not have.
    """

    name: str
    type: str
    label: str
    default: Value = 0.0
    hint: str = ""
    minimum: float | None = None
    maximum: float | None = None
    display_min: float | None = None
    display_max: float | None = None
    choices: tuple[str, ...] = ()
    animates: bool = True
    parent: str = ""
    depends: str = ""
    choices_for: tuple[tuple[str, tuple[str, ...]], ...] = ()
    acts_for: tuple[str, ...] = ()

    def acts(self, values: Mapping[str, Value]) -> bool:
        """Whether this control does anything while the others are at `values`."""
        return not self.acts_for or values.get(self.depends) in self.acts_for

    def choices_at(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The choices while the others are at `values`."""
        return dict(self.choices_for).get(str(values.get(self.depends)), self.choices) if self.depends else self.choices


@dataclass(frozen=True)
class EffectDescriptor:
    """What an effect is. `kind` is `stylize` or `edit`; `context` values are OFX contexts.

    `edits` names the attribute directions that an ordered `--edit name=strength` list may use, each a
    `double` parameter at 0 = no change. `longest_step_s` is a bound on how long one
    uninterruptible step takes at 1080p on two CPU cores; it bounds cancel and preview. A recurrent effect declares
    `segment` (frames between restarts) and `preroll`. `steps` names what may have to be run as a job of its own
    (`faceplate adapt`) before a render.
    """

    identifier: str
    label: str
    version: str
    kind: str
    summary: str
    group: str = "Faceplate"
    contexts: tuple[str, ...] = ("filter", "general")
    clips: tuple[Clip, ...] = (Clip("Source"), Clip("Mask", optional=True), Clip("Output"))
    params: tuple[Param, ...] = ()
    edits: tuple[Param, ...] = ()
    composite: str = "replace"
    temporal: bool = False
    segment: int = 0
    preroll: int = 0
    longest_step_s: float = 2.0
    licence: str = "Apache-2.0"
    models: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def settable(self) -> tuple[Param, ...]:
        """The parameters that hold a value: all but groups and buttons."""
        return tuple(p for p in self.params if p.type not in ("group", "pushbutton"))

    def param(self, name: str) -> Param:
        """The parameter of that name; EffectError (`effect.parameter`) naming the nearest otherwise."""
        for param in self.params:
            if param.name == name:
                return param
        allowed = [p.name for p in self.settable]
        raise unknown_name("effect.parameter", f"parameter of {self.identifier}", name, allowed)

    def edit(self, name: str) -> Param:
        """The attribute direction of that name; EffectError (`effect.parameter`) otherwise."""
        for param in self.edits:
            if param.name == name:
                return param
        raise unknown_name("effect.parameter", f"edit of {self.identifier}", name, [p.name for p in self.edits])

    def to_json(self) -> dict[str, Any]:
        return {name: _to_json(getattr(self, name)) for name in self.__dataclass_fields__}


def descriptor_from_json(data: Mapping[str, Any]) -> EffectDescriptor:
    """Rebuild a descriptor from `to_json()`; fields a newer server adds are left out."""
    lists = ("params", "edits", "clips")
    fields = {
        name: _from_json(value)
        for name, value in data.items()
        if name in EffectDescriptor.__dataclass_fields__ and name not in lists
    }
    for name in ("params", "edits"):
        fields[name] = tuple(_known(Param, item) for item in data.get(name, ()))
    fields["clips"] = tuple(_known(Clip, item) for item in data.get("clips", ()))
    return EffectDescriptor(**fields)


@dataclass(frozen=True)
class Edit:
    """One step of an ordered edit list: a direction and its strength over time."""

    name: str
    strength: Curve


@dataclass(frozen=True)
class EffectValues:
    """An effect's parameters over a shot: every parameter has a curve, edits keep their order."""

    params: Mapping[str, Curve] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()

    def at(self, frame: float) -> dict[str, Value]:
        """Every parameter's value at `frame`."""
        return {name: curve.at(frame) for name, curve in self.params.items()}

    def edits_at(self, frame: float) -> tuple[tuple[str, float], ...]:
        """(direction, strength) in order at `frame`."""
        return tuple((e.name, float(_number(e.strength.at(frame)))) for e in self.edits)


def check_values(
    descriptor: EffectDescriptor, params: Mapping[str, Any], edits: list[tuple[str, Any]] | None = None
) -> EffectValues:
    """Check a job's parameters and fill in the defaults.

    `params` maps names to JSON values or curves (`Curve.from_json`); `edits` is an ordered list of (name,
    strength). Raises EffectError (`effect.parameter`) that lists what is allowed and the nearest name.
    """
    curves = {p.name: Curve.constant(p.default) for p in descriptor.settable}
    for name, value in params.items():
        param = descriptor.param(name)
        if param.name not in curves:
            raise EffectError(
                "effect.parameter",
                f"{name} is a {param.type} and holds no value",
                value=name,
                remedy="Leave it out.",
            )
        curves[name] = check_curve(param, Curve.from_json(value))
    _check_dependent(descriptor, params, curves)
    steps = [Edit(name, check_curve(descriptor.edit(name), Curve.from_json(value))) for name, value in (edits or [])]
    return EffectValues(curves, tuple(steps))


def _check_dependent(descriptor: EffectDescriptor, given: Mapping[str, Any], curves: dict[str, Curve]) -> None:
    """Choices that depend on another control: refuse one that it does not offer; an untouched default follows it."""
    constants = {name: curve.at(0) for name, curve in curves.items()}
    for param in descriptor.settable:
        if not param.choices_for:
            continue
        allowed = param.choices_at(constants)
        if param.name not in given and allowed and constants[param.name] not in allowed:
            curves[param.name] = Curve.constant(allowed[0])
        for _, value in curves[param.name].keys:
            if allowed and value not in allowed:
                what = f"value of {param.name} for {param.depends} {constants.get(param.depends)}"
                raise unknown_name("effect.parameter", what, str(value), list(allowed))


def check_curve(param: Param, curve: Curve) -> Curve:
    """The curve with every key coerced to the parameter's type and range; EffectError otherwise."""
    keys = tuple((frame, _coerce(param, value)) for frame, value in curve.keys)
    if len({value for _, value in keys}) > 1 and not param.animates:
        raise EffectError(
            "effect.parameter",
            f"{param.name} does not animate",
            value=param.name,
            remedy="Give one constant value.",
        )
    return Curve(keys)


def _coerce(param: Param, value: Value) -> Value:
    if param.type == "choice":
        if value not in param.choices:
            unknown = unknown_name("effect.parameter", f"value of {param.name}", str(value), list(param.choices))
            # The hint's beginning says what the choices are: of models, how more of them are got.
            raise EffectError(
                unknown.code, unknown.message, value=str(value), remedy=f"{unknown.remedy} {_lead(param)}"
            )
        return value
    if param.type == "string":
        return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    if param.type == "boolean":
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise _refused(param, value, "true or false")
    if param.type in ("rgb", "double2d"):
        size = 3 if param.type == "rgb" else 2
        if isinstance(value, tuple) and len(value) == size:
            return tuple(_in_range(param, v) for v in value)
        raise _refused(param, value, f"{size} numbers separated by commas")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(param, value, "a number")
    number = _in_range(param, value)
    if param.type == "integer":
        if number != int(number):
            raise _refused(param, value, "a whole number")
        return int(number)
    return number


def _lead(param: Param) -> str:
    return f"{param.hint.split('. ')[0].rstrip('.')}." if param.hint else ""


def _in_range(param: Param, value: float) -> float:
    low = param.minimum if param.minimum is not None else float("-inf")
    high = param.maximum if param.maximum is not None else float("inf")
    if not low <= value <= high:  # NaN fails both
        raise _refused(param, value, f"a number between {low:g} and {high:g}")
    return float(value)


def _refused(param: Param, value: Any, wanted: str) -> EffectError:
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    default = f"{param.default:g}" if isinstance(param.default, float) else str(param.default)
    return EffectError(
        "effect.parameter",
        f"{param.name} cannot be {shown}",
        value=str(value),
        remedy=f"Give {wanted} (default {default}).",
    )


def _number(value: Value) -> float:
    if isinstance(value, str | tuple):
        raise TypeError(f"not a number: {value!r}")
    return float(value)


def _known(kind: Any, data: Mapping[str, Any]) -> Any:
    return kind(**{name: _from_json(value) for name, value in data.items() if name in kind.__dataclass_fields__})


def _from_json(value: Any) -> Any:
    return tuple(_from_json(item) for item in value) if isinstance(value, list) else value


def _to_json(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _to_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_to_json(v) for v in value]
    return value
