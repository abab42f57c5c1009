"""`vtoonify`: from a plate and a tracked face to the drawn character in the plate.

Learned once of a shot, whatever model and style are then chosen: where the crop lies in every frame, the face's own
code from the first good frame, the code of an exemplar picture, and, where a parser is imported and smoothing is on,
every frame's parsing maps. Rendering a frame is then: resample the crop, parse it if that is not stored, run the
network, put the picture of four times the size back through the same placement. Only the matte of the head, or of the
whole crop, is composited.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues
from host_bridge.errors import EffectError, unknown_name
from inference_server.effects import placement
from inference_server.effects.base import NO_DATA, EffectOutput, FaceInput, Resources, ShotData, ShotView
from inference_server.effects.crops import bounds, check_input
from inference_server.effects.displacement import smoothstep
from inference_server.effects.library import Library
from inference_server.effects.matte import parse_regions, region_matte, shape_matte
from inference_server.effects.mesh import pose_of
from inference_server.effects.placement import Padding, Placement
from inference_server.effects.resample import separable
from inference_server.effects.vtoonify import codes, crop, parsing
from inference_server.effects.vtoonify.descriptor import DIS, WHOLE_CROP, described
from inference_server.effects.vtoonify.memory import check_memory
from inference_server.effects.vtoonify.networks import Networks, Stylist, exact
from inference_server.effects.vtoonify.smoothing import Entry, LogitSmoother, dis_flow, raft_flow
from inference_server.effects.vtoonify.variants import ENCODER, Imported, Variant
from inference_server.faces.align import landmarks68
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.types import FaceFrame
from inference_server.models.store import ModelStore, StoredModel
from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.vtoonify import network_input
from inference_server.plates.types import Window
from inference_server.runs import Progress, RunEvent, Tick, Warned

_HEAD_FADE = 12.0  # crop pixels over which the matte of a head ends at the crop's edge
_CROP_FADE = 0.2  # of the crop's smaller side, likewise where the whole crop is the matte
_CODE_PADDING = (200.0, 200.0, 200.0, 200.0)  # the code's picture has room for the FFHQ square whatever the padding is
_EVERYWHERE = Window(-(1 << 20), -(1 << 20), 1 << 20, 1 << 20)
_LEAST = 8  # pixels: of a crop of which less lies in the plate nothing is left to draw


@dataclass(frozen=True)
class _Learning:
    """The parameters that what is learned depends on."""

    crop: str
    padding: Padding
    smoothing: bool
    window: int
    flow: str

    @classmethod
    def of(cls, values: EffectValues) -> _Learning:
        at = values.at(0)
        return cls(
            str(at["crop"]),
            placement.padding_of(at),
            bool(at["parsing_smoothing"]),
            int(float(str(at["parsing_window"]))),
            str(at["flow"]),
        )


@dataclass(frozen=True)
class _Known:
    """The imported models and the descriptor made of them."""

    imported: Imported
    descriptor: EffectDescriptor

    @classmethod
    def of(cls, store: ModelStore) -> _Known:
        imported = Imported.of(store)
        return cls(imported, described(imported))


class VToonifyEffect:
    """See the module."""

    def __init__(self, resources: Resources) -> None:
        self._device = torch.device(resources.device)
        self._memory = resources.memory
        self._library = Library(resources.models, _Known.of)
        self._networks = Networks(resources)

    @property
    def descriptor(self) -> EffectDescriptor:
        return self._library.now.descriptor

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        return self._placement(face, values, shot).window

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0

    # --- what depends on the shot -----------------------------------------------------------------------------------

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        found, learning = self._library.now.imported, _Learning.of(values)
        self._checked(found, values)
        key: dict[str, Any] = {
            "crop": learning.crop,
            "padding": list(learning.padding),
            "encoder": found.needed(ENCODER, "reading the style code of a face").sha256,
            "smoothing": None,
        }
        if found.parser is not None and learning.smoothing:
            flow = DIS if learning.flow == DIS else found.models[learning.flow].sha256
            key["smoothing"] = [learning.window, flow, found.parser.sha256]
        return key

    @torch.no_grad()
    def analyse(self, shot: ShotView) -> Generator[RunEvent, None, None]:
        found, learning = self._library.now.imported, _Learning.of(shot.values)
        if not shot.frames:
            return
        faces = {frame: shot.face(frame) for frame in shot.frames}
        good, is_good = placement.first_good(list(faces.values()), shot.window)
        if not is_good and len(faces) > 1:
            yield Warned(
                "face.no_good_frame",
                "no frame shows this face whole and from the front; its style code is read from the best there is",
                good.frame,
            )
        whole = next(iter(shot.inputs((good.frame,), lambda face: _EVERYWHERE)))
        window = shot.window if learning.crop == "published" else placement.joined(shot.window, whole.region)
        placements = crop.plan_shot(faces, good, window, learning.crop, learning.padding)
        for name, array in crop.stored(list(faces), placements).items():
            shot.put(name, array)
        yield Tick()
        place = placements[list(faces).index(good.frame)]
        shot.put("content_z", self._content_code(found, whole, place, learning))
        shot.put("good_frame", np.array([good.frame, is_good], np.int64))
        yield Tick()
        if shot.style is not None:
            code, seen = self._exemplar_code(found, shot.style)
            shot.put("exemplar_z", code)
            if not seen:
                yield Warned(
                    "face.none",
                    "no face was found in the Style picture; its middle square was read as if it were one, aligned",
                )
        if found.parser is None:
            yield Warned(
                "effect.stand_in",
                "no face parser is imported: the built-in mattes stand in for its maps, without glasses, clothes and "
                "hats. `faceplate models pull bisenet-faceparsing` gets what VToonify was trained with.",
            )
        elif learning.smoothing:
            yield from self._smooth(shot, found, dict(zip(faces, placements, strict=True)), learning)

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        found = self._library.now.imported
        variant, at = self._checked(found, values), values.at(0)
        for shot in shots.values():
            self._check_exemplar(variant, shot)
        self._networks.release("encoder", "flow")
        sizes = {
            t: (int(s.arrays["size"][0]), int(s.arrays["size"][1])) for t, s in shots.items() if "size" in s.arrays
        }
        learning = _Learning.of(values)
        plan = {
            "precision": str(at["precision"]),
            "batch": 1,
            "size": {str(track): list(size) for track, size in sizes.items()},
            "parser": found.parser.id if found.parser is not None else "mattes",
            "smoothing": self.shot_key(values)["smoothing"] and f"{learning.flow}, {learning.window} frames",
            "models": {m.id: m.sha256[:16] for m in self._used(values)},
        }
        device = self._device.type
        return {**plan, "bytes": check_memory(variant, str(at["precision"]), sizes, device, self._memory, plan)}

    def models(self, values: EffectValues) -> Mapping[str, str]:
        return {model.id: f"{model.sha256} {model.licence}" for model in self._used(values)}

    # --- a frame ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def render(self, face: FaceInput) -> EffectOutput:
        if face.region.width < _LEAST or face.region.height < _LEAST:
            empty = torch.zeros(face.region.height, face.region.width, device=self._device)
            return EffectOutput(matte=empty, picture=face.picture)
        check_input(face)
        found, values = self._library.now.imported, face.values
        variant = found.variant(str(values["model"]))
        place = self._placement(face.face, values, face.shot)
        matte = self._matte(face, place)
        box = bounds(matte)
        if box is None:
            return EffectOutput(matte=matte, picture=face.picture)
        stylist = self._networks.stylist(variant, str(values["precision"]))
        frame = self._crop(face.picture, face.region, place)
        with exact():
            logits = self._logits(found, face, frame, place, stylist.in_channels - 3)
        style = self._style(found, variant, stylist, face)
        degree = variant.degree if variant.degree is not None else _number(values, "degree")
        painted = stylist.paint(network_input(frame, logits), style, degree)
        picture = face.picture.to(self._device).clone()
        rows, columns = box
        corner = face.region
        inner = Window(
            corner.x0 + columns.start, corner.y0 + rows.start, corner.x0 + columns.stop, corner.y0 + rows.stop
        )
        back = separable(painted[0], *place.returning(inner, stylist.upscale))
        picture[:, rows, columns] = ((back + 1) / 2).clamp(0, 1)
        return EffectOutput(matte=matte, picture=picture)

    # --- parts of it ------------------------------------------------------------------------------------------------

    def _checked(self, found: Imported, values: EffectValues) -> Variant:
        """The chosen network, when everything it needs is there. Raises EffectError."""
        at = values.at(0)
        variant = found.variant(str(at["model"]))
        if str(at["regions"]).strip() != WHOLE_CROP:
            parse_regions(str(at["regions"]))
        if variant.dual and not variant.styles:
            if not variant.codes:
                raise EffectError(
                    "effect.needs_model",
                    f"the card of {variant.id} does not say which style codes belong to it",
                    value=variant.id,
                    remedy='Import it with a card that says it: `[vtoonify]`, `codes = "vtoonify-codes-cartoon"`.',
                )
            model = found.needed(variant.codes, f"{variant.id} takes its style from a collection: it")
            raise EffectError(
                "effect.parameter",
                f"{variant.id} is for style number {variant.style}, {model.id} has {len(model.stored.code_names)}",
                value=variant.style,
                remedy="Import the style codes that belong to the network.",
            )
        if at["flow"] != DIS and at["flow"] not in found.models:
            found.needed(str(at["flow"]), "flow")
        return variant

    def _used(self, values: EffectValues) -> Iterable[StoredModel]:
        """Every model that the pixels depend on."""
        found, learning = self._library.now.imported, _Learning.of(values)
        variant = found.variant(str(values.at(0)["model"]))
        ids = [variant.id, *([variant.codes] if variant.dual else []), ENCODER]
        if found.parser is not None:
            ids.append(found.parser.id)
            if learning.smoothing and learning.flow != DIS:
                ids.append(learning.flow)
        return [found.models[i] for i in ids if i in found.models]

    def _placement(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData) -> Placement:
        known = crop.placement_at(shot, face.frame)
        if known is not None:
            return known
        return placement.place(placement.centred(face), face.pixel_aspect, placement.padding_of(values))

    def _crop(self, picture: Tensor, region: Window, place: Placement) -> Tensor:
        """The crop [1, 3, H, W] in [-1, 1] of a picture of `region`."""
        cut = separable(picture.to(self._device, torch.float32), *place.sampling(region))
        return cut.clamp(0, 1)[None] * 2 - 1

    def _logits(self, found: Imported, face: FaceInput, frame: Tensor, place: Placement, count: int) -> Tensor:
        """The parsing maps [1, count, H, W] (or twice that size) beside a crop."""
        if found.parser is None:
            sampling = place.sampling(face.region)
            names, mattes = list(face.mattes), [m.to(self._device) for m in face.mattes.values()]
            cut = separable(torch.stack(mattes), *sampling)
            return parsing.logits_of_mattes(dict(zip(names, cut, strict=True)), face.face, place, count)
        parser = self._parser(found.parser, count)
        if not face.values["parsing_smoothing"]:
            return parsing.parsed(parser, frame)
        stored = face.shot.maps(face.face.frame)
        if not stored:
            raise EffectError(
                "effect.failed",
                "the shot's data hold no parsing maps of this frame",
                frame=face.frame,
                remedy="Remove the shot (`faceplate shots remove`) and render again; report this if it comes back.",
            )
        return parsing.unpacked(stored, self._device)

    def _parser(self, model: StoredModel, count: int) -> BiSeNet:
        parser = self._networks.parser(model)
        given = parser.conv_out.conv_out.out_channels
        if given != count:
            raise _mismatch(model.id, f"has {given} classes, the network takes {count}")
        return parser

    def _style(self, found: Imported, variant: Variant, stylist: Stylist, face: FaceInput) -> Tensor:
        """W+ [1, L, D]."""
        content = self._z(face.shot.arrays["content_z"], stylist, ENCODER)
        if not variant.dual:
            return codes.style_code(stylist.mapping, content, None)
        self._check_exemplar(variant, face.shot)
        if "exemplar_z" in face.shot.arrays:
            exemplar = self._z(face.shot.arrays["exemplar_z"], stylist, ENCODER)
        else:
            known = self._networks.style_codes(found.models[variant.codes])
            name = str(face.values["style"])
            if name not in variant.styles:
                raise unknown_name("effect.parameter", f"style of {variant.id}", name, list(variant.styles))
            exemplar = self._z(known.codes[known.index(name)].numpy(), stylist, variant.codes)
        transfer = variant.color_transfer and bool(face.values["color_transfer"])
        return codes.style_code(stylist.mapping, content, exemplar, _number(face.values, "color") if transfer else 0.0)

    def _z(self, array: NDArray[Any], stylist: Stylist, source: str) -> Tensor:
        code = torch.from_numpy(np.asarray(array, np.float32)).reshape(1, *array.shape[-2:]).to(self._device)
        if tuple(code.shape[1:]) != (stylist.codes, stylist.code_length):
            raise _mismatch(
                source,
                f"gives codes of {list(code.shape[1:])}, the network takes {[stylist.codes, stylist.code_length]}",
            )
        return code

    def _check_exemplar(self, variant: Variant, shot: ShotData) -> None:
        if "exemplar_z" in shot.arrays and not variant.any_style:
            raise EffectError(
                "effect.parameter",
                f"{variant.id} was trained for one style and takes no Style picture",
                value=variant.id,
                remedy="Leave the Style clip out, or choose a network for any style (a file named `..._s_d...`).",
            )

    def _content_code(
        self, found: Imported, whole: FaceInput, place: Placement, learning: _Learning
    ) -> NDArray[np.float32]:
        """Z+ [1, L, D] of the face in its best frame, read from a crop of the network's scale."""
        published = learning.crop == "published"
        if not published:
            place = placement.place(placement.centred(whole.face), whole.face.pixel_aspect, _CODE_PADDING)
        frame = self._crop(whole.picture, whole.region, place)
        picture = ((frame[0].permute(1, 2, 0) + 1) * 127.5).cpu().numpy()
        points = place.to_crop(landmarks68(whole.face.landmarks))
        return self._code_of(found, np.rint(picture).astype(np.uint8) if published else picture, points)

    def _exemplar_code(self, found: Imported, style: Tensor) -> tuple[NDArray[np.float32], bool]:
        """Z+ [1, L, D] of an exemplar [3, H, W] display-encoded, and whether a face was found in it."""
        picture = np.ascontiguousarray(style.permute(1, 2, 0).cpu().numpy(), np.float32)
        faces = faces_of_picture(picture, FaceTools.mediapipe())
        if faces:
            return self._code_of(found, picture * 255, landmarks68(faces[0].landmarks)), True
        encoder, average = self._networks.encoder(found.needed(ENCODER, "the Style picture"))
        side = min(picture.shape[:2])
        size, scale = encoder.image_size, side / encoder.image_size
        middle = ((picture.shape[1] - side) / 2, (picture.shape[0] - side) / 2)
        place = Placement(1 / scale, -middle[0] / scale, 1 / scale, -middle[1] / scale, size, size)
        frame = self._crop(style, Window(0, 0, picture.shape[1], picture.shape[0]), place)
        with exact():
            return codes.face_code(encoder, average, frame).cpu().numpy(), False

    def _code_of(self, found: Imported, picture: NDArray[Any], points: NDArray[np.float64]) -> NDArray[np.float32]:
        encoder, average = self._networks.encoder(found.needed(ENCODER, "reading the style code of a face"))
        aligned = codes.signed(codes.aligned_face(picture, points, encoder.image_size)).to(self._device)
        with exact():
            return codes.face_code(encoder, average, aligned).cpu().numpy()

    def _smooth(
        self, shot: ShotView, found: Imported, placements: Mapping[int, Placement], learning: _Learning
    ) -> Generator[RunEvent, None, None]:
        """Every frame's parsing maps, smoothed along the motion."""
        assert found.parser is not None
        parser, published = self._networks.parser(found.parser), learning.crop == "published"
        flow = dis_flow() if learning.flow == DIS else raft_flow(self._networks.flow(found.models[learning.flow]))
        smoother = LogitSmoother(flow, learning.window, published)
        faces = shot.inputs(tuple(placements), lambda face: placements[face.frame].window)
        for done, face in enumerate(faces, 1):
            frame = self._crop(face.picture, face.region, placements[face.face.frame])
            with exact():
                logits = parsing.parsed(parser, frame)
                if published:
                    enlarged = torch.nn.functional.interpolate(frame, scale_factor=2, mode="bilinear")
                    entry = Entry.of(face.frame, enlarged[0], logits[0])
                else:
                    entry = Entry.of(face.frame, frame[0], logits[0, :, ::2, ::2])
                for number, smoothed in smoother.add(entry):
                    shot.put_maps(number, parsing.packed(smoothed, published))
            yield Progress("prepare", done, len(placements))
        with exact():
            for number, smoothed in smoother.finish():
                shot.put_maps(number, parsing.packed(smoothed, published))
                yield Tick()
        self._networks.release("flow")

    def _matte(self, face: FaceInput, place: Placement) -> Tensor:
        """What is composited, [h, w]: the named regions or the whole crop, 0 at the crop's edge within the plate."""
        regions = str(face.values["regions"]).strip()
        feather = _number(face.values, "matte_feather")
        down, across = (torch.from_numpy(d).to(self._device, torch.float32) for d in place.distances(face.region))
        margin = max(feather, _CROP_FADE * min(place.width, place.height)) if regions == WHOLE_CROP else _HEAD_FADE
        fade = smoothstep(down / margin)[:, None] * smoothstep(across / margin)[None]
        if regions == WHOLE_CROP:
            return fade
        mattes = {name: matte.to(self._device) for name, matte in face.mattes.items()}
        matte = region_matte(mattes, regions, (face.region.height, face.region.width), self._device)
        grow = _number(face.values, "matte_grow")
        return shape_matte(matte, grow, feather, pose_of(face.face).scale, face.face.pixel_aspect) * fade


def _mismatch(model: str, what: str) -> EffectError:
    return EffectError(
        "effect.needs_model",
        f"{model} does not fit the chosen network: it {what}",
        value=model,
        remedy="Import models that belong together.",
    )


def _number(values: Mapping[str, Value], name: str) -> float:
    value = values[name]
    if isinstance(value, str | tuple):
        raise TypeError(f"{name} is a number, not {value!r}")
    return float(value)
