"""From a plate and its painted frames to what a network learns of them (`training.recipes.keyframe_data`).

The shot is analysed as every job's is, and its analysis stored, so that a render of it starts at once. A region is
settled into what the effect `keyframe` will do with it: which crop of the plate the network sees, at which size, and
which matte is composited. Training then sees the very pictures that rendering will.

    face    the face alone, crop following it
    head    face, hair, ears and neck; crop following it
    frame   the whole plate; painted anywhere

The network sees the plate's own pixels, reduced only where the crop's longer side would be more than `size`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from host_bridge.errors import FaceError
from host_bridge.jobspec import MATTE_NAMES
from inference_server.effects.matte import region_matte, shape_matte
from inference_server.effects.mesh import pose_of
from inference_server.effects.placement import Placement, first_good, joined
from inference_server.effects.resample import separable
from inference_server.effects.two_stage.crop import Framing, network_picture, place_shot
from inference_server.faces.align import TARGET_EYE_DISTANCE
from inference_server.faces.mattes import region_mattes
from inference_server.faces.types import FaceFrame
from inference_server.keyframes.motion import Flows, carried
from inference_server.keyframes.painted import SAME, Painted, read_painted
from inference_server.plates.reader import read_outline, read_plate
from inference_server.plates.sequence import format_frames, parse_frames
from inference_server.plates.types import PlateFrame, Window
from inference_server.prefetch import prefetch
from inference_server.rendering import choose_faces
from inference_server.runs import Progress, RunEvent, Warned
from inference_server.shots.store import ShotRecord
from inference_server.shots.types import ShotAnalysis
from inference_server.source import PlateSource
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.keyframe_data import KeyframeData

REGIONS = ("face", "head", "frame")
WHOLE = "crop"  # as a card's `regions` calls all of the crop
PADDING = {"face": (105.0, 105.0, 115.0, 150.0), "head": (140.0, 140.0, 150.0, 160.0)}
LEARNED = (9.0, 6.0)  # grow and feather of what counts: beyond what the effect composites by default
SURROUNDINGS = 0.15  # how much paint counts that lies in the picture, but not in the region
NEAR = 3  # frames from a painted one at which carried paint is measured
MOST_CARRIED = 6
MOST_FRAMES, RUN = 120, 12  # of the shot that are learned from, and how many follow one another where it has more
_LEAST_HELD = 0.02  # of what counts: carried paint of which less holds measures nothing
_AHEAD = 3


@dataclass(frozen=True)
class PaintedShot:
    """What is asked for.

    files       painted frame -> file (`painted.painted_files`)
    colorspace  of the paint, `trust` its lineup: as `painted.read_painted`
    frames      the part of the shot to learn from, "" for all of it
    size        network pixels that the crop's longer side has at most
    """

    files: Mapping[int, str]
    colorspace: str = ""
    trust: bool = False
    frames: str = ""
    region: str = "head"
    face: str = "largest"
    size: int = 512


@dataclass(frozen=True)
class PackedShot:
    """The data, the framing and regions for the card, the shot's id, and every painted frame as it was read."""

    data: KeyframeData
    framing: Framing
    regions: str
    shot: str
    paint: tuple[Painted, ...]


def pack_shot(
    source: PlateSource, asked: PaintedShot, record: ShotRecord, analysis: ShotAnalysis, pool: ThreadPoolExecutor
) -> Generator[RunEvent, None, PackedShot]:
    """Reads, checks and packs; yields progress and warnings.

    Raises FaceError `face.none`, TrainingError `training.data`, and whatever reading plate and paint raises.
    """
    files = asked.files
    chosen = choose_faces(analysis, asked.face)
    faces = {f: face for f in analysis.frames if chosen and (face := analysis.face_at(chosen[0], f)) is not None}
    if not faces:
        raise FaceError(
            "face.none",
            "no face was found in the shot, and the network's picture is laid by it",
            path=source.sequence.pattern.text,
            remedy="Box it by hand (`faceplate shots edit`, or the panel), and train again.",
        )
    missing = [frame for frame in files if frame not in faces]
    if missing:
        raise TrainingError(
            "training.data",
            f"the face was not found in painted frame {format_frames(missing)}",
            remedy="Repair the shot (`faceplate shots edit`, or the panel), or paint another frame.",
            value=missing,
        )
    window = _window(source, analysis, faces)
    framing = framing_of(asked, list(faces.values()), window)
    placements = dict(zip(faces, _placed(analysis, faces, window, framing), strict=True))
    wanted = chosen_frames(_asked_frames(asked, tuple(faces)), tuple(files))
    pictures: dict[int, NDArray[np.uint8]] = {}
    mattes: dict[int, NDArray[np.float32]] = {}
    paint: list[Painted] = []
    painted: dict[int, _Paint] = {}
    loads = prefetch(pool, lambda f: read_plate(source.sequence.files[f], f), wanted, _AHEAD)
    for done, (frame, loaded) in enumerate(loads, 1):
        plate = loaded.result()
        view = _View(source, plate, faces[frame], placements[frame], analysis.work_exposure, asked.region)
        pictures[frame] = view.picture()
        mattes[frame] = view.matte()
        if frame in files:
            read = read_painted(files[frame], plate, source, analysis.work_exposure, asked.colorspace, asked.trust)
            for note in read.notes:
                yield Warned("training.paint", f"painted frame {frame}: {note}", frame)
            paint.append(read)
            painted[frame] = view.paint(read)
            if not painted[frame].counts.any():
                raise TrainingError(
                    "training.data",
                    f"nothing of painted frame {frame} lies within the {asked.region}",
                    remedy="Paint the face, or say --region frame.",
                    value=frame,
                )
            if not _changed(painted[frame], pictures[frame]):
                raise TrainingError(
                    "training.data",
                    f"painted frame {frame} is the plate within the {asked.region}: nothing is painted there",
                    remedy="Paint it, or say --region frame where the paint is elsewhere.",
                    value=frame,
                )
        yield Progress("prepare", done, len(wanted))
    data = _data(wanted, pictures, mattes, painted, analysis.cuts)
    regions = WHOLE if asked.region == "frame" else asked.region
    return PackedShot(data, framing, regions, record.id, tuple(paint))


