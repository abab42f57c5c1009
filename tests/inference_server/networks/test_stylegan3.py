"""StyleGAN3: geometry and filters against published numbers, and what the generator promises its users."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from inference_server.networks import stylegan3
from inference_server.networks.stylegan3 import (
    StyleGAN3,
    StyleGAN3Config,
    bands,
    config_from_state,
    config_r,
    config_t,
    filtered_lrelu,
    layer_specs,
    lowpass,
    placement,
)

TINY = StyleGAN3Config(32, kernel=1, radial=True, channel_base=512, channel_max=16, z_dim=8, w_dim=8, num_layers=6)


def tiny(config: StyleGAN3Config = TINY) -> StyleGAN3:
    torch.manual_seed(3)
    network = StyleGAN3(config).eval().requires_grad_(False)
    network.synthesis.input.affine.weight.normal_()  # starts at zero: no learned turn or shift
    return network


def test_names_of_the_published_networks() -> None:
    def names(config: StyleGAN3Config) -> str:
        return " ".join(spec.name for spec in layer_specs(config))

    assert names(config_r(1024)) == (
        "L0_36_1024 L1_36_1024 L2_52_1024 L3_52_1024 L4_84_1024 L5_148_1024 L6_148_1024 L7_276_645 L8_276_406"
        " L9_532_256 L10_1044_161 L11_1044_102 L12_1044_64 L13_1024_64 L14_1024_3"
    )
    assert names(config_t(512)) == (
        "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_84_512 L6_148_512 L7_148_483 L8_276_323 L9_276_215"
        " L10_532_144 L11_532_96 L12_532_64 L13_512_64 L14_512_3"
    )
    assert names(config_t(256)).endswith(
        "L8_148_512 L9_148_362 L10_276_256 L11_276_181 L12_276_128 L13_256_128 L14_256_3"
    )


def test_rates_and_padding_at_256() -> None:
    specs = layer_specs(config_r(256))
    assert [spec.target.rate for spec in specs[:11]] == [16, 16, 16, 32, 32, 64, 64, 128, 128, 128, 256]
    assert [specs[i].pad for i in (0, 3, 13, 14)] == [(11, 10), (-2, -5), (-9, -10), (0, 0)]
    assert [layer_specs(config_t(256))[i].pad for i in (0, 3, 13)] == [(9, 8), (-6, -9), (-11, -12)]
    band = bands(config_r(1024))[10]
    assert band.cutoff == pytest.approx(203.187, abs=1e-3)
    assert band.half_width == pytest.approx(308.813, abs=1e-3)


@pytest.mark.parametrize(
    ("config", "parameters", "buffers"),
    [(config_r(1024), 15_093_151, 5_600), (config_t(1024), 22_313_167, 2_480), (config_t(256), 28_472_133, 2_456)],
)
def test_counts_of_the_published_networks(config: StyleGAN3Config, parameters: int, buffers: int) -> None:
    with torch.device("meta"):
        network = StyleGAN3(config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(b.numel() for b in network.buffers()) == buffers
    assert len(network.state_dict()) == 114
    assert network.state_dict()[f"synthesis.{network.synthesis.layer_names[0]}.magnitude_ema"].shape == ()


def test_filters_have_the_published_taps() -> None:
    chain = bands(config_r(256))
    first = lowpass(12, chain[0].cutoff, chain[0].half_width, 32)
    expected = [0.0007919021, 0.01001832, 0.03894952, 0.09241279, 0.1565256, 0.2013019]
    torch.testing.assert_close(first[:6], torch.tensor(expected), rtol=0, atol=1e-7)
    radial = lowpass(12, chain[3].cutoff, chain[3].half_width, 64, radial=True)
    expected = [0.0001932965, 0.002108843, 0.007999921, 0.01872527, 0.03145291, 0.04028704]
    torch.testing.assert_close(radial[5, :6], torch.tensor(expected), rtol=0, atol=1e-7)
    critical = lowpass(12, chain[13].cutoff, chain[13].half_width, 512)
    expected = [0.02337425, 0.03444929, -0.0508807, -0.07861523, 0.1396104, 0.4320619]
    torch.testing.assert_close(critical[:6], torch.tensor(expected), rtol=0, atol=1e-7)
    for h in (first, radial, critical):
        assert float(h.sum()) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(h, h.flip(list(range(h.ndim))), rtol=0, atol=1e-9)


def zero_stuffed(x: torch.Tensor, bias, hu, hd, up, down, pad, clamp) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The definition, step by step."""
    n, c, height, width = x.shape
    stuffed = x.new_zeros(n, c, height * up, width * up)
    stuffed[:, :, ::up, ::up] = x + bias[None, :, None, None]
    y = F.pad(stuffed, (*pad, *pad))
    up2 = (hu[:, None] * hu * up**2).expand(c, 1, -1, -1)
    y = F.leaky_relu(F.conv2d(y, up2, groups=c), 0.2) * math.sqrt(2)
    down2 = (hd if hd.ndim == 2 else hd[:, None] * hd).expand(c, 1, -1, -1)
    return F.conv2d(y.clamp(-clamp, clamp), down2, groups=c)[:, :, ::down, ::down]


