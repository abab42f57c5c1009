"""`two_stage` and `keyframe`: a head drawn by a trained translator, steadied over time by its refiner, in the plate.

Learned once of a shot: where the crop lies in every frame. A frame is then resampled into the network's picture, drawn,
refined with the two frames before it, and put back through the same placement. What is remembered from frame to frame
is the networks' own pictures; degree, background and matte act on what is put back, so that keying them changes nothing
of what later frames build on. Only the matte is composited.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues
from host_bridge.errors import EffectError
from inference_server.effects import placement
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData, ShotView
from inference_server.effects.crops import bounds, check_input
from inference_server.effects.displacement import smoothstep
from inference_server.effects.library import Library
from inference_server.effects.matte import parse_regions, region_matte, shape_matte
from inference_server.effects.mesh import pose_of
from inference_server.effects.placement import Placement
from inference_server.effects.two_stage.crop import Framing, network_picture, place_alone, place_shot, plate_picture
from inference_server.effects.two_stage.descriptor import TRAINED, WHOLE_CROP, WHOLE_PLATE, described
from inference_server.effects.two_stage.memory import check_memory
from inference_server.effects.two_stage.networks import Networks
from inference_server.effects.two_stage.variants import Offered, Variant
from inference_server.faces.types import FaceFrame
from inference_server.networks.two_stage import Memory
from inference_server.plates.types import Window
from inference_server.runs import RunEvent, Tick

_HEAD_FADE = 12.0  # network pixels over which the matte of a head ends at the crop's edge
_CROP_FADE = 0.2  # of the crop's smaller side, likewise where the whole crop is the matte
_LEAST = 8  # pixels: of a crop of which less lies in the plate nothing is left to draw
_EVERYWHERE = Window(-(1 << 20), -(1 << 20), 1 << 20, 1 << 20)
_KEPT = 2  # drawings of frames alone: a slider that acts on what is put back does not draw anew


def two_stage(resources: Resources) -> TwoStageEffect:
    """The effect with the models of styles."""
    return TwoStageEffect(resources, keyframe=False)


def keyframe(resources: Resources) -> TwoStageEffect:
    """The effect with the models of painted frames."""
    return TwoStageEffect(resources, keyframe=True)


class TwoStageEffect:
    """See the module."""

    def __init__(self, resources: Resources, keyframe: bool) -> None:
        self._device = torch.device(resources.device)
        self._memory = resources.memory

        def offered(store: Any) -> tuple[Offered, EffectDescriptor]:
            found = Offered.of(store, keyframe)
            return found, described(found)

        self._library = Library(resources.models, offered)
        self._networks = Networks(resources)
        self._alone: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    @property
    def descriptor(self) -> EffectDescriptor:
        return self._library.now[1]

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        return self._placement(face, values, shot).window

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0 or values["degree"] == 0

    # --- what depends on the shot -----------------------------------------------------------------------------------

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        at = values.at(0)
        framing = self._framing(self._checked(at), at)
        return {"framing": [framing.mode, framing.size, list(framing.padding)]}

    def analyse(self, shot: ShotView) -> Generator[RunEvent, None, None]:
        if not shot.frames:
            return
        at = shot.values.at(0)
        faces = {frame: shot.face(frame) for frame in shot.frames}
        good, _ = placement.first_good(list(faces.values()), shot.window)
        seen = next(iter(shot.inputs((good.frame,), lambda face: _EVERYWHERE))).region
        yield Tick()
        framing = self._framing(self._checked(at), at)
        try:
            placements = place_shot(faces, placement.joined(shot.window, seen), framing, shot.cuts)
        except ValueError as error:
            raise EffectError(
                "effect.parameter",
                f"the crop cannot be laid: {error}",
                value=framing.mode,
                remedy="Choose a smaller face size, longer side or padding.",
            ) from error
        for name, array in placement.stored(list(faces), placements).items():
            shot.put(name, array)

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        at = values.at(0)
        variant, precision = self._checked(at), str(at["precision"])
        sizes = {
            t: (int(s.arrays["size"][0]), int(s.arrays["size"][1])) for t, s in shots.items() if "size" in s.arrays
        }
        plan = {
            "precision": precision,
            "batch": 1,
            "size": {str(track): list(size) for track, size in sizes.items()},
            "refined": self.is_recurrent(values),
            "segment": [self.descriptor.segment, self.descriptor.preroll],
            "models": {variant.id: variant.model.sha256[:16]},
        }
        return {**plan, "bytes": check_memory(variant, precision, sizes, self._device.type, self._memory, plan)}

    def models(self, values: EffectValues) -> Mapping[str, str]:
        model = self._checked(values.at(0)).model
        return {model.id: f"{model.sha256} {model.licence}"}

    # --- a frame ----------------------------------------------------------------------------------------------------

    def is_recurrent(self, values: EffectValues) -> bool:
        at = values.at(0)
        return bool(at["refine"]) and bool(self._checked(at).refiner)

    @torch.no_grad()
    def advance(self, face: FaceInput, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        variant = self._checked(face.values)
        pair = self._networks.pair(variant, str(face.values["precision"]))
        place = self._placement(face.face, face.values, face.shot)
        picture = face.picture.to(self._device, torch.float32)
        frame = network_picture(picture, face.region, place)
        return pair.draw(frame, self._style(variant, face.values), memory, bool(face.values["refine"]))

    def render(self, face: FaceInput) -> EffectOutput:
        key = self._key(face)
        if key not in self._alone:
            self._alone[key], _ = self.advance(face, None)
            if len(self._alone) > _KEPT:
                self._alone.popitem(last=False)
        self._alone.move_to_end(key)
        return self.finish(face, self._alone[key])

    @torch.no_grad()
    def finish(self, face: FaceInput, drawn: Tensor) -> EffectOutput:
        if face.region.width < _LEAST or face.region.height < _LEAST:
            empty = torch.zeros(face.region.height, face.region.width, device=self._device)
            return EffectOutput(matte=empty, picture=face.picture)
        check_input(face)
        place = self._placement(face.face, face.values, face.shot)
        matte = self._matte(face, place)
        box = bounds(matte)
        if box is None:
            return EffectOutput(matte=matte, picture=face.picture)
        rows, columns = box
        x, y = face.region.x0, face.region.y0
        inner = Window(x + columns.start, y + rows.start, x + columns.stop, y + rows.stop)
        source = face.picture.to(self._device, torch.float32)
        picture, reference = source.clone(), None
        base = source[:, rows, columns]
        if face.values["composite"] == "delta":
            # What the network could see of the plate: the difference to it is what the drawing changes.
            reference = source.clone()
            base = plate_picture(network_picture(source, face.region, place), inner, place)
            reference[:, rows, columns] = base
        back = plate_picture(drawn, inner, place)
        background = _number(face.values, "background")
        if background > 0:
            head = region_matte(self._mattes(face), "head", (len(matte), matte.shape[1]), self._device)[box]
            back = torch.lerp(back, base, (1 - head) * background)
        picture[:, rows, columns] = base + _number(face.values, "degree") * (back - base)
        return EffectOutput(matte=matte, picture=picture, reference=reference)

    # --- parts of it ------------------------------------------------------------------------------------------------

    def _checked(self, values: Mapping[str, Value]) -> Variant:
        """The chosen model. Raises EffectError `effect.needs_model`, `effect.parameter`."""
        variant = self._library.now[0].variant(str(values["model"]))
        if str(values["regions"]).strip() not in (TRAINED, WHOLE_CROP):
            parse_regions(str(values["regions"]))
        return variant

    def _framing(self, variant: Variant, values: Mapping[str, Value]) -> Framing:
        mode = str(values["crop"])
        if mode == TRAINED:
            return Framing(variant.spec.crop, variant.spec.size, variant.spec.padding)
        size = _number(values, "long_side" if mode == WHOLE_PLATE else "face_size")
        return Framing(mode, size, placement.padding_of(values))

    def _placement(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData) -> Placement:
        known = placement.placement_at(shot, face.frame)
        return known if known is not None else place_alone(face, self._framing(self._checked(values), values))

    def _style(self, variant: Variant, values: Mapping[str, Value]) -> Tensor | None:
        """The weights of the styles [1, K]; None for a model of one."""
        if len(variant.styles) == 1:
            return None
        weights = torch.zeros(1, len(variant.styles))
        mix = _number(values, "style_mix")
        for name, weight in (("style", 1 - mix), ("second_style", mix)):
            weights[0, variant.styles.index(str(values[name]))] += weight
        return weights.to(self._device)

    def _key(self, face: FaceInput) -> tuple[object, ...]:
        """What the drawing of a frame alone depends on."""
        names = ("precision", "style", "second_style", "style_mix", "refine")
        place = self._placement(face.face, face.values, face.shot)
        pixels = hashlib.sha256(face.picture.detach().cpu().contiguous().numpy().data).digest()
        sha256 = self._checked(face.values).model.sha256
        return sha256, pixels, face.region, place, *(face.values[n] for n in names)

    def _mattes(self, face: FaceInput) -> dict[str, Tensor]:
        return {name: matte.to(self._device) for name, matte in face.mattes.items()}

    def _matte(self, face: FaceInput, place: Placement) -> Tensor:
        """What is composited, [h, w]: the named regions or the whole crop, 0 at the crop's edge within the plate."""
        regions = str(face.values["regions"]).strip()
        if regions == TRAINED:
            regions = self._checked(face.values).spec.regions
        feather = _number(face.values, "matte_feather")
        down, across = (torch.from_numpy(d).to(self._device, torch.float32) for d in place.distances(face.region))
        margin = max(feather, _CROP_FADE * min(place.width, place.height)) if regions == WHOLE_CROP else _HEAD_FADE
        fade = smoothstep(down / margin)[:, None] * smoothstep(across / margin)[None]
        if regions == WHOLE_CROP:
            return fade
        matte = region_matte(self._mattes(face), regions, (face.region.height, face.region.width), self._device)
        grow = _number(face.values, "matte_grow")
        return shape_matte(matte, grow, feather, pose_of(face.face).scale, face.face.pixel_aspect) * fade


def _number(values: Mapping[str, Value], name: str) -> float:
    value = values[name]
    if isinstance(value, str | tuple):
        raise TypeError(f"{name} is a number, not {value!r}")
    return float(value)
