"""ReStyle e4e: the encoder that reads aligned faces for StyleGAN3, in a few looks.

Decides how the one map of the IR-SE-50 trunk becomes a code for every row (arXiv 2104.02699 with e4e's deltas, as
published for StyleGAN3 in arXiv 2201.13433), and how the looks follow each other: the encoder sees the face beside the
picture drawn so far, and says what to add to the codes.

The official file (`restyle_e4e_ffhq`, code MIT) holds `state_dict` with `encoder.*` and `decoder.*`, and `latent_avg`;
heads are `styles.{row}`, all on the trunk's last map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import ModuleList, functional

from .arcface import DEPTHS, WIDTHS, TrunkIRSE, halved
from .psp import StyleHead
from .tensors import check_shape

LOOKS = 3


class ReStyleEncoder(TrunkIRSE):
    """image_size: side of the square input, 256 in the official file. codes: rows of a code, 16 for StyleGAN3.

    widths, depths: the trunk's four stages; the last width is also the length of a code.
    """

    def __init__(
        self,
        codes: int = 16,
        image_size: int = 256,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        super().__init__(6, widths, depths)
        if len(widths) != 4 or codes < 1 or image_size < 17:
            raise ValueError(
                "encoder: expected 4 stages, at least 1 code and an image size of at least 17, "
                f"got {len(widths)} stages, {codes} codes, image size {image_size}"
            )
        self.codes, self.image_size, self.code_length = codes, image_size, widths[3]
        side = halved(image_size, 4)
        self.styles = ModuleList(StyleHead(widths[3], widths[3], side) for _ in range(codes))

    def forward(self, faces: Tensor, drawn: Tensor) -> Tensor:
        """What to add to the codes [B, codes, C].

        faces  [B, 3, S, S] FFHQ-aligned, RGB in -1..1; drawn  the pictures of the codes so far, likewise.
        Row 0 is head 0, every other row head 0 plus its own. Raises ShapeError.
        """
        size = self.image_size
        check_shape("faces", faces, "B", 3, size, size)
        check_shape("drawn", drawn, faces.shape[0], 3, size, size)
        last = self.stages(torch.cat([faces, drawn], dim=1))[-1]  # [B, C, S/16, S/16]
        base, *deviations = [head(last) for head in self.styles]
        return torch.stack([base, *(base + deviation for deviation in deviations)], dim=1)

    def encode(self, faces: Tensor, latent_avg: Tensor, draw: Callable[[Tensor], Tensor], looks: int = LOOKS) -> Tensor:
        """W+ codes [B, codes, C] of faces [B, 3, S, S].

        latent_avg: [codes, C], [1, C] or [C], from the encoder's file. draw: codes -> pictures [B, 3, R, R], the
        generator without a transform. The first look is beside the average's picture.
        """
        average = latent_avg.reshape(-1, self.code_length).expand(self.codes, -1)
        codes = average[None].expand(faces.shape[0], -1, -1)
        for look in range(looks):
            seen = draw(codes[:1] if look == 0 else codes)
            small = functional.adaptive_avg_pool2d(seen, self.image_size).expand(faces.shape[0], -1, -1, -1)
            codes = codes + self(faces, small)
        return codes
