"""Small two-stage networks that visibly draw, in a model store of their own, and a pipeline that sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import save_file

from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.config import ServerConfig
from inference_server.models.cards import read_cards
from inference_server.models.importer import import_file
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.two_stage import Refiner, Translator
from inference_server.pipeline import PipelineRunner
from inference_server.runs import JobContext, Planned, RunEvent
from tests.portrait import COLORSPACE, write_shot

WIDTHS = (4, 8, 8)
STYLES = ("plain", "red", "blue")


def translator(styles: int = 1, seed: int = 1) -> Translator:
    """Fresh weights, but that the last layer is strong enough for a picture with contrast."""
    torch.manual_seed(seed)
    network = Translator(WIDTHS, styles)
    with torch.no_grad():
        network.net.last.weight.mul_(4)
    return network


def refiner(seed: int = 2) -> Refiner:
    """A refiner that leans on what it drew before: a change goes on for frames."""
    torch.manual_seed(seed)
    network = Refiner((4, 8))
    with torch.no_grad():
        network.net.last.weight.normal_(0, 0.4)
    return network


def add_model(
    store: ModelStore, folder: Path, model_id: str, spec: Mapping[str, Any], *, styles: int = 1, refined: bool = True
) -> None:
    """Import a pair as training leaves it: half-precision safetensors and a card."""
    networks = {"translator": translator(styles, seed=len(model_id)), **({"refiner": refiner()} if refined else {})}
    tensors = {f"{part}.{name}": v for part, net in networks.items() for name, v in net.state_dict().items()}
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, folder / f"{model_id}.safetensors"
    )
    configs = {"translator": {"widths": list(WIDTHS), "styles": styles}, "refiner": {"widths": [4, 8]}}
    table = {
        "id": model_id,
        "title": f"Small {model_id}",
        "purpose": "tests",
        "authors": ["nobody"],
        "file": f"{model_id}.safetensors",
        "container": "safetensors",
        "licences": ["apache-2-0"],
        "two_stage": dict(spec),
        "parts": {
            part: {"network": f"two-stage-{part}", "prefix": f"{part}.", "config": configs[part]} for part in networks
        },
    }
    card = folder / f"{model_id}.card.toml"
    card.write_text(tomli_w.dumps(table), encoding="utf-8")
    import_file(folder / f"{model_id}.safetensors", store, read_cards(card)[0])


class Lab:
    """A pipeline, its shot store and its models."""

    def __init__(self, root: Path, models: ModelStore, **config: Any) -> None:
        folders = tuple(str(folder.path) for folder in models.folders)
        self.config = ServerConfig(shots=str(root / "shots"), models=folders, threads=1, **config)
        self.runner = PipelineRunner("cpu", self.config)

    def run(self, spec: JobSpec) -> list[RunEvent]:
        return list(self.runner.run(spec, JobContext("test")))


def job(pattern: str, folder: Path, params: Mapping[str, Any] | None = None, **changes: Any) -> JobSpec:
    """A render with small crops, so that a frame takes a fraction of a second."""
    effect = str(changes.get("effect", "two_stage"))
    model = {"model": "styles"} if effect == "two_stage" else {}
    spec = JobSpec(
        kind="render",
        plate=PlateSpec(pattern, colorspace=COLORSPACE),
        effect="two_stage",
        params={**model, **(params or {})},
        output=str(folder / "o.%04d.exr"),
    )
    return replace(spec, **changes)


def plan_of(events: list[RunEvent], effect: str = "two_stage") -> dict[str, Any]:
    """The effect's part of the numeric plan."""
    plan = next(e.plan for e in events if isinstance(e, Planned))
    json.dumps(plan)
    return dict(plan[effect])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """styles (three, refined), alone (no refiner), and for keyframe: painted (whole crop), wide (the full plate)."""
    folder = tmp_path_factory.mktemp("files")
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    small = {"size": 40.0, "padding": [72.0, 72.0, 72.0, 72.0]}
    add_model(store, folder, "styles", {"styles": list(STYLES), **small}, styles=3)
    add_model(store, folder, "alone", small, refined=False)
    add_model(store, folder, "painted", {"keyframe": True, "regions": "crop", "size": 48.0, "padding": [80.0] * 4})
    add_model(store, folder, "wide", {"keyframe": True, "regions": "crop", "crop": "full", "size": 0.0})
    return store


@pytest.fixture(scope="session")
def lab(models: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"), models)
    yield made
    made.runner.close()


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three frames of the portrait, 224 px."""
    return write_shot(tmp_path_factory.mktemp("shot"), range(1001, 1004))


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """A grid on which a short shot has borders: restarts every 5 frames, 4 of pre-roll."""
    from inference_server.effects.two_stage import descriptor

    monkeypatch.setattr(descriptor, "SEGMENT", 5)
    monkeypatch.setattr(descriptor, "PREROLL", 4)
    return 5, 4
