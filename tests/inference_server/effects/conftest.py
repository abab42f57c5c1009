"""The public-domain portrait, its mesh, and inputs for effects cut from it at any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from torch import Tensor

from host_bridge.effects import check_values
from inference_server.effects.base import Effect, FaceInput
from inference_server.effects.registry import load_effect
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.mattes import region_mattes
from inference_server.faces.types import FaceFrame, SegmentationMap
from inference_server.plates.color import srgb_decode
from inference_server.plates.types import Window

NAMES = ("face", "skin", "brows", "eyes", "nose", "lips", "mouth", "ears", "hair", "neck")


@dataclass(frozen=True)
class Portrait:
    """A picture [H, W, 3] float32 0..1, display-encoded, and the face in it."""

    picture: NDArray[np.float32]
    face: FaceFrame

    def resized(self, x: float, y: float, pixel_aspect: float = 1.0) -> Portrait:
        """The picture resampled by factors x and y, the face with it."""
        h, w = self.picture.shape[:2]
        size = (round(w * x), round(h * y))
        x, y = size[0] / w, size[1] / h
        shrink = x <= 1 and y <= 1
        picture = cv2.resize(self.picture, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        return self._moved(np.clip(picture, 0, 1), np.array([[x, 0, 0], [0, y, 0]], np.float32), pixel_aspect)

    def shifted(self, dx: float, dy: float) -> Portrait:
        """The picture moved by parts of a pixel, the face with it."""
        h, w = self.picture.shape[:2]
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        picture = cv2.warpAffine(self.picture, matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return self._moved(np.clip(picture, 0, 1), matrix, self.face.pixel_aspect)

    def _moved(self, picture: NDArray[np.float32], matrix: NDArray[np.float32], aspect: float) -> Portrait:
        face = self.face
        points = face.landmarks.copy()
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] *= matrix[0, 0]
        segmentation = face.segmentation
        if segmentation is not None:
            linear = segmentation.matrix[:, :2] @ np.linalg.inv(matrix[:, :2])
            offset = segmentation.matrix[:, 2] - linear @ matrix[:, 2]
            map_matrix = np.column_stack([linear, offset]).astype(np.float32)
            segmentation = SegmentationMap(segmentation.classes, segmentation.values, map_matrix)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return Portrait(
            picture, replace(face, landmarks=points, box=box, pixel_aspect=aspect, segmentation=segmentation)
        )


@pytest.fixture(scope="session")
def portrait() -> Portrait:
    picture = np.asarray(astronaut())  # type: ignore[no-untyped-call,unused-ignore]
    (face,) = faces_of_picture(picture, FaceTools.mediapipe())
    return Portrait(picture.astype(np.float32) / 255, face)


@pytest.fixture(scope="session")
def small(portrait: Portrait) -> Portrait:
    """An eye distance of some 30 pixels: quick, and still more than a caricature of a face."""
    return portrait.resized(0.7, 0.7)


@pytest.fixture(scope="session")
def look() -> Effect:
    return load_effect("look")


@pytest.fixture(scope="session")
def retouch() -> Effect:
    return load_effect("retouch")


Cut = Callable[..., FaceInput]


@pytest.fixture(scope="session")
def cut() -> Cut:
    """cut(effect, portrait, edits=..., style=..., **params) -> FaceInput."""

    def make(
        effect: Effect,
        portrait: Portrait,
        edits: Mapping[str, float] | list[tuple[str, float]] | None = None,
        style: Tensor | None = None,
        region: Window | None = None,
        **params: Any,
    ) -> FaceInput:
        listed = list(edits.items()) if isinstance(edits, Mapping) else list(edits or [])
        checked = check_values(effect.descriptor, params, [(name, strength) for name, strength in listed])
        values = checked.at(1)
        h, w = portrait.picture.shape[:2]
        region = region or effect.region(portrait.face, values).intersect(Window(0, 0, w, h))
        crop = portrait.picture[region.y0 : region.y1, region.x0 : region.x1]
        picture = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        mattes = region_mattes(portrait.face, region, NAMES)
        return FaceInput(
            frame=1,
            scene=srgb_decode(picture),
            picture=picture,
            face=portrait.face,
            mattes={name: torch.from_numpy(matte) for name, matte in mattes.items()},
            region=region,
            values=values,
            edits=checked.edits_at(1),
            style=style,
        )

    return make


def jacobian(warp: Tensor) -> Tensor:
    """Determinant of p -> p + warp(p), [h - 1, w - 1], by forward differences."""
    dx_x, dx_y = warp[0, :-1, 1:] - warp[0, :-1, :-1], warp[0, 1:, :-1] - warp[0, :-1, :-1]
    dy_x, dy_y = warp[1, :-1, 1:] - warp[1, :-1, :-1], warp[1, 1:, :-1] - warp[1, :-1, :-1]
    return (1 + dx_x) * (1 + dy_y) - dx_y * dy_x
