"""RAFT: published names, the order of the correlation window, up-sampling, padding, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from inference_server.networks.raft import (
    BASIC,
    RAFT,
    SMALL,
    CorrelationPyramid,
    RAFTConfig,
    convex_upsample,
    padding,
)
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")

TINY_BASIC = RAFTConfig(
    widths=(4, 6, 8),
    features=8,
    hidden=6,
    context=5,
    radius=2,
    correlation_widths=(8, 6),
    flow_widths=(6, 4),
    motion=8,
    head=8,
    levels=2,
)
TINY_SMALL = replace(TINY_BASIC, bottleneck=True, widths=(4, 8, 8), correlation_widths=(8,))


def tiny(config: RAFTConfig) -> RAFT:
    torch.manual_seed(6)
    return RAFT(config).eval().requires_grad_(False)


def pair(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    return torch.rand(2, 3, *size) * 255, torch.rand(2, 3, *size) * 255


@pytest.mark.parametrize(
    ("name", "config", "entries", "parameters"),
    [("raft_large", BASIC, 179, 5_257_536), ("raft_small", SMALL, 106, 990_162)],
)
def test_names_and_shapes_are_the_published_ones(name: str, config: RAFTConfig, entries: int, parameters: int) -> None:
    with torch.device("meta"):
        network = RAFT(config)
    assert name_differences(read_manifest(DATA / f"{name}.json"), network) == []
    assert len(network.state_dict()) == entries
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_the_norm_published_under_two_names_is_one() -> None:
    state = tiny(TINY_BASIC).state_dict()
    for name in ("weight", "running_var"):
        first, second = (state[f"cnet.layer2.0.{norm}.{name}"] for norm in ("norm3", "downsample.1"))
        assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize("config", [TINY_BASIC, TINY_SMALL])
@pytest.mark.parametrize("size", [(32, 40), (33, 46), (37, 32)])
def test_flow_at_any_size_is_the_flow_of_the_padded_pictures(config: RAFTConfig, size: tuple[int, int]) -> None:
    network, (first, second) = tiny(config), pair(*size)
    left, right, top, bottom = padding(*size)
    padded = [F.pad(image, (left, right, top, bottom), mode="replicate") for image in (first, second)]
    whole = network(*padded, iterations=3)
    assert whole.low.shape == (2, 2, padded[0].shape[2] // 8, padded[0].shape[3] // 8)
    expected = whole.full[:, :, top : top + size[0], left : left + size[1]]
    flow = network.flow(first, second, iterations=3)
    assert flow.shape == (2, 2, *size)
    assert torch.equal(flow, expected)
    assert flow.abs().max() > 0


def test_official_configurations_run_at_a_size_that_is_no_multiple_of_8() -> None:
    torch.manual_seed(8)
    network = RAFT(SMALL).eval().requires_grad_(False)
    flow = network.flow(*pair(131, 139), iterations=2, rule="kitti")
    assert flow.shape == (2, 2, 131, 139)
    assert torch.isfinite(flow).all()


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        ((136, 128), "sintel", (0, 0, 0, 0)),
        ((130, 133), "sintel", (1, 2, 3, 3)),
        ((130, 133), "kitti", (1, 2, 0, 6)),
        ((135, 129), "sintel", (3, 4, 0, 1)),
        ((129, 135), "kitti", (0, 1, 0, 7)),
    ],
)
def test_padding_rule(size: tuple[int, int], rule: str, expected: tuple[int, ...]) -> None:
    assert padding(*size, rule) == expected  # type: ignore[arg-type]


def test_a_level_of_one_cell_is_finite() -> None:
    network = tiny(replace(TINY_SMALL, levels=3))
    assert torch.isfinite(network(*pair(32, 32), iterations=2).full).all()


def test_window_offsets_run_over_x_slowest_and_are_zero_outside() -> None:
    height, width, radius = 4, 6, 1
    field = torch.arange(1.0, 1 + height * width).view(1, 1, height, width)
    pyramid = CorrelationPyramid(torch.ones(1, 1, height, width), field, levels=1, radius=radius)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = pyramid.at(torch.stack([x, y])[None].float())
    around = F.pad(field, (1, 1, 1, 1))[0, 0]
    for a in range(3):
        for b in range(3):
            expected = around[b : b + height, a : a + width]  # x offset a - 1, y offset b - 1
            torch.testing.assert_close(found[0, a * 3 + b], expected)


def test_window_is_bilinear_between_cells_and_scaled_by_the_features_length() -> None:
    field = torch.arange(24.0).view(1, 1, 4, 6).expand(1, 4, 4, 6)  # value x + 6 y in four channels
    pyramid = CorrelationPyramid(torch.ones(1, 4, 4, 6), field, levels=2, radius=0)
    at = torch.tensor([2.25, 1.5]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
    found = pyramid.at(at)[0, :, 0, 0]
    fine = 4 / 4**0.5 * (2.25 + 6 * 1.5)
    # The coarser level holds means of 2x2 cells, so its cell (i, j) stands for (2i + 0.5, 2j + 0.5), and it is read
    # at half the position: (1.125, 0.75) -> (2.75, 2.0) of the finer one.
    coarse = 4 / 4**0.5 * (2.75 + 6 * 2.0)
    assert found.tolist() == pytest.approx([fine, coarse], rel=1e-5)


def test_convex_upsampling_takes_the_masked_neighbour_of_each_fine_pixel() -> None:
    torch.manual_seed(9)
    flow = torch.randn(1, 2, 3, 4)
    chosen = torch.randint(9, (8, 8, 3, 4))
    mask = torch.full((1, 9, 8, 8, 3, 4), -1e4)
    mask.scatter_(1, chosen[None, None], 0.0)
    fine = convex_upsample(flow, mask.view(1, 576, 3, 4))
    around = F.pad(flow, (1, 1, 1, 1))
    for row, column in [(0, 0), (7, 31), (13, 18), (23, 5), (9, 30)]:
        i, j = row // 8, column // 8
        k = int(chosen[row % 8, column % 8, i, j])
        torch.testing.assert_close(fine[0, :, row, column], 8 * around[0, :, i + k // 3, j + k % 3])


def test_start_is_where_the_flow_begins() -> None:
    network, (first, second) = tiny(TINY_SMALL), pair(32, 40)
    zero = torch.zeros(2, 2, 4, 5)
    assert torch.equal(network(first, second, 2, zero).full, network(first, second, 2).full)
    for parameter in network.update_block.flow_head.conv2.parameters():
        parameter.zero_()
    result = network(first, second, 2, zero + 1.5)
    assert torch.equal(result.low, zero + 1.5)
    torch.testing.assert_close(result.full, torch.full((2, 2, 32, 40), 12.0))


def test_each_iteration_moves_on() -> None:
    network, images = tiny(TINY_BASIC), pair(32, 40)
    one, two = network(*images, iterations=1).low, network(*images, iterations=2).low
    assert (one - two).abs().max() > 1e-6
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        network(*images, iterations=0)


@pytest.mark.parametrize("config", [TINY_BASIC, TINY_SMALL])
def test_positions_stay_exact_in_half_precision(config: RAFTConfig) -> None:
    network, images = tiny(config), pair(32, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(*images, iterations=3)
    full = network(*images, iterations=3)
    assert half.low.dtype == half.full.dtype == torch.float32
    assert full.low.abs().max() > 0.1
    torch.testing.assert_close(half.low, full.low, rtol=0, atol=0.02)


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    network = tiny(TINY_BASIC)
    good = torch.zeros(1, 3, 32, 40)
    with pytest.raises(ShapeError, match=r"image2: expected shape \[1, 3, 32, 40\], got \[1, 3, 40, 32\]"):
        network(good, good.transpose(2, 3))
    with pytest.raises(ShapeError, match=r"multiples of 8 and at least 16, got \[1, 3, 33, 40\]"):
        network(torch.zeros(1, 3, 33, 40), torch.zeros(1, 3, 33, 40))
    with pytest.raises(ShapeError, match=r"at least 16, got \[1, 3, 8, 40\]"):
        network(torch.zeros(1, 3, 8, 40), torch.zeros(1, 3, 8, 40))
    with pytest.raises(ShapeError, match=r"start: expected shape \[1, 2, 4, 5\], got \[1, 2, 5, 4\]"):
        network(good, good, 1, torch.zeros(1, 2, 5, 4))
    with pytest.raises(ShapeError, match=r"mask: expected shape \[1, 576, 4, 5\], got \[1, 64, 4, 5\]"):
        convex_upsample(torch.zeros(1, 2, 4, 5), torch.zeros(1, 64, 4, 5))
    with pytest.raises(ValueError, match="expected 'sintel' or 'kitti', got 'left'"):
        padding(33, 33, "left")  # type: ignore[arg-type]
