"""The job that the panel's state describes: one place for previews, faces, analysis, render and submission."""

from __future__ import annotations

from dataclasses import replace

from host_bridge.jobspec import JobSpec
from panels.controller.document import History
from panels.controller.plate import Plate
from panels.controller.values import Effects, Values


class Work:
    """`face` says who is treated: largest, all, a track's id, or "x,y"."""

    def __init__(self, plate: Plate, effects: Effects, values: Values, history: History) -> None:
        self.plate = plate
        self.effects = effects
        self.values = values
        self.history = history
        self.face = "largest"

    def job(self, kind: str = "render") -> JobSpec:
        """The job without frames and outputs. An analysis and a repair know no effect: they serve all.

        Nor does an `adapt` know the mask: it is about how a render is put into the plate.
        """
        plate = self.plate.state
        spec = JobSpec(
            kind=kind, plate=plate.spec, shot=plate.shot, shot_range=plate.shot_range, ocio=plate.ocio, face=self.face
        )
        if kind not in ("render", "adapt"):
            return spec
        params, edits = self.values.as_json()
        return replace(
            spec,
            effect=self.history.document.effect,
            params=params,
            edits=edits,
            mask=plate.mask if kind == "render" else None,
            style_image=plate.style_image,
        )
