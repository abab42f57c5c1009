"""Parse smoothing: weights in time and colour, the frame's border, and the window at both ends of a shot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from inference_server.networks.parse_smoothing import smooth_sequence, smooth_window, warp, window
from inference_server.networks.stylegan_layers import downsample2
from inference_server.networks.tensors import ShapeError

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def still(count: int, h: int = 6, w: int = 8) -> tuple[list[Tensor], list[Tensor]]:
    """Equal frames, and no motion between them."""
    frame = noise(3, h, w).clamp(-1, 1)
    return [frame] * count, [torch.zeros(2, h, w)] * count


# --- the window


def test_inside_a_shot_the_window_is_what_surrounds_the_frame() -> None:
    assert window(7, 20, 2) == [5, 6, 7, 8, 9]
    assert window(3, 20, 0) == [3]


def test_at_the_ends_stand_copies_in_order() -> None:
    """Frames 0..k-1 before the first frame, the last k after the last: not mirrored, not held."""
    assert window(0, 5, 2) == [0, 1, 0, 1, 2]
    assert window(1, 5, 2) == [1, 0, 1, 2, 3]
    assert window(4, 5, 2) == [2, 3, 4, 3, 4]
    assert window(3, 5, 2) == [1, 2, 3, 4, 3]


def test_a_shot_shorter_than_the_window_is_held_at_its_ends() -> None:
    assert window(0, 1, 3) == [0] * 7
    assert window(1, 2, 3) == [1, 1, 0, 1, 0, 0, 1]
    for count in range(1, 9):
        for i in range(count):
            entries = window(i, count, 5)
            assert len(entries) == 11
            assert entries[5] == i
            assert set(entries) <= set(range(count))


@pytest.mark.parametrize(("i", "count", "k"), [(-1, 5, 2), (5, 5, 2), (0, 0, 2), (0, 5, -1)])
def test_impossible_windows_are_refused(i: int, count: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"frame {i} of {count} with radius {k}"):
        window(i, count, k)


# --- warping


def test_a_whole_pixel_flow_is_a_shift() -> None:
    x = noise(1, 4, 6, 8)
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0], flow[:, 1] = 2.0, -1.0  # each position reads 2 px to the right and 1 px up
    warped, valid = warp(x, flow)
    torch.testing.assert_close(warped[..., 1:, :-2], x[..., :-1, 2:], rtol=1e-4, atol=1e-5)
    assert valid[0, 0, 1:, :-2].all()
    assert not valid[0, 0, 0].any()
    assert not valid[0, 0, :, -2:].any()
    assert (warped[..., 0, :] == 0).all()


def test_a_sample_that_is_partly_outside_is_not_valid() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0] = -0.01
    _, valid = warp(noise(1, 1, 4, 4), flow)
    assert not valid[0, 0, :, 0].any()
    assert valid[0, 0, :, 1:].all()


# --- one window


def test_still_frames_are_weighed_by_time_alone() -> None:
    frames, flows = still(5)
    weights = smooth_window(frames, [noise(19, 6, 8, seed=s) for s in range(5)], flows).weights
    expected = torch.tensor([math.exp(-((j - 2) ** 2) / (2 * 2.5**2)) for j in range(5)])
    expected = expected / expected.sum()
    torch.testing.assert_close(weights, expected[:, None, None].expand(5, 6, 8), rtol=1e-4, atol=1e-5)


def test_the_same_map_everywhere_stays_as_it_is() -> None:
    frames, flows = still(5)
    parsing = noise(19, 6, 8)
    smoothed = smooth_window(frames, [parsing] * 5, flows)
    torch.testing.assert_close(smoothed.fused, parsing, rtol=1e-4, atol=1e-4)


def test_logits_are_averaged_with_the_weights() -> None:
    frames, flows = still(3)
    parsing = [torch.full((2, 6, 8), value) for value in (0.0, 3.0, 9.0)]
    smoothed = smooth_window(frames, parsing, flows)
    side = math.exp(-1 / (2 * 1.5**2))
    assert smoothed.fused[0, 2, 3].item() == pytest.approx((3 + 9 * side) / (1 + 2 * side), rel=1e-4)


def test_another_colour_counts_less() -> None:
    frames, flows = still(3)
    off = frames[0] + torch.tensor([0.3, 0.0, 0.0])[:, None, None]
    weights = smooth_window([off, frames[1], frames[2]], [noise(2, 6, 8)] * 3, flows).weights
    # the mean over three channels of 0.3^2 is 0.03
    torch.testing.assert_close(
        weights[0] / weights[2], torch.full((6, 8), math.exp(-0.03 / (2 * 0.2**2))), rtol=1e-3, atol=1e-5
    )


def test_what_comes_from_outside_the_frame_does_not_count() -> None:
    frames, flows = still(3)
    away = torch.full((2, 6, 8), 100.0)
    parsing = [noise(4, 6, 8, seed=s) for s in range(3)]
    smoothed = smooth_window(frames, parsing, [away, flows[1], away])
    assert (smoothed.weights[[0, 2]] == 0).all()
    torch.testing.assert_close(smoothed.fused, parsing[1])


def test_the_flow_of_the_centre_is_not_read() -> None:
    frames, flows = still(3)
    parsing = [noise(4, 6, 8, seed=s) for s in range(3)]
    lost = torch.full((2, 6, 8), float("nan"))
    a, b = smooth_window(frames, parsing, flows), smooth_window(frames, parsing, [flows[0], lost, flows[2]])
    assert torch.equal(a.fused, b.fused)


def test_maps_follow_the_motion() -> None:
    """A moving picture with a moving map: warped back, every entry agrees with the centre."""
    wide, wide_map = noise(3, 6, 14), noise(5, 6, 14, seed=9)
    frames = [wide[:, :, 3 + d : 11 + d] for d in (1, 0, -1)]  # frame j shows what lies d px to the right
    parsing = [wide_map[:, :, 3 + d : 11 + d] for d in (1, 0, -1)]
    flows = [torch.stack([torch.full((6, 8), -float(d)), torch.zeros(6, 8)]) for d in (1, 0, -1)]
    torch.testing.assert_close(smooth_window(frames, parsing, flows).fused, parsing[1], rtol=1e-4, atol=1e-4)


def test_a_window_of_one_is_the_map_itself() -> None:
    parsing = noise(19, 6, 8)
    smoothed = smooth_window([noise(3, 6, 8)], [parsing], [torch.zeros(2, 6, 8)])
    assert torch.equal(smoothed.fused, parsing)
    torch.testing.assert_close(smoothed.halved(), downsample2(parsing[None])[0])


# --- a sequence


class Lazy(Sequence[Tensor]):
    """A sequence that makes its items when asked, as one that reads from disk does."""

    def __init__(self, items: list[Tensor]) -> None:
        self.items, self.asked = items, set[int]()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        self.asked.add(index)
        return self.items[index]


def test_a_sequence_is_smoothed_frame_by_frame_as_it_is_read() -> None:
    frames = Lazy([noise(3, 4, 6, seed=s).clamp(-1, 1) for s in range(6)])
    parsing = Lazy([noise(19, 4, 6, seed=10 + s) for s in range(6)])
    windows: dict[int, list[int]] = {}

    def flows(i: int, entries: list[int]) -> list[Tensor]:
        windows[i] = entries
        return [noise(2, 4, 6, seed=100 + i * 10 + j) for j in entries]

    maps: Iterator[Tensor] = smooth_sequence(frames, parsing, flows, k=1)
    first = next(maps)
    assert first.shape == (19, 2, 3)
    assert frames.asked == {0, 1}
    rest = list(maps)
    assert len(rest) == 5
    assert windows[0] == [0, 0, 1]
    assert windows[5] == [4, 5, 5]
    alone = smooth_window([frames[j] for j in (2, 3, 4)], [parsing[j] for j in (2, 3, 4)], flows(3, [2, 3, 4]))
    assert torch.equal(rest[2], alone.halved())


def test_a_shorter_window_counts_nothing_twice() -> None:
    """With times, a window holds only the frames that there are: the first frame's, of radius 2, is three long."""
    frames, flows = still(3)
    parsing = [noise(4, 6, 8, seed=s) for s in range(3)]
    short = smooth_window(frames, parsing, flows, [0, 1, 2], 2)
    near = torch.exp(-torch.tensor([0.0, 1.0, 4.0]) / (2 * 2.5**2))  # the same picture: only time weighs
    wanted = sum(w * p for w, p in zip(near / near.sum(), parsing, strict=True))
    assert torch.allclose(short.fused, torch.as_tensor(wanted), atol=1e-5)
    alone = smooth_window(frames[:1], parsing[:1], flows[:1], [0], 2)
    assert torch.equal(alone.fused, parsing[0])
    with pytest.raises(ShapeError, match="one of them 0"):
        smooth_window(frames, parsing, flows, [1, 2, 3], 2)


def test_gradients_reach_the_maps() -> None:
    frames, flows = still(3)
    parsing = [noise(4, 6, 8, seed=s).requires_grad_() for s in range(3)]
    smooth_window(frames, parsing, flows).fused.square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parsing)


def test_wrong_shapes_are_named() -> None:
    frames, flows = still(3)
    maps = [noise(4, 6, 8)] * 3
    with pytest.raises(ShapeError, match="2k \\+ 1 frames, maps and flows, got 2, 2 and 2"):
        smooth_window(frames[:2], maps[:2], flows[:2])
    with pytest.raises(ShapeError, match=r"frame: expected shape \[3, H, W\], got \[4, 6, 8\]"):
        smooth_window(maps, maps, flows)
    with pytest.raises(ShapeError, match=r"parsing map 2 of the window: expected shape \[4, 6, 8\], got \[4, 6, 7\]"):
        smooth_window(frames, [*maps[:2], noise(4, 6, 7)], flows)
    with pytest.raises(ShapeError, match=r"flow 0 of the window: expected shape \[2, 6, 8\], got \[1, 6, 8\]"):
        smooth_window(frames, maps, [noise(1, 6, 8), *flows[1:]])
