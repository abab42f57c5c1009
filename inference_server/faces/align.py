"""Where a face is cut out for a network, and the way back: VToonify's video crop and the FFHQ square.

Both rules are the published ones and start from dlib's 68 points; `landmarks68` gives those from our mesh
("published rule, our landmarks"). They work in square pixels: a plate with another pixel aspect is unsqueezed
first. Every plan carries the affine map frame -> crop and its inverse, in coordinates whose pixel centres lie at
half (as all of Faceplate's), so that what a network made can be put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Picture = NDArray[np.uint8] | NDArray[np.float32]
Points = NDArray[np.float64]
Matrix = NDArray[np.float64]  # [2, 3]

TARGET_EYE_DISTANCE = 64
MULTIPLE_OF = 8
UPSCALE = 4
BLUR_KERNEL = (0.125, 0.375, 0.375, 0.125)
BLUR_THRESHOLDS = (0.75, 0.375)

# dlib's point -> MediaPipe's mesh vertex. "Left" is the picture's left, as in dlib's order.
DLIB68_FROM_MESH: tuple[int, ...] = (
    *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),  # 0-16 jaw, left ear to right
    *(70, 63, 105, 66, 107),  # 17-21 left brow, outer to inner
    *(336, 296, 334, 293, 300),  # 22-26 right brow, inner to outer
    *(168, 197, 5, 4),  # 27-30 bridge of the nose, down to its tip
    *(98, 97, 2, 326, 327),  # 31-35 under the nose, left to right
    *(33, 160, 158, 133, 153, 144),  # 36-41 left eye: outer corner, upper lid, inner corner, lower lid
    *(362, 385, 387, 263, 373, 380),  # 42-47 right eye: inner corner, upper lid, outer corner, lower lid
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # 48-59 outer lips, from the left corner over the top
    *(78, 82, 13, 312, 308, 317, 14, 87),  # 60-67 inner lips, likewise
)
LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)


def landmarks68(mesh: ArrayLike) -> Points:
    """dlib's 68 points [68, 2] of a mesh [478, 2 or 3] (`FaceFrame.square()`), float64, same coordinates."""
    points = np.asarray(mesh, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] < 468 or points.shape[1] not in (2, 3):
        raise ValueError(f"a mesh is [478, 2 or 3], not {list(points.shape)}")
    return points[list(DLIB68_FROM_MESH), :2]


def invert(matrix: Matrix) -> Matrix:
    """The inverse of an affine map [2, 3]."""
    return np.asarray(np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2])


# --- VToonify's video crop ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoCrop:
    """VToonify's scale and crop, one for a whole shot: frame -> resized frame -> crop, sizes in pixels."""

    frame_h: int
    frame_w: int
    scale: float
    resized_h: int
    resized_w: int
    top: int
    bottom: int
    left: int
    right: int
    blur_passes: int

    @property
    def crop_h(self) -> int:
        return self.bottom - self.top

    @property
    def crop_w(self) -> int:
        return self.right - self.left

    @cached_property
    def matrix(self) -> Matrix:
        """Frame coordinates to crop coordinates [2, 3].

        It follows the picture, not only the numbers: the four-tap blur moves the picture by half a frame pixel
        right and down with each pass.
        """
        sx, sy = self.resized_w / self.frame_w, self.resized_h / self.frame_h
        shift = 0.5 * self.blur_passes
        return np.array([[sx, 0.0, shift * sx - self.left], [0.0, sy, shift * sy - self.top]])

    @cached_property
    def inverse(self) -> Matrix:
        """Crop coordinates to frame coordinates [2, 3]."""
        return invert(self.matrix)


def plan_video_crop(
    eye_left: ArrayLike,
    eye_right: ArrayLike,
    frame_hw: tuple[int, int],
    padding: Sequence[int] = (200, 200, 200, 200),
) -> VideoCrop:
    """VToonify's crop from the points of both eyes in the picture's left-to-right order.

    eye_left, eye_right  [6, 2] frame pixels (dlib 36-41 and 42-47); only their means count
    padding              left, right, top, bottom of the eyes' middle in resized pixels, where the eyes are 64 apart

    Only the horizontal eye distance sets the scale. Sides are multiples of 8. ValueError when the eyes are not in
    left-to-right order or the padding leaves nothing of the frame.
    """
    left_eye = np.asarray(eye_left, dtype=np.float64).mean(axis=0)
    right_eye = np.asarray(eye_right, dtype=np.float64).mean(axis=0)
    distance = float(right_eye[0] - left_eye[0])
    if not distance > 0:
        raise ValueError(f"the eyes must lie left to right: horizontal distance is {distance:g} px")
    height, width = frame_hw
    pad_left, pad_right, pad_top, pad_bottom = padding
    scale = TARGET_EYE_DISTANCE / distance
    cx, cy = ((left_eye + right_eye) / 2 * scale).tolist()
    resized_h, resized_w = round(height * scale), round(width * scale)  # ties to even, as published
    crop = VideoCrop(
        frame_h=height,
        frame_w=width,
        scale=scale,
        resized_h=resized_h,
        resized_w=resized_w,
        top=_floor8(max(round(cy - pad_top), 0)),
        bottom=_floor8(min(round(cy + pad_bottom), resized_h)),
        left=_floor8(max(round(cx - pad_left), 0)),
        right=_floor8(min(round(cx + pad_right), resized_w)),
        blur_passes=sum(scale <= limit for limit in BLUR_THRESHOLDS),
    )
    if crop.crop_h <= 0 or crop.crop_w <= 0:
        raise ValueError(f"padding {tuple(padding)} leaves a crop of {crop.crop_w}x{crop.crop_h} px")
    return crop


