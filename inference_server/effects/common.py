"""The parameters that effects share, and who acts on each.

The effect acts on the padding (`region()`), and, where it offers them, on the matte's regions, grow and feather: only
it knows which pixels it changed. The pipeline acts on mix, composite, work exposure, grain, sharpness and motion blur,
which need the plate. No torch here: the gateway reads descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from host_bridge.effects import Param
from host_bridge.jobspec import MATTE_NAMES

REGIONS = tuple(name for name in MATTE_NAMES if name not in ("face", "composite"))
"""What `regions` may name besides `face` (the whole face without hair, ears and neck) and `head` (everything)."""

EYE_FRAME = 64.0
"""Padding, grow and feather are given in pixels of a frame in which the eyes are this far apart."""

NONE = "none"
"""Stands in a list of choices that would be empty."""
PRECISIONS = ("fp32", "fp16", "bf16")

CROP: tuple[Param, ...] = (
    Param("crop", "group", "Crop", hint="How much of the plate around the face is looked at"),
    *(
        Param(
            f"padding_{side}",
            "double",
            f"Padding {side}",
            200.0,
            f"Room {side} of the middle of the eyes, in pixels of a frame in which the eyes are 64 px apart. "
            "The crop bounds what an effect can reach.",
            40.0,
            1000.0,
            80.0,
            400.0,
            parent="crop",
        )
        for side in ("left", "right", "top", "bottom")
    ),
)


def choices_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names as choices, or as the values for which a control acts; never empty, which would mean all."""
    return tuple(names) or (NONE,)


def precision_param(hint: str, parent: str = "") -> Param:
    """In what an effect's networks compute."""
    return Param("precision", "choice", "Precision", "fp32", hint, choices=PRECISIONS, animates=False, parent=parent)


def framing_sides(depends: str = "", acts_for: tuple[str, ...] = ()) -> tuple[Param, ...]:
    """The four paddings where they are learned with the shot: constant, in the group `framing`."""
    return tuple(
        replace(p, parent="framing", animates=False, depends=depends, acts_for=acts_for)
        for p in CROP
        if p.type == "double"
    )


def matte_params(regions: str, grow: float, feather: float = 3.0, more: str = "") -> tuple[Param, ...]:
    """Parameters of an effect whose matte is made of face regions; `regions`, `grow` and `feather` are defaults.

    `more` is what the effect has to add to the hint of `regions`.
    """
    return (
        Param("matte", "group", "Matte"),
        Param(
            "regions",
            "string",
            "Regions",
            regions,
            "Comma-separated regions that are changed: head (everything), face, "
            + ", ".join(REGIONS)
            + ". A leading minus takes a region away, as in head,-neck."
            + (f" {more}" if more else ""),
            animates=False,
            parent="matte",
        ),
        Param(
            "matte_grow",
            "double",
            "Grow",
            grow,
            "Moves the matte's edge outward (inward below 0), in pixels of a frame in which the eyes are 64 px apart.",
            -20.0,
            40.0,
            -10.0,
            10.0,
            parent="matte",
        ),
        Param(
            "matte_feather",
            "double",
            "Feather",
            feather,
            "Width over which the matte's edge is softened, in pixels of a frame in which the eyes are 64 px apart.",
            0.0,
            60.0,
            0.0,
            20.0,
            parent="matte",
        ),
    )


def composite_params(composite: str, grain: bool) -> tuple[Param, ...]:
    """Parameters the pipeline acts on; `composite` is the default mode, `grain` whether replaced pixels need grain."""
    replaced = (
        Param(
            "grain",
            "double",
            "Grain",
            1.0,
            "How much of the plate's own grain the changed pixels get back; 1 is what was there.",
            0.0,
            4.0,
            0.0,
            2.0,
            parent="output",
        ),
        Param(
            "sharpness",
            "double",
            "Sharpness",
            0.0,
            "Sharpens (above 0) or softens (below 0) the changed pixels before the grain is put back.",
            -2.0,
            2.0,
            -1.0,
            1.0,
            parent="output",
        ),
        Param(
            "motion_blur",
            "double",
            "Motion blur",
            0.0,
            "Smears replaced pixels along the head's motion, as far as it moves while the shutter is open: 0.5 is a "
            "shutter of 180 degrees. For drawings that come out sharper than the moving plate; delta keeps its blur.",
            0.0,
            1.0,
            0.0,
            1.0,
            parent="output",
        ),
    )
    return (
        Param("output", "group", "Output"),
        Param(
            "mix",
            "double",
            "Mix",
            1.0,
            "Fades the result into the plate: 0 is the plate, 1 the effect.",
            0.0,
            1.0,
            0.0,
            1.0,
            parent="output",
        ),
        Param(
            "composite",
            "choice",
            "Composite",
            composite,
            "replace puts the edited pixels in the plate's place; delta adds the difference to the effect's own "
            "reconstruction and keeps what the effect cannot see.",
            choices=("replace", "delta"),
            animates=False,
            parent="output",
        ),
        Param(
            "auto_exposure",
            "boolean",
            "Automatic work exposure",
            True,
            "Brings the face to a middle grey for the effect, by one exposure for the whole shot.",
            animates=False,
            parent="output",
        ),
        Param(
            "work_exposure",
            "double",
            "Work exposure",
            0.0,
            "Stops by which the plate is brightened for the effect and darkened again after it; with the automatic "
            "exposure on, it is added to that.",
            -12.0,
            12.0,
            -4.0,
            4.0,
            animates=False,
            parent="output",
        ),
        *(replaced if grain else ()),
    )
