"""From the plate through the crop and back, end to end, with a network that draws what it sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference_server.effects.vtoonify.networks import Stylist
from tests.inference_server.effects.vtoonify.conftest import Lab, encoded, job
from tests.plate_files import PartSpec, independent_read, write_exr
from tests.portrait import channels, moved, write_shot

WHOLE = {"regions": "crop", "grain": 0.0, **{f"padding_{side}": 200 for side in ("left", "right", "top", "bottom")}}


def shift(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    """By how many pixels (x, y) `after` shows `before` moved, by least squares on gradients."""
    a, b = (cv2.GaussianBlur(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), (0, 0), 2) for p in (before, after))
    down, across = np.gradient(a)
    solution = np.linalg.lstsq(np.stack([across.ravel(), down.ravel()], axis=1), (b - a).ravel(), rcond=None)[0]
    return -float(solution[0]), -float(solution[1])


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("mode", ["follow", "fixed", "published"])
@pytest.mark.parametrize("size", [224, 500])  # the plate is smaller than the crop, and larger; 500 is no multiple of 8
def test_a_network_that_changes_nothing_gives_the_plate_back(
    lab: Lab, shot: str, tmp_path: Path, mode: str, size: int
) -> None:
    pattern = shot if size == 224 else write_shot(tmp_path / "in", range(1001, 1003), size=size)
    lab.run(job(pattern, tmp_path, {**WHOLE, "crop": mode}, frames="1002"))
    plate, result = encoded(pattern % 1002), encoded(str(tmp_path / "o.1002.exr"))
    assert not np.array_equal(plate, result)
    face = slice(size * 15 // 100, size * 60 // 100)
    before, after = plate[face, face], result[face, face]
    assert np.abs(shift(before, after)).max() < 0.02
    assert np.abs((after - before).mean(axis=(0, 1))).max() < 5e-4  # half a step of an 8-bit picture
    assert float(np.sqrt(((after - before) ** 2).mean())) < 0.012  # the finest grain is all that is lost


@pytest.mark.usefixtures("mirror")
def test_a_squeezed_plate_is_not_drawn_squeezed(lab: Lab, tmp_path: Path) -> None:
    """Pixel aspect 2: the network sees a round head, and the result lies where the plate is."""
    for frame in (1001, 1002):
        narrow = cv2.resize(moved(frame, 300), (150, 300), interpolation=cv2.INTER_AREA)
        write_exr(tmp_path / f"in.{frame}.exr", PartSpec(channels(narrow), aspect=2.0))
    pattern = str(tmp_path / "in.%04d.exr")
    for mode in ("follow", "published"):
        lab.run(job(pattern, tmp_path / mode, {**WHOLE, "crop": mode}, frames="1002"))
        before, after = encoded(pattern % 1002), encoded(str(tmp_path / mode / "o.1002.exr"))
        part = (slice(45, 180), slice(22, 90))
        assert np.abs(shift(before[part], after[part])).max() < 0.03
        assert float(np.sqrt(((after - before)[part] ** 2).mean())) < 0.02


def test_the_network_sees_eyes_64_pixels_apart(
    lab: Lab, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def paint(self: Stylist, x: Tensor, style: Tensor, degree: float) -> Tensor:
        seen.append(x)
        return functional.interpolate(x[:, :3], scale_factor=4)

    monkeypatch.setattr(Stylist, "paint", paint)
    lab.run(job(shot, tmp_path, frames="1001"))
    (x,) = seen
    assert tuple(x.shape) == (1, 22, 144, 144)
    assert float(x[:, :3].min()) >= -1
    assert float(x[:, :3].max()) <= 1
    eyes = x[0, 3 + 4 : 3 + 6] * 16 > 3  # l_eye and r_eye of the stand-in for the parser
    columns = torch.arange(144) + 0.5
    left, right = ((columns * eye.sum(dim=0)).sum() / eye.sum() for eye in (eyes[1], eyes[0]))
    assert float(right - left) == pytest.approx(64, abs=4)
    assert float(right + left) / 2 == pytest.approx(72, abs=3)


def test_no_square_is_seen_where_the_crop_ends(
    lab: Lab, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that brightens everything: the edge of the crop is a slow ramp, not a step."""

    def paint(self: Stylist, x: Tensor, style: Tensor, degree: float) -> Tensor:
        return functional.interpolate(x[:, :3] * 0 + 1, scale_factor=4)

    monkeypatch.setattr(Stylist, "paint", paint)
    lab.run(
        job(shot, tmp_path, {"regions": "crop", "grain": 0.0}, frames="1001", matte_output=str(tmp_path / "m.%04d.exr"))
    )
    (part,) = independent_read(str(tmp_path / "m.1001.exr"))
    matte = next(iter(part.values())).astype(np.float32)
    assert matte.max() == 1
    assert matte[0].max() == matte[:, 0].max() == 0  # the crop ends within the plate
    steps = np.maximum(np.abs(np.diff(matte, axis=0)).max(), np.abs(np.diff(matte, axis=1)).max())
    assert 0 < steps < 0.12
    inside = matte > 0.99
    assert inside.sum() > 0.3 * (matte > 0).sum()
