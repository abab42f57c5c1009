"""The named edits of GANSpace's component file for the FFHQ generator (Apache-2.0; component numbers belong to it).

Decides that a positive strength does what the name says: where the published list has a negative strength, the
component is turned round. The published strengths are for sampled codes; on a real face's code less is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ModelError
from inference_server.directions.types import Direction, Rule

MODEL = "direction-ganspace-pca"
PREFIX = "ganspace-"


@dataclass(frozen=True)
class NamedEdit:
    """Component `k` on rows first..last, at `strength` in the published list."""

    label: str
    k: int
    first: int
    last: int
    strength: float

    @property
    def name(self) -> str:
        return PREFIX + self.label.lower().replace("/", "-").replace(" ", "-")


EDITS: tuple[NamedEdit, ...] = (
    NamedEdit("Smile", 46, 4, 4, -20),
    NamedEdit("Big smile", 19, 4, 4, 20),
    NamedEdit("Wide smile", 23, 3, 5, 20),
    NamedEdit("In awe", 23, 3, 5, -15),
    NamedEdit("Huge grin", 28, 4, 5, 20),
    NamedEdit("Show front teeth", 59, 4, 4, 40),
    NamedEdit("Screaming", 35, 3, 6, -15),
    NamedEdit("Disgusted", 43, 6, 7, -30),
    NamedEdit("Displeased", 36, 4, 6, 20),
    NamedEdit("Eye openness", 54, 7, 7, 20),
    NamedEdit("Fearful eyes", 54, 4, 9, 20),
    NamedEdit("Scary eyes", 33, 6, 7, 20),
    NamedEdit("Eye wrinkles", 28, 6, 7, 20),
    NamedEdit("Wrinkles", 20, 6, 6, -18),
    NamedEdit("Eyebrow thickness", 37, 8, 8, 20),
    NamedEdit("Face roundness", 37, 0, 4, 20),
    NamedEdit("Large jaw", 22, 3, 5, 20),
    NamedEdit("Short face", 32, 2, 5, -20),
    NamedEdit("Nose length", 51, 4, 4, -20),
    NamedEdit("Head angle up", 11, 1, 3, 20),
    NamedEdit("Bald", 21, 2, 4, 20),
    NamedEdit("Hairline", 21, 4, 4, -20),
    NamedEdit("White hair", 57, 7, 9, -24),
    NamedEdit("Dark hair", 16, 8, 8, 20),
    NamedEdit("Curly hair", 47, 3, 5, 20),
    NamedEdit("Frizzy hair", 31, 2, 5, 20),
    NamedEdit("Trimmed beard", 58, 7, 8, 20),
    NamedEdit("Mascara vs beard", 41, 6, 8, 20),
    NamedEdit("Makeup", 0, 8, 8, 9),
    NamedEdit("Lipstick", 34, 10, 10, 20),
    NamedEdit("Lipstick and age", 34, 6, 10, 20),
    NamedEdit("Background blur", 49, 6, 8, 20),
    NamedEdit("Overexposed", 27, 8, 17, 15),
    NamedEdit("Light left/right", 15, 8, 8, 10),
    NamedEdit("Sunlight in face", 10, 8, 8, 10),
)

BY_NAME: Mapping[str, NamedEdit] = {edit.name: edit for edit in EDITS}


def component(
    pca: Mapping[str, NDArray[np.float32]],
    k: int,
    layers: tuple[int, int] | None,
    *,
    name: str,
    sign: float = 1.0,
    rule: Rule = "add",
    licence: str = "",
) -> Direction:
    """Component `k` of a file of components as a direction: its standard deviation times the component.

    pca     mean [1, D], comp [K, 1, D], std [K]
    layers  rows [first, stop)
    sign    -1 turns the component round

    Strengths count standard deviations. Raises ModelError `model.mismatch` where there is no such component.
    """
    comp = np.asarray(pca["comp"], dtype=np.float32)
    if not 0 <= k < len(comp):
        raise ModelError(
            "model.mismatch",
            f"the file has components 0 to {len(comp) - 1}, not {k}",
            value=k,
            remedy="Choose one of them.",
        )
    return Direction(
        name,
        (np.float32(sign) * np.float32(pca["std"][k]) * comp[k].reshape(1, -1)).astype(np.float32),
        layers=layers,
        kind="component",
        rule=rule,
        origin=np.asarray(pca["mean"], dtype=np.float32).reshape(1, -1),
        source=f"GANSpace component {k}",
        licence=licence,
    )
