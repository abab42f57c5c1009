"""ReStyle e4e: the facts of its sheet, base and deviations, and looks that build on what was drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference_server.networks.psp import E4eEncoder
from inference_server.networks.restyle import ReStyleEncoder
from inference_server.networks.tensors import ShapeError

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"codes": 5, "image_size": 37, "widths": (16, 16, 16, 32), "depths": (1, 1, 1, 1)}


def restyle() -> ReStyleEncoder:
    torch.manual_seed(4)
    return ReStyleEncoder(**TINY).eval().requires_grad_(False)  # type: ignore[arg-type]


def test_it_is_e4es_trunk_for_six_channels_and_equal_heads_of_four_halvings() -> None:
    with torch.device("meta"):
        found, e4e = ReStyleEncoder().state_dict(), E4eEncoder().state_dict()
    trunk = {n: v.shape for n, v in e4e.items() if n.startswith(("input_layer.", "body."))}
    assert {n: v.shape for n, v in found.items() if not n.startswith("styles.")} == {
        **trunk,
        "input_layer.0.weight": torch.Size([64, 6, 3, 3]),
    }
    heads = {n for n in found if n.startswith("styles.")}
    kinds = ("weight", "bias")
    names = [f"convs.{i}.{k}" for i in (0, 2, 4, 6) for k in kinds] + [f"linear.{k}" for k in kinds]
    assert heads == {f"styles.{row}.{name}" for row in range(16) for name in names}
    assert sum(v.numel() for n, v in found.items() if n.startswith("styles.0.")) == 9_701_888


def test_rows_are_the_first_head_and_deviations_from_it() -> None:
    network, faces, drawn = restyle(), torch.randn(2, 3, 37, 37), torch.randn(2, 3, 37, 37)
    last = network.stages(torch.cat([faces, drawn], dim=1))[-1]
    heads = [head(last) for head in network.styles]
    codes = network(faces, drawn)
    assert codes.shape == (2, 5, 32)
    assert torch.equal(codes[:, 0], heads[0])
    assert torch.equal(codes[:, 3], heads[0] + heads[3])
    with pytest.raises(ShapeError, match="drawn"):
        network(faces, drawn[:1])


def test_each_look_sees_what_the_last_code_draws() -> None:
    """First the average's picture, then each face's own; every answer is added."""
    network, faces, average = restyle(), torch.randn(2, 3, 37, 37), torch.randn(32)
    asked: list[Tensor] = []

    def draw(codes: Tensor) -> Tensor:
        asked.append(codes)
        return codes[:, :3, :1, None].expand(-1, -1, 74, 74)

    codes = network.encode(faces, average, draw)
    assert [len(a) for a in asked] == [1, 2, 2]
    assert torch.equal(asked[0][0], average.expand(5, -1))
    expected = average.expand(2, 5, -1)
    for seen in asked:
        small = seen[:, :3, :1, None].expand(2, -1, 37, 37)
        expected = expected + network(faces, small)
    assert torch.allclose(codes, expected, atol=1e-6)
    assert torch.allclose(network.encode(faces, average.expand(5, -1), draw, looks=1), asked[1], atol=1e-6)
