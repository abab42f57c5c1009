"""Parameter values over time: a constant, or keyframes with linear interpolation, sampled per frame.

Text form, as the CLI and job files use it: `0.8` is a constant, `1001:0,1024:1` are keyframes. Before the first
and after the last keyframe the curve holds. Values that cannot be interpolated (strings, booleans,
choices, integers) step: they hold from their keyframe to the next.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from host_bridge.errors import RequestError

Value = bool | int | float | str | tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """Keyframes sorted by frame; a constant is one keyframe. `keys` is never empty."""

    keys: tuple[tuple[float, Value], ...]

    @classmethod
    def constant(cls, value: Value) -> Curve:
        return cls(((0.0, value),))

    @classmethod
    def from_json(cls, data: Any) -> Curve:
        """From a plain value, or `[[frame, value], ...]` under the key `keys` (the wire's form)."""
        if isinstance(data, dict) and set(data) == {"keys"} and isinstance(data["keys"], list) and data["keys"]:
            try:
                keys: dict[float, Value] = {float(frame): _plain(value) for frame, value in data["keys"]}
            except (TypeError, ValueError) as error:
                raise _bad_curve(data) from error
            return cls(tuple(sorted(keys.items(), key=lambda item: item[0])))
        return cls.constant(_plain(data))

    def to_json(self) -> Any:
        if self.is_constant:
            value = self.keys[0][1]
            return list(value) if isinstance(value, tuple) else value
        return {"keys": [[f, list(v) if isinstance(v, tuple) else v] for f, v in self.keys]}

    @property
    def is_constant(self) -> bool:
        return all(value == self.keys[0][1] for _, value in self.keys)

    def at(self, frame: float) -> Value:
        """The value at `frame`; floats and tuples of floats are interpolated linearly, the rest holds."""
        after = bisect_right([f for f, _ in self.keys], frame)
        if after == 0:
            return self.keys[0][1]
        f0, v0 = self.keys[after - 1]
        if after == len(self.keys):
            return v0
        f1, v1 = self.keys[after]
        t = (frame - f0) / (f1 - f0)
        if isinstance(v0, tuple) and isinstance(v1, tuple) and len(v0) == len(v1):
            return tuple(a + (b - a) * t for a, b in zip(v0, v1, strict=True))
        if isinstance(v0, float) and isinstance(v1, float):
            return v0 + (v1 - v0) * t
        return v0


def parse_curve(text: str) -> Curve:
    """Read the text form; numbers become floats, `true`/`false` booleans, anything else stays text.

    Raises RequestError (`request.bad_value`) when a list of keyframes is malformed.
    """
    parts = [p.strip() for p in text.split(",")]
    if not all(_is_key(p) for p in parts):
        if any(_is_key(p) for p in parts):
            raise _bad_curve(text)
        numbers = [n for n in map(_scalar, parts) if isinstance(n, float)]
        if len(parts) > 1 and len(numbers) == len(parts):
            return Curve.constant(tuple(numbers))
        return Curve.constant(_scalar(text))
    keys: dict[float, Value] = {}
    for part in parts:
        frame, _, value = part.partition(":")
        keys[float(frame)] = _scalar(value)
    return Curve(tuple(sorted(keys.items(), key=lambda item: item[0])))


def _is_key(part: str) -> bool:
    frame, colon, value = part.partition(":")
    try:
        float(frame)
    except ValueError:
        return False
    return bool(colon and value)


def _scalar(text: str) -> Value:
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _plain(value: Any) -> Value:
    if isinstance(value, list | tuple):
        if value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            return tuple(float(v) for v in value)
        raise _bad_curve(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise _bad_curve(value)


def _bad_curve(value: Any) -> RequestError:
    return RequestError(
        "request.bad_value",
        f"cannot read {value!r} as a value or a list of keyframes",
        value=str(value),
        remedy="Write a value such as 0.8, or keyframes such as 1001:0,1024:1.",
    )
