"""Distances that networks see, where their published weights are imported: LPIPS, and identity by ArcFace."""

from __future__ import annotations

from typing import Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference_server.faces.align import apply_ffhq, landmarks68, plan_ffhq
from inference_server.metrics.pictures import Frame, Frames, PerFrame
from inference_server.models.loading import LPIPS_HEADS, LPIPS_TRUNKS, load_lpips, load_network
from inference_server.models.store import ModelStore
from inference_server.networks.arcface import ALIGNED_SIZE, ArcFace, identity_crop

LPIPS_SIDE = 1024  # pixels of the longer side: larger pictures are averaged down, as the network saw none of that size
IDENTITY = "arcface-irse50"


def _signed(picture: Frame, device: str) -> torch.Tensor:
    """[H, W, 3] in 0..1 to [1, 3, H, W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].to(device) * 2 - 1


class Perceptual:
    """LPIPS with AlexNet where it is imported, else with VGG16; `name` says which."""

    def __init__(self, trunk: Literal["alex", "vgg"], store: ModelStore, device: str = "cpu") -> None:
        self.name = f"LPIPS ({trunk})"
        self._device = device
        self._network = load_lpips(trunk, device, store=store)

    @classmethod
    def imported(cls, store: ModelStore, device: str = "cpu") -> Perceptual | None:
        """The one whose weights are there; None where there is none. Raises ModelError `model.stored`."""
        trunks: tuple[Literal["alex", "vgg"], ...] = ("alex", "vgg")
        for trunk in trunks:
            if LPIPS_HEADS[trunk] in store and LPIPS_TRUNKS[trunk] in store:
                return cls(trunk, store, device)
        return None

    def frame(self, a: Frame, b: Frame) -> float:
        """The distance of two pictures [H, W, 3]."""
        scale = LPIPS_SIDE / max(a.shape[:2])
        if scale < 1:
            size = (max(round(a.shape[1] * scale), 1), max(round(a.shape[0] * scale), 1))
            a, b = (np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.float32) for p in (a, b))
        with torch.inference_mode():
            return float(self._network(_signed(a, self._device), _signed(b, self._device)))

    def __call__(self, a: Frames, b: Frames) -> PerFrame:
        """The distance of each frame [T]."""
        return np.array([self.frame(x, y) for x, y in zip(a, b, strict=True)])


class Identity:
    """Cosine similarity of ArcFace's embeddings of the FFHQ-aligned face: 1 is the same, strangers are near 0."""

    def __init__(self, store: ModelStore, device: str = "cpu") -> None:
        self._device = device
        self._network = cast(ArcFace, load_network(IDENTITY, device, store=store))

    @classmethod
    def imported(cls, store: ModelStore, device: str = "cpu") -> Identity | None:
        """None where the weights are not there. Raises ModelError `model.stored`."""
        return cls(store, device) if IDENTITY in store else None

    def embedding(self, picture: Frame, mesh: NDArray[np.float32], pixel_aspect: float = 1.0) -> NDArray[np.float32]:
        """Unit vector [E] of the face with that mesh [478, 2 or 3], in square pixels, of a picture [H, W, 3].

        ValueError where the face lies outside the picture.
        """
        if pixel_aspect != 1.0:
            size = (max(round(picture.shape[1] * pixel_aspect), 1), picture.shape[0])
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
        plan = plan_ffhq(landmarks68(mesh), (picture.shape[0], picture.shape[1]), ALIGNED_SIZE)
        aligned = np.asarray(apply_ffhq(picture, plan), np.float32).clip(0, 1)
        with torch.inference_mode():
            out = self._network(identity_crop(_signed(aligned, self._device), self._network.image_size))
        return np.asarray(out[0].cpu().numpy(), np.float32)