def apply_video_crop(picture: Picture, crop: VideoCrop) -> Picture:
    """The crop of a frame [H, W, C] (uint8 or float32): blur passes, bilinear resize, cut; same dtype."""
    if picture.shape[:2] != (crop.frame_h, crop.frame_w):
        raise ValueError(f"the crop was planned for {crop.frame_h}x{crop.frame_w}, not {list(picture.shape[:2])}")
    kernel = np.array(BLUR_KERNEL)
    filtered: NDArray[Any] = picture
    for _ in range(crop.blur_passes):
        filtered = cv2.sepFilter2D(filtered, -1, kernel, kernel)
    resized = cv2.resize(filtered, (crop.resized_w, crop.resized_h), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[crop.top : crop.bottom, crop.left : crop.right])


def _floor8(value: int) -> int:
    return value // MULTIPLE_OF * MULTIPLE_OF


# --- the FFHQ square ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FfhqAlignment:
    """The FFHQ square of a face and the steps to its picture, in order; corners are top-left, bottom-left,
    bottom-right, top-right, boxes left, top, right, bottom, sizes width, height.
    """

    frame_size: tuple[int, int]
    output_size: int
    quad: Points  # [4, 2]
    qsize: float
    shrink: int
    size_after_shrink: tuple[int, int]
    quad_after_shrink: Points
    qsize_after_shrink: float
    border: int
    crop_box: tuple[int, int, int, int]
    cropped: bool
    size_after_crop: tuple[int, int]
    quad_after_crop: Points
    pad_needed: tuple[int, int, int, int]
    padded: bool
    pad: tuple[int, int, int, int]
    quad_final: Points

    @cached_property
    def inverse(self) -> Matrix:
        """Coordinates of the aligned picture (0..output_size) to frame coordinates [2, 3].

        The published rule samples half a pixel down and right of the quad's own coordinates.
        """
        top_left, bottom_left, _, top_right = self.quad_after_shrink
        small = np.column_stack(
            [(top_right - top_left) / self.output_size, (bottom_left - top_left) / self.output_size, top_left + 0.5]
        )
        ratio = np.array(self.frame_size) / np.array(self.size_after_shrink)
        return np.asarray(small * ratio[:, None])

    @cached_property
    def matrix(self) -> Matrix:
        """Frame coordinates to coordinates of the aligned picture [2, 3]."""
        return invert(self.inverse)


def ffhq_quad(points68: ArrayLike) -> tuple[Points, float]:
    """The FFHQ square of dlib's 68 points: corners [4, 2] (see FfhqAlignment) and side, in frame pixels."""
    points = np.asarray(points68, dtype=np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"the FFHQ rule takes [68, 2] points, not {list(points.shape)}")
    eye_left, eye_right = points[LEFT_EYE].mean(axis=0), points[RIGHT_EYE].mean(axis=0)
    between_eyes = eye_right - eye_left
    eyes = (eye_left + eye_right) / 2
    to_mouth = (points[48] + points[54]) / 2 - eyes
    across = between_eyes - np.array([-to_mouth[1], to_mouth[0]])
    length = float(np.hypot(*across))
    if length == 0.0:
        raise ValueError("eyes and mouth coincide: no square can be laid through them")
    across *= max(2.0 * float(np.hypot(*between_eyes)), 1.8 * float(np.hypot(*to_mouth))) / length
    down = np.array([-across[1], across[0]])
    centre = eyes + 0.1 * to_mouth
    corners = [centre - across - down, centre - across + down, centre + across + down, centre + across - down]
    return np.stack(corners), 2.0 * float(np.hypot(*across))


