"""DualStyleGAN: published names and counts, and what the extrinsic path does and does not change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference_server.networks.dualstylegan import DualStyleGAN, ModRes
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(size: int = 64, **options: int) -> DualStyleGAN:
    torch.manual_seed(1)
    network = DualStyleGAN(size, style_dim=12, n_mlp=7, channel_max=8, **options).eval()
    with torch.no_grad():
        for block in network.res[: network.res_index + 1]:
            for name, value in block.named_parameters():
                if name.startswith("conv") and name.endswith("weight"):
                    value.mul_(100)  # blocks start near the identity, where they would not show
    return network


def codes(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_names_shapes_and_counts_are_the_published_ones() -> None:
    manifest = read_manifest(DATA / "dualstylegan_1024.json")
    with torch.device("meta"):
        network = DualStyleGAN(**manifest.config)
    assert name_differences(manifest, network) == []
    assert len(network.state_dict()) == 253
    assert sum(p.numel() for p in network.parameters()) == 74_176_268
    assert sum(b.numel() for b in network.buffers()) == 2_796_432
    assert sum(p.numel() for p in network.style.parameters()) == 525_312
    assert sum(p.numel() for block in network.res[:7] for p in block.parameters()) == 40_391_680
    assert sum(p.numel() for layer in network.res[7:] for p in layer.parameters()) == 2_889_216


@pytest.mark.parametrize(("size", "res_index"), [(32, 6), (64, 6), (64, 4)])
def test_any_size(size: int, res_index: int) -> None:
    network = tiny(size, res_index=res_index)
    picture = network(codes(2, 12), codes(2, network.n_latent, 12), noise=network.generator.stored_noise())
    assert picture.shape == (2, 3, size, size)


def test_without_extrinsic_weights_it_is_stylegan2() -> None:
    network = tiny()
    w, e = codes(2, 10, 12), codes(2, 10, 12, seed=6)
    plain = network.generator.synthesis(w, None)
    torch.testing.assert_close(network(w, e, [0.0] * 10), plain)
    assert not torch.allclose(network(w, e), plain)


def test_weights_act_on_structure_and_colour_apart() -> None:
    network = tiny()
    w, e = codes(1, 10, 12), codes(1, 10, 12, seed=6)
    structure_only = [1.0] * 7 + [0.0] * 3
    colour_only = [0.0] * 7 + [1.0] * 3
    feature, rgb = network.features(w, e, colour_only, None, 16)
    plain_feature, plain_rgb = network.generator.features(w, None, 16)
    torch.testing.assert_close(feature, plain_feature)
    torch.testing.assert_close(rgb, plain_rgb)  # colour codes begin at the 32 px picture
    assert not torch.allclose(network.features(w, e, structure_only, None, 16)[0], plain_feature)
    # with full colour weights the intrinsic rows above res_index do not matter
    other = w.clone()
    other[:, 7:] += 1
    torch.testing.assert_close(network(w, e), network(other, e))
    assert not torch.allclose(network(w, e, structure_only), network(other, e, structure_only))


def test_the_colour_transform_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    network = DualStyleGAN(32, style_dim=256, n_mlp=7, channel_max=4)
    e = codes(1, 8, 256)
    difference = network.colour_codes(e)[:, 0] - e[:, 7]
    assert difference.std() < 0.05


def test_a_fresh_block_is_near_the_identity_and_weight_zero_is_it() -> None:
    block = ModRes(6, 12)
    x, code = codes(2, 6, 8, 8), codes(2, 12)
    change = (block(x, code) - x).abs().mean()
    assert 0 < change < 0.2
    assert block(x, code, 0) is x
    torch.testing.assert_close(block(x, code, torch.zeros(2, 1, 1, 1)), x)
    torch.testing.assert_close(block(x, code, 0.5) - x, (block(x, code) - x) / 2)


def test_a_dilated_block_sees_further() -> None:
    torch.manual_seed(0)
    for dilation, reach in ((1, 2), (4, 8)):
        block = ModRes(1, 12, dilation)
        x = codes(1, 1, 33, 33).requires_grad_()
        block(x, codes(1, 12))[0, 0, 16, 16].backward()
        assert x.grad is not None
        # statistics connect all pixels faintly; the convolutions reach two taps of the dilation
        strong = x.grad[0, 0].abs() > x.grad[0, 0].abs().median() * 10
        ys, xs = strong.nonzero(as_tuple=True)
        assert max((ys - 16).abs().max(), (xs - 16).abs().max()) == reach


def test_a_sample_does_not_depend_on_its_batch() -> None:
    network = tiny()
    w, e = codes(3, 10, 12), codes(3, 10, 12, seed=6)
    together = network(w, e)
    for i in range(3):
        alone = network(w[i : i + 1], e[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_both_paths() -> None:
    network = tiny()
    w, e = codes(2, 10, 12).requires_grad_(), codes(2, 10, 12, seed=6).requires_grad_()
    network(w, e, [0.6] * 10, network.generator.stored_noise()).square().mean().backward()
    for code in (w, e):
        assert code.grad is not None
        assert (code.grad.abs().amax((0, 2)) > 0).all()
    for name, parameter in [*network.style.named_parameters(), *network.res.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_wrong_arguments_are_named() -> None:
    network = tiny()
    with pytest.raises(ShapeError, match=r"expected shape \[N, 10, 12\], got \[1, 9, 12\]"):
        network(codes(1, 10, 12), codes(1, 9, 12))
    with pytest.raises(ValueError, match="weights has 18 numbers, expected 10"):
        network(codes(1, 10, 12), codes(1, 10, 12), [1.0] * 18)
    with pytest.raises(ValueError, match="res_index 6 does not fit a 16 px network of 6 codes"):
        DualStyleGAN(16)
    with pytest.raises(ValueError, match="n_mlp is 6"):
        DualStyleGAN(32, n_mlp=6)
