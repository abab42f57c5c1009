"""One frame: from decoded plate, analysis and parameter values to new stored samples and the mattes used.

Nothing here reads or writes files or remembers anything between frames, so a frame is the same whoever renders it, in
whatever order. Faces are done in the order of their track ids, each on the result of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from host_bridge.curves import Curve, Value
from host_bridge.effects import EffectValues
from host_bridge.errors import EffectError, FaceError, FaceplateError, PlateError, unknown_name
from host_bridge.jobspec import MATTE_NAMES
from inference_server.effects.base import NO_DATA, Effect, EffectOutput, FaceInput, RecurrentEffect, ShotData
from inference_server.faces.mattes import region_mattes
from inference_server.faces.types import FaceFrame
from inference_server.plates.color import PlateColor, from_picture, to_picture
from inference_server.plates.composite import Straight, composite, quantise_matte, straighten
from inference_server.plates.grain import add_grain, sharpen, split_grain
from inference_server.plates.motionblur import blur_along, path_over
from inference_server.plates.types import ChosenLayer, PlateFrame, Window
from inference_server.plates.warp import warp_picture
from inference_server.shots.motion import head_motion
from inference_server.shots.types import ShotAnalysis
from inference_server.source import is_associated

_REGIONS = tuple(name for name in MATTE_NAMES if name != "composite")
_MARGIN = 8  # pixels that filters look at beyond the matte

Mattes = dict[str, NDArray[np.float16]]  # name -> [height, width] of the data window


@dataclass(frozen=True)
class RenderSettings:
    """What is constant over a job. `faces` are track ids; `matte_names` the mattes to hand out besides.

    `style_digest` is the content of the file that `style` was read from; `shots` what the effect knows of each face.
    """

    effect: Effect
    values: EffectValues
    color: PlateColor
    premult: str
    exposure: float
    faces: tuple[int, ...]
    device: torch.device
    mask_mode: str = ""
    style: Tensor | None = None
    style_digest: str = ""
    matte_names: tuple[str, ...] = ()
    shots: Mapping[int, ShotData] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedFrame:
    """The plate with the treated samples replaced; `touched` is False where no face was there.

    `mattes` has every asked name and `composite`, the union of what was composited, exactly as used.
    """

    plate: PlateFrame
    mattes: Mapping[str, NDArray[np.float16]]
    touched: bool
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass
class _Canvas:
    """The samples under treatment: the data window's stored colour, and what has been composited so far."""

    stored: NDArray[Any]  # [H, W, 3] stored dtype
    alpha: NDArray[Any] | None  # [H, W]
    associated: bool
    mattes: Mattes = field(default_factory=dict)


def render_frame(
    plate: PlateFrame,
    layer: ChosenLayer,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    *,
    analysed_as: int | None = None,
    mask: NDArray[np.float32] | None = None,
    identity: bool = False,
    drawn: Mapping[int, Tensor] | None = None,
) -> RenderedFrame:
    """Render every chosen face of a frame.

    analysed_as  the frame whose analysis applies (a held frame's source); default the plate's own
    mask         [H, W] the artist's matte over the data window, 0..1, or None
    identity     the values change nothing: only the asked mattes are made
    drawn        of a recurrent effect, track -> what its walk drew of this frame; None: it draws the frame alone

    Raises PlateError `plate.size_changed` when the display window is not the shot's, and whatever the effect raises,
    with the frame filled in.
    """
    part = plate.parts[layer.part]
    window = part.seen
    _check_size(plate, part.display_window, analysis.display_window)
    stored, alpha = _treated(plate, layer)
    canvas = _Canvas(stored, alpha, is_associated(plate))
    shape = stored.shape[:2]
    canvas.mattes = {name: np.zeros(shape, np.float16) for name in (*settings.matte_names, "composite")}
    warnings: list[tuple[str, str]] = []
    if canvas.alpha is not None and settings.premult != "ignore" and not (canvas.alpha > 0).any():
        warnings.append(
            (
                "plate.alpha_zero",
                "the alpha is 0 everywhere, so nothing is treated; use --premult ignore if it is unused",
            )
        )
    touched = False
    for track in settings.faces:
        face = analysis.face_at(track, plate.frame if analysed_as is None else analysed_as)
        if face is None:
            continue
        try:
            touched |= _render_face(canvas, window, analysis, face, settings, plate.frame, mask, identity, drawn)
        except FaceplateError as error:
            raise error.at(frame=plate.frame, path=plate.path) from error
    if not touched:
        return RenderedFrame(plate, canvas.mattes, False, tuple(warnings))
    channels = dict(part.channels)
    for i, name in enumerate((layer.red, layer.green, layer.blue)):
        channels[name] = np.ascontiguousarray(canvas.stored[..., i])
    parts = list(plate.parts)
    parts[layer.part] = replace(part, channels=channels)
    return RenderedFrame(replace(plate, parts=tuple(parts)), canvas.mattes, True, tuple(warnings))