def plan_ffhq(points68: ArrayLike, frame_hw: tuple[int, int], output_size: int = 256) -> FfhqAlignment:
    """All numbers of the FFHQ alignment for a frame of that height and width."""
    height, width = frame_hw
    quad, qsize = ffhq_quad(points68)
    shrink = max(int(np.floor(qsize / output_size * 0.5)), 1)
    size = (int(np.rint(width / shrink)), int(np.rint(height / shrink))) if shrink > 1 else (width, height)
    small, small_side = quad / shrink, qsize / shrink
    border = max(int(np.rint(small_side * 0.1)), 3)
    x0, y0, x1, y1 = _bounds(small)
    box = (max(x0 - border, 0), max(y0 - border, 0), min(x1 + border, size[0]), min(y1 + border, size[1]))
    cropped = box[2] - box[0] < size[0] or box[3] - box[1] < size[1]
    if not cropped:
        box = (0, 0, *size)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"the face's square {np.round(quad, 1).tolist()} lies outside the {width}x{height} frame")
    inside = small - np.array(box[:2])
    cut = (box[2] - box[0], box[3] - box[1])
    x0, y0, x1, y1 = _bounds(inside)
    needed = tuple(max(v + border, 0) for v in (-x0, -y0, x1 - cut[0], y1 - cut[1]))
    padded = max(needed) > border - 4
    least = int(np.rint(small_side * 0.3))
    pad = tuple(max(v, least) for v in needed) if padded else (0, 0, 0, 0)
    return FfhqAlignment(
        frame_size=(width, height),
        output_size=output_size,
        quad=quad,
        qsize=qsize,
        shrink=shrink,
        size_after_shrink=size,
        quad_after_shrink=small,
        qsize_after_shrink=small_side,
        border=border,
        crop_box=box,
        cropped=cropped,
        size_after_crop=cut,
        quad_after_crop=inside,
        pad_needed=(needed[0], needed[1], needed[2], needed[3]),
        padded=padded,
        pad=(pad[0], pad[1], pad[2], pad[3]),
        quad_final=inside + np.array(pad[:2]),
    )


def apply_ffhq(picture: Picture, alignment: FfhqAlignment) -> Picture:
    """The aligned picture [S, S, C] of a frame [H, W, C] (uint8 or float32), same dtype.

    Antialiased shrink, cut, reflected and blurred padding where the square leaves the frame, bilinear sampling.
    """
    if picture.shape[:2] != alignment.frame_size[::-1]:
        raise ValueError(f"planned for (width, height) {alignment.frame_size}, not {picture.shape[1::-1]}")
    x0, y0, x1, y1 = alignment.crop_box
    if alignment.shrink > 1:
        work = _lanczos(picture, 0, alignment.size_after_shrink[1], y0, y1)
        work = _lanczos(work, 1, alignment.size_after_shrink[0], x0, x1)
        if picture.dtype == np.uint8:
            work = np.clip(np.rint(work), 0, 255)
    else:
        work = picture[y0:y1, x0:x1].astype(np.float32)
    if alignment.padded:
        work = _pad_blurred(work, alignment.pad, alignment.qsize_after_shrink)
    top_left, bottom_left, _, top_right = alignment.quad_final
    step = np.column_stack([top_right - top_left, bottom_left - top_left]) / alignment.output_size
    sampling = np.column_stack([step, top_left + step @ np.array([0.5, 0.5])])  # output index -> work index
    aligned = cv2.warpAffine(
        work,
        sampling,
        (alignment.output_size, alignment.output_size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if picture.dtype == np.uint8:
        return np.clip(aligned, 0, 255).astype(np.uint8)  # the published rule truncates
    return np.asarray(aligned, dtype=np.float32)


def _bounds(quad: Points) -> tuple[int, int, int, int]:
    (x0, y0), (x1, y1) = np.floor(quad.min(axis=0)), np.ceil(quad.max(axis=0))
    return int(x0), int(y0), int(x1), int(y1)


def _lanczos(picture: Picture, axis: int, size: int, start: int, stop: int) -> NDArray[np.float32]:
    """Positions start..stop of one axis reduced to `size`, by a Lanczos-3 window widened to the reduction."""
    length = picture.shape[axis]
    ratio = length / size
    centre = (np.arange(start, stop) + 0.5) * ratio  # [N]
    first = np.floor(centre - 3 * ratio).astype(np.intp)
    taps = first[:, None] + np.arange(int(np.ceil(6 * ratio)) + 2)  # [N, K]
    t = (taps + 0.5 - centre[:, None]) / ratio
    weights = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)
    weights[(taps < 0) | (taps >= length)] = 0.0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    taps = np.clip(taps, 0, length - 1)
    source = np.moveaxis(picture, axis, 0)
    out = np.zeros((stop - start, *source.shape[1:]), dtype=np.float32)
    broadcast = (slice(None), *(None,) * (source.ndim - 1))
    for k in range(taps.shape[1]):
        out += weights[:, k][broadcast] * source[taps[:, k]]
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


def _pad_blurred(work: NDArray[np.float32], pad: tuple[int, int, int, int], side: float) -> NDArray[np.float32]:
    """Reflects outward, blurs what was added and fades it to the median colour toward the outer edge."""
    left, top, right, bottom = pad
    wide = np.pad(work, ((top, bottom), (left, right), (0, 0)), mode="reflect")
    height, width = wide.shape[:2]
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    # 1 on the outer edge, 0 where the frame begins, negative inside
    outside_x = 1.0 - np.minimum(x / max(left, 1), (width - 1 - x) / max(right, 1))
    outside_y = 1.0 - np.minimum(y / max(top, 1), (height - 1 - y) / max(bottom, 1))
    outside = np.maximum(outside_x, outside_y)[..., None].astype(np.float32)
    sigma = side * 0.02
    kernel = 2 * int(4.0 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(wide, (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT)
    wide += (blurred - wide) * np.clip(3.0 * outside + 1.0, 0.0, 1.0)
    wide += (np.median(wide, axis=(0, 1)) - wide) * np.clip(outside, 0.0, 1.0)
    return wide
