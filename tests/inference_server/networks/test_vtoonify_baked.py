"""A baked VToonify gives what the network gives, whatever the bands, the degree and the order of frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_server.networks import banded
from inference_server.networks.stylegan2 import Generator
from inference_server.networks.stylegan_baked import BakedBlock
from inference_server.networks.tensors import ShapeError
from inference_server.networks.vtoonify import Backbone, VToonify
from inference_server.networks.vtoonify_baked import BakedVToonify, bake
from inference_server.networks.vtoonify_graphs import GraphedVToonify

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONES: tuple[Backbone, ...] = ("dualstylegan", "toonify")
ROWS = 12  # style codes at 128 px
HALF_TOLERANCE = {
    torch.float16: 0.004,
    torch.bfloat16: 0.03,
}  # of the picture's range; their steps are 1/2048 and 1/256


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(backbone: Backbone = "dualstylegan", blocks: int = 2) -> VToonify:
    """Every part has a say in the picture: structure blocks, masks, biases, and channels that differ."""
    torch.manual_seed(1)
    network = VToonify(backbone, 64, 128, style_dim=12, n_mlp=7, num_res_layers=blocks, channel_max=8).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.startswith("res.") and name.endswith(("conv.0.weight", "conv2.0.weight")):
                value.mul_(100)
            if name.endswith("bias"):
                value.add_(0.3 * torch.randn_like(value))
            if name.startswith("fusion_out") and name.endswith("conv2.bias"):
                value.fill_(1.0)
    return network.requires_grad_(False)


def frames(n: int = 2, h: int = 12, w: int = 20, seed: int = 3) -> Tensor:
    return noise(n, 22, h, w, seed=seed)


def style(seed: int = 5) -> Tensor:
    return noise(1, ROWS, 12, seed=seed)


@pytest.fixture(params=["bands", "whole"])
def height(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps in bands of four rows, as large ones are, and whole, as small ones are."""
    if request.param == "bands":
        for module in ("stylegan_baked", "vtoonify_baked_layers"):
            monkeypatch.setattr(f"inference_server.networks.{module}.bands", _four_rows)


def _four_rows(x: Tensor, row_numbers: int, kernel_numbers: int = 0) -> list[tuple[int, int]]:
    return [(first, min(first + 4, x.shape[1])) for first in range(0, x.shape[1], 4)]


# --- the same picture


