"""The demo plate: what a comp department would call a nasty little shot, made from one public-domain portrait.

scikit-image's astronaut (NASA, public domain) becomes 36 frames of half-float EXR at 1920x1080 with 64 pixels of
overscan: a drifting camera, two blinks and a talking mouth by mesh warp, film grain, a lamp far above 1.0 beside the
head, a timecode, and a second part with depth and 32-bit ids. Scene-linear Rec.709.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from host_bridge.effects import check_values
from inference_server.effects.base import Effect, FaceInput
from inference_server.effects.registry import load_effect
from inference_server.faces.analyse import Frame, analyse_frames
from inference_server.faces.mattes import region_mattes
from inference_server.faces.types import FaceFrame
from inference_server.plates.attributes import Timecode, encode
from inference_server.plates.color import srgb_decode, srgb_encode
from inference_server.plates.types import Part, PlateFrame, Window
from inference_server.plates.writer import write_plate
from inference_server.prefetch import prefetch
from inference_server.runs import result_of

FIRST, FRAMES, RATE = 1001, 36, Fraction(24)
DISPLAY = Window(0, 0, 1920, 1080)
OVERSCAN = 64
LAMP = 37.0
COLORSPACE = "lin_rec709"
_SET_HEIGHT = 1500  # of the still that the camera moves over
_HEAD_ROOM = 170
_BLINKS = (1010, 1027)
_GRAIN = 0.018

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class _Set:
    """The still behind the plate: scene-linear picture, ids, depth, and the face's two motions at full strength."""

    picture: Picture  # [H, W, 3]
    ids: NDArray[np.uint32]  # [H, W]
    depth: Picture  # [H, W]
    blink: Picture  # [H, W, 2] (dx, dy) backward displacement
    talk: Picture  # [H, W, 2]


def make_plate(folder: Path, name: str = "astronaut", frames: int = FRAMES) -> Iterator[str]:
    """Write the plate, one path per frame, as `folder/name.%04d.exr`. The same bytes every time."""
    stage = _build_set()

    def write(frame: int) -> str:
        path = str(folder / f"{name}.{frame:04d}.exr")
        write_plate(_shoot(stage, frame), path)
        return path

    with ThreadPoolExecutor(2, thread_name_prefix="faceplate-demo") as pool:
        for _, written in prefetch(pool, write, range(FIRST, FIRST + frames), 2):
            yield written.result()


