"""Decides what a direction is and what a strength means.

A latent code w has one row for every style input of its generator, coarse to fine: [L, D]. A direction d is one row
that is added to all of them or to a range [a, b), or L rows of its own. The rules (of InterFaceGAN, GANSpace, e4e):

    add   w[a:b] += strength * scale * d
    set   w[a:b] += (strength * scale - c) * d    with c = <w[0] - origin, d> / <d, d>

`set` moves a code to a coordinate along the direction instead of by a distance; c is read from the first row alone, as
e4e and PTI do, and a GANSpace component enters as d = standard deviation * component. Edits are applied in their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ModelError

Codes = NDArray[np.float32]  # [N, L, D]
Strength = float | NDArray[np.floating[Any]]  # one for all codes, or [N]
Rule = Literal["add", "set"]
Kind = Literal["linear", "component", "transformer"]


@runtime_checkable
class CodeEdit(Protocol):
    """Anything that moves codes by a strength: a `Direction`, or a learned transformer of codes.

    name     what an edit list calls it
    licence  the terms of what it was made from, in one line
    digest   a hash of all that its result depends on besides codes and strength; part of the key of stored results
    """

    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def check(self, layers: int, size: int) -> None:
        """ModelError `model.mismatch` where codes [N, layers, size] are not what it works on."""
        ...

    def edit(self, codes: Codes, strength: Strength) -> Codes:
        """New codes of the same shape; strength 0 gives the codes back. Never writes into `codes`."""
        ...


@dataclass(frozen=True, eq=False)
class Direction:
    """A linear direction in W+.

    rows     [1, D], for every row of a code, or [L, D]; float32, finite
    layers   the rows [first, stop) of a code that it moves; None for all. Rows a smaller generator lacks are left out.
    scale    what its authors multiply the strength with: 0.5 for STIT and PTI, 1 elsewhere
    rule     `add` or `set` (see the module); `set` needs `origin` [1, D], and there strength 0 is a place, not "no
             change"
    source   where it comes from, for people
    """

    name: str
    rows: NDArray[np.float32]
    layers: tuple[int, int] | None = None
    scale: float = 1.0
    kind: Kind = "linear"
    rule: Rule = "add"
    origin: NDArray[np.float32] | None = None
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.dtype != np.float32:
            raise self._mismatch(f"expected [1, D] or [L, D] float32, got {self.rows.dtype} {list(self.rows.shape)}")
        if not np.isfinite(self.rows).all() or not np.any(self.rows):
            raise self._mismatch("it holds values that are not finite, or nothing but zeros")
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise self._mismatch(f"rows {self.layers[0]} to {self.layers[1]} (exclusive) are none")
        wanted = (1, self.rows.shape[1])
        if self.rule == "set" and (self.origin is None or self.origin.shape != wanted):
            raise self._mismatch(f"the rule `set` needs an origin {list(wanted)}")

    @property
    def digest(self) -> str:
        """See CodeEdit."""
        head = json.dumps([list(self.rows.shape), self.layers, self.scale, self.rule])
        digest = hashlib.sha256(head.encode())
        digest.update(np.ascontiguousarray(self.rows).tobytes())
        if self.rule == "set" and self.origin is not None:
            digest.update(np.ascontiguousarray(self.origin, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def check(self, layers: int, size: int) -> None:
        """ModelError `model.mismatch` where codes [N, layers, size] are not what it works on."""
        own, width = self.rows.shape
        if width != size or own not in (1, layers):
            raise self._mismatch(f"it is {list(self.rows.shape)}, the generator's codes are [{layers}, {size}]")
        if self.layers is not None and self.layers[0] >= layers:
            raise self._mismatch(f"it moves rows from {self.layers[0]} on, the generator has {layers}")

    def edit(self, codes: Codes, strength: Strength) -> Codes:
        """Codes [N, L, D] float32 moved by `strength` (one number, or [N]); see the module for the equations."""
        count, layers, size = _shape(codes)
        self.check(layers, size)
        amount = np.broadcast_to(np.asarray(strength, dtype=np.float32), (count,)) * np.float32(self.scale)
        first, stop = self.layers or (0, layers)
        rows = np.broadcast_to(self.rows, (layers, size))[first:stop]
        if self.rule == "set":
            assert self.origin is not None  # checked when it was made
            along = rows[0].astype(np.float64)
            # Not a matrix product: that would round by the number of codes that come together.
            coordinate = ((codes[:, 0] - self.origin[0]) * along).sum(axis=1) / float((along * along).sum())
            amount = amount - coordinate.astype(np.float32)
        out: Codes = codes.astype(np.float32, copy=True)
        out[:, first:stop] += amount[:, None, None] * rows
        return out

    def _mismatch(self, problem: str) -> ModelError:
        return ModelError(
            "model.mismatch",
            f"the direction {self.name!r} cannot be used: {problem}",
            value=[list(self.rows.shape), list(self.layers) if self.layers else None],
            remedy="Take a direction made for this generator: one row [1, D] fits any number of rows; "
            "`faceplate directions list` shows sizes, `faceplate directions fit` makes one.",
        )


def _shape(codes: Codes) -> tuple[int, int, int]:
    if codes.ndim != 3:
        raise ModelError(
            "model.mismatch",
            f"expected latent codes [N, L, D], got {list(codes.shape)}",
            value=list(codes.shape),
            remedy="Give one code per picture, with one row for every style input of the generator.",
        )
    count, layers, size = codes.shape
    return count, layers, size


def apply(codes: Codes, steps: Sequence[tuple[CodeEdit, Strength]]) -> Codes:
    """Codes [N, L, D] after an ordered list of (edit, strength); a strength is one number, or [N], one for each code.

    Raises ModelError `model.mismatch` with both shapes where an edit does not fit the codes; nothing is edited then.
    """
    count, layers, size = _shape(codes)
    for edit, strength in steps:
        edit.check(layers, size)
        if np.shape(strength) not in ((), (count,)):
            raise ModelError(
                "model.mismatch",
                f"strengths of {edit.name!r} {list(np.shape(strength))} for codes {list(codes.shape)}",
                value=list(np.shape(strength)),
                remedy="Give one number, or one for each code.",
            )
    out: Codes = codes.astype(np.float32, copy=True)
    for edit, strength in steps:
        out = edit.edit(out, strength)
    return out


def without(direction: NDArray[np.floating[Any]], others: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
    """A direction [1, D] with what it shares with other directions [1, D] taken out, of unit length, float32.

    InterFaceGAN's conditional direction for any number of conditions: the least squares solution of their Gram system.
    Raises ModelError `model.mismatch` where sizes differ or nothing is left.
    """
    plain = np.asarray(direction, dtype=np.float64).reshape(-1)
    for other in others:
        if np.size(other) != plain.size:
            raise ModelError(
                "model.mismatch",
                f"a condition has {np.size(other)} values, the direction {plain.size}",
                value=[int(np.size(other)), plain.size],
                remedy="Condition on directions of one row [1, D] of the same generator.",
            )
    left = plain
    if others:
        basis = np.stack([np.asarray(other, dtype=np.float64).reshape(-1) for other in others])  # [K, D]
        left = plain - basis.T @ np.linalg.lstsq(basis @ basis.T, basis @ plain, rcond=None)[0]
    length = float(np.linalg.norm(left))
    if length <= 1e-6 * float(np.linalg.norm(plain)):
        raise ModelError(
            "model.mismatch",
            "nothing is left of the direction: its conditions span it",
            remedy="Condition on fewer directions, or on ones of other attributes.",
        )
    return (left / length).astype(np.float32)[None]
