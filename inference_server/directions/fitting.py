"""A direction from codes of two kinds of faces: with an attribute, and without.

InterFaceGAN's recipe: a linear support vector machine parts the two sets, and the direction is the normal of its
plane, of unit length. 30 % of either set are kept out of the fit, and the accuracy on them says whether the direction
is one. Codes of an encoder have rows of their own; what is learned from is their mean over the rows, because a
direction must be of the distribution that it is added to. With `layers` it is the mean over those rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ModelError, ServerError
from inference_server.directions.types import without

Floats = NDArray[np.floating[Any]]

KEPT_OUT = 0.3
LEAST = 4  # codes of either kind


@dataclass(frozen=True)
class Fitted:
    """The direction [1, D] float32 of unit length, and how well it tells the two kinds apart.

    accuracy     of the plane on the kept-out codes, 0..1, both kinds counting the same; 0.5 is chance
    training     the same on the codes it was fitted to
    along        of the finished direction, after its conditions are taken out, on the kept-out codes
    apart        distance between the means of the two kinds along it: a strength that turns one into the other
    counts       codes with and without
    """

    rows: NDArray[np.float32]
    accuracy: float
    training: float
    along: float
    apart: float
    counts: tuple[int, int]


def averaged(codes: Floats, layers: tuple[int, int] | None = None) -> Floats:
    """One row for each code [N, D]: of [N, L, D] the mean over all rows or over rows [first, stop); [N, D] as it is."""
    if codes.ndim == 3 and (layers is None or layers[0] < codes.shape[1]):
        codes = codes[:, slice(*layers)] if layers else codes
        return np.asarray(codes.mean(axis=1))
    if codes.ndim != 2:
        raise ModelError(
            "model.mismatch",
            f"expected codes [N, D], or [N, L, D] with rows {layers or 'of any number'}, got {list(codes.shape)}",
            value=list(codes.shape),
            remedy="Give one code per picture, as an encoder writes them, and rows that they have.",
        )
    return codes


def fit(
    positive: Floats,
    negative: Floats,
    *,
    layers: tuple[int, int] | None = None,
    conditions: Sequence[NDArray[np.float32]] = (),
    seed: int = 0,
) -> Fitted:
    """The direction from `negative` to `positive` codes, [N, L, D] or [N, D], without what it shares with `conditions`.

    conditions  directions [1, D]; none of them changes along the result, to first order
    seed        of the random split

    Raises ModelError `model.mismatch` for codes that cannot be used, ServerError `server.missing_package`.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise ServerError(
            "server.missing_package",
            "fitting a direction needs scikit-learn",
            value="scikit-learn",
            remedy="Install it with Faceplate's extra: pip install 'faceplate[server]'.",
        ) from error
    kinds = [averaged(np.asarray(codes, dtype=np.float64), layers) for codes in (positive, negative)]
    _check(kinds)
    rng = np.random.default_rng(seed)
    fitted: list[Floats] = []
    kept: list[Floats] = []
    for codes in kinds:
        order = rng.permutation(len(codes))
        out = max(1, round(KEPT_OUT * len(codes)))
        kept.append(codes[order[:out]])
        fitted.append(codes[order[out:]])
    machine = SVC(kernel="linear", class_weight="balanced")
    machine.fit(np.concatenate(fitted), np.repeat([1, 0], [len(codes) for codes in fitted]))
    normal, offset = machine.coef_.reshape(-1), float(machine.intercept_[0])
    rows = without(normal, conditions)
    along = [codes @ rows[0].astype(np.float64) for codes in fitted]
    middle = (float(along[0].mean()) + float(along[1].mean())) / 2
    return Fitted(
        rows,
        accuracy=_accuracy(kept, normal, -offset),
        training=_accuracy(fitted, normal, -offset),
        along=_accuracy(kept, rows[0], middle),
        apart=float(along[0].mean() - along[1].mean()),
        counts=(len(kinds[0]), len(kinds[1])),
    )


def _accuracy(kinds: Sequence[Floats], normal: Floats, threshold: float) -> float:
    """Share of codes on their own side of the plane <w, normal> = threshold, both kinds counting the same."""
    above = [(codes @ normal.astype(np.float64) > threshold).mean() for codes in kinds]
    return float((above[0] + 1 - above[1]) / 2)


def _check(kinds: Sequence[Floats]) -> None:
    sizes = [list(codes.shape) for codes in kinds]
    if sizes[0][1] != sizes[1][1]:
        problem = f"the two sets have codes of different size, {sizes[0]} and {sizes[1]}"
    elif min(sizes[0][0], sizes[1][0]) < LEAST:
        problem = f"{sizes[0][0]} codes with and {sizes[1][0]} without are too few, at least {LEAST} of each are needed"
    elif not all(np.isfinite(codes).all() for codes in kinds):
        problem = "some codes are not finite"
    else:
        return
    raise ModelError(
        "model.mismatch",
        problem,
        value=sizes,
        remedy="Give codes of one generator, hundreds of each kind for a direction that holds for every face.",
    )
