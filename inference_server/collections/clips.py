"""Decides how clips become training data for the two-stage translator: a cut around the tracked head, and a teacher.

The teacher is an effect of this product, rendered as it would be on a plate: the clip is tracked by the same analysis,
linearised, brought to the same work exposure, and the effect gets the same input, except that its matte is opened to
the whole crop, so that every pixel has an answer, and that its shape and texture are off: a translator that answers
pixel by pixel can learn neither a head that is moved nor paper that is pinned to it.

In the crop the eyes are 64 pixels apart, the place is smoothed over time, and what lies outside the plate is mirrored,
as the effects that translate heads do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from host_bridge.effects import EffectValues, check_values
from host_bridge.errors import FaceError, PlateError
from host_bridge.jobspec import MATTE_NAMES, JobSpec, PlateSpec
from inference_server.effects.base import Effect, FaceInput, Resources
from inference_server.effects.matte import region_matte, shape_matte
from inference_server.effects.mesh import pose_of
from inference_server.effects.placement import Padding, Placement, centred, place, steadied
from inference_server.effects.registry import load_effect
from inference_server.effects.resample import separable
from inference_server.faces.analyse import FaceTools, Frame, analyse_frames
from inference_server.faces.mattes import region_mattes
from inference_server.faces.types import FaceFrame
from inference_server.plates.color import LUMINANCE, ColorConfig, auto_exposure, srgb_decode, to_picture
from inference_server.plates.reader import read_plate
from inference_server.plates.types import Window
from inference_server.rendering import choose_faces
from inference_server.runs import result_of
from inference_server.shots.types import ShotAnalysis
from inference_server.source import PlateSource
from inference_server.training.clip_cache import CacheWriter, PackedFrame, Picture, Plane
from inference_server.training.draws import Draw, derive

# What a pixel-by-pixel translator cannot learn is off; the rest is the effect's default.
TEACHERS: dict[str, dict[str, float]] = {"look": {"structure": 0.0, "texture": 0.0, "degree": 1.0}}
VIDEO = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
EYES_AT = 0.45  # of the crop's height
HEAD = (-2.0, 3.0)  # grow and feather of the head, as the effects' defaults
RETURN = (0.01, 0.5)  # flow holds where |forth + back|^2 is below this share of both squared, plus this many pixels^2


@dataclass(frozen=True)
class PackSettings:
    """`windows` of `length` frames are taken of each clip, evenly spread; `size` is the crop's side in pixels.

    `grade`: every second window is seen, and drawn by the teacher, in other light: its channels are multiplied by up to
    that many stops either way. A few people's colours are not all there are.
    """

    styles: tuple[str, ...]
    teacher: str = "look"
    size: int = 288
    windows: int = 6
    length: int = 10
    grade: float = 0.35


@dataclass(frozen=True)
class Packed:
    """One more frame of a clip is done, of so many of all clips."""

    clip: str
    done: int
    total: int


class Clip(Protocol):
    """Frames of a clip as scene-linear Rec.709 [H, W, 3]; numbers rise."""

    name: str
    numbers: tuple[int, ...]
    aspect: float

    def scenes(self, numbers: Sequence[int]) -> Iterator[NDArray[np.float32]]: ...


class VideoClip:
    """A video file that OpenCV reads: 8-bit sRGB, linearised by its curve; frames are numbered from 0."""

    aspect = 1.0

    def __init__(self, path: Path) -> None:
        """Raises PlateError `plate.missing_frame`, `plate.unreadable`."""
        self.name, self._path = path.stem, path
        if not path.is_file():
            raise PlateError("plate.missing_frame", f"{path} does not exist", path=str(path), remedy="Check the path.")
        video = cv2.VideoCapture(str(path))
        self.numbers = tuple(range(int(video.get(cv2.CAP_PROP_FRAME_COUNT))))
        video.release()
        if not self.numbers:
            raise self._unreadable(0)

    def scenes(self, numbers: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        wanted = set(numbers)
        video = cv2.VideoCapture(str(self._path))
        try:
            for number in range(max(wanted) + 1):  # seeking is not exact in every file
                if not video.grab():
                    raise self._unreadable(number)
                if number in wanted:
                    _, picture = video.retrieve()
                    coded = torch.from_numpy(np.ascontiguousarray(picture[:, :, ::-1]))
                    yield srgb_decode(coded.float() / 255).numpy()
        finally:
            video.release()

    def _unreadable(self, number: int) -> PlateError:
        return PlateError(
            "plate.unreadable",
            "the video cannot be decoded",
            frame=number,
            path=str(self._path),
            remedy="Convert it to H.264 in MP4, or to an EXR sequence.",
        )


class PlateClip:
    """A sequence of pictures by its pattern; `colorspace` as everywhere, "" is scene-linear."""

    def __init__(self, pattern: str, colorspace: str = "") -> None:
        """Raises PlateError, ColorError."""
        self._source = PlateSource.open(JobSpec("analyse", PlateSpec(pattern, colorspace)), ColorConfig())
        self.name, self.numbers = Path(pattern).name, self._source.sequence.frames
        first = read_plate(self._source.sequence.files[self.numbers[0]], self.numbers[0])
        self.aspect = first.parts[self._source.layer(first).part].pixel_aspect

    def scenes(self, numbers: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        for number in numbers:
            plate = read_plate(self._source.sequence.files[number], number)
            yield self._source.straight(plate).scene


def open_clip(text: str, colorspace: str = "") -> Clip:
    """A video file, or a sequence of pictures."""
    path = Path(text)
    return VideoClip(path) if path.suffix.lower() in VIDEO else PlateClip(text, colorspace)


def facts_of(clips: Sequence[str], settings: PackSettings) -> dict[str, Any]:
    """What a cache's content depends on, for comparing it with what is asked for."""
    return {"clips": [Path(clip).name for clip in clips], **asdict(settings), "styles": list(settings.styles)}


