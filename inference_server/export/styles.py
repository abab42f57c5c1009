"""Which of a translator's styles an export draws: one, a mix in fixed proportions, or all of them on a control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from host_bridge.errors import ExportError, unknown_name


@dataclass(frozen=True)
class Drawn:
    """What the exported file can draw: `names` of its drawings, and for each the weights of the network's styles.

    `suffix` sets a file of one style of several apart from the others of its model; "" otherwise.
    """

    names: tuple[str, ...] = ("own",)
    mixes: tuple[tuple[float, ...], ...] = ((1.0,),)
    suffix: str = ""


ALONE = Drawn()
"""A network of one style."""


def every(styles: Sequence[str]) -> Drawn:
    """Each style, in the card's order."""
    count = len(styles)
    return Drawn(tuple(styles), tuple(tuple(float(i == row) for i in range(count)) for row in range(count)))


def chosen(styles: Sequence[str], text: str) -> Drawn:
    """`NAME`, or a mix `NAME:weight,NAME:weight`, whose weights are brought to a sum of 1.

    Raises ExportError `export.style` for names that are none of the styles and for weights that cannot be used.
    """
    weights = [0.0] * len(styles)
    for item in text.split(","):
        name, number = item.strip(), "1"
        if name not in styles:  # a style's own name may hold a colon
            name, _, number = (part.strip() for part in name.rpartition(":"))
        if name not in styles:
            raise unknown_name("export.style", "style", name or number, list(styles))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise _refused(f"{number!r} is no weight of a style", styles, text)
        weights[styles.index(name)] += weight
    total = sum(weights)
    if total <= 0 or not math.isfinite(total):
        raise _refused("the weights of the styles have no sum above 0", styles, text)
    return Drawn((text,), (tuple(weight / total for weight in weights),), text if len(styles) > 1 else "")


def _refused(why: str, styles: Sequence[str], text: str) -> ExportError:
    return ExportError(
        "export.style",
        why,
        value=text,
        remedy=f"Its styles are {', '.join(styles)}; mix them with weights: --style NAME:0.7,NAME:0.3.",
    )
