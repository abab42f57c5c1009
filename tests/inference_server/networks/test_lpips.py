"""LPIPS: published names and files, what a distance promises, and its gradient against numerical differences."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from inference_server.networks.lpips import LPIPS, Trunk, published_state
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")

TRUNKS: list[Trunk] = ["alex", "vgg"]
SMALLEST = {"alex": 31, "vgg": 16}


def tiny(trunk: Trunk) -> LPIPS:
    torch.manual_seed(12)
    return LPIPS(trunk, width_divisor=16)


def pair(*size: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(13)
    return tuple(torch.rand(2, 3, *size, dtype=dtype) * 2 - 1 for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize(("trunk", "parameters"), [("alex", 2_470_848), ("vgg", 14_716_160)])
def test_names_and_shapes_are_the_published_ones(trunk: Trunk, parameters: int) -> None:
    with torch.device("meta"):
        network = LPIPS(trunk)
    manifest = read_manifest(DATA / f"lpips_{trunk}.json")
    assert name_differences(manifest, network) == []
    assert set(network.state_dict()) == {p.name for p in manifest.parameters}
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("size", [(64, 64), (47, 59)])
def test_distance_is_zero_to_itself_symmetric_and_the_sum_of_its_terms(trunk: Trunk, size: tuple[int, int]) -> None:
    network, (a, b) = tiny(trunk), pair(*size)
    distance = network(a, b)
    assert distance.shape == (2, 1, 1, 1)
    assert (distance > 0).all()
    assert network(a, a).abs().max() == 0
    torch.testing.assert_close(distance, network(b, a))
    terms = network.per_layer(a, b)
    assert terms.shape == (2, 5)
    torch.testing.assert_close(terms.sum(dim=1), distance.flatten())
    torch.testing.assert_close(network(a[1:], b[1:]), distance[1:])
    assert torch.equal(network.compare(network.features(a), network.features(b)), terms)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_features_have_length_one_over_the_channels(trunk: Trunk) -> None:
    for feature in tiny(trunk).features(pair(40, 33)[0]):
        length = feature.norm(dim=1)
        assert (((length - 1).abs() < 1e-5) | (length == 0)).all()


@pytest.mark.parametrize("trunk", TRUNKS)
def test_distance_has_the_numerical_gradient_in_both_pictures(trunk: Trunk) -> None:
    network = tiny(trunk).double()
    a, b = (x.requires_grad_() for x in pair(SMALLEST[trunk], SMALLEST[trunk] + 6, dtype=torch.float64))
    assert gradcheck(network, (a, b), fast_mode=True)
    network(a, b).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert min(a.grad.abs().max(), b.grad.abs().max()) > 0
    assert all(p.grad is None for p in network.parameters())


def test_every_entry_of_the_gradient_is_the_numerical_one() -> None:
    network = LPIPS("vgg", width_divisor=64).double()
    torch.manual_seed(14)
    a, b = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    patch = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)  # of a picture: 48 entries, not 768
    assert gradcheck(lambda x: network(a + functional.pad(x, (5, 7, 9, 3)), b), (patch,))


@pytest.mark.parametrize("trunk", TRUNKS)
def test_gradient_is_finite_where_no_channel_answers(trunk: Trunk) -> None:
    network = tiny(trunk)
    network.net.get_parameter("slice1.0.bias").fill_(-100.0)  # nothing passes the first ReLU
    a, b = pair(40, 40)
    a.requires_grad_()
    distance = network(a, b)
    distance.sum().backward()
    assert a.grad is not None
    assert torch.isfinite(distance).all()
    assert torch.isfinite(a.grad).all()


def torchvision_like(trunk: Trunk) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of torchvision's files; the values tell the entries apart."""
    state: dict[str, torch.Tensor] = {}
    for name, value in LPIPS(trunk).net.state_dict().items():
        index, kind = name.split(".")[1:]
        state[f"features.{index}.{kind}"] = torch.full_like(value, len(state))
    return {**state, "classifier.6.weight": torch.zeros(1000, 8), "classifier.6.bias": torch.zeros(1000)}


def heads_like(trunk: Trunk) -> dict[str, torch.Tensor]:
    network = LPIPS(trunk)
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    return {name: network.get_parameter(name) + i for i, name in enumerate(names)}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_two_published_files_make_one_strict_state(trunk: Trunk) -> None:
    features, heads = torchvision_like(trunk), heads_like(trunk)
    network = LPIPS(trunk)
    network.load_state_dict(published_state(trunk, features, heads), strict=True)
    last = {"alex": "10", "vgg": "28"}[trunk]
    loaded = network.state_dict()
    assert torch.equal(loaded[f"net.slice5.{last}.bias"], features[f"features.{last}.bias"])
    assert torch.equal(loaded["lin3.model.1.weight"], heads["lin3.model.1.weight"])
    assert torch.equal(loaded["lins.3.model.1.weight"], heads["lin3.model.1.weight"])
    assert loaded["scaling_layer.shift"].flatten().tolist() == pytest.approx([-0.030, -0.088, -0.188])


def test_files_that_are_not_a_pair_are_refused_by_name() -> None:
    features, heads = torchvision_like("alex"), heads_like("alex")
    lacking = {name: value for name, value in features.items() if name != "features.3.bias"}
    with pytest.raises(KeyError, match=r"missing entries \['features.3.bias'\]"):
        published_state("alex", lacking, heads)
    with pytest.raises(KeyError, match=r"missing entries \['lin4.model.1.weight'\]"):
        published_state("alex", features, {k: v for k, v in heads.items() if not k.startswith("lin4")})
    with pytest.raises(KeyError, match=r"unexpected entries \['lin5.model.1.weight'\]"):
        published_state("alex", features, {**heads, "lin5.model.1.weight": torch.zeros(1)})
    with pytest.raises(KeyError, match=r"features.28.weight"):
        published_state("vgg", features, heads)


def test_what_does_not_fit_is_refused() -> None:
    a = torch.zeros(1, 3, 40, 40)
    with pytest.raises(ShapeError, match=r"b: expected shape \[1, 3, 40, 40\], got \[1, 3, 40, 41\]"):
        tiny("alex")(a, torch.zeros(1, 3, 40, 41))
    with pytest.raises(ShapeError, match=r"images: expected shape \[B, 3, H, W\], got \[1, 1, 40, 40\]"):
        tiny("vgg")(a[:, :1], a[:, :1])
    for trunk in TRUNKS:
        side = SMALLEST[trunk]
        tiny(trunk)(a[:, :, :side, :side], a[:, :, :side, :side])
        with pytest.raises(ShapeError, match=rf"H, W >= {side} for {trunk}, got \[1, 3, {side - 1}, 40\]"):
            tiny(trunk)(a[:, :, : side - 1], a[:, :, : side - 1])
    with pytest.raises(ShapeError, match="feature 0 of b"):
        tiny("vgg").compare(tiny("vgg").features(a), tiny("vgg").features(a[:, :, :32]))
    with pytest.raises(ValueError, match=r"expected one of \['alex', 'vgg'\], got 'squeeze'"):
        LPIPS("squeeze")  # type: ignore[arg-type]
