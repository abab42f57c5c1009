"""Latent Transformer (Yao et al. 2021): one attribute of a face as a learned, non-linear move of its W+ code.

Every row of the code has an affine map of its own, and how far it moves depends on where it is:

    y_i = (D_i / sqrt(size)) w_i + b_i        w'_i = w_i + alpha * y_i      for the rows i < moved

Rows from `moved` on (11 of 18 in the published networks) are the source's: what these maps learned is never read.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.tensors import check_shape


class LatentTransformer(nn.Module):
    """The move of a code. State dict: dense.{i}.weight [size, size], dense.{i}.bias [size] for i < rows."""

    def __init__(self, rows: int = 18, size: int = 512, moved: int = 11) -> None:
        super().__init__()
        if not 0 < moved <= rows:
            raise ValueError(f"expected 0 < moved <= rows, got {moved} of {rows}")
        self.rows, self.size, self.moved = rows, size, moved
        self.dense = nn.ModuleList(nn.Linear(size, size) for _ in range(rows))

    def unread_entries(self) -> list[str]:
        """Names of the state dict that no output depends on."""
        return [f"dense.{i}.{kind}" for i in range(self.moved, self.rows) for kind in ("weight", "bias")]

    def drop_unread(self) -> None:
        """Forget the maps of the rows that stay."""
        self.dense = self.dense[: self.moved]

    def forward(self, codes: Tensor, alpha: Tensor) -> Tensor:
        """codes [N, rows, size] moved by alpha [N]; a code's result does not depend on the batch it comes in."""
        check_shape("codes", codes, "N", self.rows, self.size)
        check_shape("alpha", alpha, codes.shape[0])
        out = codes.clone()
        for n in range(codes.shape[0]):  # one at a time: a product of matrices rounds otherwise than one with a vector
            for i, dense in enumerate(self.dense[: self.moved]):
                assert isinstance(dense, nn.Linear)
                moved = F.linear(codes[n, i], dense.weight / math.sqrt(self.size), dense.bias)
                out[n, i] = codes[n, i] + alpha[n] * moved
        return out
