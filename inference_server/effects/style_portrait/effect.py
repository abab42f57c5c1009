"""`style_portrait`: edit an actor's attributes over a shot and keep the performance (StylePortraitVideo).

Learned once of a shot: the face's squares and the code of every frame. Two long steps may follow (`faceplate adapt`):
the generator learns the actor, and the codes are moved until an edited expression says what the actor says. Rendering
a frame is then: draw its code and its edited code, find how the edit moves the face, put both back at the plate's
resolution, and leave what the generator cannot draw to the plate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator as Steps
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues
from host_bridge.errors import EffectError
from inference_server.directions import CodeEdit, Offered, offered
from inference_server.effects.base import (
    NO_DATA,
    EffectOutput,
    FaceInput,
    Resources,
    ShotData,
    ShotView,
    StepView,
    Times,
)
from inference_server.effects.crops import bounds, check_input
from inference_server.effects.library import Library
from inference_server.effects.look.filters import resize
from inference_server.effects.matte import parse_regions, shape_matte
from inference_server.effects.mesh import pose_of
from inference_server.effects.style_portrait import between, mattes, memory, moving, placing
from inference_server.effects.style_portrait.descriptor import ADAPT, DRAWN, EXPRESSION, described
from inference_server.effects.style_portrait.editing import edited_code, load_edits, presence
from inference_server.effects.style_portrait.imported import LPIPS, STYLEGAN2, EncoderModel, GeneratorModel, Imported
from inference_server.effects.style_portrait.interfaces import Generator
from inference_server.effects.style_portrait.inverting import inverted, smoothed
from inference_server.effects.style_portrait.material import (
    Material,
    adapted_in,
    landmarks_of,
    offsets_in,
    transform_of,
)
from inference_server.effects.style_portrait.networks import Networks
from inference_server.effects.style_portrait.results import step_files
from inference_server.effects.vtoonify.networks import exact
from inference_server.faces.types import FaceFrame
from inference_server.models.store import ModelStore, StoredModel
from inference_server.plates.types import Window
from inference_server.runs import RunEvent, Warned

_RECONSTRUCTED = 2  # pictures of unedited codes that are kept: of two faces in a preview
_LEAST = 8  # pixels: of a view of which less lies in the plate nothing is left to draw


@dataclass(frozen=True)
class _Known:
    """The imported models, the directions and the descriptor made of them."""

    imported: Imported
    directions: Mapping[str, Offered]
    descriptor: EffectDescriptor

    @classmethod
    def of(cls, store: ModelStore) -> _Known:
        imported, found = Imported.of(store), offered(store)
        return cls(imported, {one.name: one for one in found}, described(imported, found))


@dataclass(frozen=True)
class _Choice:
    """What the values ask for, all of it there and fitting."""

    generator: GeneratorModel
    encoder: EncoderModel
    drawn: bool
    smoothing: bool
    precision: str

    @property
    def view(self) -> str:
        """The kind of squares: those of StyleGAN2 where faces are warped back."""
        return self.generator.kind if self.generator.turns and self.drawn else STYLEGAN2


class StylePortrait:
    """See the module."""

    def __init__(self, resources: Resources) -> None:
        self._device = torch.device(resources.device)
        self._memory = resources.memory
        self._store = resources.models
        self._library = Library(resources.models, _Known.of)
        self._networks = Networks(resources)
        self._reconstructed: OrderedDict[tuple[Generator, bytes, bytes], Tensor] = OrderedDict()
        self._edits: tuple[_Known | None, dict[tuple[object, ...], Mapping[str, CodeEdit]]] = (None, {})

    @property
    def descriptor(self) -> EffectDescriptor:
        return self._library.now.descriptor

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        found = placing.placing_at(shot, face.frame)
        if found is None:
            (found,) = placing.lay({face.frame: face})
        return placing.window_of(found.view)

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        return values["mix"] == 0 or all(strength == 0 for _, strength in edits)

    # --- what depends on the shot -----------------------------------------------------------------------------------

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        choice = self._choice(values)
        self._loaded(values, choice.generator)
        return {
            "encoder": [
                choice.encoder.model.sha256,
                *([choice.generator.model.sha256] if choice.encoder.looks else []),
            ],
            "view": choice.view,
            "size": choice.generator.size,
            "smoothing": choice.smoothing,
            "precision": choice.precision,
        }

    @torch.no_grad()
    def analyse(self, shot: ShotView) -> Steps[RunEvent, None, None]:
        choice = self._choice(shot.values)
        if not shot.frames:
            return
        faces = {frame: shot.face(frame) for frame in shot.frames}
        squares = placing.lay(faces, choice.generator.kind, choice.drawn)
        for name, array in placing.stored(list(faces), squares).items():
            shot.put(name, array)
        shot.put("points", landmarks_of(faces, squares))
        if self._library.now.imported.parser is None:
            yield Warned(
                "effect.stand_in",
                "no face parser is imported: the built-in mattes stand in for the regions of the edited face. "
                "`faceplate models pull bisenet-faceparsing` gets one.",
            )
        codes = yield from inverted(
            shot,
            dict(zip(faces, squares, strict=True)),
            self._networks.encoder(choice.encoder, choice.generator, choice.precision),
            choice.generator.size,
            memory.reading_batch(choice.encoder, self._memory),
            self._device,
            self._memory,
        )
        shot.put("codes", smoothed(codes, list(faces)) if choice.smoothing else codes)

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        choice, known = self._choice(values), self._library.now
        self._networks.release("encoder", "landmarks", "perceptual")
        plan = {
            "precision": choice.precision,
            "batch": 1,
            "size": choice.generator.size,
            "view": choice.view,
            "parser": known.imported.parser.id if known.imported.parser is not None else "mattes",
            "models": {m.id: m.sha256[:16] for m in self._used(values)},
            "transformers": {name: edit.digest for name, edit in self._registered(values).items()},
            "steps": {
                str(track): {p.name: self._networks.digest(p)[:16] for p in step_files(shot.steps.values())}
                for track, shot in shots.items()
            },
        }
        parser = known.imported.parser.stored.kept if known.imported.parser is not None else 0
        return {**plan, "bytes": memory.check_memory(choice.generator, parser, self._memory, plan)}

    def models(self, values: EffectValues) -> Mapping[str, str]:
        used = {model.id: f"{model.sha256} {model.licence}" for model in self._used(values)}
        return used | {name: f"{edit.digest} {edit.licence}" for name, edit in self._registered(values).items()}

    # --- the long steps ---------------------------------------------------------------------------------------------

    def steps(self, values: EffectValues) -> tuple[str, ...]:
        at = values.at(0)
        moving_at_all = any(strength != 0 for edit in values.edits for _, strength in edit.strength.keys)
        wanted = {ADAPT: bool(at[ADAPT]), EXPRESSION: bool(at["keep_expression"]) and moving_at_all}
        return tuple(step for step, needed in wanted.items() if needed)

    def step_key(self, step: str, values: EffectValues, frames: Sequence[int]) -> Mapping[str, Any]:
        at, choice, imported = values.at(0), self._choice(values), self._library.now.imported
        models = [choice.generator.model.sha256]
        models += [imported.needed(name, "learning the actor").sha256 for name in LPIPS]
        if step == ADAPT:
            continued = str(at["adapt_from"]).strip()
            return {
                "models": models,
                "continue from": continued,
                "iterations": at["continual_iterations" if continued else "adapt_iterations"],
                "seed": at["adapt_seed"],
            }
        edits = self._loaded(values, choice.generator)
        return {
            "models": [*models, imported.needed(str(at["landmarks"]), "keeping the expression").sha256],
            "directions": {name: edit.digest for name, edit in edits.items()},
            "strengths": [[e.name, [e.strength.at(f) for f in frames]] for e in values.edits],
            "expression edits": at["expression_edits"],
            "weights": [at[f"weight_{name}"] for name in ("lip", "eye", "reg", "temporal")],
            "iterations": at["expression_iterations"],
        }

    def kept_as(self, step: str, values: EffectValues) -> str:
        return str(values.at(0)["actor"]).strip() if step == ADAPT else ""

    def run_step(self, step: str, shot: StepView) -> Steps[RunEvent, None, None]:
        choice = self._choice(shot.values)
        self._networks.release("encoder", "parser", "generators")
        self._reconstructed.clear()
        material = Material(
            shot,
            self._device,
            self._memory,
            choice.generator,
            self._library.now.imported,
            self._networks,
            self._loaded(shot.values, choice.generator),
        )
        # Imported when they are run: a render needs no optimiser.
        from inference_server.effects.style_portrait import adapting, expressing

        yield from adapting.adapt(material) if step == ADAPT else expressing.express(material)
        self._networks.release("landmarks", "perceptual")

    def retimed(self, shot: ShotData, times: Times) -> ShotData:
        return between.retimed(shot, times)

    # --- a frame ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def render(self, face: FaceInput) -> EffectOutput:
        if face.region.width < _LEAST or face.region.height < _LEAST:
            empty = torch.zeros(face.region.height, face.region.width, device=self._device)
            return EffectOutput(matte=empty, picture=face.picture)
        check_input(face)
        imported = self._library.now.imported
        base = imported.generator(str(face.values["model"]))
        found, index = self._found(face)
        amount = presence(face.edits, self.descriptor)
        with exact():
            drawn, edited = self._draw(face, base, found, index, amount)
            side = moving.motion(edited, drawn)
            matte, warp = self._matte(face, found, edited, side)
        replaces = str(face.values["composite"]) == "replace"
        if replaces:
            matte = matte * amount
        box = bounds(matte)
        if box is None:
            return EffectOutput(matte=matte, picture=face.picture)
        picture = face.picture.to(self._device).clone()
        rows, columns = box
        inner = _inner(face.region, rows, columns)
        both = (placing.put_back(torch.cat([edited, drawn]), found.view, inner) + 1) / 2
        if replaces:
            picture[:, rows, columns] = both[:3].clamp(0, 1)
        else:
            picture[:, rows, columns] = moving.with_residual(
                picture[:, rows, columns], both[:3], both[3:], warp[:, rows, columns]
            )
        return EffectOutput(matte=matte, picture=picture, warp=warp)

    # --- parts of it ------------------------------------------------------------------------------------------------

    def _choice(self, values: EffectValues) -> _Choice:
        """Raises EffectError `effect.needs_model` and `effect.parameter`."""
        at, imported = values.at(0), self._library.now.imported
        generator = imported.generator(str(at["model"]))
        encoder = imported.encoder(str(at["encoder"]), generator)
        parse_regions(str(at["regions"]))
        return _Choice(generator, encoder, at["place"] == DRAWN, at["code_smoothing"] == "light", str(at["precision"]))

    def _loaded(self, values: EffectValues, generator: GeneratorModel) -> Mapping[str, CodeEdit]:
        """The directions of an edit list; kept while the imported models stay as they are."""
        names = tuple(dict.fromkeys(edit.name for edit in values.edits))
        return self._directions(names, str(values.at(0)["layers"]), generator)

    def _directions(self, names: tuple[str, ...], rows: str, generator: GeneratorModel) -> Mapping[str, CodeEdit]:
        known = self._library.now
        if self._edits[0] is not known:
            self._edits = (known, {})
        key = (names, rows, generator.layers, generator.width)
        if key not in self._edits[1]:
            self._edits[1][key] = load_edits(self._store, names, rows, generator.layers, generator.width)
        return self._edits[1][key]

    def _registered(self, values: EffectValues) -> dict[str, CodeEdit]:
        """The edits that installed packages brought: no stored model stands for them."""
        directions = self._library.now.directions
        names = {e.name for e in values.edits if e.name in directions and not directions[e.name].model}
        if not names:
            return {}
        loaded = self._loaded(values, self._choice(values).generator)
        return {name: loaded[name] for name in sorted(names)}

    def _used(self, values: EffectValues) -> list[StoredModel]:
        """Every model that the pixels depend on."""
        known, choice = self._library.now, self._choice(values)
        found = [choice.generator.model, choice.encoder.model]
        directions = [known.directions[e.name] for e in values.edits if e.name in known.directions]
        found += [known.imported.models[one.model] for one in directions if one.model]
        if known.imported.parser is not None:
            found.append(known.imported.parser)
        ids = LPIPS if self.steps(values) else ()
        if EXPRESSION in self.steps(values):
            ids = (*ids, str(values.at(0)["landmarks"]))
        found += [known.imported.models[i] for i in ids if i in known.imported.models]
        return list({m.id: m for m in found}.values())

    def _found(self, face: FaceInput) -> tuple[placing.Placing, int]:
        found, index = placing.placing_at(face.shot, face.face.frame), placing.index_of(face.shot, face.face.frame)
        if found is None or index is None or "codes" not in face.shot.arrays:
            raise EffectError(
                "effect.failed",
                "the shot's data hold no code of this frame",
                frame=face.frame,
                remedy="Remove the shot (`faceplate shots remove`) and render again; report this if it comes back.",
            )
        return found, index

    def _draw(
        self, face: FaceInput, base: GeneratorModel, found: placing.Placing, index: int, amount: float
    ) -> tuple[Tensor, Tensor]:
        """R and E, [3, S, S] each, nominally -1..1."""
        generator = self._networks.generator(base, adapted_in(face.shot), str(face.values["precision"]))
        code = np.asarray(face.shot.arrays["codes"][index : index + 1], np.float32)
        names = tuple(dict.fromkeys(name for name, _ in face.edits))
        edits = self._directions(names, str(face.values["layers"]), base)
        after = edited_code(code, face.edits, edits)
        offsets = self._offsets(face.shot, base) if face.values["keep_expression"] else None
        if offsets is not None:
            after = after + np.float32(amount) * offsets[index]
        transform = transform_of(found, self._device)
        # While a strength is moved the frame itself stays: it need not be drawn again.
        key = (generator, code.tobytes(), b"" if found.user is None else found.user.tobytes())
        if key not in self._reconstructed:
            self._reconstructed[key] = self._drawn(generator, code, transform)
            while len(self._reconstructed) > _RECONSTRUCTED:
                self._reconstructed.popitem(last=False)
        # One at a time, always: in a batch the same code would be drawn with other roundings.
        return self._reconstructed[key], self._drawn(generator, after, transform)

    def _offsets(self, shot: ShotData, base: GeneratorModel) -> NDArray[np.float32] | None:
        """The expression step's offsets [F, L, D], or None where it has not been taken."""
        folder = shot.steps.get(EXPRESSION)
        if folder is None or "offsets" in shot.arrays:
            return offsets_in(shot, base.layers, base.width)
        return self._networks.offsets(folder, shot.arrays["frames"].tolist(), base.layers, base.width)

    def _drawn(self, generator: Generator, code: NDArray[np.float32], transform: Tensor | None) -> Tensor:
        try:
            return generator(torch.from_numpy(code).to(self._device), transform)[0].float()
        except torch.OutOfMemoryError as error:
            raise memory.too_little("drawing", self._memory) from error

    def _matte(self, face: FaceInput, found: placing.Placing, edited: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """What is composited [h, w], and how it moved [2, h, w] in plate pixels, 0 where the matte is."""
        region, regions = face.region, str(face.values["regions"])
        size = (region.height, region.width)
        warp = placing.put_back(placing.to_plate_pixels(motion, found.view), found.view, region)
        parser = self._library.now.imported.parser
        if parser is None:
            own = {name: matte.to(self._device) for name, matte in face.mattes.items()}
            matte = mattes.moved_regions(own, regions, warp, size)
        else:
            plate = placing.cut(face.picture.to(self._device, torch.float32), region, found.view, mattes.PARSED)
            seen = resize(edited, mattes.PARSED, mattes.PARSED)
            pictures = torch.stack([plate.clamp(0, 1) * 2 - 1, seen])
            both = mattes.parsed_regions(self._networks.parser(parser), pictures, regions)
            matte = placing.put_back(both.amax(dim=0)[None], found.view, region)[0].clamp(0, 1)
        unit = pose_of(face.face).scale
        grow, feather = (float(str(face.values[f"matte_{name}"])) for name in ("grow", "feather"))
        matte = shape_matte(matte, grow, feather, unit, face.face.pixel_aspect)
        matte = matte * placing.fade(found.view, region, self._device)
        return matte, warp * (matte * 8).clamp(0, 1)


def _inner(region: Window, rows: slice, columns: slice) -> Window:
    return Window(region.x0 + columns.start, region.y0 + rows.start, region.x0 + columns.stop, region.y0 + rows.stop)