def pack_clips(
    clips: Sequence[str],
    out: Path,
    settings: PackSettings,
    *,
    colorspace: str = "",
    tools: FaceTools | None = None,
) -> Generator[Packed, None, None]:
    """Writes the cache `out` of the clips' largest faces; yields after every frame. Windows in which the face is not
    there throughout are left out.

    Raises FaceError `face.none` for a clip in which no window holds a face throughout, EffectError for an unknown
    teacher or style, PlateError, and TrainingError `training.data` where the cache would be too large.
    """
    opened = [open_clip(clip, colorspace) for clip in clips]
    teacher = Teacher.of(settings)
    tools = tools or FaceTools.mediapipe()
    writer = CacheWriter(settings.size, settings.styles, facts_of(clips, settings))
    plans = [windows_of(clip.numbers, settings) for clip in opened]
    total, done = sum(len(window) for plan in plans for window in plan), 0
    for clip, plan in zip(opened, plans, strict=True):
        kept = 0
        for heads in _followed(clip, plan, settings, tools):
            frames = []
            for frame in teacher.pack(heads):
                frames.append(frame)
                done += 1
                yield Packed(clip.name, done, total)
            writer.window(clip.name, frames)
            kept += 1
        if not kept:
            raise FaceError(
                "face.none",
                f"no face can be followed through a window of {settings.length} frames of {clip.name}",
                remedy="Leave the clip out, or ask for shorter windows.",
            )
    writer.write(out)


