"""VToonify: published names and counts, entries that inference never reads, frames of any size and shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference_server.networks.stylegan_layers import EqualConv2d
from inference_server.networks.tensors import ShapeError
from inference_server.networks.vtoonify import (
    Backbone,
    ConditionalDiscriminator,
    VToonify,
    join_style,
    network_input,
    parser_input,
)
from tests.golden.adapters.vtoonify import NETWORKS
from tests.golden.harness import DATA
from tests.golden.manifest import Manifest, read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONES: tuple[Backbone, ...] = ("dualstylegan", "toonify")
TINY = {"in_size": 64, "out_size": 128, "style_dim": 12, "n_mlp": 7, "num_res_layers": 2, "channel_max": 8}
ROWS = 12  # style codes at 128 px


def tiny(backbone: Backbone = "dualstylegan") -> VToonify:
    torch.manual_seed(1)
    network = VToonify(backbone, **TINY).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.startswith("res.") and name.endswith(("conv.0.weight", "conv2.0.weight")):
                value.mul_(100)  # blocks start near the identity, where they would not show
            if name.endswith("conv2.bias") and name.startswith("fusion_out"):
                value.fill_(1.0)  # masks well above zero
    return network


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def frames(n: int = 2, h: int = 12, w: int = 20) -> Tensor:
    return noise(n, 22, h, w, seed=3)


def published(manifest: Manifest) -> VToonify:
    """The full configuration on the meta device, from the manifest's own numbers."""
    config = manifest.config
    with torch.device("meta"):
        return VToonify(
            config["backbone"],
            config["in_size"],
            config["out_size"],
            config["style_channels"],
            config["num_mlps"],
            config["channel_multiplier"],
            config["num_res_layers"],
        )


# --- published names and counts


@pytest.mark.parametrize(
    ("name", "entries", "parameters", "unread_parameters"),
    [
        ("vtoonify_d", 399, 163_812_547, 19_422_227 + 40_391_680 + 5_770_240),
        ("vtoonify_t", 229, 78_828_991, 19_422_227),
    ],
)
def test_names_shapes_and_counts_are_the_published_ones(
    name: str, entries: int, parameters: int, unread_parameters: int
) -> None:
    manifest = read_manifest(DATA / f"{name}.json")
    network = published(manifest)
    assert name_differences(manifest, network) == []
    assert len(network.state_dict()) == entries
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    assert sum(sizes.values()) == parameters
    assert sum(p.numel() for p in network.encoder.parameters()) == 37_507_427
    fusion = 11_698_820 if name == "vtoonify_d" else 10_913_152
    assert sum(p.numel() for p in network.fusion_out.parameters()) == fusion
    assert sum(p.numel() for p in network.fusion_skip.parameters()) == 38_352

    unread = set(network.unread_entries())
    strengths = {n for n in unread if n.endswith(".noise.weight") and ".convs." in n}
    used_layers = {n for n in strengths if int(n.split(".convs.")[1].split(".")[0]) >= 6}
    assert len(used_layers) == 10
    assert sum(size for n, size in sizes.items() if n in unread) == unread_parameters + len(used_layers)
    network.drop_unread()
    left = sum(p.numel() for p in network.parameters())
    assert left == parameters - unread_parameters - len(used_layers)
    if name == "vtoonify_d":
        assert left == 98_228_390


def test_the_conditional_discriminator_has_the_published_size() -> None:
    with torch.device("meta"):
        discriminator = ConditionalDiscriminator(256, styles=317)
    assert sum(p.numel() for p in discriminator.parameters()) == 28_958_016
    shapes = {name: tuple(value.shape) for name, value in discriminator.state_dict().items()}
    assert shapes["convs.0.0.weight"] == (128, 3, 1, 1)
    assert shapes["label_mapper.0.weight"] == (64, 1)
    assert shapes["label_mapper.4.weight"] == (64, 64)
    assert shapes["style_mapper.weight"] == (317, 64)
    assert shapes["final_linear.1.weight"] == (128, 512)


def test_dilations_of_the_encoder_blocks() -> None:
    network = published(read_manifest(DATA / "vtoonify_d.json"))
    convs = [network.get_submodule(f"res.{i}.{conv}.0") for i in range(7) for conv in ("conv", "conv2")]
    dilations = [conv.dilation for conv in convs if isinstance(conv, EqualConv2d)]
    assert dilations == [1, 1, 4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1]
    assert [conv.padding for conv in convs if isinstance(conv, EqualConv2d)] == dilations


# --- entries that inference never reads


