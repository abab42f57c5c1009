"""BiSeNet: published names, any size, the order of the classes."""

from __future__ import annotations

import pytest
import torch

from inference_server.networks.bisenet import CLASSES, BiSeNet
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny() -> BiSeNet:
    torch.manual_seed(5)
    return BiSeNet(classes=5, width=4).eval().requires_grad_(False)


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = BiSeNet()
    assert name_differences(read_manifest(DATA / "bisenet.json"), network) == []
    assert len(network.state_dict()) == 191
    assert sum(p.numel() for p in network.parameters()) == 13_300_416


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (33, 47), (9, 5)])
def test_three_heads_at_the_size_of_the_picture(size: tuple[int, int]) -> None:
    network, images = tiny(), torch.randn(2, 3, *size)
    logits = network(images)
    assert [tuple(head.shape) for head in logits] == [(2, 5, *size)] * 3
    assert torch.equal(network.parse(images), logits.main)
    assert len({head.mean().item() for head in logits}) == 3  # three heads, not one three times


def test_a_picture_does_not_depend_on_its_batch() -> None:
    network, images = tiny(), torch.randn(2, 3, 61, 83)
    torch.testing.assert_close(network(images).main[1:], network(images[1:]).main, rtol=0, atol=1e-5)


def test_classes_stand_in_the_published_order() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 19
    named = {0: "background", 1: "skin", 6: "eye_g", 10: "nose", 11: "mouth", 16: "cloth", 17: "hair", 18: "hat"}
    assert {index: CLASSES[index] for index in named} == named


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 64, 64)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    for call in (tiny(), tiny().parse):
        with pytest.raises(ShapeError, match=r"images: expected shape \[B, 3, H, W\]") as caught:
            call(torch.zeros(shape))
        assert str(list(shape)) in str(caught.value)
