"""From a shot's codes to the edited ones: directions in their order, each with its own strengths and rows.

The expression step needs to know what an edit of the expression did: the last `expression_edits` of the list are
those, and what the frame is before them is what its lips are held to (StylePortraitVideo 3.3, sequential editing).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from host_bridge.effects import EffectDescriptor, EffectValues
from host_bridge.errors import EffectError, unknown_name
from inference_server import directions
from inference_server.directions import CodeEdit, Direction
from inference_server.directions.types import Strength
from inference_server.models.store import ModelStore

Codes = NDArray[np.float32]  # [N, L, D]
Rows = Mapping[str, tuple[int, int]]  # edit ("" for all others) -> rows [first, stop)

_RANGE = re.compile(r"(?:(?P<name>[^=\s]+)\s*=\s*)?(?P<first>\d+)-(?P<last>\d+)")
_FADES_IN = 0.1  # of a direction's slider: what an edit weaker than that does to the matte, fades


@dataclass(frozen=True)
class EditedCodes:
    """Codes [N, L, D] with all edits but those of the expression, and with all."""

    before: Codes
    after: Codes


@dataclass(frozen=True)
class _OnRows:
    """A code edit whose result is taken for some rows only."""

    inner: CodeEdit
    rows: tuple[int, int]

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def licence(self) -> str:
        return self.inner.licence

    @property
    def digest(self) -> str:
        return f"{self.inner.digest} rows {self.rows[0]}:{self.rows[1]}"

    def check(self, layers: int, size: int) -> None:
        self.inner.check(layers, size)

    def edit(self, codes: Codes, strength: Strength) -> Codes:
        out, moved = codes.copy(), slice(*self.rows)
        out[:, moved] = self.inner.edit(codes, strength)[:, moved]
        return out


def parse_rows(text: str, names: Sequence[str], layers: int) -> Rows:
    """Row ranges from `3-7` (for every edit) or `smile=3-7, age=0-10`; both ends are included.

    Raises EffectError `effect.parameter` for what cannot be read, a name that is not edited, rows that are not there.
    """
    found: dict[str, tuple[int, int]] = {}
    for word in (part.strip() for part in text.split(",") if part.strip()):
        match = _RANGE.fullmatch(word)
        if match is None or not int(match["first"]) <= int(match["last"]) < layers:
            raise EffectError(
                "effect.parameter",
                f"cannot read the rows {word!r}",
                value=word,
                remedy=f"Say 3-7 for all edits or smile=3-7 for one, within 0-{layers - 1}.",
            )
        name = match["name"] or ""
        if name and name not in names:
            raise unknown_name("effect.parameter", "edit in layers", name, list(names))
        found[name] = (int(match["first"]), int(match["last"]) + 1)
    return found


def load_edits(store: ModelStore, names: Sequence[str], rows: str, layers: int, width: int) -> dict[str, CodeEdit]:
    """The directions of those names, for a generator of such codes, on rows as the parameter `layers` says.

    Raises ModelError `model.mismatch` and others (directions.load), EffectError as `parse_rows`.
    """
    asked = parse_rows(rows, names, layers)
    return {name: limited(directions.load(store, name, layers=layers, size=width), asked) for name in names}


def limited(edit: CodeEdit, rows: Rows) -> CodeEdit:
    """The edit on the rows that are asked for; on its own where none are."""
    asked = rows.get(edit.name, rows.get(""))
    if asked is None:
        return edit
    if isinstance(edit, Direction):
        return replace(edit, layers=asked)
    return _OnRows(edit, asked)


def edited_codes(
    codes: Codes, frames: Sequence[int], values: EffectValues, edits: Mapping[str, CodeEdit]
) -> EditedCodes:
    """Codes [N, L, D] of those frames after the edits of `values`, in their order.

    Raises ModelError `model.mismatch` where a direction does not fit the codes.
    """
    steps = [
        (edits[edit.name], np.array([float(str(edit.strength.at(f))) for f in frames], np.float32))
        for edit in values.edits
    ]
    last = len(steps) - min(int(float(str(values.at(0)["expression_edits"]))), len(steps))
    before = directions.apply(codes, steps[:last])
    return EditedCodes(before, directions.apply(before, steps[last:]))


def edited_code(code: Codes, listed: Sequence[tuple[str, float]], edits: Mapping[str, CodeEdit]) -> Codes:
    """One frame's code [1, L, D] after (direction, strength) in order."""
    return directions.apply(code, [(edits[name], strength) for name, strength in listed])


def presence(listed: Sequence[tuple[str, float]], descriptor: EffectDescriptor) -> float:
    """0 where no edit does anything, 1 where they are well there; smooth between: a keyed fade does not pop."""
    total = 0.0
    for name, strength in listed:
        param = descriptor.edit(name)
        reach = max(abs(param.display_min or 0.0), abs(param.display_max or 0.0)) or 1.0
        total += (strength / reach) ** 2
    t = min(math.sqrt(total) / _FADES_IN, 1.0)
    return t * t * (3 - 2 * t)
