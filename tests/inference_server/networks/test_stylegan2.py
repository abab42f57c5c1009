"""StyleGAN2: published names and counts, any size, explicit noise, and what the paper's operations promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.networks.stylegan2 import (
    Discriminator,
    Generator,
    ModulatedConv2d,
    ResBlock,
    channels_at,
    minibatch_stddev,
    mix,
    truncate,
)
from inference_server.networks.stylegan_layers import (
    BLUR_TAPS,
    AdaptiveInstanceNorm,
    PixelNorm,
    Upsample,
    downsample2,
    fir_kernel,
)
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(size: int = 32) -> Generator:
    torch.manual_seed(1)
    generator = Generator(size, style_dim=12, n_mlp=2, channel_max=8).eval()
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith("noise.weight"):
                value.fill_(0.3)  # starts at zero, where noise would not show
    return generator


def codes(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- published names and counts


@pytest.mark.parametrize("network", ["stylegan2_256", "stylegan2_1024"])
def test_names_and_shapes_are_the_published_ones(network: str) -> None:
    manifest = read_manifest(DATA / f"{network}.json")
    with torch.device("meta"):
        assert name_differences(manifest, Generator(**manifest.config)) == []


def test_counts_at_1024() -> None:
    with torch.device("meta"):
        generator, discriminator = Generator(1024), Discriminator(1024)
    assert len(generator.state_dict()) == 171
    assert sum(p.numel() for p in generator.parameters()) == 30_370_060
    assert sum(b.numel() for b in generator.buffers()) == 2_796_432
    assert sum(p.numel() for p in generator.style.parameters()) == 2_101_248
    assert len(discriminator.state_dict()) == 64
    assert sum(p.numel() for p in discriminator.parameters()) == 29_012_513
    shapes = {name: tuple(value.shape) for name, value in discriminator.state_dict().items()}
    assert shapes["convs.0.0.weight"] == (32, 3, 1, 1)
    assert shapes["convs.1.conv2.0.kernel"] == shapes["convs.8.skip.0.kernel"] == (4, 4)
    assert shapes["convs.1.conv2.1.weight"] == (64, 32, 3, 3)
    assert shapes["convs.1.skip.1.weight"] == (64, 32, 1, 1)
    assert shapes["final_conv.0.weight"] == (512, 513, 3, 3)
    assert shapes["final_linear.0.weight"] == (512, 8192)
    assert shapes["final_linear.1.weight"] == (1, 512)


def test_channel_table() -> None:
    sizes = [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [channels_at(s) for s in sizes] == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert [channels_at(s, channel_multiplier=1) for s in sizes[4:]] == [256, 128, 64, 32, 16]


# --- any size


@pytest.mark.parametrize("size", [8, 16, 64])
def test_any_size(size: int) -> None:
    generator = tiny(size)
    assert generator.noise_sizes()[-1] == size
    z = codes(2, 12)
    w = generator.mapping(z)
    picture = generator(z, generator.stored_noise())
    assert picture.shape == (2, 3, size, size)
    torch.testing.assert_close(picture, generator.synthesis(generator.expand(w), generator.stored_noise()))
    discriminator = Discriminator(size, channel_max=8)
    assert discriminator(picture).shape == (2, 1)


@pytest.mark.parametrize("size", [0, 4, 48, 1000])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size} is not a power of two"):
        Generator(size)


def test_features_stop_on_the_way_to_the_picture() -> None:
    generator = tiny(64)
    w = generator.expand(generator.mapping(codes(1, 12)))
    feature, rgb = generator.features(w, None, 16)
    assert feature.shape == (1, 8, 16, 16)
    assert rgb.shape == (1, 3, 16, 16)
    changed = w.clone()
    changed[:, 6:] += 1  # codes of the layers above 16 px
    torch.testing.assert_close(generator.features(changed, None, 16)[1], rgb)
    assert not torch.allclose(generator.synthesis(changed, None), generator.synthesis(w, None))


# --- one sample at a time, no hidden chance


def test_a_sample_does_not_depend_on_its_batch() -> None:
    generator = tiny()
    z = codes(3, 12)
    together = generator(z, generator.stored_noise())
    for i in range(3):
        alone = generator(z[i : i + 1], generator.stored_noise())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("upsample", "demodulate"), [(False, True), (True, True), (False, False)])
def test_a_shared_style_equals_a_repeated_one(upsample: bool, demodulate: bool) -> None:
    torch.manual_seed(2)
    layer = ModulatedConv2d(5, 7, 3, 12, demodulate=demodulate, upsample=upsample)
    x, w = codes(4, 5, 6, 9), codes(1, 12, seed=6)
    torch.testing.assert_close(layer(x, w), layer(x, w.expand(4, -1)), rtol=1e-5, atol=1e-6)


def test_demodulation_undoes_the_size_of_the_style() -> None:
    layer = ModulatedConv2d(5, 7, 3, 12)
    x = codes(2, 5, 6, 6)
    with torch.no_grad():
        layer.modulation.weight.zero_()
        one = layer(x, codes(2, 12))
        layer.modulation.bias.fill_(40.0)
        forty = layer(x, codes(2, 12))
    torch.testing.assert_close(one, forty, rtol=1e-4, atol=1e-5)


def test_noise_is_what_is_given() -> None:
    generator = tiny()
    w = generator.mapping(codes(2, 12))
    assert torch.equal(generator.synthesis(w, None), generator.synthesis(w, None))
    drawn = generator.random_noise(2, torch.Generator().manual_seed(3))
    again = generator.random_noise(2, torch.Generator().manual_seed(3))
    other = generator.random_noise(2, torch.Generator().manual_seed(4))
    assert torch.equal(generator.synthesis(w, drawn), generator.synthesis(w, again))
    pictures = [generator.synthesis(w, noise) for noise in (None, drawn, other, generator.stored_noise())]
    for i, picture in enumerate(pictures):
        assert all((picture - p).abs().max() > 1e-3 for p in pictures[:i])


# --- codes


def test_z_plus_is_mapped_row_by_row() -> None:
    generator = tiny()
    z = codes(2, 8, 12)
    w = generator.mapping(z)
    torch.testing.assert_close(w[1, 5], generator.mapping(z[1, 5:6])[0])
    torch.testing.assert_close(generator.mapping(3 * z), w)  # pixel norm takes a vector's length away


def test_pixel_norm_makes_unit_vectors() -> None:
    x = PixelNorm()(codes(4, 18, 12))
    torch.testing.assert_close(x.square().mean(-1), torch.ones(4, 18), rtol=1e-4, atol=1e-4)


def test_truncation_and_mixing() -> None:
    w, centre = codes(2, 8, 12), codes(1, 12, seed=9)
    torch.testing.assert_close(truncate(w, 0.0, centre), centre.expand(2, 8, 12))
    torch.testing.assert_close(truncate(w, 1.0, centre), w)
    torch.testing.assert_close(truncate(w, 0.5), w / 2)
    other = codes(2, 8, 12, seed=11)
    mixed = mix(w, other, 3)
    assert torch.equal(mixed[:, :3], w[:, :3])
    assert torch.equal(mixed[:, 3:], other[:, 3:])


# --- filters


def test_the_filter_sums_to_its_gain() -> None:
    assert fir_kernel(BLUR_TAPS).sum() == pytest.approx(1.0)
    assert fir_kernel(BLUR_TAPS, 4.0)[0].tolist() == [x * 4 / 64 for x in (1, 3, 3, 1)]


def test_up_sampling_is_bilinear_inside_and_fades_at_the_border() -> None:
    x = codes(1, 2, 5, 6)
    ours = Upsample(BLUR_TAPS)(x)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])
    torch.testing.assert_close(ours[..., 0, 0], x[..., 0, 0] * 0.75**2)


def test_down_sampling_weighs_four_neighbours() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 4] = 64.0
    halved = downsample2(x)[0, 0]
    # output m reads samples 2m-1 .. 2m+2 with taps 1 3 3 1: row 3 is tap 0 of m=2 and tap 2 of m=1
    assert halved[1:3, 1:3].tolist() == [[3.0, 9.0], [1.0, 3.0]]
    assert halved.sum() == 16.0


def test_adaptive_instance_norm_sets_mean_and_deviation() -> None:
    norm = AdaptiveInstanceNorm(3, 12)
    y = norm(codes(2, 3, 9, 9) * 7 + 4, codes(2, 12))
    gamma, beta = norm.style(codes(2, 12)).chunk(2, dim=1)
    torch.testing.assert_close(y.mean((2, 3)), beta, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y.std((2, 3), unbiased=False), gamma.abs(), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        norm.style.weight.zero_()
    torch.testing.assert_close(norm.style(codes(1, 12)), torch.tensor([[1.0, 1, 1, 0, 0, 0]]))


# --- discriminator


def test_the_mini_batch_statistic() -> None:
    x = codes(8, 3, 2, 2)
    y = minibatch_stddev(x)
    assert torch.equal(y[:, :3], x)
    group = x[[1, 3, 5, 7]]  # groups of four lie two samples apart in a batch of eight
    expected = torch.sqrt(group.var(dim=0, unbiased=False) + 1e-8).mean()
    torch.testing.assert_close(y[[1, 3, 5, 7], 3], expected.expand(4, 2, 2))
    with pytest.raises(ShapeError, match=r"N a multiple of 4, got \[6, 3, 2, 2\]"):
        minibatch_stddev(codes(6, 3, 2, 2))


def test_a_residual_block_spelled_out() -> None:
    """Blur padded by 2 before the 3x3 convolution and by 1 before the 1x1, stride 2, the sum over sqrt(2)."""
    torch.manual_seed(0)
    block = ResBlock(3, 5)
    with torch.no_grad():
        for name, value in block.named_parameters():
            if name.endswith("bias"):
                value.normal_()
    x = codes(2, 3, 8, 6)
    k = (torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64).expand(3, 1, 4, 4)
    p = dict(block.named_parameters())

    def active(y: Tensor, bias: Tensor) -> Tensor:
        y = y + bias[:, None, None]
        return torch.where(y > 0, y, 0.2 * y) * 2**0.5

    y = active(F.conv2d(x, p["conv1.0.weight"] / 27**0.5, padding=1), p["conv1.1.bias"])
    y = F.conv2d(y, k, padding=2, groups=3)  # [2, 3, 9, 7]
    y = active(F.conv2d(y, p["conv2.1.weight"] / 27**0.5, stride=2), p["conv2.2.bias"])
    skip = F.conv2d(F.conv2d(x, k, padding=1, groups=3), p["skip.1.weight"] / 3**0.5, stride=2)
    assert skip.shape == y.shape == (2, 5, 4, 3)
    torch.testing.assert_close(block(x), (y + skip) / 2**0.5, rtol=1e-4, atol=1e-5)


def test_r1_penalty_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(16, channel_max=6)
    x = codes(4, 3, 16, 16).requires_grad_()
    [slope] = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in discriminator.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for n, g in grads.items() if n != "final_linear.1.bias")
    assert all(g.abs().max() > 0 for n, g in grads.items() if g is not None and n.endswith("weight"))


# --- gradients


def test_gradients_reach_every_parameter_and_the_code() -> None:
    generator = tiny()
    z = codes(2, 12).requires_grad_()
    picture: Tensor = generator(z, generator.stored_noise())
    picture.square().mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    assert z.grad is not None
    assert z.grad.abs().max() > 0


# --- wrong shapes


def test_wrong_shapes_are_named() -> None:
    generator = tiny()
    noise = generator.stored_noise()
    with pytest.raises(ShapeError, match=r"expected shape \[N, 12\] or \[N, L, 12\], got \[2, 13\]"):
        generator.mapping(codes(2, 13))
    with pytest.raises(ShapeError, match=r"w: expected shape \[N, 8, 12\], got \[2, 7, 12\]"):
        generator.synthesis(codes(2, 7, 12), noise)
    with pytest.raises(ShapeError, match=r"noise: expected 7 maps, got 6"):
        generator.synthesis(codes(2, 12), noise[1:])
    with pytest.raises(ShapeError, match=r"noise\[2\]: expected shape \[1 or 2, 1, 8, 8\], got \[2, 1, 4, 4\]"):
        generator.synthesis(codes(2, 12), [*noise[:2], codes(2, 1, 4, 4), *noise[3:]])
    with pytest.raises(ShapeError, match=r"picture: expected shape \[N, 3, 16, 16\], got \[4, 3, 16, 15\]"):
        Discriminator(16, channel_max=6)(codes(4, 3, 16, 15))
    with pytest.raises(ShapeError, match=r"second: expected shape \[2, 8, 12\], got \[1, 8, 12\]"):
        mix(codes(2, 8, 12), codes(1, 8, 12), 3)
