"""Changes of training pairs: in register, within limits, and none where none is asked for."""

from __future__ import annotations

import pytest
import torch

from inference_server.training.draws import Draw
from inference_server.training.recipes.two_stage_augment import Geometry, Photometry, cut, recoloured

PLAIN = Geometry(probability=0.0, mirror=0.0)
QUIET = Photometry(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def places(h: int = 48, w: int = 64) -> torch.Tensor:
    """Every pixel's x and y."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([x, y]).float()


def test_without_changes_it_is_a_crop_anywhere() -> None:
    corners = set()
    for index in range(60):
        crop = cut(places(), 40, Draw(0, 0, index), PLAIN)
        assert torch.equal(crop - crop[:, :1, :1], places(40, 40))
        corners.add((int(crop[0, 0, 0]), int(crop[1, 0, 0])))
    across, down = zip(*corners, strict=True)
    assert (min(across), min(down)) == (0, 0) or len(corners) > 40
    assert max(across) <= 24
    assert max(down) <= 8


def test_mirrored_as_often_as_asked() -> None:
    mirrored = [cut(places(), 40, Draw(0, 1, i), Geometry(0.0, mirror=0.5))[0] for i in range(100)]
    share = sum(bool(x[0, 0] > x[0, 1]) for x in mirrored) / 100
    assert 0.35 < share < 0.65


def test_turned_and_scaled_within_limits_and_everything_alike() -> None:
    turned, sizes = [], []
    for index in range(40):
        draw = Draw(0, 2, index)
        crop = cut(places(200, 200), 40, draw, Geometry(1.0, (0.75, 1.25), 20.0, 0.0))
        step = (crop[:, 20, 38] - crop[:, 20, 2]) / 36  # where one pixel to the right lies in the picture
        sizes.append(float(1 / step.norm()))
        turned.append(float(torch.atan2(step[1], step[0]).rad2deg()))
        below = (crop[:, 38, 20] - crop[:, 2, 20]) / 36
        assert torch.allclose(below, torch.stack([-step[1], step[0]]), atol=0.02)  # a similarity
    assert min(sizes) > 0.74
    assert max(sizes) < 1.26
    assert max(sizes) - min(sizes) > 0.3
    assert max(map(abs, turned)) < 20.5
    assert max(turned) > 8 > -8 > min(turned)


def test_a_small_picture_is_continued_by_its_reflection() -> None:
    picture = torch.rand(3, 24, 24)
    crop = cut(picture, 32, Draw(0, 0, 0), PLAIN)
    assert crop.shape == (3, 32, 32)
    assert torch.allclose(crop[:, 4:28, 4:28], picture, atol=1e-4)
    assert torch.allclose(crop[:, :4], crop[:, 4:8].flip(1), atol=1e-4)


def test_colours() -> None:
    frame = torch.rand(3, 16, 16) * 1.6 - 0.8
    assert torch.allclose(recoloured(frame, Draw(0, 0, 0), QUIET), frame, atol=1e-6)
    strong = [recoloured(frame, Draw(0, 0, i), Photometry(1.0, 0.3, 0.3, 0.1, 0.1, 2.0)) for i in range(8)]
    assert all(x.abs().max() <= 1 for x in strong)
    assert min(float((a - b).abs().mean()) for a in strong for b in strong if a is not b) > 0.01
    exposed = recoloured(frame, Draw(0, 0, 3), Photometry(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    ratio = ((exposed + 1) / (frame + 1)).log2() * 2.2
    assert ratio.abs().median() <= 1
    assert ratio.std() < 0.5 * ratio.abs().median()
    soft = recoloured(frame, Draw(0, 0, 5), Photometry(0.0, 0.0, 0.0, 0.0, 0.0, 3.0))
    assert soft.std() < frame.std()


@pytest.mark.parametrize(
    "table", [{"probability": 1.5}, {"mirror": -0.1}, {"scale": (1.0, 0.5)}, {"scale": (0.0, 1.0)}]
)
def test_impossible_limits(table: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"probability|mirror|scale"):
        Geometry(**table)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        Photometry(noise=-0.1)
