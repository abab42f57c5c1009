"""Exports of a translator: what the files compute, what lies beside them, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from host_bridge.errors import ExportError
from inference_server.export import cattery
from inference_server.export.cattery import export_cattery, torch_for
from inference_server.export.cli import NETWORK, translator_of
from inference_server.export.hosted import decode, encode, hosted
from inference_server.export.onnx import export_onnx
from inference_server.export.scripting import trial
from inference_server.models.cards import Card, Licence, Part, Source
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore, StoredModel
from inference_server.networks.two_stage import Translator
from inference_server.plates.color import srgb_encode
from tests.inference_server.networks.test_two_stage import SMALL, lively


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """A small stored translator with lively weights."""
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    network = lively(Translator(SMALL), 5)
    card = Card(
        id="two-stage-test",
        title="A test's translator",
        purpose="Stylises.",
        authors=("Nobody",),
        licences=(Licence("apache-2-0", "Apache License 2.0", False, "Any use, with notice."),),
        file="x.safetensors",
        container="safetensors",
        sources=(Source("own"),),
        parts={"main": Part(NETWORK, {"widths": list(SMALL)})},
    )
    state = {f"main/{name}": value for name, value in network.state_dict().items()}
    return store.add(card, lambda path: save_file(state, path), {"source_file": "x", "source_sha256": "0" * 64})


@pytest.fixture(scope="module")
def translator(model: StoredModel) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
    return translator_of(model)


def test_curves_are_the_pictures_curves() -> None:
    x = torch.linspace(0, 1, 1000)
    assert torch.allclose(encode(x), srgb_encode(x), atol=1e-6)
    assert torch.allclose(decode(encode(x)), x, atol=1e-6)


def test_the_wrapper_is_the_network_between_the_curves(model: StoredModel, translator: Any) -> None:
    module, network = hosted(*translator), load_network(model)
    x = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        expected = decode(network(encode(x) * 2 - 1) * 0.5 + 0.5)
        assert torch.allclose(module(x), expected, atol=1e-4)
        assert torch.allclose(module(torch.cat([x, x], dim=1)), expected, atol=1e-4)  # more channels are not read


def test_controls_and_values_beyond_display(translator: Any) -> None:
    module = hosted(*translator)
    x = trial((24, 32))
    with torch.no_grad():
        full = module(x)
        over = x - x.clamp(0, 1)
        assert torch.allclose(full - module(x.clamp(0, 1)), over, atol=1e-5)  # carried around the network
        module.strength = 0.5
        assert torch.allclose(module(x), (x + full) / 2, atol=1e-5)
        module.strength = 0.0
        assert torch.equal(module(x), x)
        module.strength, module.exposure = 1.0, 1.0
        brighter = module(x * 0.5)
        module.exposure = 0.0
        assert torch.allclose(brighter, module(x) / 2, atol=1e-5)
        half = module.half()(x.half())
    assert half.dtype == torch.half
    assert (half.float() - full).abs().max() < 0.05


def test_a_cattery_folder(model: StoredModel, translator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written with the torch at hand, as if Nuke had it inside."""
    monkeypatch.setitem(cattery.NUKE_TORCH, "99.0", ".".join(torch.__version__.split(".")[:2]))
    done = export_cattery(model, *translator, "99.0", tmp_path / "out")
    name = "FaceplateTwoStageTest"
    assert sorted(p.name for p in done.files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert f"{name}.pt" in {p.name for p in done.files}
    assert any(t.startswith("loads in torch") for t in done.tried)
    assert any("strength acts" in t for t in done.tried)
    assert any("CatFileCreator" in t for t in done.untried)
    creator = (tmp_path / "out" / f"{name}_make_cat.nk").read_text()
    for line in (
        f"torchScriptFile {name}.pt",
        'channelsIn "rgba.red, rgba.green, rgba.blue"',
        "addUserKnob {7 strength",
    ):
        assert line in creator
    gizmo = (tmp_path / "out" / f"{name}.gizmo").read_text()
    assert gizmo.count("{") == gizmo.count("}")
    assert "T Inference1.strength" in gizmo
    cat = json.loads((tmp_path / "out" / "cat.json").read_text())
    assert (cat["minimum_nuke_version_required"], cat["cats"][0]["filepath"]) == (99.0, f"{name}.gizmo")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["sha256"] == model.sha256


def test_a_torch_newer_than_nukes_is_refused(model: StoredModel, translator: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Nuke 15 has torch 2\.1 inside") as caught:
        export_cattery(model, *translator, "15", tmp_path)
    assert caught.value.code == "export.torch"
    assert "torch==2.1.2" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ExportError, match="not known"):
        torch_for("13")
    with pytest.raises(ExportError, match="no torch that can be asked"):
        export_cattery(model, *translator, "15", tmp_path, python="/nowhere/python")


def test_a_file_that_computes_something_else_is_not_kept(
    model: StoredModel, translator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cattery.NUKE_TORCH, "99.0", "99.0")
    monkeypatch.setattr(cattery, "hosted", lambda state, widths, mixes: lambda x: hosted(state, widths)(x) + 0.01)
    with pytest.raises(ExportError, match="away from the network's"):
        export_cattery(model, *translator, "99.0", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_and_flames_json(model: StoredModel, translator: Any, tmp_path: Path) -> None:
    done = export_onnx(model, *translator, tmp_path / "toon.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toon.json", "toon.onnx"]
    assert done.tried[0].startswith("onnxruntime")
    described = json.loads((tmp_path / "toon.json").read_text())["ModelDescription"]
    assert (described["Inputs"][0]["Name"], described["Outputs"][0]["Name"]) == ("plate", "result")
    assert described["SupportsSceneLinear"] is False


def test_the_command_names_what_cannot_be_exported(model: StoredModel, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "host_bridge.cli", "export", "cattery", "--nuke", "15", "--out", str(tmp_path / "o")]
    said = subprocess.run(
        [*words, "--model", model.id],
        env={"FACEPLATE_MODELS": str(model.folder.path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, "(export.torch)" in said.stderr) == (2, True), said.stderr
    with pytest.raises(ExportError, match="holds no translator"):
        translator_of(model, "refiner")