def framing_of(asked: PaintedShot, faces: Sequence[FaceFrame], window: Window) -> Framing:
    """What the network sees of the plate: its own pixels as far as `size` allows."""
    if asked.region == "frame":
        longest = max(window.width * faces[0].pixel_aspect, window.height)
        return Framing("full", 0.0 if longest <= asked.size else float(asked.size))
    padding = PADDING[asked.region]
    eyes = float(np.median([pose_of(face).scale for face in faces]))
    longest = max(padding[0] + padding[1], padding[2] + padding[3]) / TARGET_EYE_DISTANCE
    return Framing("follow", round(min(eyes, asked.size / longest), 2), padding)


def chosen_frames(shot: tuple[int, ...], painted: tuple[int, ...]) -> tuple[int, ...]:
    """The frames that are read: all of a short shot, even runs of a long one, and those around the painted ones."""
    if len(shot) <= MOST_FRAMES:
        return tuple(sorted({*shot, *painted}))
    starts = np.linspace(0, len(shot) - RUN, MOST_FRAMES // RUN).round().astype(int)
    picked = {shot[s + i] for s in starts for i in range(RUN)}
    near = {f for p in painted for f in shot if abs(f - p) <= NEAR}
    return tuple(sorted(picked | near | set(painted)))


def _asked_frames(asked: PaintedShot, found: tuple[int, ...]) -> tuple[int, ...]:
    if not asked.frames:
        return found
    wanted = set(parse_frames(asked.frames))
    return tuple(f for f in found if f in wanted)


def _window(source: PlateSource, analysis: ShotAnalysis, faces: Mapping[int, FaceFrame]) -> Window:
    """What the plate holds, as the effect takes it."""
    whole = analysis.display_window
    window = Window(0, 0, whole.width, whole.height)
    good, _ = first_good(list(faces.values()), window)
    outline = read_outline(source.sequence.files[good.frame], good.frame)
    return joined(window, outline.parts[source.layer(outline).part].seen)


def _placed(
    analysis: ShotAnalysis, faces: Mapping[int, FaceFrame], window: Window, framing: Framing
) -> tuple[Placement, ...]:
    """As the effect lays its crop."""
    try:
        return place_shot(faces, window, framing, analysis.cuts)
    except ValueError as error:
        raise TrainingError("training.config", f"the crop cannot be laid: {error}", remedy="Lower --size.") from error


@dataclass(frozen=True)
class _Paint:
    """Paint in the network's picture [H, W, 3] 0..1; how much of the region it is, and how much it counts, [H, W]."""

    picture: NDArray[np.float32]
    counts: NDArray[np.float32]
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class _View:
    """One frame of the plate in the network's picture."""

    source: PlateSource
    plate: PlateFrame
    face: FaceFrame
    place: Placement
    exposure: float
    region_name: str

    @property
    def region(self) -> Window:
        return self.place.window.intersect(self.plate.parts[self.source.layer(self.plate).part].seen)

    def _cut(self) -> tuple[slice, slice]:
        x, y = self.source.origin(self.plate)
        r = self.region
        return slice(r.y0 - y, r.y1 - y), slice(r.x0 - x, r.x1 - x)

    def _seen(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture [h, w, 3] of the region as the network sees it, [H, W, 3] 0..1."""
        tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        return ((network_picture(tensor, self.region, self.place)[0] + 1) / 2).permute(1, 2, 0).numpy()

    def picture(self) -> NDArray[np.uint8]:
        rows, columns = self._cut()
        return _bytes(self._seen(self.source.picture(self.plate, self.exposure)[rows, columns]))

    def matte(self) -> NDArray[np.float32]:
        """What counts, [H, W] 0..1: a little more than will be composited, and nothing from beyond the plate."""
        region = self.region
        shape = (region.height, region.width)
        if self.region_name == "frame":
            matte = torch.ones(shape)
        else:
            found = region_mattes(self.face, region, [n for n in MATTE_NAMES if n != "composite"])
            matte = region_matte(
                {name: torch.from_numpy(m) for name, m in found.items()}, self.region_name, shape, torch.device("cpu")
            )
            matte = shape_matte(matte, *LEARNED, pose_of(self.face).scale, self.face.pixel_aspect)
        return self._plane(matte.numpy())

    def paint(self, read: Painted) -> _Paint:
        rows, columns = self._cut()
        covered = self._plane(read.covers[rows, columns].astype(np.float32)) > 0.99
        matte = self.matte()
        weight = SURROUNDINGS + (1 - SURROUNDINGS) * matte
        return _Paint(self._seen(read.picture[rows, columns]), matte * covered, weight * covered)

    def _plane(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[h, w] of the region as [H, W]; 0 where the crop reaches beyond it."""
        region = self.region
        both = torch.from_numpy(np.ascontiguousarray(values))[None]
        seen = separable(both, *self.place.sampling(region))[0].clamp(0, 1).numpy()
        y = (np.arange(self.place.height) + 0.5 - self.place.ty) / self.place.sy
        x = (np.arange(self.place.width) + 0.5 - self.place.tx) / self.place.sx
        within = ((y >= region.y0) & (y < region.y1))[:, None] & ((x >= region.x0) & (x < region.x1))[None]
        return np.asarray(seen * within, np.float32)


def _changed(paint: _Paint, picture: NDArray[np.uint8]) -> bool:
    away = np.abs(paint.picture - picture.astype(np.float32) / 255).max(axis=-1) > SAME
    return bool((away * paint.counts).sum() > 0.005 * paint.counts.sum())


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(picture.clip(0, 1) * 255), np.uint8)


def _data(
    frames: tuple[int, ...],
    pictures: Mapping[int, NDArray[np.uint8]],
    mattes: Mapping[int, NDArray[np.float32]],
    painted: Mapping[int, _Paint],
    cuts: Sequence[int],
) -> KeyframeData:
    flows = Flows()
    height, width = next(iter(pictures.values())).shape[:2]
    first = [i == 0 or f - frames[i - 1] != 1 or f in cuts for i, f in enumerate(frames)]
    flow = np.zeros((len(frames), 2, height, width), np.float16)
    valid = np.ones((len(frames), height, width), np.uint8)
    for i, frame in enumerate(frames):
        if not first[i]:
            motion = flows.between(pictures[frame], pictures[frames[i - 1]])
            flow[i], valid[i] = motion.flow.transpose(2, 0, 1), motion.holds
    near = _carried(frames, pictures, painted, cuts, flows)

    def planar(stack: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack(stack).transpose(0, 3, 1, 2) if stack else np.zeros((0, 3, height, width), np.float32)

    def weights(stack: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
        return _bytes(np.stack(stack)) if stack else np.zeros((0, height, width), np.uint8)

    return KeyframeData(
        frames=np.stack([pictures[f] for f in frames]).transpose(0, 3, 1, 2),
        numbers=np.array(frames, np.int64),
        matte=weights([mattes[f] for f in frames]),
        flow=flow,
        valid=valid,
        first=np.array(first, np.uint8),
        painted=np.array(list(painted), np.int64),
        paint=planar([p.picture for p in painted.values()]).astype(np.float16),
        weight=weights([p.weight for p in painted.values()]),
        carried_to=np.array([f for f, _, _ in near], np.int64),
        carried=_bytes(planar([p for _, p, _ in near])),
        holds=weights([w for _, _, w in near]),
    )


def _carried(
    frames: tuple[int, ...],
    pictures: Mapping[int, NDArray[np.uint8]],
    painted: Mapping[int, _Paint],
    cuts: Sequence[int],
    flows: Flows,
) -> list[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """The paint on the frames near each painted one: (frame, paint, how much it counts)."""
    out = []
    for frame, paint in painted.items():
        for way in (-1, 1):
            reach = range(NEAR, 0, -1)
            to = next((frame + way * k for k in reach if frame + way * k in pictures), None)
            if to is None or to in painted or any(min(frame, to) < cut <= max(frame, to) for cut in cuts):
                continue
            seen, holds = carried(paint.picture, paint.counts, flows.between(pictures[to], pictures[frame]))
            if holds.sum() > _LEAST_HELD * paint.counts.sum():
                out.append((to, seen, holds))
    picks = {math.floor(i * len(out) / MOST_CARRIED) for i in range(MOST_CARRIED)} if len(out) > MOST_CARRIED else None
    return out if picks is None else [out[p] for p in sorted(picks)]


def described(packed: PackedShot) -> dict[str, object]:
    """The card's table of a model that learned this: what `keyframe` needs to know, and what it was made from."""
    framing = packed.framing
    return {
        "styles": ["painted"],
        "keyframe": True,
        "crop": framing.mode,
        "size": framing.size,
        "padding": list(framing.padding),
        "regions": packed.regions,
        "shot": packed.shot,
        "painted": [int(n) for n in packed.data.painted],
    }
