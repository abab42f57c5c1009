"""Style codes of a collection in training: the encoder that reads them, pictures and their codes by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference_server.networks.psp import PspEncoder, with_average
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.gan import shown_at


class FaceEncoder(nn.Module):
    """A Z+ encoder with its average code, as one frozen module: pictures to z vectors, one for each layer."""

    average: Tensor

    def __init__(self, network: PspEncoder, average: Tensor) -> None:
        super().__init__()
        if network.space != "z+":
            raise TrainingError(
                "training.config",
                f"the encoder's codes are in {network.space}, DualStyleGAN is trained with an encoder into z+",
                remedy="Use the encoder that its authors publish with it (model vtoonify-encoder).",
                value=network.space,
            )
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("average", average)

    def train(self, mode: bool = True) -> FaceEncoder:
        """Changes this module's flag only: running statistics must not follow the training."""
        self.training = mode
        return self

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Aligned faces [N, 3, S, S] in -1..1 -> Z+ [N, L, D]."""
        faces = shown_at(pictures, self.network.image_size)
        return with_average(self.network(faces), self.average)


@dataclass(frozen=True)
class CollectionCodes:
    """Codes of a style collection: names of the pictures, Z+ codes [n, L, D] of content and of style."""

    names: tuple[str, ...]
    intrinsic: Tensor
    extrinsic: Tensor

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.intrinsic) == len(self.extrinsic):
            raise ValueError("names, intrinsic and extrinsic codes must be equally many")

    def order_of(self, pictures: list[str]) -> list[int]:
        """For each picture the number of its codes; TrainingError `training.data` unless they are the same ones."""
        if sorted(pictures) != sorted(self.names):
            lost, spare = sorted(set(pictures) - set(self.names)), sorted(set(self.names) - set(pictures))
            kinds = (("pictures without codes", lost), ("codes without pictures", spare))
            parts = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in kinds if names]
            raise TrainingError(
                "training.data",
                f"pictures and codes of the collection differ: {'; '.join(parts) or 'a name is there twice'}",
                remedy="Destylize this very folder; pictures that are done already are not done again.",
                value=[*lost, *spare][:10],
            )
        places = {name: i for i, name in enumerate(self.names)}
        return [places[name] for name in pictures]
