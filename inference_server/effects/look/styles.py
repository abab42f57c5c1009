"""The recipes of the built-in looks: numbers only, no torch.

Lengths are in eye distances, lightness and chroma are OKLab's, amounts are what style degree 1 gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """What structure degree 1 does to the head, in the head frame.

    caricature  how far each feature is moved away from the mean face (0.3 = 30 % more of what is special)
    eyes, mouth, nose  relative size of the feature; jaw  width of the jaw; cranium  height and width of the skull
    chin        how far the chin goes down, in eye distances
    """

    caricature: float = 0.0
    eyes: float = 1.0
    mouth: float = 1.0
    nose: float = 1.0
    jaw: float = 1.0
    cranium: float = 1.0
    chin: float = 0.0


@dataclass(frozen=True)
class Lines:
    """amount of ink, 0 = none; sigma the pen's width; threshold the contrast that draws a line; `blacks` the relative
    lightness under which everything is ink (0 = never); `own_colour` 1 draws in a darker tone of what lies below, 0 in
    `ink` (sRGB).
    """

    amount: float = 0.0
    sigma: float = 0.013
    threshold: float = 0.03
    blacks: float = 0.0
    own_colour: float = 0.0
    ink: tuple[float, float, float] = (0.06, 0.05, 0.07)


@dataclass(frozen=True)
class Style:
    """One look.

    smooth     radius of the edge-preserving smoothing; `passes` of it, each wider; `strands` length of the strokes
               along the picture's own flow that come before it
    features   how much of the plate's own drawing stays in eyes and mouth
    levels     number of tones, 0 = continuous; `softness` 0 hard .. 1 soft steps; `tones` how much they count
    lift, contrast  tone curve around the skin's lightness; `chroma` multiplies colourfulness
    palette    sRGB colours from dark to light; `palette_amount` how much they rule at colour degree 1;
               `palette_tones` how much their lightness rules as well
    texture    none, paper, dots, hatching; `texture_amount`
    edges      pigment that gathers at borders (watercolour)
    relief     local contrast that models the form
    wash       how much of the tones is laid on as colour; the rest is left to lines and texture
    """

    label: str
    smooth: float
    strands: float = 0.05
    passes: int = 1
    features: float = 0.5
    levels: int = 0
    softness: float = 0.5
    tones: float = 1.0
    lift: float = 0.0
    contrast: float = 1.0
    chroma: float = 1.0
    palette: tuple[tuple[float, float, float], ...] = ()
    palette_amount: float = 0.0
    palette_tones: float = 0.0
    texture: str = "none"
    texture_amount: float = 0.0
    edges: float = 0.0
    relief: float = 0.0
    wash: float = 1.0
    lines: Lines = field(default_factory=Lines)
    shape: Shape = field(default_factory=Shape)


def _hex(*codes: str) -> tuple[tuple[float, float, float], ...]:
    return tuple((int(c[0:2], 16) / 255, int(c[2:4], 16) / 255, int(c[4:6], 16) / 255) for c in codes)


STYLES: dict[str, Style] = {
    "cartoon": Style(
        label="Cartoon",
        smooth=0.045,
        strands=0.07,
        passes=2,
        features=0.75,
        levels=6,
        softness=0.75,
        tones=0.6,
        lift=0.03,
        contrast=1.05,
        chroma=1.3,
        relief=0.1,
        palette=_hex("2a1730", "7a3b46", "d98b70", "f6c9a4", "fff1dc"),
        palette_amount=0.25,
        lines=Lines(amount=0.95, sigma=0.014, threshold=0.016, own_colour=0.7, ink=(0.16, 0.07, 0.09)),
        shape=Shape(caricature=0.2, eyes=1.25, mouth=1.04, nose=0.92, jaw=0.94, cranium=1.06),
    ),
    "caricature": Style(
        label="Caricature",
        smooth=0.035,
        strands=0.06,
        passes=2,
        features=0.8,
        contrast=1.12,
        chroma=1.25,
        relief=0.7,
        palette=_hex("241a2b", "6d3d3a", "cf8a63", "f0c49a", "fff4e0"),
        palette_amount=0.35,
        texture="paper",
        texture_amount=0.3,
        lines=Lines(amount=0.6, sigma=0.012, threshold=0.02, own_colour=0.9),
        shape=Shape(caricature=0.8, eyes=1.12, mouth=1.14, nose=1.15, jaw=0.88, cranium=1.1, chin=0.06),
    ),
    "comic_ink": Style(
        label="Comic ink",
        smooth=0.04,
        strands=0.08,
        passes=2,
        features=0.75,
        levels=4,
        softness=0.15,
        lift=0.05,
        contrast=1.1,
        chroma=1.15,
        palette=_hex("141018", "5a2f38", "c98a6a", "f2cfa6", "fff8ea"),
        palette_amount=0.5,
        texture="hatching",
        texture_amount=0.7,
        lines=Lines(amount=1.0, sigma=0.016, threshold=0.014, blacks=0.36),
        shape=Shape(caricature=0.3, eyes=1.06, jaw=1.05, chin=0.03),
    ),
    "illustration": Style(
        label="Illustration",
        smooth=0.045,
        strands=0.08,
        passes=2,
        features=0.75,
        levels=9,
        softness=0.8,
        tones=0.6,
        lift=0.02,
        contrast=1.02,
        chroma=1.0,
        relief=0.4,
        palette=_hex("1f2740", "5c4a63", "c07f72", "ecc3a0", "fdf3e3"),
        palette_amount=0.55,
        texture="paper",
        texture_amount=0.35,
        lines=Lines(amount=0.6, sigma=0.012, threshold=0.02, own_colour=0.8),
        shape=Shape(caricature=0.2, eyes=1.1, nose=0.96, jaw=0.96, cranium=1.03),
    ),
    "watercolour": Style(
        label="Watercolour",
        smooth=0.06,
        strands=0.05,
        passes=2,
        features=0.7,
        levels=7,
        softness=0.55,
        tones=0.85,
        lift=0.06,
        contrast=1.1,
        chroma=1.45,
        palette=_hex("2c3358", "7b5a78", "d5957f", "f4cfb2", "fffaf2"),
        palette_amount=0.4,
        wash=0.75,
        texture="paper",
        texture_amount=1.0,
        edges=3.0,
        lines=Lines(amount=0.45, sigma=0.011, threshold=0.02, own_colour=0.75, ink=(0.25, 0.18, 0.25)),
        shape=Shape(caricature=0.15, eyes=1.06),
    ),
    "pop_print": Style(
        label="Pop print",
        smooth=0.045,
        strands=0.07,
        passes=2,
        features=0.7,
        levels=4,
        softness=0.05,
        lift=0.02,
        contrast=1.15,
        chroma=1.25,
        palette=_hex("1b1145", "d3176b", "ff7f50", "ffd23f", "fff9d6"),
        palette_amount=0.92,
        palette_tones=0.8,
        texture="dots",
        texture_amount=1.0,
        lines=Lines(amount=1.0, sigma=0.018, threshold=0.016, blacks=0.32, ink=(0.07, 0.04, 0.16)),
        shape=Shape(caricature=0.2, eyes=1.08, mouth=1.05),
    ),
    "pencil": Style(
        label="Pencil",
        smooth=0.025,
        strands=0.04,
        passes=1,
        features=0.8,
        lift=0.1,
        contrast=1.1,
        palette=_hex("2b2a2c", "6d6a69", "aaa6a1", "dcd8d0", "faf7f0"),
        palette_amount=1.0,
        wash=0.55,
        texture="hatching",
        texture_amount=1.0,
        lines=Lines(amount=0.9, sigma=0.011, threshold=0.012, ink=(0.17, 0.165, 0.17)),
        shape=Shape(caricature=0.25, eyes=1.05),
    ),
}