def windows_of(numbers: Sequence[int], settings: PackSettings) -> list[tuple[int, ...]]:
    """Evenly spread windows of frame numbers that do not overlap; fewer where the clip is short."""
    length = min(settings.length, len(numbers))
    count = max(1, min(settings.windows, len(numbers) // length))
    room = len(numbers) - length
    starts = [round((i + 0.5) * len(numbers) / count - length / 2) for i in range(count)]
    return [tuple(numbers[s : s + length]) for s in (min(max(start, 0), room) for start in starts)]


@dataclass(frozen=True)
class Head:
    """A tracked face in a frame: where its crop lies, and the scene-linear pixels [h, w, 3] of `region` under it."""

    face: FaceFrame
    placement: Placement
    region: Window
    scene: NDArray[np.float32]


@dataclass(frozen=True)
class Heads:
    """A window of a clip, the clip's work exposure, and what its linear channels are multiplied by."""

    frames: tuple[Head, ...]
    exposure: float = 0.0
    grade: tuple[float, float, float] = (1.0, 1.0, 1.0)


def grade_of(clip: str, window: int, stops: float) -> tuple[float, float, float]:
    """The factors of one window: 1 for even ones, else drawn from the clip's name; a grey keeps its luminance."""
    if window % 2 == 0:
        return (1.0, 1.0, 1.0)
    drawn = Draw(derive(clip), 0, window).uniform("grade", -stops, stops, (3,)).numpy()
    red, green, blue = (2.0**drawn) / float((2.0**drawn) @ np.array(LUMINANCE))
    return float(red), float(green), float(blue)


def _followed(clip: Clip, plan: Sequence[tuple[int, ...]], settings: PackSettings, tools: FaceTools) -> Iterator[Heads]:
    """The windows in which the largest face is there throughout, at one work exposure for the whole clip."""
    found: list[Heads] = []
    medians: list[float] = []
    scenes = clip.scenes([number for window in plan for number in window])
    for number, window in enumerate(plan):
        held = tuple(next(scenes) for _ in window)
        analysis = _analysed(clip, window, held, tools)
        chosen = choose_faces(analysis, "largest")
        faces = [analysis.face_at(chosen[0], frame) for frame in window] if chosen else []
        present = tuple(face for face in faces if face is not None)
        if len(present) < len(window):
            continue
        cut = tuple(map(_head, present, placements_of(present, settings.size), held))
        found.append(Heads(cut, grade=grade_of(clip.name, number, settings.grade)))
        medians += [_face_light(scene, face) for scene, face in zip(held, present, strict=True)]
    exposure = auto_exposure(medians)
    for heads in found:
        yield replace(heads, exposure=exposure)


def _head(face: FaceFrame, placement: Placement, scene: NDArray[np.float32]) -> Head:
    region = placement.window.intersect(Window(0, 0, scene.shape[1], scene.shape[0]))
    return Head(face, placement, region, scene[region.y0 : region.y1, region.x0 : region.x1].copy())


def _analysed(
    clip: Clip, window: Sequence[int], scenes: Sequence[NDArray[np.float32]], tools: FaceTools
) -> ShotAnalysis:
    """The product's own analysis, of a window as if it were a shot, at an exposure by the mean of the first frame."""
    light = scenes[0] @ np.array(LUMINANCE, np.float32)
    exposure = auto_exposure([float(np.exp(np.log(np.maximum(light, 1e-6)).mean()))])
    height, width = scenes[0].shape[:2]
    pictures = (
        Frame(number, to_picture(torch.from_numpy(scene), exposure).numpy())
        for number, scene in zip(window, scenes, strict=True)
    )
    return result_of(
        analyse_frames(
            pictures,
            tools,
            total=len(window),
            display_window=Window(0, 0, width, height),
            pixel_aspect=clip.aspect,
        )
    )


def _face_light(scene: NDArray[np.float32], face: FaceFrame) -> float:
    """The median luminance at the mesh's points, as a shot's work exposure takes it."""
    points = np.floor(face.landmarks[:, :2]).astype(int)
    inside = (points >= 0).all(axis=1) & (points[:, 0] < scene.shape[1]) & (points[:, 1] < scene.shape[0])
    at = scene[points[inside, 1], points[inside, 0]] @ np.array(LUMINANCE, np.float32)
    return float(np.median(at)) if at.size else 0.0


@dataclass(frozen=True)
class Teacher:
    """An effect with the values of each style."""

    effect: Effect
    values: tuple[EffectValues, ...]

    @classmethod
    def of(cls, settings: PackSettings) -> Teacher:
        """Raises EffectError."""
        effect = load_effect(settings.teacher, Resources())
        fixed = TEACHERS.get(settings.teacher, {})
        return cls(
            effect,
            tuple(check_values(effect.descriptor, {**fixed, "style": style}) for style in settings.styles),
        )

    def pack(self, heads: Heads) -> Iterator[PackedFrame]:
        """The window's frames, cut and drawn."""
        before: Picture | None = None
        for frame in heads.frames:
            source, drawn, head = self._cut(frame, heads)
            flow, valid = np.zeros((*head.shape, 2), np.float32), np.ones(head.shape, np.float32)
            if before is not None:
                flow, valid = backward_flow(source, before)
            before = source
            yield PackedFrame(source, drawn, flow, valid, head)

    def _cut(self, frame: Head, heads: Heads) -> tuple[Picture, tuple[Picture, ...], Plane]:
        face, region = frame.face, frame.region
        linear = torch.from_numpy(frame.scene * np.array(heads.grade, np.float32)).permute(2, 0, 1).contiguous()
        picture = to_picture(linear, heads.exposure)
        names = [name for name in MATTE_NAMES if name != "composite"]
        mattes = {name: torch.from_numpy(m) for name, m in region_mattes(face, region, names).items()}
        size = (region.height, region.width)
        unit = pose_of(face).scale
        head = region_matte(mattes, "head", size, torch.device("cpu"))
        head = shape_matte(head, HEAD[0], HEAD[1], unit, face.pixel_aspect)
        rows, columns = frame.placement.sampling(region)
        opened = {**mattes, "neck": torch.ones(size)}  # the teacher draws all it is given
        drawn = []
        for values in self.values:
            at = values.at(face.frame)
            given = FaceInput(face.frame, linear, picture, face, opened, region, at)
            out = self.effect.render(given).picture
            drawn.append(_eight_bits(separable(picture if out is None else out, rows, columns)))
        return (
            _eight_bits(separable(picture, rows, columns)),
            tuple(drawn),
            separable(head[None], rows, columns)[0].clamp(0, 1).numpy(),
        )


def placements_of(faces: Sequence[FaceFrame], size: int) -> list[Placement]:
    """The square crops of a window's faces, their place smoothed over time."""
    half, top = size / 2, EYES_AT * size
    padding: Padding = (half, half, top, size - top)
    places = steadied([face.frame for face in faces], np.stack([centred(face) for face in faces]))
    return [place(at, faces[0].pixel_aspect, padding) for at in places]


def backward_flow(now: Picture, before: Picture) -> tuple[Plane, Plane]:
    """Flow [H, W, 2] from each pixel of a frame to where it was in the one before, and where it holds [H, W].

    OpenCV's DIS on luma, both ways; it holds where going there and back ends where it began.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    a, b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (now, before))
    back = np.asarray(dis.calc(a, b, None), np.float32)  # type: ignore[call-overload]
    forth = np.asarray(dis.calc(b, a, None), np.float32)  # type: ignore[call-overload]
    height, width = a.shape
    at = back + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    returned = cv2.remap(forth, at, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    apart = ((back + returned) ** 2).sum(axis=-1)
    moved = (back**2).sum(axis=-1) + (returned**2).sum(axis=-1)
    inside = (at >= 0).all(axis=-1) & (at[..., 0] <= width - 1) & (at[..., 1] <= height - 1)
    holds = inside & (apart < RETURN[0] * moved + RETURN[1])
    return back, holds.astype(np.float32)


def _eight_bits(picture: torch.Tensor) -> Picture:
    """[3, H, W] in 0..1 to uint8 [H, W, 3]."""
    return np.asarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
