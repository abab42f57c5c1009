"""`look`: how a style, its degrees and the tracked head become a picture.

What smooths, finds lines and follows edges works in a frame in which the eyes are `WORK_EYE` pixels apart, so
that a face gets the same look at any resolution and the cost is bounded. What has edges of its own (tone steps, ink,
dots, strokes) is decided afterwards at plate resolution, so that it is as sharp as the plate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from host_bridge.curves import Value
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData
from inference_server.effects.crops import bounds, check_input, edge_fade
from inference_server.effects.displacement import Lattice, carry, follow, smoothstep, support
from inference_server.effects.look import filters, texture
from inference_server.effects.look.descriptor import LOOK
from inference_server.effects.look.palette import look_up, palette_of_exemplar, palette_of_stops
from inference_server.effects.look.shape import shape_velocity
from inference_server.effects.look.styles import STYLES, Style
from inference_server.effects.matte import region_matte, shape_matte
from inference_server.effects.mesh import Points, Pose, crop_region, pose_of
from inference_server.faces.types import FaceFrame
from inference_server.plates.types import Window
from inference_server.plates.warp import warp_picture

WORK_EYE = 60.0
SKIN = 0.72  # lightness that the skin is given before tones are laid on
_MOST_WORK = 1_000_000  # working pixels
_STRIP = 65_536  # pixels painted at a time
_LATTICE = 16.0  # cells per eye distance of the exaggeration
_MARGIN = 0.25  # eye distances around the head that filters may look at
_SKIN_VERTICES = (50, 280, 101, 330, 205, 425, 36, 266, 151, 9, 108, 337, 69, 299)


@dataclass(frozen=True)
class _Controls:
    """The parameters at one frame, typed."""

    style: Style
    degree: float
    structure: float
    color: float
    number: Mapping[str, float]
    levels: int
    regions: str


class Look:
    """The built-in stylisation; see the module."""

    descriptor = LOOK

    def __init__(self, resources: Resources | None = None) -> None:
        self._device = torch.device(resources.device if resources else "cpu")
        self._paper = texture.paper_tile(self._device)
        self._palettes = {name: palette_of_stops(s.palette, self._device) for name, s in STYLES.items()}

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        return crop_region(face, values)

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0 or all(values[name] == 0 for name in ("degree", "structure", "color"))

    @torch.no_grad()
    def render(self, face: FaceInput) -> EffectOutput:
        height, width = check_input(face)
        controls = _controls(face.values)
        picture = face.picture.to(self._device)
        pose = pose_of(face.face)
        aspect = face.face.pixel_aspect
        origin = np.array([face.region.x0 * aspect, face.region.y0], np.float64)
        lattice = Lattice.over(height, width, aspect, pose.scale, _LATTICE, self._device)
        fade = edge_fade(
            face.region, self.region(face.face, face.values), 0.2 * pose.scale, aspect, self._device
        )  # [h, w]

        number = controls.number
        mattes = {name: matte.to(self._device) for name, matte in face.mattes.items()}
        head = region_matte(mattes, controls.regions, (height, width), self._device)
        head = shape_matte(head, number["matte_grow"], number["matte_feather"], pose.scale, aspect) * fade
        layers = torch.cat([head[None], _features(mattes, height, width, self._device)])  # [3, h, w]
        warp, band = self._warp(lattice, pose, origin, controls)
        if warp is not None:
            layers = carry(layers, warp)
        head = layers[0]
        if controls.degree == 0 and controls.color == 0:
            matte = band if band is not None else torch.zeros_like(head)
            return EffectOutput(matte=matte, warp=warp)
        matte = head if band is None else torch.maximum(head, band)
        box = bounds(matte)
        result = picture.clone()
        if box is None:
            return EffectOutput(matte=matte, warp=warp, picture=result)

        skin = _skin_colour(face, pose, self._device)
        rows, cols = box = _wider(box, round(_MARGIN * pose.scale), round(_MARGIN * pose.scale / aspect), height, width)
        picture = picture[:, rows, cols]
        if warp is not None:  # what moves lies within the box, so the box maps to itself
            picture = warp_picture(picture, warp[:, rows, cols])
        corner = origin + np.array([cols.start * aspect, rows.start])
        drawing = _Drawing(controls, pose, corner, aspect, self._paper, self._palette(face, controls), skin)
        drawn = drawing.draw(picture, layers[1:, rows, cols])  # [3, box]
        if band is not None:
            share = (head / matte.clamp_min(1e-6)).clamp(max=1)[rows, cols]
            drawn = torch.lerp(picture, drawn, share[None].expand_as(drawn))
        result[:, rows, cols] = drawn
        return EffectOutput(matte=matte, warp=warp, picture=result)

    def _warp(
        self, lattice: Lattice, pose: Pose, origin: Points, controls: _Controls
    ) -> tuple[Tensor | None, Tensor | None]:
        """The structure degree's warp [2, h, w] in plate pixels and the matte [h, w] of what it moves."""
        if controls.structure == 0:
            return None, None
        parts = {name: controls.number[f"structure_{name}"] for name in ("eyes", "head", "jaw", "mouth", "nose")}
        speed = shape_velocity(lattice, pose, origin, controls.style.shape, 1.0, parts)
        inside = support(lattice, speed)
        flow = follow(lattice, -controls.structure * inside * speed)
        band = lattice.scalar_to_plate(smoothstep(inside * 2))
        return torch.where(band > 0, lattice.to_plate(flow), 0.0), band

    def _palette(self, face: FaceInput, controls: _Controls) -> tuple[Tensor, float, float]:
        """The palette [3, 64], how much it rules at colour degree 1, and how much its lightness does."""
        style = controls.style
        if face.style is not None:
            return palette_of_exemplar(face.style.to(self._device)), max(0.9, style.palette_amount), 0.0
        name = next(key for key, value in STYLES.items() if value is style)
        return self._palettes[name], style.palette_amount, style.palette_tones


