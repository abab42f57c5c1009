"""A clip with a real face becomes windows around the head, drawn by a real effect, with flow that fits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from host_bridge.errors import EffectError, FaceError, PlateError
from inference_server.collections.clips import PackSettings, VideoClip, grade_of, pack_clips, windows_of
from inference_server.collections.evaluation import meshes
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.geometry import eye_distance
from inference_server.metrics import landmark_drift
from inference_server.plates.color import srgb_encode
from inference_server.training.clip_cache import ClipCache
from inference_server.training.recipes.two_stage_losses import warped
from tests.portrait import COLORSPACE, moved, write_shot

SETTINGS = PackSettings(("cartoon", "pencil"), size=192, windows=2, length=3)


def write_video(path: Path, count: int, size: int = 224) -> Path:
    """The moving portrait, as nearly lossless as a common codec keeps it."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 24, (size, size))
    video.set(cv2.VIDEOWRITER_PROP_QUALITY, 100)
    for frame in range(count):
        coded = srgb_encode(torch.from_numpy(moved(frame, size, first=0)).clamp(0, 1)).numpy()
        video.write(np.rint(coded[:, :, ::-1] * 255).astype(np.uint8))
    video.release()
    return path


@pytest.fixture(scope="module")
def tools() -> FaceTools:
    return FaceTools.mediapipe()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tools: FaceTools) -> ClipCache:
    """A video and a sequence of EXR files in one cache."""
    folder = tmp_path_factory.mktemp("clips")
    video = write_video(folder / "talk.avi", 7)
    plate = write_shot(folder / "plate", range(1001, 1004))
    out = folder / "clips.safetensors"
    steps = list(pack_clips([str(video), plate], out, SETTINGS, colorspace=COLORSPACE, tools=tools))
    assert (steps[-1].done, steps[-1].total) == (9, 9)
    return ClipCache(out)


def test_clips_become_windows_around_the_head(packed: ClipCache) -> None:
    assert packed.clips == ("talk", "talk", "shot.%04d.exr")
    assert packed.windows == ((0, 3), (3, 3), (6, 3))
    assert packed.facts["clips"] == ["talk.avi", "shot.%04d.exr"]
    source = packed.picture(1, 0).astype(float)
    for style in (1, 2):
        drawn = packed.picture(1, style).astype(float)
        assert np.abs(drawn - source).mean() > 4  # drawn, and in register: not moved, not mirrored
        assert np.corrcoef(drawn.mean(-1).ravel(), source.mean(-1).ravel())[0, 1] > 0.8
        assert np.abs(drawn - source)[:8, :8].mean() > 1  # the corner, too: the matte is open
    pencil = packed.picture(1, 2).astype(float)
    assert np.ptp(pencil, axis=-1).mean() < 0.6 * np.ptp(source, axis=-1).mean()
    head = packed.motion(1)[2][0]
    assert float(head[86, 96]) > 0.95  # between the eyes
    assert float(head.min()) < 0.2  # below the chin it ends


def test_the_crop_has_the_eyes_at_their_place(packed: ClipCache, tools: FaceTools) -> None:
    picture = packed.picture(4, 0)
    (face,) = faces_of_picture(picture, FaceTools(tools.detector, tools.landmarker, None))
    points = face.square()
    assert eye_distance(points) == pytest.approx(64, rel=0.12)
    assert points[[33, 133, 362, 263], :2].mean(axis=0) == pytest.approx([96, 0.45 * 192], abs=5)


def test_flow_brings_the_frame_before_into_place(packed: ClipCache) -> None:
    flow, valid, _ = packed.motion(5)
    before, now = packed.tensor(4, 0), packed.tensor(5, 0)
    moved_, inside = warped(before[None], flow[None])
    holds = valid * inside[0]
    assert float(valid.mean()) > 0.6
    carried = float(((moved_[0] - now).abs() * holds).mean())
    assert carried <= float(((before - now).abs() * holds).mean()) + 0.005


def test_landmarks_are_compared_where_faces_are(packed: ClipCache, tools: FaceTools) -> None:
    picture = packed.picture(1, 0).astype(np.float32) / 255
    moved_by = np.roll(picture, 4, axis=1)
    found = meshes(np.stack([picture, picture, np.zeros_like(picture)]), tools)
    assert np.isnan(found[2]).all()
    drift = landmark_drift(found[:2], np.stack([found[0], meshes(moved_by[None], tools)[0]]))
    assert drift[0] == 0
    assert drift[1] == pytest.approx(100 * 4 / 64, rel=0.2)


def test_what_cannot_be_packed_is_said(tmp_path: Path, tools: FaceTools) -> None:
    def pack(clip: str, settings: PackSettings = SETTINGS) -> None:
        list(pack_clips([clip], tmp_path / "out", settings, tools=tools))

    with pytest.raises(PlateError, match="does not exist"):
        pack(str(tmp_path / "none.mp4"))
    (tmp_path / "no.mp4").write_bytes(b"not a video")
    with pytest.raises(PlateError, match="cannot be decoded"):
        pack(str(tmp_path / "no.mp4"))
    video = write_video(tmp_path / "short.avi", 3)
    with pytest.raises(EffectError, match="Allowed"):
        pack(str(video), PackSettings(("no such style",)))
    grey = cv2.VideoWriter(str(tmp_path / "grey.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 24, (128, 128))
    for _ in range(3):
        grey.write(np.full((128, 128, 3), 90, np.uint8))
    grey.release()
    with pytest.raises(FaceError, match="no face can be followed"):
        pack(str(tmp_path / "grey.avi"))


def test_every_second_window_is_seen_in_other_light(packed: ClipCache) -> None:
    assert grade_of("talk", 0, 0.5) == (1, 1, 1)
    factors = np.array(grade_of("talk", 1, 0.5))
    assert tuple(factors) == grade_of("talk", 1, 0.5) != grade_of("other", 1, 0.5)
    assert factors @ np.array([0.2126, 0.7152, 0.0722]) == pytest.approx(1)
    assert np.abs(np.log2(factors / factors[1])).max() <= 1.0
    assert grade_of("talk", 1, 0.0) == (1, 1, 1)
    # In the packed clip: the frames' own colours differ by the factors, in linear light.
    plain, graded = ((packed.picture(n, 0) / 255.0) ** 2.2 for n in (1, 4))
    ratio = graded.mean(axis=(0, 1)) / plain.mean(axis=(0, 1))
    wanted = np.array(grade_of("talk", 1, SETTINGS.grade))
    assert ratio / ratio[1] == pytest.approx(wanted / wanted[1], rel=0.04)


def test_windows_are_spread_and_do_not_overlap(tmp_path: Path) -> None:
    settings = PackSettings((), windows=3, length=4)
    assert windows_of(range(30), settings) == [(3, 4, 5, 6), (13, 14, 15, 16), (23, 24, 25, 26)]
    assert windows_of((5, 7, 9), settings) == [(5, 7, 9)]
    assert windows_of(range(9), settings) == [(0, 1, 2, 3), (5, 6, 7, 8)]
    clip = VideoClip(write_video(tmp_path / "c.avi", 4, 64))
    every = list(clip.scenes((0, 1, 2, 3)))
    chosen = list(clip.scenes((1, 3)))
    assert np.array_equal(chosen[1], every[3])
    assert not np.array_equal(chosen[0], every[0])
