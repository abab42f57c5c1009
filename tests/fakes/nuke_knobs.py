"""Knobs of the fake Nuke: values, keyframes, expressions, flags, and what their types refuse."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

Touch = Callable[[], None]
NO_ANIMATION, INVISIBLE, STARTLINE = 0x100, 0x400, 0x1000
LINEAR, SMOOTH = 2, 4


class AnimationCurve:
    """Keyframes of one channel; straight between them."""

    def __init__(self) -> None:
        self._keys: dict[float, float] = {}
        self._interpolation = SMOOTH

    def keys(self) -> list[float]:
        return sorted(self._keys)

    def changeInterpolation(self, keys: list[float], type: int) -> None:
        assert set(keys) == set(self._keys)
        self._interpolation = type

    def evaluate(self, t: float) -> float:
        keys = self.keys()
        if t <= keys[0]:
            return self._keys[keys[0]]
        for a, b in pairwise(keys):
            if t <= b:
                return self._keys[a] + (self._keys[b] - self._keys[a]) * (t - a) / (b - a)
        return self._keys[keys[-1]]


class Knob:
    """Base. Every method that Nuke has checks that it is called on the main thread."""

    size = 1

    def __init__(self, name: str, label: str | None = None, value: Any = None) -> None:
        self._name, self._label = name, label or ""
        self._node: Any = None
        self._flags = STARTLINE
        self._tooltip = ""
        self._enabled = True
        self._curves: dict[int, AnimationCurve] = {}
        self._expression: Callable[[float], float] | None = None
        self._value: Any = self._zero()
        self._user = False
        if value is not None:
            self._value = value
        self._default = self._value

    def _zero(self) -> Any:
        return ""

    def _check(self, val: Any) -> Any:
        return val

    def _touch(self) -> None:
        if self._node is not None:
            self._node._touch()

    def _changed(self) -> None:
        if self._node is not None:
            self._node._knob_changed(self)

    def Class(self) -> str:
        return type(self).__name__

    def name(self) -> str:
        return self._name

    def label(self) -> str:
        return self._label

    def node(self) -> Any:
        return self._node

    def tooltip(self) -> str:
        return self._tooltip

    def setTooltip(self, tooltip: str) -> None:
        self._tooltip = tooltip

    def setFlag(self, flag: int) -> None:
        self._flags |= flag

    def clearFlag(self, flag: int) -> None:
        self._flags &= ~flag

    def getFlag(self, flag: int) -> bool:
        return bool(self._flags & flag)

    def visible(self) -> bool:
        return not self.getFlag(INVISIBLE)

    def enabled(self) -> bool:
        return self._enabled

    def setEnabled(self, enabled: bool) -> None:
        self._touch()
        self._enabled = enabled

    def value(self, index: int = 0) -> Any:
        self._touch()
        return self._now()

    def getValue(self, channel: int = 0) -> Any:
        self._touch()
        return self._now()

    def _now(self) -> Any:
        return self._value

    def setValue(self, val: Any, chan: int = 0) -> bool:
        self._touch()
        self._value = self._check(val)
        self._changed()
        return True

    def isAnimated(self, channel: int = -1) -> bool:
        self._touch()
        return bool(self._curves)

    def hasExpression(self, index: int = -1) -> bool:
        self._touch()
        return self._expression is not None

    def clearAnimated(self, channel: int = -1) -> bool:
        self._touch()
        self._curves = {}
        return True

    def toScript(self, quote: bool = True, context: Any = None) -> str:
        self._touch()
        return self._text()

    def _text(self) -> str:
        text = str(self._value)
        return "{" + text + "}" if re.search(r"[\s\[\]\"{}]", text) or not text else text

    def fromScript(self, script: str) -> None:
        self._touch()
        text = script[1:-1] if script.startswith("{") and script.endswith("}") else script
        self._value = self._check(self._parse(text))
        self._changed()

    def _parse(self, text: str) -> Any:
        return text

    def _state(self) -> dict[str, Any]:
        """What a script keeps."""
        keys = {str(i): [sorted(c._keys.items()), c._interpolation] for i, c in self._curves.items()}
        return {"value": self._value, "keys": keys}

    def _restore(self, state: dict[str, Any]) -> None:
        self._value = state["value"]
        for index, (keys, interpolation) in state["keys"].items():
            curve = self._curves.setdefault(int(index), AnimationCurve())
            curve._keys, curve._interpolation = dict(keys), interpolation


class Array_Knob(Knob):
    def _zero(self) -> Any:
        return 0.0

    def setRange(self, *args: float, **kwargs: Any) -> None:
        self._range = args

    def setAnimated(self, channel: int = 0) -> bool:
        self._touch()
        if self.getFlag(NO_ANIMATION):
            raise RuntimeError(f"{self._name} cannot be animated")
        self._curves.setdefault(channel, AnimationCurve())
        return True

    def setValueAt(self, val: float, time: float, index: int = 0) -> bool:
        self._touch()
        if index not in self._curves:
            raise RuntimeError(f"{self._name} is not animated")
        self._curves[index]._keys[float(time)] = float(val)
        self._changed()
        return True

    def getValueAt(self, frame: float, index: int = 0) -> Any:
        self._touch()
        if self._expression is not None:
            return self._expression(frame)
        if index in self._curves:
            return self._curves[index].evaluate(frame)
        return self._value[index] if isinstance(self._value, list | tuple) else self._value

    def animation(self, chan: int) -> AnimationCurve:
        self._touch()
        return self._curves[chan]

    def _text(self) -> str:
        if self._curves:
            words = (f"x{k:g} {v:g}" for _, c in sorted(self._curves.items()) for k, v in sorted(c._keys.items()))
            return "{{curve " + " ".join(words) + "}}"
        return super()._text()

    def _parse(self, text: str) -> Any:
        return float(text)


class Double_Knob(Array_Knob):
    def _check(self, val: Any) -> Any:
        if isinstance(val, str | list | tuple):
            raise TypeError(f"{self._name}: a number is required, not {val!r}")
        return float(val)


class Int_Knob(Array_Knob):
    def _zero(self) -> Any:
        return 0

    def _check(self, val: Any) -> Any:
        if not isinstance(val, int) or isinstance(val, bool):
            raise TypeError(f"{self._name}: an integer is required, not {val!r}")
        return val

    def _parse(self, text: str) -> Any:
        return int(text)


class Boolean_Knob(Array_Knob):
    def _zero(self) -> Any:
        return False

    def _check(self, val: Any) -> Any:
        if val not in (0, 1, True, False):
            raise TypeError(f"{self._name}: a boolean is required, not {val!r}")
        return bool(val)

    def _text(self) -> str:
        return str(self._value).lower()

    def _parse(self, text: str) -> Any:
        return text == "true"


class _Vector(Array_Knob):
    def _zero(self) -> Any:
        return [0.0] * self.size

    def _now(self) -> Any:
        return self._value[0] if len(set(self._value)) == 1 else list(self._value)

    def _check(self, val: Any) -> Any:
        found = [float(v) for v in val] if isinstance(val, list | tuple) else [float(val)] * self.size
        if len(found) != self.size:
            raise TypeError(f"{self._name}: {self.size} numbers are required, not {val!r}")
        return found

    def _text(self) -> str:
        return "{" + " ".join(f"{v:g}" for v in self._value) + "}"

    def _parse(self, text: str) -> Any:
        return [float(v) for v in text.split()]


class Color_Knob(_Vector):
    size = 3


class XY_Knob(_Vector):
    size = 2


class Enumeration_Knob(Array_Knob):
    def __init__(self, name: str, label: str | None = None, values: list[str] | None = None) -> None:
        self._values = list(values or [""])
        super().__init__(name, label)

    def _zero(self) -> Any:
        return self._values[0]

    def _check(self, val: Any) -> Any:
        if isinstance(val, int) and not isinstance(val, bool):
            return self._values[val]
        if val not in self._values:
            raise TypeError(f"{self._name}: {val!r} is not one of {self._values}")
        return val

    def enumName(self, n: int) -> str:
        return self._values[n]

    def values(self) -> list[str]:
        return list(self._values)

    def setValues(self, items: list[str]) -> None:
        self._values = list(items)

    def _parse(self, text: str) -> Any:
        return text


class String_Knob(Knob):
    def _check(self, val: Any) -> Any:
        if not isinstance(val, str):
            raise TypeError(f"{self._name}: a string is required, not {val!r}")
        return val


class EvalString_Knob(String_Knob):
    def evaluate(self, time: float | None = None) -> str:
        """With the script's expressions in brackets put in; the few that the tests use."""
        self._touch()
        folder = os.path.dirname(self._node._session.root().name())
        text = self._value.replace("[file dirname [value root.name]]", folder)
        return re.sub(r"\[getenv (\w+)\]", lambda m: os.environ.get(m[1], ""), text)


class File_Knob(EvalString_Knob):
    def getEvaluatedValue(self, oc: Any = None) -> str:
        return self.evaluate()


class Text_Knob(String_Knob):
    pass


class Tab_Knob(Knob):
    pass


class Script_Knob(String_Knob):
    def command(self) -> str:
        return str(self._value)

    def execute(self) -> None:
        self._touch()
        self._node._execute(self)


class PyScript_Knob(Script_Knob):
    pass