def _treated(plate: PlateFrame, layer: ChosenLayer) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The stored colour [H, W, 3], a copy, and the alpha [H, W]."""
    part = plate.parts[layer.part]
    names = (layer.red, layer.green, layer.blue)
    stored = np.stack([part.channels[n] for n in names], axis=-1)
    if stored.dtype not in (np.float16, np.float32):
        raise PlateError(
            "plate.layer",
            f"channels {', '.join(names)} hold {stored.dtype}, not colour",
            value=list(names),
            frame=plate.frame,
            path=plate.path,
            remedy="Choose a half or float layer with --layer or --part.",
        )
    return stored, part.channels[layer.alpha] if layer.alpha else None


def choose_faces(analysis: ShotAnalysis, choice: str) -> tuple[int, ...]:
    """Track ids for `largest`, `all`, an id, or `x,y` (nearest on average to a point in plate pixels).

    The choice is made for the shot, so that it cannot jump between people. Raises FaceError `face.unknown`.
    """
    tracks = [t for t in analysis.tracks if t.enabled]
    ids = [str(t.id) for t in tracks]
    if choice == "all":
        return tuple(t.id for t in tracks)
    if choice.isdigit():
        if choice not in ids:
            raise unknown_name("face.unknown", "face", choice, [*ids, "largest", "all"])
        return (int(choice),)
    present = {t.id: t.landmarks[t.states > 0][..., :2] for t in tracks if (t.states > 0).any()}
    if not present:
        return ()
    if choice == "largest":
        area = {i: float(np.prod(p.max(axis=1) - p.min(axis=1), axis=-1).sum()) for i, p in present.items()}
        return (max(area, key=lambda i: (area[i], -i)),)
    x, comma, y = choice.partition(",")
    try:
        point = np.array([float(x), float(y)], np.float32)
    except ValueError:
        comma = ""
    if not comma:
        raise FaceError(
            "face.unknown",
            f"cannot read the face choice {choice!r}",
            value=choice,
            remedy=f"Use largest, all, a point x,y in plate pixels, or a face id of this shot: {', '.join(ids)}.",
        )
    away = {i: float(np.linalg.norm(p.mean(axis=(0, 1)) - point)) for i, p in present.items()}
    return (min(away, key=lambda i: (away[i], i)),)


def work_exposure(params: Mapping[str, Curve], analysis: ShotAnalysis) -> float:
    """The work exposure in stops: the shot's own unless `auto_exposure` is off, plus the `work_exposure` parameter."""
    automatic, added = params.get("auto_exposure"), params.get("work_exposure")
    own = analysis.work_exposure if automatic is None or automatic.at(0) else 0.0
    value = added.at(0) if added is not None else 0.0
    return own + (value if isinstance(value, float) else 0.0)


def is_identity(settings: RenderSettings, frame: int) -> bool:
    """Whether the values at `frame` leave the plate as it is."""
    values = settings.values.at(frame)
    return values.get("mix") == 0 or settings.effect.is_identity(values, settings.values.edits_at(frame))