class _Drawing:
    """One frame's drawing of the part of the crop that holds the head: what the stages share."""

    def __init__(
        self,
        controls: _Controls,
        pose: Pose,
        origin: Points,
        aspect: float,
        paper: Tensor,
        palette: tuple[Tensor, float, float],
        skin: tuple[float, Tensor],
    ) -> None:
        self.controls, self.style, self.number = controls, controls.style, controls.number
        self.pose, self.origin, self.aspect = pose, origin, aspect
        self.paper, self.skin = paper, skin
        self.palette, self.palette_amount, self.palette_tones = palette

    def draw(self, picture: Tensor, features: Tensor) -> Tensor:
        """The stylised picture [3, h, w] of a picture [3, h, w], display-encoded sRGB; features [2, h, w]."""
        style = self.style
        h, w = self.size = (picture.shape[-2], picture.shape[-1])
        scale = min(WORK_EYE / self.pose.scale, math.sqrt(_MOST_WORK / (h * w * self.aspect)))
        self.unit = self.pose.scale * scale  # working pixels per eye distance
        rows, cols = max(8, round(h * scale)), max(8, round(w * self.aspect * scale))
        small = filters.to_oklab(filters.resize(picture, rows, cols).clamp(0, 1))
        features = (1.7 * filters.gaussian(filters.resize(features, rows, cols), 0.06 * self.unit)).clamp(max=1)
        direction = filters.flow_direction(small[:1], 0.05 * self.unit)
        brushed = filters.along_flow(small, direction, style.strands * self.number["smoothing"] * self.unit)
        smooth = self._smooth(small, brushed, features)
        response = self._line_response(0.5 * (smooth[:1] + brushed[:1]), direction)
        slope, offset = filters.guide_fit(smooth, small[:1], 0.02 * self.unit)
        fields = self._upsample(torch.cat([slope, offset, features[1:], small[:1]]), response)  # [9, h, w]
        # All that follows is decided pixel by pixel; strips keep it within the processor's caches.
        height = max(8, _STRIP // w)
        painted = [self._paint(picture[:, y : y + height], fields[:, y : y + height], y) for y in range(0, h, height)]
        return torch.cat(painted, dim=1)

    def _paint(self, picture: Tensor, fields: Tensor, first_row: int) -> Tensor:
        """Rows of the drawing [3, n, w] from the picture's and the upsampled working fields' [9, n, w]."""
        style, degree = self.style, self.controls.degree
        source = filters.to_oklab(picture)
        feature, coarse, response = fields[6], fields[7], fields[8]
        # Edges lie where the plate has them; eyes and mouth also keep what is finer than the working pixels.
        lab = fields[:3] * source[:1] + fields[3:6]
        lab[0] += (0.8 * style.features) * feature * (source[0] - coarse)
        origin = self.origin + np.array([0.0, first_row])
        where = texture.head_coordinates(self.pose, origin, source.shape[1], source.shape[2], self.aspect, picture)
        grain = texture.paper(self.paper, where) if self._texture_amount() > 0 else torch.zeros_like(feature)

        skin_light, skin_ab = self.skin
        gain = min(max((SKIN / max(skin_light, 0.05)) ** 0.8, 0.6), 1.8)
        before = torch.lerp(source, lab, degree)
        light = self._curve(lab[0] * gain)  # relative lightness
        stepped = self._steps(light, feature, where)
        light = torch.lerp(before[0] * gain, torch.lerp(light, stepped, style.tones), degree)
        chroma = 1 + (style.chroma * self.number["saturation"] - 1) * degree
        light, colour = self._apply_palette(light, before[1:] * chroma, skin_ab, chroma)
        light = 1 - (1 - light) * (1 - degree * (1 - style.wash))
        light = light + self.number["detail"] * degree * gain * (source[0] - lab[0])
        out = torch.cat([light[None] / gain, colour])
        out = self._texture(out, light, where, grain)
        out = self._ink(out, lab[0] * gain, response, feature)
        return filters.from_oklab(out)

    def _smooth(self, small: Tensor, brushed: Tensor, features: Tensor) -> Tensor:
        style = self.style
        radius = style.smooth * self.number["smoothing"] * self.unit
        smooth = brushed
        for k in range(style.passes):
            smooth = filters.kuwahara(smooth, radius * (1 + 0.4 * k))
        drawn = filters.kuwahara(small, 0.35 * style.smooth * self.unit)  # eyes and mouth keep their drawing
        smooth = torch.lerp(smooth, drawn, (style.features * features[1:]).expand_as(small))
        local = smooth[:1] - filters.gaussian(smooth[:1], 0.16 * self.unit)
        light = smooth[:1] + local * (style.relief + 0.25 * features[:1] + 0.3 * features[1:])
        if style.edges > 0:
            light = light - style.edges * 0.9 * (smooth[:1] - filters.gaussian(smooth[:1], 0.03 * self.unit)).abs()
        return torch.cat([light, smooth[1:]])

    def _line_response(self, tone: Tensor, direction: Tensor) -> Tensor:
        weight = self.number["line_weight"]
        if self.style.lines.amount == 0 or weight == 0:
            return torch.zeros_like(tone)
        return filters.line_response(tone, direction, self.style.lines.sigma * self.unit * weight**0.6)

    def _upsample(self, fields: Tensor, response: Tensor) -> Tensor:
        """Working fields [C, r, c] and the line response [1, r, c] at plate resolution, [C + 1, h, w]."""
        size = self.size
        # Lines get their edge by a threshold: a kink between working pixels would show.
        sharp = functional.interpolate(response[None], size=size, mode="bicubic", align_corners=False)[0]
        return torch.cat(
            [functional.interpolate(fields[None], size=size, mode="bilinear", align_corners=False)[0], sharp]
        )

    def _curve(self, light: Tensor) -> Tensor:
        """Lift and contrast around the skin's lightness; the ends roll off instead of clipping."""
        contrast = self.style.contrast * 2 ** self.number["contrast"]
        curved = SKIN + self.style.lift + 0.3 * self.number["brightness"] + (light - SKIN) * contrast
        return torch.where(curved > 0.85, 0.85 + 0.17 * torch.tanh((curved - 0.85) / 0.17), curved).clamp_min(0)

    def _steps(self, light: Tensor, feature: Tensor, where: Tensor) -> Tensor:
        """Tone steps, one of them centred on the skin; with a dot screen where the style has one."""
        levels = self.controls.levels or self.style.levels
        if levels <= 1:
            return light
        middle = SKIN + self.style.lift
        x = (light - middle) * levels - 0.12  # a little low: highlights join the skin before shadows do
        floor = x.floor()
        part = x - floor
        softness = min(max(self.style.softness + 1.2 * (self.number["softness"] - 0.5), 0.0), 1.0)
        width = 0.04 + 0.5 * softness**1.5
        step = 0.5 + 0.5 * torch.tanh((part - 0.5) / width) / math.tanh(0.5 / width)
        if self.style.texture == "dots" and self.number["texture"] > 0:
            per_eye = 16.0
            soft = min(max(5.0 * per_eye / self.pose.scale, 0.12), 1.0)
            screen = texture.dots(where, per_eye)
            dotted = smoothstep((part - screen) / soft + 0.5)
            step = torch.lerp(step, dotted, (1 - 0.9 * feature) * min(self.number["texture"], 1.0))
        if self.style.edges > 0:  # pigment gathers on the dark side of a wash's border
            step = step - 0.09 * self.style.edges * torch.exp(-((part - 0.4) / 0.11).square())
        return (floor + step) / levels + middle

    def _apply_palette(self, light: Tensor, colour: Tensor, skin: Tensor, chroma: float) -> tuple[Tensor, Tensor]:
        amount = self.controls.color * self.palette_amount
        if amount == 0:
            return light, colour
        wanted = look_up(self.palette, light)
        # Lips, irises and make-up keep what tells them from the skin.
        special = colour - chroma * skin * (light / SKIN)[None]
        keep = 0.6 * (1 - 0.75 * max(0.0, self.palette_amount - 0.5) * 2)
        colour = torch.lerp(colour, wanted[1:] + keep * special, amount)
        return torch.lerp(light, wanted[0], amount * self.palette_tones), colour

    def _texture_amount(self) -> float:
        return self.style.texture_amount * self.number["texture"] * self.controls.degree

    def _texture(self, lab: Tensor, light: Tensor, where: Tensor, grain: Tensor) -> Tensor:
        amount = self._texture_amount()
        if amount == 0 or self.style.texture in ("none", "dots"):
            return lab
        if self.style.texture == "paper":
            cloud = texture.paper(self.paper, where * 0.15) if self.style.edges > 0 else grain  # where paint pooled
            shade = -amount * (0.011 * grain + 0.014 * cloud) * (1.15 - light)
            return torch.cat([lab[:1] * (1 + shade / light.clamp_min(0.2)), lab[1:]])
        per_eye = 22.0
        soft = min(max(6.0 * per_eye / self.pose.scale, 0.25), 2.0)
        tone = 1 - light if self.style.wash == 1 else (1 - light) / self.style.wash
        style_start = 0.13 if self.style.levels else -0.05  # flat tones need hatching only in the shade
        dark = (tone - (1 - SKIN) - style_start) / 0.5
        first = texture.strokes(where, per_eye, 0.9, grain)
        second = texture.strokes(where, per_eye, -0.55, grain)
        ink = smoothstep(((dark * 1.5).clamp(max=0.7) - first) / soft + 0.5) * smoothstep(dark * 8)
        cross = smoothstep(((dark * 1.5 - 0.5).clamp(max=0.6) - second) / soft + 0.5) * smoothstep(dark * 8 - 2.5)
        ink = (torch.maximum(ink, cross) * amount * 0.6 * (1 + 0.15 * grain)).clamp(0, 1)
        return torch.lerp(lab, self._ink_colour(lab), ink[None].expand_as(lab))

    def _ink(self, lab: Tensor, light: Tensor, response: Tensor, feature: Tensor) -> Tensor:
        lines = self.style.lines
        weight = self.number["line_weight"]
        if lines.amount == 0 or weight == 0:
            return lab
        # Eyes, brows and mouth are drawn also where the light is flat.
        threshold = lines.threshold / self.number["line_detail"] * (1 - 0.4 * feature)
        ink = smoothstep((response - 0.6 * threshold) / (0.9 * threshold)) * lines.amount
        if lines.blacks > 0:
            ink = torch.maximum(ink, smoothstep((lines.blacks - light) / 0.1 + 0.5))
        ink = ink * (self.controls.degree * min(1.0, weight))
        return torch.lerp(lab, self._ink_colour(lab), ink[None].expand_as(lab))

    def _ink_colour(self, lab: Tensor) -> Tensor:
        lines = self.style.lines
        ink = filters.to_oklab(lab.new_tensor(lines.ink)[:, None, None]).expand_as(lab)
        own = torch.cat([lab[:1] * 0.42, lab[1:] * 0.85])
        return torch.lerp(ink, own, lines.own_colour)


def _skin_colour(face: FaceInput, pose: Pose, device: torch.device) -> tuple[float, Tensor]:
    """Lightness and (a, b) [2, 1, 1] of the skin: medians over fixed vertices of the mesh, each a small mean."""
    _, h, w = face.picture.shape
    points = face.face.landmarks[list(_SKIN_VERTICES), :2].astype(np.float64)
    points = points - np.array([face.region.x0, face.region.y0])
    inside = ((points > 0) & (points < np.array([w, h]))).all(axis=1)
    if not inside.any():
        return SKIN, torch.zeros(2, 1, 1, device=device)
    reach = 0.05 * pose.scale * np.array([1 / face.face.pixel_aspect, 1.0])
    offsets = np.stack(np.meshgrid((-1, -0.33, 0.33, 1), (-1, -0.33, 0.33, 1)), axis=-1).reshape(1, -1, 2) * reach
    grid = (points[inside][:, None] + offsets) / np.array([w, h]) * 2 - 1  # [N, 16, 2]
    at = torch.as_tensor(grid, dtype=torch.float32, device=device)[None]
    picture = face.picture.to(device)
    read = functional.grid_sample(picture[None], at, mode="bilinear", padding_mode="border", align_corners=False)
    middle = filters.to_oklab(read[0].clamp(0, 1)).mean(dim=2).quantile(0.5, dim=1)
    return float(middle[0]), middle[1:, None, None]


def _features(mattes: Mapping[str, Tensor], h: int, w: int, device: torch.device) -> Tensor:
    """Where the drawing of the face itself lies, [2, h, w]: the eyes; eyes, brows, lips and mouth."""
    none = torch.zeros(h, w, device=device)
    eyes = mattes.get("eyes", none)
    rest = torch.maximum(mattes.get("mouth", none), mattes.get("lips", none) * 0.8)
    return torch.stack([eyes, torch.maximum(eyes, torch.maximum(rest, mattes.get("brows", none)))])


def _wider(box: tuple[slice, slice], rows: int, cols: int, h: int, w: int) -> tuple[slice, slice]:
    """The box with a margin, within the crop."""
    return (
        slice(max(0, box[0].start - rows), min(h, box[0].stop + rows)),
        slice(max(0, box[1].start - cols), min(w, box[1].stop + cols)),
    )


def _controls(values: Mapping[str, Value]) -> _Controls:
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return _Controls(
        style=STYLES[str(values["style"])],
        degree=numbers["degree"],
        structure=numbers["structure"],
        color=numbers["color"],
        number=numbers,
        levels=int(numbers["levels"]),
        regions=str(values["regions"]),
    )
