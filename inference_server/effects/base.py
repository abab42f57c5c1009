"""The contract between an effect and the pipeline.

The pipeline reads the plate, finds and crops the face region, and hands an effect one `FaceInput`. The effect
returns an `EffectOutput`: a picture or a gain, the warp it applied if any, and the matte of what it touches. The
pipeline does the rest: grain, values the working space cannot hold, masks, mix, composite, writing.

Two spaces: `scene` is scene-linear Rec.709/sRGB primaries, unpremultiplied, unbounded (above 1 and below 0
occur), finite. `picture` is display-encoded sRGB in 0..1 after the shot's fixed work exposure.

How the pipeline builds E, the edited plate, in scene-linear (W moves pixels along `warp`):

    picture is None:   E = W(base) * gain + grain         scene = base + grain
    picture is given:  E = scene(picture) + W(residual) + grain_amount * grain
                       residual = scene - scene(clip(picture of scene))

and R, the reconstruction: `scene`, or scene(reference) + residual where `reference` is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window


@dataclass(frozen=True)
class FaceInput:
    """One face of one frame, cropped.

    scene      [3, h, w] float32 scene-linear, see module docstring
    picture    [3, h, w] float32 display-encoded sRGB, 0..1
    mattes     name -> [h, w] float32 0..1: face, skin, brows, eyes, nose, lips, mouth, ears, hair, neck, hat as far
               as the source allows (a missing region is absent, not zero)
    region     where the crop lies, seen from the display window's corner; landmark (x, y) is crop pixel
               (x - region.x0, y - region.y0)
    values     every parameter of the descriptor at this frame
    edits      ordered (direction, strength)
    style      [3, H, W] display-encoded sRGB exemplar, or None
    shot       what this effect's own `analyse` stored for the shot
    """

    frame: int
    scene: Tensor
    picture: Tensor
    face: FaceFrame
    mattes: Mapping[str, Tensor]
    region: Window
    values: Mapping[str, Value]
    edits: tuple[tuple[str, float], ...] = ()
    style: Tensor | None = None
    shot: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EffectOutput:
    """What an effect did to a crop; sizes as in its FaceInput.

    matte      [h, w] 0..1, covers all that was touched (source and edited silhouette and the warped band around
               them) and is 0 along the crop's edge unless the crop ends at the data window
    warp       [2, h, w] (dx, dy) in pixels: the edited picture at p shows the source at p + warp(p); 0 where matte is 0
    gain       [3, h, w] > 0, only where `picture` is None
    picture    [3, h, w] edited picture, display-encoded sRGB 0..1, already warped
    reference  [3, h, w] the effect's reconstruction of the source, display-encoded sRGB, unwarped
    """

    matte: Tensor
    warp: Tensor | None = None
    gain: Tensor | None = None
    picture: Tensor | None = None
    reference: Tensor | None = None


class Effect(Protocol):
    """What a worker holds for one effect: made once, used for every frame, no state between frames."""

    descriptor: EffectDescriptor

    def region(self, face: FaceFrame, values: Mapping[str, Value]) -> Window:
        """The part of the plate this effect needs for the face, before clipping to the data window."""
        ...

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        """Whether these values leave the plate as it is, so that the frame is a copy of the file."""
        ...

    def render(self, face: FaceInput) -> EffectOutput:
        """Do it. A pure function of its argument: same input, same bits, in any order of frames."""
        ...
