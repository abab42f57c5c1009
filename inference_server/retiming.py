"""A shot at another speed, and frames that are missing: what lies between two frames of the plate.

Output frames are numbered from the shot's first frame on, which keeps its number: at a factor of 2, frame 1001 + n of
the plate becomes 1001 + 2n, and 1001 + 2n + 1 lies half-way to the next. The numbering does not depend on the frames
that are asked for, so that chunks are parts of the whole; a frame of the plate brings those up to the next one.

Frames that fall on one of the plate are that frame. Between two, the treated colour, alpha and mask follow the flow
(plates.between); everything else in the file (other channels and parts, metadata) is the earlier frame's, and the
attribute `faceplate:between` says which two it lies between. Nothing is interpolated over a cut: the frame before it
is held. Faces, and what an effect knows of the shot, are interpolated linearly; keyframes move with the frames.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from host_bridge.curves import Curve
from host_bridge.effects import Edit, EffectValues
from host_bridge.errors import EffectError, PlateError
from inference_server.effects.base import RecurrentEffect, RetimableEffect, ShotEffect, Times
from inference_server.faces.types import FaceState
from inference_server.plates.attributes import encode
from inference_server.plates.between import between, motion_between
from inference_server.plates.provenance import PREFIX
from inference_server.plates.reader import read_planned, read_plate
from inference_server.plates.sequence import FramePlan, InBetween, PlannedFrame, Sequence, missing_frame, parse_frames
from inference_server.plates.types import ChosenLayer, Part, PlateFrame, Window
from inference_server.rendering import RenderSettings
from inference_server.shots.types import ShotAnalysis, Track
from inference_server.source import MaskSource, PlateSource

INTERPOLATE = "interpolate"
"""The policy for missing frames that makes them."""


def plan_retimed(sequence: Sequence, frames: str, factor: float, missing: str) -> FramePlan:
    """The output frames of those frames of the plate ("" = all on disk).

    Under the policy `interpolate` frames that are not on disk are made of their neighbours; any other policy takes them
    as errors. Raises RequestError `request.frame_range`.
    """
    speed = Fraction(factor).limit_denominator(1000)
    have = sequence.frames
    origin = have[0]
    wanted = parse_frames(frames) if frames.strip() else tuple(range(have[0], have[-1] + 1))
    absent = tuple(frame for frame in wanted if frame not in sequence.files)
    planned: dict[int, PlannedFrame] = {}
    for frame in wanted:
        first = math.ceil(origin + (frame - origin) * speed)
        for number in range(first, math.ceil(origin + (frame + 1 - origin) * speed)):
            time = origin + Fraction(number - origin) / speed
            earlier = max((f for f in have if f <= time), default=None)
            later = min((f for f in have if f >= time), default=None)
            gap = earlier is None or later is None or later - earlier > 1
            if time > have[-1] and frame == have[-1]:
                continue  # nothing comes after the last frame
            if earlier is None or later is None or (gap and missing != INTERPOLATE):
                error = missing_frame(sequence, frame, absent or (frame + 1,))
                planned[number] = PlannedFrame(number, "", frame, error)
                continue
            share = float((time - earlier) / (later - earlier)) if later > earlier else 0.0
            here = InBetween(sequence.files[later], later, share)
            planned[number] = PlannedFrame(number, sequence.files[earlier], earlier, between=here)
    return FramePlan(tuple(planned[number] for number in sorted(planned)), absent)


def held_at_cuts(planned: FramePlan, analysis: ShotAnalysis) -> FramePlan:
    """The plan with the frame before a cut in place of those over it."""

    def held(item: PlannedFrame) -> PlannedFrame:
        over = item.between is not None and any(item.source < cut <= item.between.source for cut in analysis.cuts)
        if not over or item.between is None:
            return item
        return replace(item, between=replace(item.between, path=item.path, source=item.source, share=0.0))

    return FramePlan(tuple(map(held, planned.frames)), planned.missing)


def refuse_unretimable(settings: RenderSettings) -> None:
    """EffectError `effect.parameter` where the effect cannot be asked for what lies between frames."""
    effect = settings.effect
    recurrent = isinstance(effect, RecurrentEffect) and effect.is_recurrent(settings.values)
    if recurrent or (isinstance(effect, ShotEffect) and not isinstance(effect, RetimableEffect)):
        raise EffectError(
            "effect.parameter",
            f"{effect.descriptor.identifier} cannot draw what lies between frames",
            value=effect.descriptor.identifier,
            remedy="Retime the plate first, or use --missing hold.",
        )


def retimed(
    settings: RenderSettings, analysis: ShotAnalysis, planned: FramePlan, first: int, factor: float
) -> tuple[RenderSettings, ShotAnalysis]:
    """Settings and analysis with output frames in the place of the plate's; `first` is the shot's first frame."""
    times: Times = {
        item.frame: (item.source, item.between.source, item.between.share)
        for item in planned.frames
        if item.between is not None
    }
    effect = settings.effect
    shots = settings.shots
    if isinstance(effect, RetimableEffect):
        shots = {track: effect.retimed(data, times) for track, data in settings.shots.items()}
    values = retimed_values(settings.values, first, factor) if factor != 1 else settings.values
    return replace(settings, shots=shots, values=values), retimed_analysis(analysis, times)


def retimed_values(values: EffectValues, first: int, factor: float) -> EffectValues:
    """Keyframes where their frames are now."""

    def moved(curve: Curve) -> Curve:
        return curve if curve.is_constant else Curve(tuple((first + (f - first) * factor, v) for f, v in curve.keys))

    params = {name: moved(curve) for name, curve in values.params.items()}
    return EffectValues(params, tuple(Edit(e.name, moved(e.strength)) for e in values.edits))


def retimed_analysis(analysis: ShotAnalysis, times: Times) -> ShotAnalysis:
    """The analysis at those times; a face is between two frames where it is in both."""
    frames = tuple(sorted(times))
    index = {frame: i for i, frame in enumerate(analysis.frames)}
    earlier = np.array([index[times[f][0]] for f in frames])
    later = np.array([index[times[f][1]] for f in frames])
    share = np.array([times[f][2] for f in frames], np.float32)

    def mixed(array: NDArray[np.float32]) -> NDArray[np.float32]:
        t = share.reshape(-1, *[1] * (array.ndim - 1))
        return np.asarray(array[earlier] * (1 - t) + array[later] * t, np.float32)

    def track(one: Track) -> Track:
        states = one.states[earlier].copy()
        states[(share > 0) & (states != FaceState.ABSENT)] = FaceState.INTERPOLATED
        states[(share > 0) & (one.states[later] == FaceState.ABSENT)] = FaceState.ABSENT
        return replace(
            one,
            landmarks=mixed(one.landmarks),
            states=states,
            scores=mixed(one.scores),
            segmentation=np.rint(mixed(one.segmentation.astype(np.float32))).astype(np.uint8),
            matrices=mixed(one.matrices),
        )

    return replace(analysis, frames=frames, tracks=tuple(map(track, analysis.tracks)), missing=(), cuts=())


def load_between(
    source: PlateSource, item: PlannedFrame, exposure: float, mask: MaskSource | None
) -> tuple[PlateFrame, ChosenLayer, NDArray[np.float32] | None]:
    """The plate under an output frame, its treated layer, and the mask over its data window.

    Raises PlateError, `plate.size_changed` where the two frames differ in size, and what the mask raises.
    """
    here = item.between
    plate = read_planned(item)
    layer = source.layer(plate)
    part = plate.parts[layer.part]
    if here is None or here.share == 0:
        return plate, layer, _mask(mask, item.source, part)
    other = read_plate(here.path, here.source)
    later = other.parts[source.layer(other).part]
    if later.display_window != part.display_window or later.data_window != part.data_window:
        raise PlateError(
            "plate.size_changed",
            f"frames {item.source} and {here.source} differ in their windows, so nothing lies between them",
            frame=item.frame,
            path=here.path,
            remedy="Give both the same data window, or use --missing hold.",
        )
    names = [n for n in (layer.red, layer.green, layer.blue, layer.alpha) if n]
    masks = [_mask(mask, number, part) for number in (item.source, here.source)]
    stacks, good = [], np.ones((part.data_window.height, part.data_window.width), bool)
    for samples, own in zip((part.channels, later.channels), masks, strict=True):
        planes = [samples[n].astype(np.float32) for n in names] + ([own] if own is not None else [])
        stack = np.stack(planes, axis=-1)
        good &= np.isfinite(stack).all(axis=-1)
        stacks.append(np.nan_to_num(stack, nan=0.0, posinf=0.0, neginf=0.0))
    pictures = [source.picture(frame, exposure) for frame in (plate, other)]
    motion = motion_between(*(np.nan_to_num(picture) for picture in pictures))
    mixed = between(stacks[0], stacks[1], here.share, motion)
    channels = dict(part.channels)
    for i, name in enumerate(names):
        stored = part.channels[name]
        made = mixed[..., i]
        if stored.dtype == np.float16:
            made = np.clip(made, -65504, 65504)
        channels[name] = np.where(good, made.astype(stored.dtype), stored)  # what is not finite stays as it was
    note = {f"{PREFIX}between": encode("string", f"{item.source} {here.source} {here.share:.6g}")}
    parts = [replace(p, header={**p.header, **note}) for p in plate.parts]
    parts[layer.part] = replace(parts[layer.part], channels=channels)
    return replace(plate, parts=tuple(parts)), layer, mixed[..., -1].clip(0, 1) if mask is not None else None


def _mask(mask: MaskSource | None, frame: int, part: Part) -> NDArray[np.float32] | None:
    display: Window = part.display_window
    return None if mask is None else mask.read(frame, part.data_window, display)
