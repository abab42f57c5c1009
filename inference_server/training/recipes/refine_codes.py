"""Refining extrinsic codes (DualStyleGAN's latent optimisation): so that each exemplar's code gives its picture.

The trained DualStyleGAN stays as it is; for every picture its extrinsic code, in Z+, and the noise maps are fitted to
the picture, on the picture's own intrinsic code. Optional, after stage 3. Defaults are the published numbers.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.lpips import LPIPS
from inference_server.networks.vgg import VGG19
from inference_server.training.draws import Draw
from inference_server.training.recipes.adversarial import unfit
from inference_server.training.recipes.codes import CollectionCodes
from inference_server.training.recipes.destylize import STRIP_SIDE
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.recipes.gan import shown_at
from inference_server.training.recipes.per_picture import Solved
from inference_server.training.recipes.style_losses import contextual_loss, noise_correlation, whiten_
from inference_server.training.tables import from_table


@dataclass(frozen=True)
class RefineSettings:
    """Learning rates of the structure rows (those of the ModRes blocks), of the colour rows (0.1 for cartoon) and of
    the noise maps; weights of the losses; pictures are compared at `compare_at` px. `codes`: the folder in which the
    pictures were destylized, where codes come from one.
    """

    pictures: str = ""
    codes: str = ""
    id: str = "my-style-codes-refined"
    title: str = "Refined style codes of my style"
    seed: int = 0
    steps: int = 100
    structure_rate: float = 0.005
    colour_rate: float = 0.01
    noise_rate: float = 0.1
    perceptual: float = 1.0
    contextual: float = 1.0
    band: float = 0.2
    noise: float = 1e5
    compare_at: int = 256
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be 1 or more")


@dataclass(frozen=True)
class RefineNetworks:
    """The trained DualStyleGAN, the collection's codes, loss networks and the licences of everything."""

    network: DualStyleGAN
    codes: CollectionCodes
    features: VGG19
    perceptual: LPIPS
    licences: tuple[str | Mapping[str, Any], ...]


class RefineCodes:
    """The work on each picture, for `per_picture.solve_pictures`. TrainingError where codes and pictures differ."""

    name = "refine_codes"
    columns = ("picture", "before", "refined")

    def __init__(self, table: Mapping[str, Any], networks: RefineNetworks) -> None:
        self.settings = from_table(RefineSettings, table, "recipe.")
        self.networks, self.licences = networks, networks.licences
        g, codes = networks.network.generator, networks.codes
        if codes.extrinsic.shape[1:] != (g.n_latent, g.style_dim):
            raise unfit(f"codes of {list(codes.extrinsic.shape[1:])}, a generator of {[g.n_latent, g.style_dim]}")
        self.pictures = PictureFolder(self.settings.pictures, g.size)
        self._places = dict(zip(self.pictures.names, codes.order_of(self.pictures.names), strict=True))

    def modules(self) -> Mapping[str, nn.Module]:
        n = self.networks
        return {"network": n.network, "features": n.features, "perceptual": n.perceptual}

    def exports(self) -> tuple[tuple[str, str, str], ...]:
        return (("extrinsic", "refined_exstyle_code.npy", ""),)

    def solve(self, picture: Tensor, name: str, draw: Draw) -> Generator[dict[str, float], None, Solved]:
        s, network, place = self.settings, self.networks.network, self._places[name]
        g, split = network.generator, network.res_index + 1
        own, before = (
            c[place][None].to(picture) for c in (self.networks.codes.intrinsic, self.networks.codes.extrinsic)
        )
        content = g.mapping(own)  # [1, L, D] in W+
        structure, colour = (rows.clone().requires_grad_(True) for rows in (before[:, :split], before[:, split:]))
        noise = [draw.normal(f"noise {k}", (1, 1, n, n)).to(picture) for k, n in enumerate(g.noise_sizes())]
        start = [level.clone() for level in noise]
        for level in noise:
            level.requires_grad_(True)
        adam = torch.optim.Adam(
            [
                {"params": [structure], "lr": s.structure_rate},
                {"params": [colour], "lr": s.colour_rate},
                {"params": noise, "lr": s.noise_rate},
            ]
        )
        small = shown_at(picture, s.compare_at)
        with torch.no_grad():
            wanted, target = self.networks.perceptual.features(small), self.networks.features(small)["relu3_1"]
        for _ in range(s.steps):
            style = g.mapping(torch.cat([structure, colour], dim=1))
            drawn = shown_at(network(content, style, noise=noise), s.compare_at)
            seen = self.networks.perceptual.features(drawn)
            made = self.networks.features(drawn)["relu3_1"]
            terms = {
                "perceptual": s.perceptual * self.networks.perceptual.compare(seen, wanted).sum(),
                "contextual": s.contextual * contextual_loss(made, target, s.band),
                "noise": s.noise * noise_correlation(noise),
            }
            adam.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            adam.step()
            whiten_(noise)
            yield {key: float(value.detach()) for key, value in terms.items()}
        with torch.no_grad():
            refined = torch.cat([structure, colour], dim=1)
            pair = ((before, start), (refined, noise))
            shown = [picture, *(network(content, g.mapping(code), noise=maps) for code, maps in pair)]
            strip = torch.cat([shown_at(p, min(STRIP_SIDE, g.size)) for p in shown])
        return Solved(own[0], refined[0], strip.cpu())