@pytest.mark.usefixtures("height")
@pytest.mark.parametrize("size", [(64, 64), (12, 20), (38, 18), (4, 4)])
@pytest.mark.parametrize("degree", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_picture_is_the_networks(backbone: Backbone, degree: float, size: tuple[int, int]) -> None:
    network, x = tiny(backbone), frames(2, *size)
    expected = network(x, style(), degree)
    baked = bake(network, style(), degree)(x)
    assert baked.shape == expected.shape
    assert baked.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(baked, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("height")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_at_once_as_other_devices_take_it(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_server.networks.vtoonify_baked.frame_by_frame", lambda x, work: work(x))
    network, x = tiny(backbone), frames(3)
    torch.testing.assert_close(bake(network, style(), 0.5)(x), network(x, style(), 0.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", list(HALF_TOLERANCE))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_stays_near(backbone: Backbone, dtype: torch.dtype) -> None:
    network, x = tiny(backbone), frames(1, 24, 16)
    expected = network(x, style(), 0.7)
    baked = bake(network, style(), 0.7, dtype)
    assert baked.dtype == dtype
    picture = baked(x)
    assert picture.dtype == torch.float32
    difference = (picture - expected).abs().max() / (expected.max() - expected.min())
    assert 0 < difference < HALF_TOLERANCE[dtype]


def test_instance_statistics_are_float32_in_half_precision() -> None:
    """A level far above the variation, whose sum of squares leaves float16's range."""
    x = 300 + noise(1, 40, 40, 6)
    norm = banded.adaptive_norm(x.half(), torch.ones(6), torch.zeros(6)).float()
    assert norm.mean((1, 2)).abs().max() < 1e-2
    torch.testing.assert_close(norm.std((1, 2)), torch.ones(1, 6), rtol=2e-2, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_structure_blocks_at_all(backbone: Backbone) -> None:
    network, x = tiny(backbone, blocks=0), frames(1)
    torch.testing.assert_close(bake(network, style(), 0.5)(x), network(x, style(), 0.5), rtol=1e-5, atol=1e-5)


def test_one_code_for_all_layers() -> None:
    network, x = tiny(), frames(1)
    w = noise(1, 12)
    assert torch.equal(bake(network, w, 0.5)(x), bake(network, w[:, None].expand(1, ROWS, 12), 0.5)(x))


# --- one shot: keyframes, other styles, frames in any order


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_keyframed_degree_equals_a_fresh_bake_and_shares_the_rest(dtype: torch.dtype) -> None:
    network, x = tiny(), frames(1)
    baked = bake(network, style(), 0.5, dtype)
    pictures = []
    for degree in (0.0, 0.25, 1.0):
        keyed = baked.with_degree(degree)
        assert keyed.degree == degree
        pictures.append(keyed(x))
        assert torch.equal(pictures[-1], bake(network, style(), degree, dtype)(x))
        own = {t.data_ptr() for t in keyed.buffers()} - {t.data_ptr() for t in baked.buffers()}
        assert own == {t.data_ptr() for t in keyed.degree_tensors()}
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[1], pictures[2])


def test_another_style_equals_a_fresh_bake_and_shares_the_encoder() -> None:
    network, x = tiny(), frames(1)
    baked = bake(network, style(), 0.5)
    restyled = baked.with_style(style(8))
    assert torch.equal(restyled(x), bake(network, style(8), 0.5)(x))
    assert not torch.equal(restyled(x), baked(x))
    assert restyled.encoder is baked.encoder
    assert restyled.fusions is baked.fusions


def test_the_bake_is_its_own() -> None:
    """Later changes of the network, training for one, do not reach it, except through what is baked anew."""
    network, x = tiny(), frames(1)
    baked = bake(network, style(), 0.5)
    before = baked(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(baked(x), before)


@pytest.mark.usefixtures("height")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_frame_depends_neither_on_those_before_nor_on_those_beside_it(backbone: Backbone) -> None:
    x = frames(3)
    other = frames(1, 24, 8)

    def fresh() -> BakedVToonify:
        return bake(tiny(backbone), style(), 0.5)

    alone = [fresh()(frame[None]) for frame in x]
    baked = fresh()
    baked(other)
    backwards = [baked(x[i : i + 1]) for i in (2, 1, 0)][::-1]
    together = baked(x)
    for i in range(3):
        assert torch.equal(backwards[i], alone[i])
        assert torch.equal(together[i : i + 1], alone[i])


def test_the_input_is_left_alone() -> None:
    x = frames(1)
    before = x.clone()
    bake(tiny(), style(), 1.0)(x)
    assert torch.equal(x, before)


# --- pieces


def test_bands_cover_every_row_once_and_depend_on_shapes_alone() -> None:
    x = torch.empty(1, 301, 64, 2)
    for numbers, kernel in ((1, 0), (1 << 15, 0), (1 << 20, 0), (1 << 15, 1 << 24)):
        found = list(banded.bands(x, numbers, kernel))
        assert [row for first, end in found for row in range(first, end)] == list(range(301))
        assert found == list(banded.bands(torch.zeros_like(x), numbers, kernel))
    assert len(list(banded.bands(x, 1 << 15))) > 5
    assert len(list(banded.bands(x, 1 << 15, 1 << 24))) == 1  # a kernel larger than the map is read once
    assert list(banded.bands(x.to("meta"), 1 << 15)) == [(0, 301)]


def test_statistics_of_bands_are_those_of_the_whole() -> None:
    x = 5 + noise(2, 11, 7, 3)
    parts = [(4, *banded.moments(x[:, :4])), (7, *banded.moments(x[:, 4:]))]
    mean, variance = banded.combined_statistics(parts)
    torch.testing.assert_close(mean, x.mean((1, 2), keepdim=True))
    torch.testing.assert_close(variance, x.var((1, 2), correction=0, keepdim=True))


def test_only_the_published_filter_is_baked() -> None:
    g = Generator(16, style_dim=4, n_mlp=1, blur_kernel=(1, 2, 2, 1), channel_max=4)
    with pytest.raises(ValueError, match=r"only the filter \[1, 3, 3, 1\]"):
        BakedBlock(g.convs[0], g.convs[1], g.to_rgbs[0], [torch.zeros(1, 4)] * 3, torch.float32)  # type: ignore[arg-type]


# --- graphs: CUDA's part is the capture alone


class Recorder:
    """Stands for CUDA: replays by computing again into the one tensor that it returned first."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captures += 1
        result = work()

        def replay() -> Tensor:
            return result.copy_(work())

        return replay


def test_a_graph_per_shape_serves_every_degree() -> None:
    network, capture = tiny(), Recorder()
    baked = bake(network, style(), 0.5)
    graphed = GraphedVToonify(baked, capture)
    a, b = frames(1, seed=3), frames(1, seed=4)
    first = graphed(a)
    assert torch.equal(graphed(b), baked(b))
    assert torch.equal(first, baked(a)), "a result is the caller's, not the graph's"
    for degree in (0.2, 1.0, 0.2):
        assert torch.equal(graphed.with_degree(degree)(a), baked.with_degree(degree)(a))
    assert torch.equal(graphed(a), first), "another degree's constants do not stay behind"
    assert capture.captures == 1
    assert torch.equal(graphed.with_degree(0.0)(a), baked.with_degree(0.0)(a))
    assert capture.captures == 2
    wide = frames(1, 12, 28)
    assert torch.equal(graphed(wide), baked(wide))
    assert capture.captures == 3
    assert torch.equal(graphed.with_style(style(8))(a), baked.with_style(style(8))(a))
    assert capture.captures == 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_graphs_give_what_the_kernels_give(dtype: torch.dtype) -> None:
    network = tiny().cuda()
    x, code = frames(2).cuda(), style().cuda()
    baked = bake(network, code, 0.5, dtype)
    graphed = GraphedVToonify(baked)
    for degree in (0.5, 0.0, 0.9):
        expected = baked.with_degree(degree)(x)
        assert torch.equal(graphed.with_degree(degree)(x), expected)
        assert torch.equal(graphed.with_degree(degree)(x), expected)
    torch.testing.assert_close(baked(x), network(x, code, 0.5), rtol=0, atol=0.1 if dtype != torch.float32 else 1e-2)


# --- wrong arguments


def test_wrong_shapes_are_named() -> None:
    network = tiny()
    baked = bake(network, style(), 0.5)
    with pytest.raises(ShapeError, match=r"x: expected shape \[N, 22, H, W\], got \[2, 3, 12, 20\]"):
        baked(noise(2, 3, 12, 20))
    with pytest.raises(ShapeError, match=r"multiples of 2, at least 4, got \[2, 22, 12, 21\]"):
        baked(frames(2, 12, 21))
    with pytest.raises(ShapeError, match=r"multiples of 2, at least 4, got \[2, 22, 2, 20\]"):
        baked(frames(2, 2, 20))
    with pytest.raises(ShapeError, match=r"style: expected shape \[1, 12, 12\], got \[2, 12, 12\]"):
        bake(network, noise(2, ROWS, 12))
    with pytest.raises(ShapeError, match=r"style: expected shape \[1, 12\], got \[1, 18\]"):
        baked.with_style(noise(1, 18))
