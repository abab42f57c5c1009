"""The maps beside the picture: made of mattes, kept with the shot, smoothed along the motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_server.effects import placement
from inference_server.effects.resample import separable
from inference_server.effects.vtoonify import parsing
from inference_server.effects.vtoonify.smoothing import Entry, LogitSmoother, dis_flow, raft_flow
from inference_server.faces.mattes import region_mattes
from inference_server.networks.bisenet import CLASSES
from inference_server.networks.parse_smoothing import smooth_sequence
from inference_server.networks.raft import RAFT, RAFTConfig
from inference_server.plates.types import Window
from tests.inference_server.effects.conftest import NAMES, Portrait


def test_mattes_become_the_classes_they_show(portrait: Portrait) -> None:
    """Eyes, brows, lips, nose, skin and hair lie where the mesh has them, left and right as the parser has them."""
    h, w = portrait.picture.shape[:2]
    face = portrait.face
    place = placement.place(placement.centred(face), 1.0, (150.0, 150.0, 150.0, 150.0))
    region = place.window.intersect(Window(0, 0, w, h))
    mattes = {n: torch.from_numpy(m) for n, m in region_mattes(face, region, NAMES).items()}
    cut = separable(torch.stack(list(mattes.values())), *place.sampling(region))
    logits = parsing.logits_of_mattes(dict(zip(mattes, cut, strict=True)), face, place, 19)
    assert tuple(logits.shape) == (1, 19, place.height, place.width)
    assert float(logits.max()) <= 9.001
    labels = logits[0].argmax(dim=0)

    def at(vertices: tuple[int, ...]) -> str:
        x, y = place.to_crop(face.landmarks[list(vertices), :2].mean(axis=0)[None].astype(np.float64))[0]
        return CLASSES[int(labels[int(y), int(x)])]

    assert at((33, 133, 159, 145)) == "r_eye"  # the picture's left is the person's right
    assert at((362, 263, 386, 374)) == "l_eye"
    assert at((105, 52)) == "r_brow"
    assert at((334, 282)) == "l_brow"
    assert at((4,)) == "nose"
    assert at((0, 13)) == "u_lip"
    assert at((14, 17)) == "l_lip"
    assert at((50,)) == at((280,)) == "skin"
    assert CLASSES[int(labels[4, 4])] == "background"
    assert {CLASSES[int(i)] for i in labels.unique()} >= {"hair", "mouth"}


def test_maps_are_kept_within_a_step_of_an_8_bit_picture() -> None:
    small = torch.nn.functional.interpolate(torch.randn(1, 19, 12, 10) * 6, size=(48, 40), mode="bicubic")[0]
    kept = parsing.packed(small, exact=False)
    assert sum(a.nbytes for a in kept.values()) < 48 * 40 * 19 / 3
    back = parsing.unpacked(kept, torch.device("cpu"))
    assert tuple(back.shape) == (1, 19, 48, 40)
    halved = torch.nn.functional.avg_pool2d(small[None], 2)
    step = (halved.amax(dim=(2, 3)) - halved.amin(dim=(2, 3))).max() / 255
    again = torch.nn.functional.interpolate(halved, scale_factor=2, mode="bilinear", align_corners=False)
    assert float((back - again).abs().max()) <= 0.51 * float(step)
    exact = parsing.unpacked(parsing.packed(small, exact=True), torch.device("cpu"))
    assert float((exact[0] - small).abs().max()) < 0.02
    flat = parsing.unpacked(parsing.packed(torch.full((19, 16, 16), 2.5), exact=False), torch.device("cpu"))
    assert torch.allclose(flat, torch.full_like(flat, 2.5))


def entries(count: int, frames: list[int] | None = None) -> list[Entry]:
    """A bright square that moves two pixels a frame over a wall, and maps that flicker."""
    out = []
    y, x = np.mgrid[0:64, 0:80]
    wall = 0.2 * np.sin(x / 5.0) + 0.2 * np.cos(y / 7.0)
    for i in range(count):
        inside = (np.abs(x - 25 - 2 * i) < 12) & (np.abs(y - 32) < 14)
        tone = np.where(inside, 0.6 + 0.2 * np.sin((x - 2 * i) / 2.0), wall)
        picture = torch.from_numpy(np.repeat(tone[None], 3, axis=0).astype(np.float32))
        noise = np.random.default_rng(i).normal(size=(19, 64, 80)) * 2
        logits = torch.from_numpy((np.where(inside, 6.0, -3.0) + noise).astype(np.float32))
        out.append(Entry.of(i if frames is None else frames[i], picture, logits))
    return out


def smoothed(given: list[Entry], radius: int, published: bool, **flow: Any) -> dict[int, Tensor]:
    smoother = LogitSmoother(flow.get("flow") or dis_flow(), radius, published)
    found = [r for entry in given for r in smoother.add(entry)] + list(smoother.finish())
    assert [frame for frame, _ in found] == [e.frame for e in given]
    return dict(found)


def test_flicker_goes_and_the_moving_shape_stays() -> None:
    given = entries(8)
    found = smoothed(given, 3, published=False)
    for i in (0, 4, 7):
        inside = given[i].logits.mean(dim=0) > 1.5
        before = given[i].logits[:, inside].std()
        after = found[i][:, inside].std()
        assert after < 0.7 * before, i
        assert found[i][:, inside].mean() > 5
        assert found[i][:, ~inside].mean() < -2


def test_a_window_ends_with_the_shot_and_at_gaps() -> None:
    """The first frame's map is the same whatever comes after its window, and a gap is not looked across."""
    given = entries(7)
    assert torch.equal(smoothed(given[:3], 2, False)[0], smoothed(given, 2, False)[0])
    alone = entries(3, frames=[0, 10, 20])
    for entry in alone:
        assert torch.equal(smoothed(alone, 5, False)[entry.frame], entry.logits)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_published_rule_is_the_recorded_one(count: int) -> None:
    """Streamed through a window, the maps are those of networks.parse_smoothing, which the recorded cases pin."""
    given, flow = entries(count), dis_flow()

    def flows(i: int, window: list[int]) -> list[Tensor]:
        still = torch.zeros(2, 64, 80)
        return [still if j == i else flow(given[i], given[j]) for j in window]

    wanted = list(smooth_sequence([e.picture for e in given], [e.logits for e in given], flows, 3))
    found = smoothed(given, 3, published=True)
    for i in range(count):
        assert torch.equal(found[i], wanted[i]), i


def test_raft_takes_the_place_of_dis() -> None:
    torch.manual_seed(0)
    config = RAFTConfig(
        widths=(8, 8, 8), features=16, hidden=8, context=8, correlation_widths=(8, 8), flow_widths=(8, 8)
    )
    given = entries(3)
    flow = raft_flow(RAFT(config).eval().requires_grad_(False))
    found = flow(given[0], given[1])
    assert tuple(found.shape) == (2, 64, 80)
    maps = smoothed(given, 1, published=False, flow=flow)
    assert not torch.equal(maps[1], smoothed(given, 1, published=False)[1])


def test_grey_is_rounded_from_minus_one_to_one() -> None:
    grey: NDArray[np.uint8] = Entry.of(1, torch.tensor([-1.0, 0.0, 1.0]).expand(3, 1, 3), torch.zeros(19, 1, 3)).grey
    assert grey.tolist() == [[0, 128, 255]]
