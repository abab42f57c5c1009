"""What every network says about its tensors: the shape it takes, and the statistics it was trained on.

Decides how a wrong shape is reported: at a module's boundary, with the argument's name, the expected and the
actual shape, before the arithmetic can fail further down with a message about something else.
"""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ShapeError(ValueError):
    """A tensor whose shape a network cannot take; the message names expected and actual shape."""


def check_shape(name: str, tensor: Tensor, *expected: int | str) -> None:
    """Refuse a tensor whose shape is not the expected one.

    A number must match; a letter stands for any size, the same letter for the same size:
    `check_shape("image", x, "B", 3, "H", "W")`. Does nothing while a graph is traced, where sizes are symbols.

    Raises ShapeError with both shapes.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return
    actual = tuple(tensor.shape)
    bound: dict[str, int] = {}
    fits = len(actual) == len(expected) and all(
        size == want if isinstance(want, int) else bound.setdefault(want, size) == size
        for size, want in zip(actual, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(want) for want in expected)
        raise ShapeError(f"{name}: expected shape [{wanted}], got {list(actual)}")


def imagenet_normalise(images: Tensor) -> Tensor:
    """Map RGB in 0..1, display-encoded, to the statistics of ImageNet: (x - mean) / std per channel.

    images: [B, 3, H, W]; the result has the same shape. Raises ShapeError.
    """
    check_shape("images", images, "B", 3, "H", "W")
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)  # [1, 3, 1, 1]
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)  # [1, 3, 1, 1]
    return (images - mean) / std
