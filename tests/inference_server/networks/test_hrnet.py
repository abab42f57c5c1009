"""HRNet: published names for 98 and 68 points, any size, and heat maps back to points of the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from inference_server.networks.hrnet import IBUG_68, WFLW_98, HRNet, Square, decode_heatmaps, face_square
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny() -> HRNet:
    torch.manual_seed(10)
    return HRNet(5, channels=(3, 4, 5, 6), modules=(1, 1, 1), blocks=1, stem=4).eval().requires_grad_(False)


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = HRNet(98)
    assert name_differences(read_manifest(DATA / "hrnet_w18_98.json"), network) == []
    assert len(network.state_dict()) == 1839
    assert sum(p.numel() for p in network.parameters()) == 9_662_528


def test_68_points_differ_in_the_last_convolution_only() -> None:
    with torch.device("meta"):
        network = HRNet(68)
    differences = name_differences(read_manifest(DATA / "hrnet_w18_98.json"), network)
    assert differences == [
        "head.3.bias: ours (68,), published (98,)",
        "head.3.weight: ours (68, 270, 1, 1), published (98, 270, 1, 1)",
    ]
    assert sum(p.numel() for p in network.parameters()) == 9_654_398


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (33, 35)])
def test_heat_maps_have_a_quarter_of_any_size(size: tuple[int, int]) -> None:
    heatmaps = tiny()(torch.randn(2, 3, *size))
    assert heatmaps.shape == (2, 5, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert torch.isfinite(heatmaps).all()


def bumps(centres: torch.Tensor, size: int) -> torch.Tensor:
    """Gaussian maps [1, N, size, size] of sigma 1.5 cells around `centres` [N, 2], cell i covering i..i+1."""
    cells = torch.arange(size) + 0.5
    x, y = centres[:, 0, None, None], centres[:, 1, None, None]
    return torch.exp(-((cells - x) ** 2 + (cells[:, None] - y) ** 2) / (2 * 1.5**2))[None]


def test_decoding_finds_a_peak_within_a_quarter_of_a_cell() -> None:
    torch.manual_seed(11)
    true = torch.rand(200, 2) * 60 + 2  # cells of a 64 x 64 map
    square = Square(torch.tensor([[300.0, 150.0]]), torch.tensor([128.0]))
    points, peaks = decode_heatmaps(bumps(true, 64), square)
    expected = true * 2 + torch.tensor([300.0 - 64, 150.0 - 64])
    error = (points[0] - expected).abs()
    assert error.max() <= 0.25 * 2 + 1e-4
    assert error.mean() < 0.2 * 2  # the nearest cell alone would give 0.25
    assert peaks.min() > 0.8


def test_decoding_moves_a_quarter_towards_the_larger_neighbour_except_on_the_border() -> None:
    heatmaps = torch.zeros(1, 5, 8, 8)
    square = Square(torch.tensor([[4.0, 4.0]]), torch.tensor([8.0]))  # one picture pixel per cell
    heatmaps[0, 0, 3, 5] = 1.0  # neighbours equal
    heatmaps[0, 1, 3, 5], heatmaps[0, 1, 3, 6] = 1.0, 0.5
    heatmaps[0, 2, 3, 5], heatmaps[0, 2, 2, 5], heatmaps[0, 2, 3, 4] = 1.0, 0.2, 0.1
    heatmaps[0, 3, 0, 5], heatmaps[0, 3, 0, 6] = 1.0, 0.5  # first row: neither axis moves
    heatmaps[0, 4, 4, 7], heatmaps[0, 4, 3, 7] = 1.0, 0.5  # last column
    points, peaks = decode_heatmaps(heatmaps, square)
    assert points[0].tolist() == [[5.5, 3.5], [5.75, 3.5], [5.25, 3.25], [5.5, 0.5], [7.5, 4.5]]
    assert peaks[0].tolist() == [1.0] * 5


def test_a_map_without_a_positive_value_has_no_point() -> None:
    heatmaps = torch.zeros(2, 2, 4, 4)
    heatmaps[0, 0, 1, 1] = 0.3
    heatmaps[0, 1] -= 1.0
    points, peaks = decode_heatmaps(heatmaps, Square(torch.zeros(2, 2), torch.ones(2)))
    assert torch.isfinite(points[0, 0]).all()
    assert torch.isnan(points[0, 1]).all()
    assert torch.isnan(points[1]).all()
    assert peaks.tolist() == [[pytest.approx(0.3), -1.0], [0.0, 0.0]]


def test_squares_belong_to_their_faces() -> None:
    heatmaps = torch.zeros(2, 1, 4, 4)
    heatmaps[:, 0, 2, 1] = 1.0
    square = Square(torch.tensor([[10.0, 20.0], [100.0, 50.0]]), torch.tensor([8.0, 40.0]))
    points, _ = decode_heatmaps(heatmaps, square)
    assert points[:, 0].tolist() == [[9.0, 21.0], [95.0, 55.0]]


def test_square_is_the_box_of_the_landmarks_enlarged() -> None:
    points = torch.tensor([[[10.0, 40.0], [50.0, 20.0], [30.0, 100.0]], [[0.0, 0.0], [4.0, 1.0], [2.0, 0.0]]])
    square = face_square(points)
    assert square.centre.tolist() == [[30.0, 60.0], [2.0, 0.5]]
    assert square.side.tolist() == [100.0, 5.0]


@pytest.mark.parametrize(("groups", "count"), [(WFLW_98, 98), (IBUG_68, 68)])
def test_groups_cover_every_point_once(groups: Mapping[str, tuple[int, int]], count: int) -> None:
    indices = [index for first, last in groups.values() for index in range(first, last + 1)]
    assert indices == list(range(count))


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"faces: expected shape \[B, 3, H, W\], got \[1, 1, 64, 64\]"):
        tiny()(torch.zeros(1, 1, 64, 64))
    square = Square(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ShapeError, match=r"heatmaps: expected shape \[B, N, S, S\], got \[2, 5, 8, 9\]"):
        decode_heatmaps(torch.zeros(2, 5, 8, 9), square)
    with pytest.raises(ShapeError, match=r"square.centre: expected shape \[1, 2\], got \[2, 2\]"):
        decode_heatmaps(torch.zeros(1, 5, 8, 8), square)
    with pytest.raises(ShapeError, match=r"points: expected shape \[B, N, 2\], got \[1, 5, 3\]"):
        face_square(torch.zeros(1, 5, 3))
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(1,\)"):
        HRNet(5, channels=(1, 2), modules=(1,))