def _render_face(
    canvas: _Canvas,
    window: Window,
    analysis: ShotAnalysis,
    face: FaceFrame,
    settings: RenderSettings,
    frame: int,
    mask: NDArray[np.float32] | None,
    identity: bool,
    drawn: Mapping[int, Tensor] | None,
) -> bool:
    values = settings.values.at(frame)
    region = settings.effect.region(face, values, settings.shots.get(face.track, NO_DATA)).intersect(window)
    if region.empty:
        return False
    rows = slice(region.y0 - window.y0, region.y1 - window.y0)
    columns = slice(region.x0 - window.x0, region.x1 - window.x0)
    stored = canvas.stored[rows, columns]
    alpha = None if canvas.alpha is None else canvas.alpha[rows, columns]
    mattes = region_mattes(face, region, _REGIONS)
    for name in settings.matte_names:
        if name in mattes:
            target = canvas.mattes[name][rows, columns]
            np.maximum(target, quantise_matte(mattes[name]), out=target)
    if identity:
        return False
    straight = straighten(stored, alpha, settings.premult, canvas.associated, settings.color)
    face_input = make_input(straight, mattes, face, region, frame, settings)
    output = _output(settings.effect, face_input, drawn)
    own = output.matte.detach().to("cpu", torch.float32).numpy() * _edge_ramp(region, window)
    matte = quantise_matte(_with_mask(own, mask, rows, columns, settings.mask_mode) * _float(values.get("mix", 1.0)))
    mode = str(values.get("composite", settings.effect.descriptor.composite))
    # A difference to the plate brings the plate's own blur with it.
    shutter = _float(values.get("motion_blur", 0.0)) if mode == "replace" else 0.0
    motion = head_motion(analysis, face.track, face.frame) if shutter else None
    path = None if motion is None else path_over(region, motion, shutter)
    box = _reach(matte, output, path)
    if box is None:
        return False
    edited, reconstructed = edited_scene(
        _cut_input(face_input, box),
        _cut_output(output, box),
        settings.exposure,
        _float(values.get("grain", 1.0)),
        _float(values.get("sharpness", 0.0)),
        None if path is None else path[:, box[0], box[1]],
    )
    # Views of the canvas: what is assigned to them is in the frame.
    inner, used, ready = stored[box], matte[box], straight.cut(box)
    recon = None if reconstructed is None else _hwc(reconstructed)
    inner[...] = composite(inner, ready, _hwc(edited), recon, used, mode, settings.color)
    union = canvas.mattes["composite"][rows, columns][box]
    np.maximum(union, np.where(ready.valid, used, np.float16(0)), out=union)
    return True


def _output(effect: Effect, face: FaceInput, drawn: Mapping[int, Tensor] | None) -> EffectOutput:
    if drawn is None:
        return effect.render(face)
    if not isinstance(effect, RecurrentEffect) or face.face.track not in drawn:
        raise EffectError(
            "effect.failed", "nothing was drawn of this face before it was to be put back", remedy="Report this."
        )
    return effect.finish(face, drawn[face.face.track])


def _reach(matte: NDArray[np.float16], output: EffectOutput, path: Tensor | None) -> tuple[slice, slice] | None:
    """The rows and columns where the matte is above 0, with room for what is moved into them; None where nothing is."""
    rows, columns = np.nonzero(matte.any(axis=1))[0], np.nonzero(matte.any(axis=0))[0]
    if not rows.size:
        return None
    margin = _MARGIN + sum(math.ceil(float(moved.abs().max())) for moved in (output.warp, path) if moved is not None)
    height, width = matte.shape
    return (
        slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)),
    )


def _cut_input(face: FaceInput, box: tuple[slice, slice]) -> FaceInput:
    rows, columns = box
    return replace(face, scene=face.scene[:, rows, columns], picture=face.picture[:, rows, columns])


def _cut_output(output: EffectOutput, box: tuple[slice, slice]) -> EffectOutput:
    rows, columns = box

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:, rows, columns]

    return EffectOutput(
        output.matte[box], cut(output.warp), cut(output.gain), cut(output.picture), cut(output.reference)
    )


def make_input(
    straight: Straight,
    mattes: Mapping[str, NDArray[np.float32]],
    face: FaceFrame,
    region: Window,
    frame: int,
    settings: RenderSettings,
) -> FaceInput:
    """What the effect gets, on its device."""
    scene = torch.from_numpy(np.ascontiguousarray(straight.scene.transpose(2, 0, 1))).to(settings.device)
    return FaceInput(
        frame=frame,
        scene=scene,
        picture=to_picture(scene, settings.exposure),
        face=face,
        mattes={name: torch.from_numpy(matte).to(settings.device) for name, matte in mattes.items()},
        region=region,
        values=settings.values.at(frame),
        edits=settings.values.edits_at(frame),
        style=settings.style,
        shot=settings.shots.get(face.track, NO_DATA),
    )


