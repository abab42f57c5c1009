"""A small StyleGAN2, its encoder and two directions in a model store, a pipeline that sees them, and a stand-in that
draws what it was shown, so that seams and alignment can be judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.effects.style_portrait.networks import Networks
from inference_server.models.store import Folder, ModelStore
from tests.inference_server.effects.vtoonify.conftest import Lab, add_model, network
from tests.portrait import COLORSPACE, write_shot

WIDTH, SIZE, LAYERS = 16, 64, 10
G2 = {"size": SIZE, "style_dim": WIDTH, "n_mlp": 2, "channel_max": WIDTH}
G3 = {
    "resolution": SIZE,
    "channel_base": 1024,
    "channel_max": WIDTH,
    "z_dim": WIDTH,
    "w_dim": WIDTH,
    "num_layers": 8,
}
E4E = {"codes": LAYERS, "image_size": 64, "widths": [WIDTH] * 4, "depths": [1] * 4}


def add_encoder(store: ModelStore, folder: Path, model_id: str, config: Mapping[str, Any]) -> None:
    weights = network("e4e", config, 2)
    average = torch.from_numpy(np.random.default_rng(5).normal(size=(config["codes"], WIDTH)).astype(np.float32))
    saved = {"state_dict": {f"encoder.{k}": v for k, v in weights.state_dict().items()}, "latent_avg": average}
    part = {"network": "e4e", "root": "state_dict", "prefix": "encoder.", "config": dict(config)}
    tensors = {"latent_avg": {"path": "latent_avg", "shapes": [[config["codes"], WIDTH]]}}
    add_model(store, folder, model_id, saved, parts={"main": part}, tensors=tensors)


def add_direction(store: ModelStore, folder: Path, name: str, rows: Tensor) -> None:
    tensors = {"direction": {"path": "", "shapes": [list(rows.shape)]}}
    add_model(store, folder, f"direction-{name}", rows, tensors=tensors)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """gan2 and gan3 (R), enc10 for both, enc8 for neither; directions age, smile, tint (row 1), and wide: too wide."""
    folder = tmp_path_factory.mktemp("files")
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    saved = {"g_ema": network("stylegan2", G2, 1).state_dict()}
    add_model(store, folder, "gan2", saved, parts={"main": {"network": "stylegan2", "root": "g_ema", "config": G2}})
    r = network("stylegan3", G3, 3).state_dict()
    add_model(store, folder, "gan3", r, parts={"main": {"network": "stylegan3", "config": G3}})
    add_encoder(store, folder, "enc10", E4E)
    add_encoder(store, folder, "enc8", {**E4E, "codes": 8})
    rng = torch.Generator().manual_seed(7)
    for name in ("age", "smile"):
        row = torch.randn(1, WIDTH, generator=rng)
        add_direction(store, folder, name, row / row.norm())
    rows = torch.zeros(LAYERS, WIDTH)
    rows[1, 1] = 1
    add_direction(store, folder, "tint", rows)
    add_direction(store, folder, "wide", torch.ones(1, WIDTH + 1))
    return store


@pytest.fixture(scope="session")
def lab(models: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Without a face parser: the built-in mattes stand in."""
    made = Lab(tmp_path_factory.mktemp("lab"), models)
    yield made
    made.runner.close()


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four frames of the portrait, 224 px."""
    return write_shot(tmp_path_factory.mktemp("shot"), range(1001, 1005), seed=5)


def job(
    pattern: str,
    folder: Path,
    edits: list[tuple[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    **changes: Any,
) -> JobSpec:
    """A render without long steps; one edit unless others are given."""
    spec = JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect="style_portrait",
        params={"model": "gan2", "adapt": False, **(params or {})},
        edits=[list(e) for e in ([("age", 2.0)] if edits is None else edits)],
        output=str(folder / "o.%04d.exr"),
    )
    return replace(spec, **changes)


@dataclass(eq=False)
class Mirror:
    """An encoder that keeps what it sees, under a number in the code, and a generator that draws that, a little soft.

    What an edit adds to rows 1 to 3 of the code tints the picture, moves it right and brightens it.
    """

    size: int = 256
    layers: int = LAYERS
    width: int = WIDTH
    turns: bool = False
    module: nn.Module = field(default_factory=nn.Identity)
    seen: list[Tensor] = field(default_factory=list)

    def read(self, faces: Tensor) -> Tensor:
        codes = torch.zeros(len(faces), self.layers, self.width)
        for code, face in zip(codes, faces, strict=True):
            code[0, 0] = len(self.seen)
            self.seen.append(face)
        return codes

    def __call__(self, codes: Tensor, transforms: Tensor | None = None) -> Tensor:
        (code,) = codes
        picture = functional.interpolate(
            self.seen[round(float(code[0, 0]))][None], size=(self.size, self.size), mode="bicubic"
        ).clamp(-1, 1)
        tint, shift, light = (float(v) for v in code[1:4, 1])
        if shift:
            theta = torch.tensor([[[1.0, 0.0, -2 * shift], [0.0, 1.0, 0.0]]])
            grid = functional.affine_grid(theta, list(picture.shape), align_corners=False)
            picture = functional.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return picture * (1 + 0.2 * light) + tint * torch.tensor([0.2, 0.0, -0.2]).view(1, 3, 1, 1)

    def trainable(self) -> list[nn.Parameter]:
        return []


class _Reading:
    """The encoder's half of a Mirror."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.size, self.layers, self.width = mirror.size, mirror.layers, mirror.width

    def __call__(self, faces: Tensor) -> Tensor:
        return self._mirror.read(faces)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """In the place of both networks."""
    made = Mirror()
    monkeypatch.setattr(Networks, "encoder", lambda *_: _Reading(made))
    monkeypatch.setattr(Networks, "generator", lambda *_: made)
    return made
