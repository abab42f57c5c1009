"""pSp and e4e: published names, codes at any size, base and deviations, and the latent space of the result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference_server.networks.psp import E4eEncoder, PspEncoder, StyleEncoder, with_average
from inference_server.networks.tensors import ShapeError
from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.weights import name_differences

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"codes": 9, "image_size": 37, "widths": (16, 16, 16, 32), "depths": (1, 1, 1, 1)}


def psp(space: str = "w+", **changes: object) -> PspEncoder:
    torch.manual_seed(4)
    return PspEncoder(space, **{**TINY, **changes}).eval().requires_grad_(False)  # type: ignore[arg-type]


def e4e() -> E4eEncoder:
    encoder = E4eEncoder(**TINY).eval().requires_grad_(False)  # type: ignore[arg-type]
    encoder.load_state_dict(psp().state_dict(), strict=True)
    return encoder


@pytest.mark.parametrize("name", ["psp_encoder", "e4e_encoder"])
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        encoder: StyleEncoder = PspEncoder("z+") if name == "psp_encoder" else E4eEncoder()
    assert name_differences(read_manifest(DATA / f"{name}.json"), encoder) == []
    assert len(encoder.state_dict()) == 621
    assert sum(p.numel() for p in encoder.parameters()) == 267_136_704


@pytest.mark.parametrize("size", [17, 32, 37, 48, 65])
def test_every_size_gives_one_code_for_each_head(size: int) -> None:
    assert psp(image_size=size)(torch.randn(2, 3, size, size)).shape == (2, 9, 32)


def test_fewer_heads_and_other_inputs() -> None:
    assert psp(codes=4, channels_in=19)(torch.randn(1, 19, 37, 37)).shape == (1, 4, 32)


def test_e4e_adds_every_head_to_the_first() -> None:
    faces = torch.randn(2, 3, 37, 37)
    heads = psp()(faces)
    codes = e4e()(faces)
    assert torch.equal(codes[:, 0], heads[:, 0])
    assert torch.equal(codes[:, 1:], heads[:, :1] + heads[:, 1:])


@pytest.mark.parametrize("stage", [0, 3, 8])
def test_e4e_stage_activates_the_first_deviations_only(stage: int) -> None:
    encoder, faces = e4e(), torch.randn(1, 3, 37, 37)
    codes, full = encoder(faces, stage), encoder(faces)
    assert torch.equal(codes[:, : stage + 1], full[:, : stage + 1])
    assert torch.equal(codes[:, stage + 1 :], full[:, :1].expand(-1, 8 - stage, -1))


@pytest.mark.parametrize("stage", [-1, 9])
def test_e4e_refuses_a_stage_without_a_head(stage: int) -> None:
    with pytest.raises(ValueError, match=rf"stage: expected 0..8, got {stage}"):
        e4e()(torch.zeros(1, 3, 37, 37), stage)


def test_z_plus_codes_pass_the_mapping_network_row_by_row() -> None:
    encoder, faces, average = psp("z+"), torch.randn(2, 3, 37, 37), torch.randn(9, 32)

    def mapping(z: Tensor) -> Tensor:  # not linear, and to another length, as a mapping network may be
        return torch.tanh(z[:, :5]) * z.square().sum(dim=1, keepdim=True)

    codes = encoder.encode(faces, average, mapping)
    expected = torch.stack([mapping(encoder(faces)[:, i] + average[i]) for i in range(9)], dim=1)
    torch.testing.assert_close(codes, expected)


def test_a_code_cannot_be_taken_for_one_of_another_space() -> None:
    faces, average = torch.zeros(1, 3, 37, 37), torch.zeros(9, 32)
    with pytest.raises(ValueError, match=r"into z\+ expects the generator's mapping network, got none"):
        psp("z+").encode(faces, average)
    with pytest.raises(ValueError, match=r"into w\+ expects no mapping network, got one"):
        psp("w+").encode(faces, average, lambda z: z)
    with pytest.raises(ValueError, match="expected 'w\\+' or 'z\\+', got 'w'"):
        psp("w")


@pytest.mark.parametrize("shape", [(9, 32), (1, 32), (32,)])
def test_average_is_added_once(shape: tuple[int, ...]) -> None:
    faces, average = torch.randn(1, 3, 37, 37), torch.randn(shape)
    for encoder in (psp(), e4e()):
        assert torch.equal(encoder.encode(faces, average), encoder(faces) + average)


@pytest.mark.parametrize("shape", [(18, 32), (9, 16), (1, 9, 32)])
def test_an_average_of_another_encoder_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"latent_avg: expected shape") as caught:
        with_average(torch.zeros(2, 9, 32), torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_wrong_pictures_and_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"faces: expected shape \[B, 3, 37, 37\], got \[1, 3, 38, 37\]"):
        psp()(torch.zeros(1, 3, 38, 37))
    with pytest.raises(ValueError, match="image size 16"):
        psp(image_size=16)
    with pytest.raises(ValueError, match="got 2 stages"):
        psp(widths=(16, 16), depths=(1, 1))