def face_input(
    plate: PlateFrame,
    layer: ChosenLayer,
    face: FaceFrame,
    region: Window,
    settings: RenderSettings,
    mattes: Sequence[str] = _REGIONS,
) -> FaceInput:
    """What an effect would get of a face in `region`, clipped to the data window. Raises PlateError `plate.layer`."""
    part = plate.parts[layer.part]
    region = region.intersect(part.seen)
    stored, alpha = _treated(plate, layer)
    rows = slice(region.y0 - part.seen.y0, region.y1 - part.seen.y0)
    columns = slice(region.x0 - part.seen.x0, region.x1 - part.seen.x0)
    straight = straighten(
        stored[rows, columns],
        None if alpha is None else alpha[rows, columns],
        settings.premult,
        is_associated(plate),
        settings.color,
    )
    return make_input(straight, region_mattes(face, region, mattes), face, region, plate.frame, settings)


def edited_scene(
    face: FaceInput,
    output: EffectOutput,
    exposure: float,
    grain_amount: float = 1.0,
    sharpness: float = 0.0,
    path: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """E and R in scene-linear, each [3, h, w], from what an effect returned (effects/base.py gives the equations).

    Of a picture, the grain is matched, not added: its fine noise is brought to the plate's by `grain_amount`, so that a
    picture that still has its grain does not get it twice. `sharpness` acts before that, and so does the motion blur
    along `path` [2, h, w]; the residual is the plate's, and blurred already.
    """
    if output.picture is None:
        if output.warp is None and output.gain is None:
            raise EffectError(
                "effect.failed", "the effect returned neither picture, warp nor gain", remedy="Report this."
            )
        base, grain = split_grain(face.scene)
        moved = base if output.warp is None else warp_picture(base, output.warp)
        if output.gain is not None:
            moved = moved * output.gain
        return add_grain(moved, grain), None
    residual = face.scene - from_picture(face.picture, exposure)
    moved = residual if output.warp is None else warp_picture(residual, output.warp)
    edited = _shown(output.picture, exposure, path) + moved
    if sharpness:
        edited = sharpen(edited, sharpness)
    if grain_amount > 0:
        edited = add_grain(edited, split_grain(face.scene)[1] - split_grain(edited)[1], grain_amount)
    if output.reference is None:
        return edited, None
    return edited, _shown(output.reference, exposure, path) + residual


def _shown(picture: Tensor, exposure: float, path: Tensor | None) -> Tensor:
    """A drawn picture as scene-linear light, smeared along `path` as a camera would have seen it."""
    scene = from_picture(picture.clamp(0, 1), exposure)
    return scene if path is None else blur_along(scene, path)


def _edge_ramp(region: Window, window: Window) -> NDArray[np.float32]:
    """[h, w]: 0 on the crop's edge to 1 a few pixels inside, except where the crop ends with the data window."""
    width = max(2, min(region.width, region.height) // 50)
    x = np.arange(region.width, dtype=np.float32)
    y = np.arange(region.height, dtype=np.float32)
    across = np.full_like(x, np.inf)
    down = np.full_like(y, np.inf)
    if region.x0 > window.x0:
        across = np.minimum(across, x)
    if region.x1 < window.x1:
        across = np.minimum(across, x[::-1])
    if region.y0 > window.y0:
        down = np.minimum(down, y)
    if region.y1 < window.y1:
        down = np.minimum(down, y[::-1])
    return np.asarray(np.minimum(np.minimum(across[None, :], down[:, None]) / width, 1), np.float32)


def _with_mask(
    own: NDArray[np.float32], mask: NDArray[np.float32] | None, rows: slice, columns: slice, mode: str
) -> NDArray[np.float32]:
    if mask is None:
        return own
    given = mask[rows, columns]
    if mode == "replace":
        return given
    if mode == "subtract":
        return own * (1 - given)
    if mode == "union":
        return np.maximum(own, given)
    return own * given


def _check_size(plate: PlateFrame, found: Window, expected: Window) -> None:
    if (found.width, found.height) != (expected.width, expected.height):
        raise PlateError(
            "plate.size_changed",
            f"the frame is {found.width}x{found.height}, the shot {expected.width}x{expected.height}",
            value=[found.width, found.height],
            frame=plate.frame,
            path=plate.path,
            remedy="Render the ranges of different size as separate shots (--shot-range).",
        )


def _float(value: Value) -> float:
    if isinstance(value, str | tuple):
        raise TypeError(f"not a number: {value!r}")
    return float(value)


def _hwc(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy().transpose(1, 2, 0))
