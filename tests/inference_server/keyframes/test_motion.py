"""Flow between two pictures, and paint carried along it."""

from __future__ import annotations

import cv2
import numpy as np

from inference_server.keyframes.motion import Flows, carried, inside
from tests.inference_server.keyframes.paint import shifted
from tests.portrait import still


def test_paint_is_carried_where_its_pixels_went() -> None:
    """A camera move of 5, 3 pixels: the flow says so, and the paint of the one frame lies on the other."""
    scene = np.clip(still(128) ** (1 / 2.2), 0, 1).astype(np.float32)
    there, here = scene, shifted(scene, 5, 3)
    eight = [np.rint(p * 255).astype(np.uint8) for p in (here, there)]
    motion = Flows().between(eight[0], eight[1])
    middle = (slice(20, 100), slice(20, 100))
    assert np.abs(np.median(motion.flow[middle], axis=(0, 1)) - [-5, -3]).max() < 0.3
    assert motion.holds[middle].mean() > 0.9
    paint = 1 - there
    seen, weight = carried(paint, np.ones((128, 128), np.float32), motion)
    counts = weight > 0.9
    assert counts[middle].mean() > 0.7
    assert np.abs(seen - (1 - here))[counts].mean() < 0.02
    assert (weight[~motion.holds] == 0).all()


def test_flow_does_not_hold_where_something_else_is_seen() -> None:
    scene = np.rint(np.clip(still(128) ** (1 / 2.2), 0, 1) * 255).astype(np.uint8)
    covered = scene.copy()
    cv2.rectangle(covered, (40, 40), (80, 80), (255, 0, 255), -1)
    holds = Flows().between(scene, covered).holds
    assert holds[44:76, 44:76].mean() < 0.2
    assert holds[:30].mean() > 0.9


def test_inside_ends_at_the_border() -> None:
    flow = np.zeros((4, 6, 2), np.float32)
    flow[..., 0] = 2.0
    assert inside(flow).tolist() == [[True] * 4 + [False] * 2] * 4