@pytest.mark.parametrize(
    ("up", "pad", "radial"), [(2, (11, 10), True), (4, (-2, -5), False), (2, (-9, -10), False), (4, (30, 28), True)]
)
def test_filtered_lrelu_is_its_definition(
    up: int, pad: tuple[int, int], radial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    x, bias = torch.randn(2, 5, 23, 21, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    hu = torch.randn(6 * up, dtype=torch.float64)
    hu = hu + hu.flip(0)
    hd = torch.randn((12, 12) if radial else (12,), dtype=torch.float64)
    hd = hd + hd.flip(list(range(hd.ndim)))
    expected = zero_stuffed(x, bias, hu, hd, up, 2, pad, 3.0)
    torch.testing.assert_close(filtered_lrelu(x, bias, hu, hd, up, 2, pad, 3.0), expected)
    monkeypatch.setattr(stylegan3, "HIGH_RATE_ELEMENTS", 20000)  # two channels at a time
    torch.testing.assert_close(filtered_lrelu(x, bias, hu, hd, up, 2, pad, 3.0), expected)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(b.square().mean() / (a - b).square().mean()))


def test_user_transform_moves_and_turns_the_picture() -> None:
    network = tiny()
    w = network.mapping(torch.randn(1, 8, generator=torch.Generator().manual_seed(5)))
    plain = network.synthesis(w)
    moved = network.synthesis(w, placement(tx=0.25))  # to the right by a quarter of the picture
    assert psnr(moved[..., 8:], plain[..., :-8]) > 100
    assert psnr(moved[..., :-8], plain[..., 8:]) < 10
    turned = network.synthesis(w, placement(angle=math.pi / 2))  # counter-clockwise
    assert psnr(turned, torch.rot90(plain, 1, (2, 3))) > 100
    assert psnr(turned, torch.rot90(plain, -1, (2, 3))) < 10


def test_transform_per_picture_and_neighbours_in_the_batch() -> None:
    network = tiny()
    w = network.mapping(torch.randn(2, 8, generator=torch.Generator().manual_seed(6)))
    transforms = torch.stack([placement(tx=0.1), placement(angle=0.3)])
    both = network.synthesis(w, transforms)
    for i in range(2):
        torch.testing.assert_close(
            both[i : i + 1], network.synthesis(w[i : i + 1], transforms[i]), rtol=1e-4, atol=1e-5
        )


def test_load_is_strict_and_resets_the_transform() -> None:
    network, other = tiny(), tiny()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["synthesis.input.transform"] = placement(tx=0.5).repeat(2, 1, 1)  # left by a per-picture transform
    other.load_state_dict(state, strict=True)
    assert torch.equal(other.synthesis.input.transform, torch.eye(3))
    state.pop("mapping.w_avg")
    with pytest.raises(RuntimeError, match=r"mapping\.w_avg"):
        other.load_state_dict(state, strict=True)


def test_configuration_is_read_from_the_state() -> None:
    for config in (TINY, StyleGAN3Config(32, 3, False, 512, 16, 8, 5, 8, mapping_layers=3, num_layers=6)):
        state = tiny(config).state_dict()
        assert config_from_state(state) == config
    name = "synthesis.L1_36_16.up_filter"
    state[name] = state[name] * 1.001
    with pytest.raises(ValueError, match="another geometry"):
        config_from_state(state)
    with pytest.raises(ValueError, match="not a StyleGAN3"):
        config_from_state({"conv.weight": torch.zeros(1)})


def test_truncation_pulls_the_first_rows() -> None:
    network = tiny()
    network.mapping.w_avg.normal_()
    z = torch.randn(3, 8)
    full = network.mapping(z)
    assert full.shape == (3, TINY.num_ws, 8)
    cut = network.mapping(z, truncation_psi=0.7, truncation_cutoff=2)
    torch.testing.assert_close(cut[:, :2], network.mapping.w_avg + 0.7 * (full[:, :2] - network.mapping.w_avg))
    assert torch.equal(cut[:, 2:], full[:, 2:])


def test_averages_move_only_when_asked() -> None:
    network = tiny()
    z = torch.randn(4, 8)
    layer = network.synthesis.layers()[2]
    network(z)
    assert float(layer.magnitude_ema) == 1
    w = network.mapping(z, update_average=True)
    features: dict[str, torch.Tensor] = {}
    network.synthesis(w, magnitude_beta=0.9, features=features)
    torch.testing.assert_close(network.mapping.w_avg, 0.002 * w[:, 0].mean(dim=0))
    square = features[network.synthesis.layer_names[1]].square().mean()
    torch.testing.assert_close(layer.magnitude_ema, 0.9 + 0.1 * square)


def test_gradients_reach_code_and_weights() -> None:
    network = tiny()
    network.requires_grad_(True)
    w = network.mapping(torch.randn(1, 8)).detach().requires_grad_(True)
    network.synthesis(w).square().mean().backward()
    assert w.grad is not None
    assert (w.grad.abs().amax(dim=2) > 0).all()
    assert all(p.grad is not None for p in network.synthesis.parameters())


def test_low_precision_is_near() -> None:
    network = tiny()
    w = network.mapping(torch.randn(2, 8, generator=torch.Generator().manual_seed(7)))
    full, low = network.synthesis(w), network.synthesis(w, low_precision=torch.bfloat16)
    assert low.dtype == torch.float32
    assert 0 < float((full - low).abs().max()) < 0.05 * float(full.abs().max())


def test_wrong_shapes_are_refused() -> None:
    network = tiny()
    with pytest.raises(ValueError, match=r"ws: expected shape \[N, 8, 8\], got \[1, 16, 8\]"):
        network.synthesis(torch.zeros(1, 16, 8))
    with pytest.raises(ValueError, match=r"z: expected shape \[N, 8\]"):
        network.mapping(torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"transform: expected shape \[2, 3, 3\]"):
        network.synthesis(torch.zeros(2, 8, 8), torch.eye(3).repeat(3, 1, 1))
    with pytest.raises(ValueError, match="power of two"):
        StyleGAN3Config(48)
