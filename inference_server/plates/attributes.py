"""Header attributes as Python values and back, and what a timecode becomes some frames later.

The files' own bytes are what travels (`types.Attribute`); a value is made only where somebody needs one. Layouts
are those of the OpenEXR file format: little-endian, strings without a terminator, SMPTE time codes in the packing
of ST 12-1 that OpenEXR calls TV60.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from inference_server.plates.types import Attribute, Window

_STRUCTS = {
    "int": "<i",
    "float": "<f",
    "double": "<d",
    "v2i": "<2i",
    "v2f": "<2f",
    "v2d": "<2d",
    "v3i": "<3i",
    "v3f": "<3f",
    "v3d": "<3d",
    "m33f": "<9f",
    "m33d": "<9d",
    "m44f": "<16f",
    "m44d": "<16d",
    "box2i": "<4i",
    "box2f": "<4f",
    "chromaticities": "<8f",
    "rational": "<iI",
    "timecode": "<2I",
    "keycode": "<7i",
    "compression": "<B",
    "lineOrder": "<B",
    "envmap": "<B",
    "tiledesc": "<2IB",
}
_SINGLE = {"int", "float", "double", "compression", "lineOrder", "envmap"}


def encode(type_name: str, value: Any) -> Attribute:
    """An attribute of EXR type `type_name`: a string, a number, or the sequence of numbers that type holds.

    `stringvector` takes strings, `floatvector` numbers, `rational` a Fraction or (numerator, denominator).
    Raises ValueError for a type whose layout is not known here or a value that does not fit it.
    """
    if type_name == "string":
        return Attribute(type_name, str(value).encode())
    if type_name == "stringvector":
        return Attribute(type_name, b"".join(struct.pack("<i", len(t)) + t for t in (str(v).encode() for v in value)))
    if type_name == "floatvector":
        return Attribute(type_name, struct.pack(f"<{len(value)}f", *value))
    if type_name not in _STRUCTS:
        raise ValueError(f"attribute type {type_name!r} cannot be made from a value")
    if isinstance(value, Fraction):
        value = (value.numerator, value.denominator)
    values = (value,) if type_name in _SINGLE else tuple(value)
    try:
        return Attribute(type_name, struct.pack(_STRUCTS[type_name], *values))
    except struct.error as error:
        raise ValueError(f"attribute of type {type_name!r} cannot hold {value!r}: {error}") from error


def decode(attribute: Attribute) -> Any:
    """The value: str, int, float, a tuple of numbers, or a list for vectors; bytes where the layout is not known.

    Text that is not UTF-8 keeps its bytes as surrogate escapes.
    """
    kind, data = attribute.type, attribute.data
    if kind == "string":
        return data.decode("utf-8", "surrogateescape")
    if kind == "floatvector" and len(data) % 4 == 0:
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    if kind == "stringvector":
        texts, at = [], 0
        while at + 4 <= len(data):
            (size,) = struct.unpack_from("<i", data, at)
            if size < 0 or at + 4 + size > len(data):
                return data
            texts.append(data[at + 4 : at + 4 + size].decode("utf-8", "surrogateescape"))
            at += 4 + size
        return texts
    layout = _STRUCTS.get(kind)
    if layout is None or struct.calcsize(layout) != len(data):
        return data
    values = struct.unpack(layout, data)
    return values[0] if kind in _SINGLE else values


def window_of(attribute: Attribute) -> Window:
    """A box2i attribute (inclusive maximum) as a Window (exclusive ends)."""
    x0, y0, x1, y1 = struct.unpack("<4i", attribute.data)
    return Window(x0, y0, x1 + 1, y1 + 1)


def box_of(window: Window) -> Attribute:
    """The inverse of `window_of`."""
    return encode("box2i", (window.x0, window.y0, window.x1 - 1, window.y1 - 1))


@dataclass(frozen=True)
class Timecode:
    """An SMPTE time code. `mark` is the field mark, which tells the two frames of a pair apart above 30 fps."""

    hours: int
    minutes: int
    seconds: int
    frame: int
    drop: bool = False
    mark: bool = False
    other_flags: int = 0  # colour frame and binary group flags, at their packed places
    user: int = 0

    def __str__(self) -> str:
        return f"{self.hours:02}:{self.minutes:02}:{self.seconds:02}{';' if self.drop else ':'}{self.frame:02}"

    @classmethod
    def unpack(cls, attribute: Attribute) -> Timecode:
        words: tuple[int, int] = struct.unpack("<2I", attribute.data)
        word, user = words

        def digits(shift: int, tens: int) -> int:
            return (word >> shift & 0xF) + 10 * (word >> shift + 4 & (1 << tens) - 1)

        return cls(
            digits(24, 2), digits(16, 3), digits(8, 3), digits(0, 2), bool(word >> 6 & 1), bool(word >> 15 & 1),
            word & (1 << 7 | 1 << 23 | 1 << 30 | 1 << 31), user,
        )  # fmt: skip

    def pack(self) -> Attribute:
        def digits(value: int, shift: int) -> int:
            return (value % 10 | value // 10 << 4) << shift

        word = digits(self.hours, 24) | digits(self.minutes, 16) | digits(self.seconds, 8) | digits(self.frame, 0)
        word |= self.drop << 6 | self.mark << 15 | self.other_flags
        return Attribute("timecode", struct.pack("<2I", word, self.user))

    def advanced(self, frames: int, fps: Fraction) -> Timecode:
        """The time code `frames` later (or earlier, if negative) at `fps`, wrapping at midnight.

        Rates count in whole frames (23.976 counts 24). Above 30 fps two frames share a number and the field mark
        is set on the second. Drop-frame skips two numbers a minute except each tenth (ST 12-1, 30 fps only).
        """
        base = max(1, round(fps))
        pair = 2 if base > 30 else 1
        base //= pair
        drop = self.drop and base == 30
        minutes = self.hours * 60 + self.minutes
        number = (minutes * 60 + self.seconds) * base + self.frame
        if drop:
            number -= 2 * (minutes - minutes // 10)
        day = 24 * 3600 * base - (2 * (1440 - 144) if drop else 0)
        half, mark = divmod(number * pair + (self.mark if pair == 2 else 0) + frames, pair)
        number = half % day
        if drop:
            tens, rest = divmod(number, 17982)
            number += 18 * tens + (2 * ((rest - 2) // 1798) if rest >= 2 else 0)
        seconds, frame = divmod(number, base)
        return replace(
            self,
            hours=seconds // 3600,
            minutes=seconds // 60 % 60,
            seconds=seconds % 60,
            frame=frame,
            mark=bool(mark) if pair == 2 else self.mark,
        )
