"""Small networks in the published structure, imported into a model store of their own, and a pipeline that sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.config import ServerConfig
from inference_server.effects.vtoonify.networks import Stylist
from inference_server.models.builders import build
from inference_server.models.cards import read_cards
from inference_server.models.importer import import_file
from inference_server.models.store import Folder, ModelStore
from inference_server.pipeline import PipelineRunner
from inference_server.runs import JobContext, Planned, RunEvent
from inference_server.shots.store import ShotStore
from tests.plate_files import independent_read
from tests.portrait import COLORSPACE, write_shot

WIDTH = 16
D = {"backbone": "dualstylegan", "style_dim": WIDTH, "n_mlp": 8, "num_res_layers": 2, "channel_max": WIDTH}
T = {**D, "backbone": "toonify"}
ENCODER = {"space": "z+", "codes": 18, "widths": [WIDTH] * 4, "depths": [1] * 4}
STYLES = ("Ann_01.jpg", "Bob_02.jpg", "Cleo_03.jpg")
CODES = "vtoonify-codes-small"


def network(name: str, config: Mapping[str, Any], seed: int) -> nn.Module:
    """Fresh weights; what starts at zero gets small numbers, so that nothing is without effect."""
    torch.manual_seed(seed)
    built = build(name, config)
    with torch.no_grad():
        for value in built.parameters():
            if not value.any():
                value.normal_(0, 0.05)
    return built


def add_model(store: ModelStore, folder: Path, model_id: str, saved: object, **card: Any) -> None:
    """Import an object as `torch.save` or `numpy.save` writes it, with a card that says what it is."""
    path = folder / f"{model_id}.pt"
    if card.get("container") == "npy-dict":
        boxed = np.empty((), object)
        boxed[()] = saved
        np.save(path.with_suffix(".npy"), boxed)
        path = path.with_suffix(".npy")
    else:
        torch.save(saved, path)
    about = {"id": model_id, "title": f"Small {model_id}", "purpose": "tests", "authors": ["nobody"]}
    table = {**about, "file": path.name, "licences": ["mit"], **card}
    toml = folder / f"{model_id}.card.toml"
    toml.write_text(tomli_w.dumps(table), encoding="utf-8")
    import_file(path, store, read_cards(toml)[0])


def add_vtoonify(store: ModelStore, folder: Path, model_id: str, config: Mapping[str, Any], **facts: Any) -> None:
    saved = {"g_ema": network("vtoonify", config, len(model_id)).state_dict()}
    parts = {"main": {"network": "vtoonify", "root": "g_ema", "config": dict(config)}}
    card = {"vtoonify": {"codes": CODES, **facts}} if config["backbone"] == "dualstylegan" else {}
    add_model(store, folder, model_id, saved, parts=parts, **card)


def add_support(store: ModelStore, folder: Path) -> None:
    """The style codes and the encoder."""
    rng = np.random.default_rng(5)
    codes = {name: rng.normal(size=(1, 18, WIDTH)).astype(np.float32) for name in STYLES}
    shape = {"shape": [1, 18, WIDTH], "count": len(STYLES)}
    add_model(store, folder, CODES, codes, container="npy-dict", style_codes=shape)
    encoder = {f"encoder.{k}": v for k, v in network("psp", ENCODER, 2).state_dict().items()}
    average = torch.from_numpy(rng.normal(size=(18, WIDTH)).astype(np.float32))
    part = {"network": "psp", "root": "state_dict", "prefix": "encoder.", "config": ENCODER}
    tensors = {"latent_avg": {"path": "latent_avg", "shapes": [[18, WIDTH]]}}
    saved = {"state_dict": encoder, "latent_avg": average}
    add_model(store, folder, "vtoonify-encoder", saved, parts={"main": part}, tensors=tensors)


def add_parser(store: ModelStore, folder: Path) -> None:
    part = {"network": "bisenet", "config": {"width": 8}}
    saved = network("bisenet", {"width": 8}, 3).state_dict()
    add_model(store, folder, "bisenet-faceparsing", saved, parts={"main": part})


class Lab:
    """A pipeline, its shot store and its models."""

    def __init__(self, root: Path, models: ModelStore, device: str = "cpu", **config: Any) -> None:
        folders = tuple(str(folder.path) for folder in models.folders)
        self.models = models
        self.config = ServerConfig(shots=str(root / "shots"), models=folders, threads=2, **config)
        self.store = ShotStore(self.config.shots_path)
        self.runner = PipelineRunner(device, self.config)

    def run(self, spec: JobSpec) -> list[RunEvent]:
        return list(self.runner.run(spec, JobContext("test")))


def job(pattern: str, folder: Path, params: Mapping[str, Any] | None = None, **changes: Any) -> JobSpec:
    """A render with small crops, so that a frame takes a fraction of a second."""
    small = {f"padding_{side}": 72 for side in ("left", "right", "top", "bottom")}
    spec = JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect="vtoonify",
        params={"model": "d-any", "style": "Bob_02", **small, **(params or {})},
        output=str(folder / "o.%04d.exr"),
    )
    return replace(spec, **changes)


def plan_of(events: list[RunEvent]) -> dict[str, Any]:
    """The effect's part of the numeric plan."""
    plan = next(e.plan for e in events if isinstance(e, Planned))
    json.dumps(plan)
    return dict(plan["vtoonify"])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """d-any (-Dsdc: any style and degree, colour transfer), d-keep (-Dsd), d-one (-D: style 2, degree 0.5), t."""
    folder = tmp_path_factory.mktemp("files")
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    add_vtoonify(store, folder, "d-any", D, color_transfer=True)
    add_vtoonify(store, folder, "d-keep", D, first_style=1)
    add_vtoonify(store, folder, "d-one", D, style=2, degree=0.5)
    add_vtoonify(store, folder, "t", T)
    add_support(store, folder)
    return store


@pytest.fixture(scope="session")
def parsing_models(models: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """The same and a face parser."""
    store = ModelStore((Folder(tmp_path_factory.mktemp("parser"), True),))
    add_parser(store, tmp_path_factory.mktemp("files"))
    return ModelStore((*store.folders, Folder(models.folders[0].path)))


@pytest.fixture(scope="session")
def lab(models: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Without a face parser: the built-in mattes stand in."""
    made = Lab(tmp_path_factory.mktemp("lab"), models)
    yield made
    made.runner.close()


@pytest.fixture(scope="session")
def parsing_lab(parsing_models: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """With a face parser."""
    made = Lab(tmp_path_factory.mktemp("parsing"), parsing_models)
    yield made
    made.runner.close()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that draws what it sees: its input, four times as large."""

    def paint(self: Stylist, x: Tensor, style: Tensor, degree: float) -> Tensor:
        return functional.interpolate(x[:, :3], scale_factor=4, mode="bicubic", align_corners=False).clamp(-1, 1)

    monkeypatch.setattr(Stylist, "paint", paint)


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five frames of the portrait, 224 px."""
    return write_shot(tmp_path_factory.mktemp("shot"), range(1001, 1006))


def encoded(path: str) -> NDArray[np.float32]:
    """[H, W, 3] of an EXR's R, G, B, about as a display shows it."""
    (part,) = independent_read(path)
    linear = np.stack([part[c].astype(np.float32) for c in "RGB"], axis=-1)
    return np.asarray(np.clip(linear, 0, 1) ** np.float32(1 / 2.2), np.float32)
