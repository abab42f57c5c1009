"""Shape checks: what they accept, and what they say."""

from __future__ import annotations

import pytest
import torch

from inference_server.networks.tensors import ShapeError, check_shape, imagenet_normalise


def test_letters_stand_for_any_size_and_bind() -> None:
    check_shape("x", torch.zeros(2, 3, 5, 5), "B", 3, "S", "S")
    with pytest.raises(ShapeError, match=r"x: expected shape \[B, 3, S, S\], got \[2, 3, 5, 6\]"):
        check_shape("x", torch.zeros(2, 3, 5, 6), "B", 3, "S", "S")


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (2, 3, 5), (2, 3, 5, 5, 1), ()])
def test_wrong_number_or_rank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        check_shape("picture", torch.zeros(shape), "B", 3, "H", "W")
    assert str(list(shape)) in str(caught.value)


def test_imagenet_statistics_are_applied_per_channel() -> None:
    white = imagenet_normalise(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten()
    assert white.tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    assert imagenet_normalise(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)).abs().max() == 0
