"""Facial destylization (arXiv 2203.13248, section 3.2): what a real face behind a style picture would look like.

For every picture of a collection an extrinsic code (the picture as the encoder reads it) and an intrinsic one (the
face without the style), both in Z+. Stage I reads the code; stage II fits code and noise maps so that the fine-tuned
generator draws the picture; stage III has the original generator draw the fitted code and reads the code of that face.
Defaults are the published numbers.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inference_server.networks.arcface import ALIGNED_SIZE, ArcFace, IdentityLoss
from inference_server.networks.lpips import LPIPS
from inference_server.networks.stylegan2 import Generator as Face
from inference_server.networks.stylegan2 import truncate
from inference_server.training.draws import Draw
from inference_server.training.recipes.adversarial import unfit
from inference_server.training.recipes.codes import FaceEncoder
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.recipes.gan import shown_at
from inference_server.training.recipes.per_picture import Solved
from inference_server.training.recipes.style_losses import noise_correlation, whiten_
from inference_server.training.tables import from_table

STRIP_SIDE = 256


@dataclass(frozen=True)
class DestylizeSettings:
    """`rate` rises over the first `rise` of the steps and falls, as a cosine, over the last `fall`. Pictures are
    compared at `compare_at` px. `keep_from`: rows of a code from here on stay as the encoder read them.
    `truncation`: of the face that stage III draws, towards zero; lower for styles far from real faces.
    """

    pictures: str = ""
    id: str = "my-style-codes"
    title: str = "Style codes of my style"
    seed: int = 0
    steps: int = 300
    rate: float = 0.1
    rise: float = 0.05
    fall: float = 0.25
    perceptual: float = 1.0
    identity: float = 0.1
    spread: float = 1.0
    noise: float = 1e5
    compare_at: int = 256
    keep_from: int = 8
    truncation: float = 0.7
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rise < 1 or not 0 < self.fall < 1:
            raise ValueError("steps must be 1 or more, rise and fall shares of the steps between 0 and 1")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        t = step / self.steps
        return self.rate * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / self.fall))) * min(1.0, t / self.rise)


@dataclass(frozen=True)
class DestylizeNetworks:
    """`base`: the generator of faces; `tuned`: the same, fine-tuned on the collection. `licences`: of everything."""

    base: Face
    tuned: Face
    encoder: FaceEncoder
    identity: ArcFace
    perceptual: LPIPS
    licences: tuple[str | Mapping[str, Any], ...]


class Destylize:
    """The work on each picture, for `per_picture.solve_pictures`. TrainingError where the networks do not fit."""

    name = "destylize"
    columns = ("picture", "read", "fitted", "face", "content")

    def __init__(self, table: Mapping[str, Any], networks: DestylizeNetworks) -> None:
        self.settings = from_table(DestylizeSettings, table, "recipe.")
        self.networks, self.licences = networks, networks.licences
        base, tuned = networks.base, networks.tuned
        if (base.size, base.style_dim) != (tuned.size, tuned.style_dim):
            raise unfit(
                f"generators of {base.size} and {tuned.size} px, codes of {base.style_dim} and {tuned.style_dim}"
            )
        if networks.encoder.network.codes != base.n_latent:
            raise unfit(f"an encoder of {networks.encoder.network.codes} codes, a generator of {base.n_latent}")
        self.pictures = PictureFolder(self.settings.pictures, base.size)
        self._identity = IdentityLoss(networks.identity)

    def modules(self) -> Mapping[str, nn.Module]:
        n = self.networks
        return {"base": n.base, "tuned": n.tuned, "encoder": n.encoder, "identity": self._identity, "p": n.perceptual}

    def exports(self) -> tuple[tuple[str, str, str], ...]:
        return (("intrinsic", "instyle_code.npy", "-intrinsic"), ("extrinsic", "exstyle_code.npy", ""))

    def solve(self, picture: Tensor, name: str, draw: Draw) -> Generator[dict[str, float], None, Solved]:
        s, base, tuned = self.settings, self.networks.base, self.networks.tuned
        read = self.networks.encoder(picture)  # [1, L, D] in Z+, stage I
        z = read.clone().requires_grad_(True)
        noise = [draw.normal(f"noise {k}", (1, 1, n, n)).to(picture) for k, n in enumerate(tuned.noise_sizes())]
        for level in noise:
            level.requires_grad_(True)
        adam = torch.optim.Adam([z, *noise], s.rate)
        small, aligned = shown_at(picture, s.compare_at), shown_at(picture, ALIGNED_SIZE)
        with torch.no_grad():
            wanted = self.networks.perceptual.features(small)
        for step in range(s.steps):  # stage II
            adam.param_groups[0]["lr"] = s.rate_at(step)
            drawn = tuned.synthesis(tuned.mapping(z), noise)
            seen = self.networks.perceptual.features(shown_at(drawn, s.compare_at))
            terms = {
                "perceptual": s.perceptual * self.networks.perceptual.compare(seen, wanted).sum(),
                "identity": s.identity * self._identity(shown_at(drawn, ALIGNED_SIZE), aligned),
                "spread": s.spread * z.std(dim=1).mean(),
                "noise": s.noise * noise_correlation(noise),
            }
            adam.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            adam.step()
            whiten_(noise)
            yield {key: float(value.detach()) for key, value in terms.items()}
        with torch.no_grad():  # stage III
            fitted = self._kept(z.detach(), read)
            face = base.synthesis(truncate(base.mapping(fitted), s.truncation), base.stored_noise())
            intrinsic = self._kept(self.networks.encoder(face), read)
            shown = [
                picture,
                base.synthesis(base.mapping(read), base.stored_noise()),
                tuned.synthesis(tuned.mapping(z), noise),
                face,
                base.synthesis(base.mapping(intrinsic), base.stored_noise()),
            ]
            strip = torch.cat([shown_at(p, min(STRIP_SIDE, base.size)) for p in shown])
        return Solved(intrinsic[0], read[0], strip.cpu())

    def _kept(self, codes: Tensor, read: Tensor) -> Tensor:
        """Rows of colour and texture as the encoder read them from the picture."""
        return torch.cat([codes[:, : self.settings.keep_from], read[:, self.settings.keep_from :]], dim=1)
