"""What hosts show of `look`."""

from __future__ import annotations

from host_bridge.effects import Clip, EffectDescriptor, Param
from inference_server.effects.common import CROP, composite_params, matte_params
from inference_server.effects.look.styles import STYLES


def _double(name: str, label: str, default: float, low: float, high: float, hint: str, parent: str = "") -> Param:
    return Param(name, "double", label, default, hint, low, high, low, high, parent=parent)


_PARTS = {"eyes": "Eyes", "head": "Skull", "jaw": "Jaw and chin", "mouth": "Mouth", "nose": "Nose"}

LOOK = EffectDescriptor(
    identifier="look",
    label="Look",
    version="1.0",
    kind="stylize",
    summary="Draws the head as a cartoon, comic, painting or print, anchored to the tracked face.",
    clips=(
        Clip("Source"),
        Clip("Mask", optional=True),
        Clip("Style", optional=True, hint="A picture whose colours, from dark to light, replace the style's palette"),
        Clip("Output"),
    ),
    params=(
        Param("style", "choice", "Style", "cartoon", "The look", choices=tuple(STYLES), animates=False),
        _double("degree", "Style degree", 1.0, 0.0, 1.0, "Smoothing, tones, texture and lines: 0 is the plate"),
        _double("structure", "Structure degree", 0.5, 0.0, 2.0, "How far the shape of the head is exaggerated"),
        _double(
            "color", "Colour degree", 0.8, 0.0, 1.0, "How far the palette (the style's, or the Style clip's) rules"
        ),
        Param("shape", "group", "Shape", hint="Parts of the structure degree; 1 is the style's own"),
        *(
            _double(f"structure_{part}", label, 1.0, 0.0, 3.0, f"{label}: times the style's own exaggeration", "shape")
            for part, label in _PARTS.items()
        ),
        Param("line", "group", "Line"),
        _double("line_weight", "Line weight", 1.0, 0.0, 3.0, "Width and strength of the lines; 0 draws none", "line"),
        _double("line_detail", "Line detail", 1.0, 0.2, 3.0, "Above 1, fainter contrasts are drawn as lines", "line"),
        Param("tone", "group", "Tone"),
        Param(
            "levels",
            "integer",
            "Tone levels",
            0,
            "Number of tones; 0 takes the style's own, 1 is continuous",
            0,
            16,
            0,
            12,
            parent="tone",
        ),
        _double("softness", "Softness", 0.5, 0.0, 1.0, "Steps between tones: 0.5 is the style's own", "tone"),
        _double("brightness", "Brightness", 0.0, -1.0, 1.0, "Of the drawing; 0 is the style's own", "tone"),
        _double("contrast", "Contrast", 0.0, -1.0, 1.0, "Of the drawing; 0 is the style's own", "tone"),
        _double("saturation", "Saturation", 1.0, 0.0, 3.0, "Of the drawing; 1 is the style's own", "tone"),
        _double("smoothing", "Smoothing", 1.0, 0.0, 3.0, "Size of the brush; 1 is the style's own", "tone"),
        _double("detail", "Detail", 0.0, 0.0, 1.0, "How much of the plate's fine detail shines through", "tone"),
        _double("texture", "Texture", 1.0, 0.0, 2.0, "Paper, hatching or dots; 1 is the style's own", "tone"),
        *matte_params("head", -2.0),
        *CROP,
        *composite_params("replace", grain=True),
    ),
    composite="replace",
    longest_step_s=1.0,
)