@pytest.mark.parametrize("backbone", BACKBONES)
def test_unread_entries_do_not_matter_and_all_others_do(backbone: Backbone) -> None:
    network = tiny(backbone)
    x, z = frames(), noise(1, ROWS, 12)
    network(x, network.mapping(z), 0.7).square().mean().backward()
    unread = set(network.unread_entries())
    for name, parameter in network.named_parameters():
        touched = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert touched == (name not in unread), name

    with torch.no_grad():
        before = network(x, network.mapping(z), 0.7)
        for name in unread:
            network.state_dict()[name].fill_(float("nan"))
        assert torch.equal(network(x, network.mapping(z), 0.7), before)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_file_without_the_unread_entries_loads_strictly(backbone: Backbone) -> None:
    network = tiny(backbone)
    x, z = frames(), noise(1, ROWS, 12)
    with torch.no_grad():
        before = network(x, network.mapping(z), 0.7)
    unread = set(network.unread_entries())
    pruned = {name: value for name, value in network.state_dict().items() if name not in unread}
    with torch.device("meta"):  # nothing is allocated for what was dropped
        lean = VToonify(backbone, **TINY).eval()
    lean.drop_unread()
    lean.load_state_dict(pruned, strict=True, assign=True)
    assert not any(value.is_meta for value in lean.state_dict().values())
    with torch.no_grad():
        assert torch.equal(lean(x, lean.mapping(z), 0.7), before)
    with pytest.raises(RuntimeError, match="Missing key"):
        tiny(backbone).load_state_dict(pruned, strict=True)


# --- frames


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("h", "w"), [(4, 4), (6, 22), (34, 8)])
def test_any_frame(backbone: Backbone, h: int, w: int) -> None:
    network = tiny(backbone)
    assert (network.multiple, network.upscale) == (2, 2)
    picture, masks = network.forward_with_masks(frames(2, h, w), noise(1, ROWS, 12))
    assert picture.shape == (2, 3, 2 * h, 2 * w)
    if backbone == "dualstylegan":
        assert [tuple(mask.shape) for mask in masks] == [(2, 1, h // 2, w // 2), (2, 1, h, w)]
        assert all((mask >= 0).all() and (mask < 1).all() and mask.max() > 0 for mask in masks)
    else:
        assert masks == []


def test_the_published_number_of_stages() -> None:
    network = published(read_manifest(DATA / "vtoonify_d.json"))
    assert (network.stages, network.blocks, network.multiple, network.upscale) == (4, 5, 8, 4)
    assert network.n_latent == 18


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_frame_does_not_depend_on_its_batch(backbone: Backbone) -> None:
    network = tiny(backbone)
    x, styles = frames(3), noise(3, ROWS, 12)
    together = network(x, styles, 0.3)
    for i in range(3):
        alone = network(x[i : i + 1], styles[i : i + 1], 0.3)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_style_for_the_batch_equals_a_repeated_one(backbone: Backbone) -> None:
    network = tiny(backbone)
    x, w = frames(), noise(1, 12)
    shared = network(x, w)
    torch.testing.assert_close(shared, network(x, w[:, None].expand(2, ROWS, 12)), rtol=1e-4, atol=1e-5)


def test_a_degree_for_every_frame() -> None:
    network = tiny()
    x, style = frames(3), noise(1, ROWS, 12)
    degrees = torch.tensor([0.0, 0.4, 1.0])
    together = network(x, style, degrees)
    for i, degree in enumerate(degrees.tolist()):
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1], style, degree), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(x, style, 0.0), network(x, style, 0.4))


def test_degree_zero_bypasses_the_style_blocks_of_the_encoder() -> None:
    network = tiny()
    x = frames()
    _, feature, _ = network.encode(x, noise(1, ROWS, 12), 0.0)
    _, same, _ = network.encode(x, noise(1, ROWS, 12, seed=8), 0.0)
    assert torch.equal(feature, same)
    _, other, _ = network.encode(x, noise(1, ROWS, 12, seed=8), 0.5)
    assert not torch.allclose(feature, other)


def test_t_does_not_read_the_degree() -> None:
    network = tiny("toonify")
    x, style = frames(), noise(1, ROWS, 12)
    assert torch.equal(network(x, style, 0.0), network(x, style, 1.0))


