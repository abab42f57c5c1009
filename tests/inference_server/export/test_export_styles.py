"""Exports of a translator of several styles: each draws what the network draws when it is asked for that style."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from host_bridge.errors import ExportError
from inference_server.export import cattery
from inference_server.export.cattery import export_cattery
from inference_server.export.cli import NETWORK, run, translator_of
from inference_server.export.hosted import decode, encode
from inference_server.export.styles import ALONE, chosen, every
from inference_server.models.cards import Card, Licence, Part, Source, TwoStageSpec
from inference_server.models.store import Folder, ModelStore, StoredModel
from inference_server.networks.two_stage import Translator
from tests.inference_server.networks.test_two_stage import SMALL, lively

# the format is the host's choice
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

STYLES = ("ink", "wash: blue", "oil")


@pytest.fixture(scope="module")
def network() -> Any:
    return lively(Translator(SMALL, len(STYLES)), 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, network: Any) -> StoredModel:
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    card = Card(
        id="three-styles",
        title="A test's translator",
        purpose="Stylises.",
        authors=("Nobody",),
        licences=(Licence("apache-2-0", "Apache License 2.0", False, "Any use, with notice."),),
        file="x.safetensors",
        container="safetensors",
        sources=(Source("own"),),
        parts={"main": Part(NETWORK, {"widths": list(SMALL), "styles": len(STYLES)})},
        two_stage=TwoStageSpec(styles=STYLES),
    )
    state = {f"main/{name}": value for name, value in network.state_dict().items()}
    return store.add(card, lambda path: save_file(state, path), {"source_file": "x", "source_sha256": "0" * 64})


def plain(network: Any, x: torch.Tensor, weights: tuple[float, ...], linear: bool = True) -> torch.Tensor:
    with torch.no_grad():
        coded = encode(x) if linear else x
        drawn = network(coded * 2 - 1, torch.tensor([weights])) * 0.5 + 0.5
    return decode(drawn) if linear else drawn


def test_a_style_is_named_and_mixed() -> None:
    assert chosen(STYLES, "oil").mixes == ((0.0, 0.0, 1.0),)
    assert chosen(STYLES, "wash: blue").mixes == ((0.0, 1.0, 0.0),)
    assert chosen(STYLES, "ink:3, wash: blue:1").mixes == ((0.75, 0.25, 0.0),)
    assert chosen(("own",), "own").mixes == every(("own",)).mixes == ALONE.mixes
    with pytest.raises(ExportError, match="unknown style 'oli'") as caught:
        chosen(STYLES, "ink:1,oli:2")
    assert caught.value.code == "export.style"
    assert all(name in caught.value.remedy for name in STYLES)
    for text in ("ink:-1", "ink:nan", "ink:0", "ink:much"):
        with pytest.raises(ExportError, match="weight"):
            chosen(STYLES, text)


def test_nukes_file_goes_from_style_to_style(
    model: StoredModel, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cattery.NUKE_TORCH, "99.0", ".".join(torch.__version__.split(".")[:2]))
    done = export_cattery(model, *translator_of(model), "99.0", tmp_path, drawn=every(STYLES))
    assert any("style draws each of 3" in text for text in done.tried)
    script = torch.jit.load(str(tmp_path / "FaceplateThreeStyles.pt"))  # type: ignore[no-untyped-call]
    x = torch.rand(1, 3, 21, 30)
    between = {0.0: (1.0, 0.0, 0.0), 1.0: (0.0, 1.0, 0.0), 1.25: (0.0, 0.75, 0.25), 2.0: (0.0, 0.0, 1.0)}
    found = {}
    for style, weights in between.items():
        script.style = style
        found[style] = script(x)
        torch.testing.assert_close(found[style], plain(network, x, weights), atol=1e-4, rtol=0)
    assert (found[0.0] - found[2.0]).abs().max() > 0.01
    script.style = 9.0
    assert torch.equal(script(x), found[2.0])
    knob = 'addUserKnob {7 style l Style t "0 ink, 1 wash: blue, 2 oil; between two, a mix" R 0 2}'
    assert knob in (tmp_path / "FaceplateThreeStyles_make_cat.nk").read_text()
    assert "T Inference1.style}" in (tmp_path / "FaceplateThreeStyles.gizmo").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["styles"]["oil"] == [0, 0, 1]


def test_one_style_fixed_in_nukes_file(
    model: StoredModel, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cattery.NUKE_TORCH, "99.0", ".".join(torch.__version__.split(".")[:2]))
    export_cattery(model, *translator_of(model), "99.0", tmp_path, drawn=chosen(STYLES, "ink:1,oil:3"))
    name = "FaceplateThreeStylesInk1Oil3"  # files of several styles can lie in one folder of Nuke's path
    script = torch.jit.load(str(tmp_path / f"{name}.pt"))  # type: ignore[no-untyped-call]
    x = torch.rand(1, 3, 21, 30)
    torch.testing.assert_close(script(x), plain(network, x, (0.25, 0.0, 0.75)), atol=1e-4, rtol=0)
    for file in (f"{name}_make_cat.nk", f"{name}.gizmo"):
        assert "style" not in (tmp_path / file).read_text().replace("ThreeStyles", "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_command_draws_the_first_style_and_says_so(
    model: StoredModel,
    network: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FACEPLATE_MODELS", str(model.folder.path))
    args = Namespace(kind="onnx", model=model.id, part="", style="", out=tmp_path / "x.onnx")
    assert run(args) == 0
    assert "style: ink (fixed in the file; the model has ink, wash: blue, oil)" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 21, 30)
    (found,) = session.run(None, {"plate": x.numpy()})
    expected = torch.cat([plain(network, one[None], (1.0, 0.0, 0.0), linear=False) for one in x])
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "x.json").read_text())["ModelDescription"]["Name"].endswith(" - ink")
    args.style = "pastel"
    with pytest.raises(ExportError, match="unknown style 'pastel'"):
        run(args)
