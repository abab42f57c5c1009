"""Painted frames as artists save them: read, converted with a word, or refused with what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference_server.keyframes.painted import Painted, painted_files, read_painted
from inference_server.plates.color import srgb_encode, to_picture
from inference_server.plates.reader import read_plate
from inference_server.training.errors import TrainingError
from tests.inference_server.keyframes.paint import (
    painted,
    plate_of,
    shifted,
    sized,
    source_of,
    write_paint,
)
from tests.portrait import write_shot

SIZE, FRAME = 160, 1002


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shot(tmp_path_factory.mktemp("plate"), range(1001, 1004), size=SIZE)


@pytest.fixture
def scene() -> NDArray[np.float32]:
    return painted(plate_of(FRAME, SIZE))


def read(plate: str, path: str, colorspace: str = "", trust: bool = False) -> Painted:
    source = source_of(plate)
    return read_painted(path, read_plate(plate % FRAME, FRAME), source, -0.5, colorspace, trust)


def wanted(scene: NDArray[np.float32]) -> NDArray[np.float32]:
    return to_picture(torch.from_numpy(scene), -0.5).numpy()


def refused(plate: str, path: str, says: str, remedy: str = "", colorspace: str = "") -> None:
    with pytest.raises(TrainingError, match=says) as caught:
        read(plate, path, colorspace)
    assert caught.value.code == "training.data"
    assert remedy in caught.value.remedy
    assert path in caught.value.message


@pytest.mark.parametrize(("name", "space"), [("p.exr", "the plate's colourspace"), ("p.png", "display sRGB")])
def test_each_format_is_read_in_its_usual_colourspace(
    plate: str, scene: NDArray[np.float32], tmp_path: Path, name: str, space: str
) -> None:
    found = read(plate, write_paint(tmp_path / name, scene))
    assert space in found.notes[0]
    assert found.covers.mean() > 0.9
    held = scene.clip(0, 1) if name == "p.png" else scene
    np.testing.assert_allclose(found.picture[found.covers], wanted(held)[found.covers], atol=0.02)
    assert found.lineup.off < 0.5


def test_highlights_that_a_display_picture_cannot_hold_are_not_painted(tmp_path: Path) -> None:
    bright = plate_of(FRAME, SIZE) * np.float32(2)
    plate = str(tmp_path / "bright.%04d.exr")
    write_paint(tmp_path / f"bright.{FRAME}.exr", bright)
    found = read(plate, write_paint(tmp_path / "p.png", painted(bright)))
    lost = ((bright > 1.05) & (painted(bright) > 1.05)).any(axis=-1)
    assert lost.any()
    assert not found.covers[lost].any()
    assert any("highlights above 1" in note for note in found.notes)
    assert read(plate, write_paint(tmp_path / "p.exr", painted(bright))).covers.all()


def test_a_named_colourspace_is_used(plate: str, scene: NDArray[np.float32], tmp_path: Path) -> None:
    coded = srgb_encode(torch.from_numpy(scene).clamp(0, 1)).numpy()
    found = read(plate, write_paint(tmp_path / "p.exr", coded), "sRGB - Texture")
    np.testing.assert_allclose(found.picture, wanted(scene.clip(0, 1)), atol=0.02)


def test_display_values_in_an_exr_are_noticed_by_what_was_left_unpainted(plate: str, tmp_path: Path) -> None:
    part = plate_of(FRAME, SIZE)
    part[40:120, 40:120] = painted(part)[40:120, 40:120]
    coded = srgb_encode(torch.from_numpy(part).clamp(0, 1)).numpy()
    path = write_paint(tmp_path / "p.exr", coded)
    refused(
        plate, path, "untouched parts are the plate's when it is read as display sRGB", "--painted-colorspace display"
    )
    assert read(plate, path, "display").lineup.off < 0.5


def test_another_size_of_the_same_shape_is_resampled_and_said(
    plate: str, scene: NDArray[np.float32], tmp_path: Path
) -> None:
    found = read(plate, write_paint(tmp_path / "p.exr", sized(scene, SIZE // 2, SIZE // 2)))
    assert "resampled from 80x80 to the plate's 160x160" in found.notes
    assert found.picture.shape == (SIZE, SIZE, 3)
    assert np.abs(found.picture - wanted(scene)).mean() < 0.02


def test_another_shape_is_refused(plate: str, scene: NDArray[np.float32], tmp_path: Path) -> None:
    path = write_paint(tmp_path / "p.exr", scene[:120])
    refused(plate, path, "is 160x120, the plate 160x160: not the same framing")


def test_a_shift_is_refused_with_its_amount_and_a_small_one_told(
    plate: str, scene: NDArray[np.float32], tmp_path: Path
) -> None:
    path = write_paint(tmp_path / "far.exr", shifted(scene, 6, -4))
    with pytest.raises(TrainingError, match=r"shifted by \+(5\.[5-9]|6\.[0-5]), -(3\.[5-9]|4\.[0-5]) px"):
        read(plate, path)
    told = read(plate, path, trust=True)
    assert "not quite on the plate" in told.notes[-1]
    near = read(plate, write_paint(tmp_path / "near.exr", shifted(scene, 1.2, 0.6)))
    assert "not quite on the plate" in near.notes[-1]
    assert not any("not quite" in note for note in read(plate, write_paint(tmp_path / "on.exr", scene)).notes)


def test_another_picture_is_refused(plate: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).random((SIZE, SIZE, 3)).astype(np.float32)
    refused(plate, write_paint(tmp_path / "p.exr", noise), "too few edges in common")


def test_the_plate_itself_is_no_paint(plate: str, tmp_path: Path) -> None:
    refused(plate, write_paint(tmp_path / "p.exr", plate_of(FRAME, SIZE)), "nothing is painted on it")
    refused(plate, write_paint(tmp_path / "p.png", plate_of(FRAME, SIZE)), "nothing is painted on it")


def test_where_alpha_is_0_nothing_is_painted(plate: str, scene: NDArray[np.float32], tmp_path: Path) -> None:
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[30:130, 30:130] = 1
    alpha[60:70, 60:70] = 0.5
    found = read(plate, write_paint(tmp_path / "p.exr", scene, alpha))
    np.testing.assert_array_equal(found.covers, alpha > 0)
    inner = (slice(62, 68), slice(62, 68))
    np.testing.assert_allclose(found.picture[inner], wanted(scene)[inner], atol=0.02)


def test_frames_that_are_missing_or_not_of_the_shot_are_named(
    plate: str, scene: NDArray[np.float32], tmp_path: Path
) -> None:
    pattern = str(tmp_path / "p.%04d.exr")
    for frame in (1001, 1003, 1009):
        write_paint(tmp_path / f"p.{frame}.exr", scene)
    shot = (1001, 1002, 1003)
    assert list(painted_files(pattern, (1001, 1003), shot)) == [1001, 1003]
    with pytest.raises(TrainingError, match=r"painted frame 1002 is not on disk: .*p\.1002\.exr") as caught:
        painted_files(pattern, (1001, 1002), shot)
    assert "1001,1003,1009" in caught.value.remedy
    with pytest.raises(TrainingError, match="painted frame 1009 is not a frame of the shot, which has 1001-1003"):
        painted_files(pattern, (), shot)
    assert painted_files(pattern % 1009, (1002,), shot) == {1002: pattern % 1009}  # one picture under any name