def _build_set() -> _Set:
    skimage_data: Any = importlib.import_module("skimage.data")
    still: NDArray[np.uint8] = skimage_data.astronaut()
    scale = _SET_HEIGHT / still.shape[0]
    portrait = cv2.resize(still, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    side = (DISPLAY.width + 2 * OVERSCAN + 240 - portrait.shape[1]) // 2
    # Head room: the backdrop above the portrait is plain, so its first row goes on upward.
    coded = cv2.copyMakeBorder(portrait, _HEAD_ROOM, 0, 0, 0, cv2.BORDER_REPLICATE)
    coded[: _HEAD_ROOM + 4] = cv2.GaussianBlur(coded[: _HEAD_ROOM + 4], (0, 0), 24)
    coded = cv2.copyMakeBorder(coded, 0, 0, side, side, cv2.BORDER_REFLECT_101)
    picture = srgb_decode(torch.from_numpy(coded.astype(np.float32) / 255)).numpy()
    height, width = picture.shape[:2]
    x = np.abs(np.arange(width, dtype=np.float32) - width / 2) - portrait.shape[1] / 2
    away = np.clip(x / (side / 3), 0, 1)[None, :, None]  # 0 on the portrait, 1 well beside it
    soft = cv2.GaussianBlur(picture, (0, 0), 40)
    picture = np.asarray(picture * (1 - away) + 0.6 * soft * away, np.float32)
    face = _find_face(picture)
    mattes = region_mattes(face, Window(0, 0, width, height), ["face", "hair", "neck"])
    blink = _motion(picture, face, "eye_openness", -1.0)
    talk = _motion(picture, face, "mouth_open", 0.4)
    head = np.maximum.reduce([mattes[n] for n in mattes])
    ids = np.where(head > 0.5, np.uint32(0x9E3779B9), np.uint32(0x01000001)).astype(np.uint32)
    depth = np.asarray(320.0 - 190.0 * cv2.GaussianBlur(head, (0, 0), 6), np.float32)
    return _Set(_with_lamp(picture, face), ids, depth, blink, talk)


def _find_face(picture: Picture) -> FaceFrame:
    """The portrait's face in the still."""
    height, width = picture.shape[:2]
    coded = srgb_encode(torch.from_numpy(picture).clamp(0, 1)).numpy()
    found = result_of(analyse_frames(iter([Frame(0, coded)]), display_window=Window(0, 0, width, height)))
    largest = max(found.tracks, key=lambda t: float(np.ptp(t.landmarks[0, :, 0])))
    face = found.face_at(largest.id, 0)
    if face is None:
        raise RuntimeError("the portrait's face was not found; `faceplate doctor` tells whether detection works here")
    return face


def _motion(picture: Picture, face: FaceFrame, name: str, strength: float) -> Picture:
    """The displacement of one retouch edit over the still, [H, W, 2]."""
    effect: Effect = load_effect("retouch")
    values = check_values(effect.descriptor, {}, [(name, strength)])
    height, width = picture.shape[:2]
    region = effect.region(face, values.at(0)).intersect(Window(0, 0, width, height))
    cut = picture[region.y0 : region.y1, region.x0 : region.x1]
    scene = torch.from_numpy(np.ascontiguousarray(cut.transpose(2, 0, 1)))
    mattes = {n: torch.from_numpy(m) for n, m in region_mattes(face, region, ["face", "eyes", "lips", "mouth"]).items()}
    output = effect.render(
        FaceInput(0, scene, srgb_encode(scene.clamp(0, 1)), face, mattes, region, values.at(0), values.edits_at(0))
    )
    field = np.zeros((height, width, 2), np.float32)
    if output.warp is not None:
        field[region.y0 : region.y1, region.x0 : region.x1] = output.warp.numpy().transpose(1, 2, 0)
    return field


def _with_lamp(picture: Picture, face: FaceFrame) -> Picture:
    """A bare bulb beside the head, its core at `LAMP`, its glow falling off over the hair."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = face.box
    cx, cy, size = x0 - 0.62 * (x1 - x0), y0 + 0.25 * (y1 - y0), 0.07 * (x1 - x0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    r = np.hypot(x - cx, y - cy) / size
    core = LAMP * np.clip(1.5 - r, 0, 1)
    glow = 0.9 / (1 + (r / 2.5) ** 3)
    return np.asarray(picture + (core + glow)[..., None] * np.array([1.0, 0.86, 0.62], np.float32), np.float32)


def _shoot(stage: _Set, frame: int) -> PlateFrame:
    t = (frame - FIRST) / (FRAMES - 1)
    height, width = stage.picture.shape[:2]
    out_w, out_h = DISPLAY.width + 2 * OVERSCAN, DISPLAY.height + 2 * OVERSCAN
    zoom = 1.04 + 0.05 * np.sin(2.2 * t)
    angle = np.deg2rad(1.1 * np.sin(4.0 * t + 0.3))
    centre = (width / 2 + 46 * np.sin(3.1 * t), 600 + 22 * np.cos(2.4 * t))
    y, x = np.mgrid[0:out_h, 0:out_w].astype(np.float32)
    x, y = x - out_w / 2, y - out_h / 2
    sx = ((np.cos(angle) * x - np.sin(angle) * y) / zoom + centre[0]).astype(np.float32)
    sy = ((np.sin(angle) * x + np.cos(angle) * y) / zoom + centre[1]).astype(np.float32)
    blink = max(float(np.clip(1.6 - abs(frame - at) / 2.2, 0, 1)) for at in _BLINKS)
    talk = 0.5 - 0.5 * np.cos(2 * np.pi * (frame - FIRST) / 12)
    field = np.float32(blink) * stage.blink + np.float32(talk) * stage.talk
    moved = cv2.remap(field, sx, sy, cv2.INTER_LINEAR)
    sx, sy = sx + moved[..., 0], sy + moved[..., 1]
    # Linear, not cubic: a cubic kernel rings around the lamp.
    picture = cv2.remap(stage.picture, sx, sy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    depth = cv2.remap(stage.depth, sx, sy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    columns = np.clip(np.rint(sx), 0, width - 1).astype(np.int64)
    rows = np.clip(np.rint(sy), 0, height - 1).astype(np.int64)
    picture = _grainy(np.asarray(picture, np.float32), frame).astype(np.float16)
    window = Window(-OVERSCAN, -OVERSCAN, DISPLAY.width + OVERSCAN, DISPLAY.height + OVERSCAN)
    seconds, subframe = divmod(frame - FIRST, int(RATE))
    header = {
        "compression": encode("compression", 4),  # PIZ: grain does not deflate
        "timeCode": Timecode(1, 0, seconds, subframe).pack(),
        "framesPerSecond": encode("rational", RATE),
        "owner": encode("string", "public-domain portrait (NASA), plate made by `faceplate demo`"),
    }
    beauty = {name: np.ascontiguousarray(picture[..., i]) for i, name in enumerate("RGB")}
    beauty["A"] = np.ones((out_h, out_w), np.float16)
    utility = {"Z": np.asarray(depth, np.float32), "id": stage.ids[rows, columns]}
    return PlateFrame(
        frame,
        "",
        (
            Part("beauty", beauty, window, DISPLAY, 1.0, header),
            Part("utility", utility, window, DISPLAY, 1.0, header),
        ),
    )


def _grainy(picture: Picture, frame: int) -> Picture:
    """Film grain: slightly soft, seeded by the frame's number, about the same in light and shade."""
    rng = np.random.default_rng([20, frame])
    grain = rng.standard_normal(picture.shape, np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * np.float32(_GRAIN * 1.9)
    return np.asarray(picture * (1 + grain) + 0.002 * grain, np.float32)
