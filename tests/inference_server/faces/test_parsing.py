"""Classes around the face, and their smoothing over time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference_server.faces.flow import ClassSmoother
from inference_server.faces.geometry import View, transform
from inference_server.faces.mattes import region_mattes
from inference_server.faces.parsing import MAP_SIZE, MediaPipeParser, ParsedFace
from inference_server.faces.types import FaceFrame, SegmentationMap
from inference_server.networks.parse_smoothing import smooth_window, window
from inference_server.plates.types import Window


@pytest.fixture(scope="module")
def parsed(portrait: NDArray[np.uint8], portrait_face: FaceFrame) -> ParsedFace:
    return MediaPipeParser().parse(View(portrait), portrait_face.landmarks.astype(np.float64))


def value(parsed: ParsedFace, name: str, x: float, y: float) -> float:
    column, row = transform(parsed.matrix, [x, y])
    return float(parsed.values[MediaPipeParser.classes.index(name), int(row), int(column)])


def test_classes_of_the_portrait(parsed: ParsedFace) -> None:
    assert parsed.values.shape == (3, MAP_SIZE, MAP_SIZE)
    assert parsed.values.dtype == np.float32
    assert parsed.values.min() >= 0
    assert parsed.values.max() <= 1
    for x, y in ((222, 28), (170, 60), (280, 60)):  # above and beside the forehead
        assert value(parsed, "hair", x, y) > 0.6
    assert value(parsed, "neck", 222, 184) > 0.5
    for name in MediaPipeParser.classes:
        assert value(parsed, name, 120, 60) < 0.15, name  # the wall behind
    for name in ("hair", "neck", "ears"):
        assert value(parsed, name, 222, 125) < 0.1, name  # the nose
    for name in ("neck", "ears"):
        assert value(parsed, name, 222, 28) < 0.1, name
    ears = parsed.values[MediaPipeParser.classes.index("ears")]
    assert ears.max() > 0.3  # the lobes show below the hair
    edge = np.concatenate([parsed.values[:, 0], parsed.values[:, -1], parsed.values[:, :, 0], parsed.values[:, :, -1]])
    assert edge.max() == 0.0


def test_classes_become_mattes(parsed: ParsedFace, portrait_face: FaceFrame) -> None:
    import dataclasses

    segmentation = SegmentationMap(MediaPipeParser.classes, parsed.values, parsed.matrix.astype(np.float32))
    face = dataclasses.replace(portrait_face, segmentation=segmentation)
    mattes = region_mattes(face, Window(100, 0, 350, 250), ["hair", "neck", "skin", "hat"])
    assert set(mattes) == {"hair", "neck", "skin"}
    assert mattes["hair"][28, 122] > 0.6
    assert mattes["skin"][35, 122] < mattes["skin"][110, 100]  # under the fringe


def moving_maps(count: int) -> list[ParsedFace]:
    """A textured square that moves 1.5 px a frame, its class, and a class that flickers."""
    out = []
    noise = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.5) * 200 + 128
    for i in range(count):
        shift = np.array([[1, 0, 1.5 * i - 30], [0, 1, 0]], np.float32)
        grey = np.clip(cv2.warpAffine(texture, shift, (64, 64), borderMode=cv2.BORDER_REFLECT), 0, 255)
        square = cv2.warpAffine(np.pad(np.ones((20, 20), np.float32), ((20, 24), (50, 58))), shift, (64, 64))
        flicker = np.full((64, 64), 0.8 if i % 2 else 0.2, np.float32)
        picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        out.append(ParsedFace(np.stack([np.asarray(square), flicker]), np.eye(2, 3), picture))
    return out


def smoothed(maps: list[ParsedFace], radius: int) -> list[NDArray[np.uint8]]:
    smoother = ClassSmoother(radius)
    answers = [a for i, parsed in enumerate(maps) for a in smoother.add(10 + i, parsed)]
    answers += list(smoother.finish())
    assert [a.index for a in answers] == [10 + i for i in range(len(maps))]
    return [a.values for a in answers]


def test_flow_smoothing_keeps_moving_edges_and_stops_flicker() -> None:
    maps = moving_maps(12)
    values = smoothed(maps, 3)
    for i in range(4, 8):
        error = np.abs(values[i][0] / 255 - maps[i].values[0])
        assert error.mean() < 0.02
    flicker = np.array([v[1].mean() / 255 for v in values[3:9]])
    assert np.ptp(flicker) < 0.25 * 0.6


def test_the_same_sums_as_the_published_window() -> None:
    """Against networks.parse_smoothing, which is checked with recorded numbers; a repeated end included."""
    maps, radius = moving_maps(6), 2
    values = smoothed(maps, radius)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    greys = [np.ascontiguousarray(m.picture[..., 0]) for m in maps]
    for i in (0, 3, 5):
        entries = window(i, len(maps), radius)
        flows = [
            torch.zeros(2, 64, 64)
            if j == i
            else torch.from_numpy(dis.calc(greys[i], greys[j], None).transpose(2, 0, 1).copy())
            for j in entries
        ]
        frames = [torch.from_numpy(maps[j].picture.transpose(2, 0, 1) / np.float32(127.5) - 1) for j in entries]
        fused = smooth_window(frames, [torch.from_numpy(maps[j].values) for j in entries], flows).fused.numpy()
        difference = np.abs(fused - values[i] / 255.0)[:, 5:-5, 5:-5]
        assert difference.mean() < 0.004, i  # OpenCV samples at 1/32 px and the answer has 8 bits
        assert difference.max() < 0.08, i


def test_stretches_do_not_mix() -> None:
    maps = moving_maps(8)
    smoother = ClassSmoother(3)
    first = [a for i in range(4) for a in smoother.add(i, maps[i])] + list(smoother.finish())
    second = [a for i in range(4, 8) for a in smoother.add(i, maps[i])] + list(smoother.finish())
    alone = smoothed(maps[4:], 3)
    assert len(first) == 4
    for answer, value_alone in zip(second, alone, strict=True):
        assert np.array_equal(answer.values, value_alone)