def test_structure_rows_reach_the_encoder_and_colour_rows_the_decoder() -> None:
    network = tiny()
    x, style = frames(), noise(1, ROWS, 12)
    features, last, rgb = network.encode(x, style)
    assert [tuple(f.shape[-2:]) for f in features] == [(6, 10), (12, 20)]
    assert last.shape == features[0].shape
    assert rgb.shape == (2, 3, 6, 10)
    recoloured = style.clone()
    recoloured[:, 7:] += 1
    assert torch.equal(network.encode(x, recoloured)[1], last)
    assert not torch.allclose(network(x, recoloured), network(x, style))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what Nuke's Cattery still asks for
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # "one style for the batch" is fixed by tracing
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_traced_network_takes_frames_of_other_sizes(backbone: Backbone) -> None:
    network = tiny(backbone).requires_grad_(False)
    style = noise(1, ROWS, 12)
    traced = torch.jit.trace(network, (frames(), style), check_trace=False)  # type: ignore[no-untyped-call]
    other = frames(3, 16, 10)
    torch.testing.assert_close(traced(other, style), network(other, style))


# --- the inputs


def test_the_parser_is_given_a_larger_and_stronger_frame() -> None:
    x = noise(1, 3, 4, 6)
    y = parser_input(x)
    assert y.shape == (1, 3, 8, 12)
    torch.testing.assert_close(
        y[0, :, 1, 1], 2 * (0.75**2 * x[0, :, 0, 0] + 0.0625 * x[0, :, 1, 1] + 0.1875 * (x[0, :, 0, 1] + x[0, :, 1, 0]))
    )


def test_the_network_is_given_a_sixteenth_of_every_other_logit() -> None:
    x, logits = noise(2, 3, 4, 6), noise(2, 19, 8, 12)
    joined = network_input(x, logits)
    assert joined.shape == (2, 22, 4, 6)
    assert torch.equal(joined[:, :3], x)
    torch.testing.assert_close(joined[:, 3:], logits[:, :, ::2, ::2] / 16)
    torch.testing.assert_close(network_input(x, logits[:, :, ::2, ::2]), joined)
    with pytest.raises(ShapeError, match=r"logits: expected shape \[2, C, 4, 6\], got \[2, 19, 8, 10\]"):
        network_input(x, logits[..., :10])


def test_styles_are_joined_after_row_six() -> None:
    exemplar, content = noise(1, 18, 12), noise(1, 18, 12, seed=7)
    joined = join_style(exemplar, content)
    assert torch.equal(joined[:, :7], exemplar[:, :7])
    assert torch.equal(joined[:, 7:], content[:, 7:])


# --- discriminator


def test_the_conditional_discriminator_looks_at_degree_and_style() -> None:
    torch.manual_seed(0)
    discriminator = ConditionalDiscriminator(16, styles=5, channel_max=6)
    x = noise(4, 3, 16, 16)
    degree, style = torch.full((4,), 0.5), torch.tensor([0, 1, 2, 3])
    score = discriminator.score(x, degree, style)
    assert score.shape == (4, 1)
    assert not torch.allclose(discriminator.score(x, degree + 0.3, style), score)
    changed = discriminator.score(x, degree, torch.tensor([0, 1, 4, 3]))
    assert (changed != score)[:, 0].tolist() == [False, False, True, False]
    score.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# --- wrong arguments


def test_wrong_shapes_are_named() -> None:
    network = tiny()
    style = noise(1, ROWS, 12)
    with pytest.raises(ShapeError, match=r"x: expected shape \[N, 22, H, W\], got \[2, 3, 12, 20\]"):
        network(noise(2, 3, 12, 20), style)
    with pytest.raises(ShapeError, match=r"multiples of 2, at least 4, got \[2, 22, 12, 21\]"):
        network(frames(2, 12, 21), style)
    with pytest.raises(ShapeError, match=r"multiples of 2, at least 4, got \[2, 22, 2, 20\]"):
        network(frames(2, 2, 20), style)
    with pytest.raises(ShapeError, match=r"expected shape \[N, 12, 12\], got \[1, 18, 12\]"):
        network(frames(), noise(1, 18, 12))
    with pytest.raises(ShapeError, match=r"style: expected shape \[2 or 1, 12, 12\], got \[3, 12, 12\]"):
        network(frames(), noise(3, ROWS, 12))
    with pytest.raises(ShapeError, match=r"degree: expected shape \[2\], got \[3\]"):
        network(frames(), style, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"frames: expected shape \[N, 3, H, W\], got \[1, 4, 8, 8\]"):
        parser_input(noise(1, 4, 8, 8))


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'stylegan3'"):
        VToonify("stylegan3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in_size 16"):
        VToonify(in_size=16)
    with pytest.raises(ValueError, match="out_size 64"):
        VToonify(in_size=64, out_size=64)


def test_the_golden_adapter_serves_both_backbones() -> None:
    assert set(NETWORKS) == {"vtoonify"}
