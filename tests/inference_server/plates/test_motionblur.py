"""Motion blur of drawn pixels: as long as the shutter is open, along the head's path, light added up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference_server.plates.motionblur import blur_along, path_over
from inference_server.plates.types import Window

SIDEWAYS = np.array([[0.0, 0.0, 12.0], [0.0, 0.0, 0.0]])  # 12 pixels to the right in a frame's time


def test_a_highlight_becomes_a_streak_of_the_shutters_length_and_keeps_its_light() -> None:
    scene = torch.zeros(3, 9, 61)
    scene[:, 4, 30] = 100.0
    path = path_over(Window(0, 0, 61, 9), SIDEWAYS, 0.5)
    assert path is not None
    blurred = blur_along(scene, path)
    lit = (blurred[0, 4] > 1.0).nonzero().flatten()
    assert (int(lit.min()), int(lit.max())) == (27, 33)  # 6 pixels, the frame's moment in the middle
    assert float(blurred.sum()) == pytest.approx(300.0, rel=1e-3)
    assert not blurred[:, :3].any()  # the motion is sideways


def test_what_does_not_change_along_the_path_stays() -> None:
    rows = torch.linspace(-0.5, 3.0, 20)[None, :, None].expand(3, 20, 40)
    path = path_over(Window(0, 0, 40, 20), SIDEWAYS, 1.0)
    assert path is not None
    torch.testing.assert_close(blur_along(rows, path), rows)


def test_the_path_is_the_affine_motion_at_each_plate_pixel() -> None:
    turning = np.array([[0.0, -0.1, 10.0], [0.1, 0.0, -20.0]])  # about (200, 100)
    path = path_over(Window(190, 90, 210, 110), turning, 1.0)
    assert path is not None
    assert path[:, 10, 10].tolist() == pytest.approx([-0.05, 0.05], abs=1e-5)  # half a pixel off the centre
    assert path[:, 0, 10].tolist() == pytest.approx([0.95, 0.05], abs=1e-5)


@pytest.mark.parametrize("shutter", [0.0, 0.04])
def test_a_path_shorter_than_half_a_pixel_is_none(shutter: float) -> None:
    assert path_over(Window(0, 0, 8, 8), SIDEWAYS, shutter) is None
