"""ArcFace: published names, sizes, the crop under which identity is compared, and the loss."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from inference_server.networks.arcface import ArcFace, BottleneckIRSE, IdentityLoss, halved, identity_crop
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS, DEPTHS = (16, 16, 32, 32), (1, 2, 1, 1)


def tiny(size: int = 21) -> ArcFace:
    torch.manual_seed(1)
    return ArcFace(size, embedding=8, widths=WIDTHS, depths=DEPTHS).eval()


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = ArcFace()
    assert name_differences(read_manifest(DATA / "arcface_irse50.json"), network) == []
    assert len(network.state_dict()) == 397
    assert sum(p.numel() for p in network.parameters()) == 43_797_696


def test_stages_round_odd_sizes_up() -> None:
    taps = tiny().stages(torch.randn(2, 3, 21, 37))
    assert [tuple(t.shape) for t in taps] == [(2, 16, 11, 19), (2, 16, 6, 10), (2, 32, 3, 5), (2, 32, 2, 3)]
    assert (halved(21, 4), halved(37, 4), halved(112, 4)) == (2, 3, 7)


def test_embedding_has_length_one_and_does_not_depend_on_the_batch() -> None:
    network, faces = tiny(), torch.randn(3, 3, 21, 21)
    with torch.inference_mode():
        together = network(faces)
        alone = torch.cat([network(face[None]) for face in faces])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_strided_unit_of_equal_width_only_sub_samples_its_shortcut() -> None:
    unit = BottleneckIRSE(16, 16, stride=2).eval()
    for parameter in unit.parameters():
        parameter.detach().zero_()
    x = torch.randn(1, 16, 9, 6)
    assert torch.equal(unit(x), x[:, :, ::2, ::2])


def test_wrong_sizes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"faces: expected shape \[B, 3, 21, 21\], got \[1, 3, 22, 21\]"):
        tiny()(torch.zeros(1, 3, 22, 21))
    with pytest.raises(ValueError, match=r"got widths \(16,\) and depths \(1, 1\)"):
        ArcFace(widths=(16,), depths=(1, 1))
    with pytest.raises(ValueError, match="at least 16"):
        ArcFace(widths=(8, 8), depths=(1, 1))


def test_crop_takes_rows_35_to_222_and_columns_32_to_219() -> None:
    rows = torch.arange(256.0).view(1, 1, 256, 1).expand(1, 3, 256, 256)
    columns = rows.transpose(2, 3)
    assert torch.equal(identity_crop(rows, 188)[0, 0, :, 0], torch.arange(35.0, 223.0))
    assert torch.equal(identity_crop(columns, 188)[0, 0, 0], torch.arange(32.0, 220.0))
    assert identity_crop(rows).shape == (1, 3, 112, 112)


def test_larger_pictures_are_averaged_to_256_first() -> None:
    picture = torch.randn(1, 3, 512, 512)
    mean = picture.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(identity_crop(picture), identity_crop(mean))


@pytest.mark.parametrize("shape", [(1, 3, 255, 255), (1, 3, 256, 300), (1, 1, 256, 256)])
def test_crop_refuses_what_is_not_an_aligned_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        identity_crop(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)
    assert "expected" in str(caught.value)


def test_loss_is_one_minus_the_mean_similarity() -> None:
    loss = IdentityLoss(tiny())
    a, b = torch.rand(2, 2, 3, 256, 256) * 2 - 1
    assert loss(a, a).item() == pytest.approx(0, abs=1e-6)
    similarity = (loss.embed(a) * loss.embed(b)).sum(dim=1)
    assert loss(a, b).item() == pytest.approx(1 - similarity.mean().item(), abs=1e-6)
    with pytest.raises(ShapeError, match=r"target: expected shape \[2, 3, 256, 256\], got \[1, 3, 256, 256\]"):
        loss(a, b[:1])


def test_loss_has_the_numerical_gradient_and_gives_none_to_target_and_network() -> None:
    loss = IdentityLoss(tiny().double())
    torch.manual_seed(2)
    a = torch.rand(2, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: loss(x, b.detach()), (a,), fast_mode=True)
    loss(a, b).backward()
    assert a.grad is not None
    assert a.grad.abs().max() > 0
    assert a.grad[:, :, :35].abs().max() == 0  # outside the crop
    assert b.grad is None
    assert all(p.grad is None for p in loss.network.parameters())


def test_network_stays_in_evaluation_while_its_owner_trains() -> None:
    loss = IdentityLoss(tiny())
    running_mean = loss.network.get_buffer("input_layer.1.running_mean")
    before = running_mean.clone()
    loss.train()
    loss(torch.rand(2, 3, 256, 256), torch.rand(2, 3, 256, 256))
    assert loss.training
    assert not loss.network.training
    assert torch.equal(running_mean, before)
