"""`faceplate models ...` as an artist runs it."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from host_bridge.errors import ExitCode, ModelError
from inference_server.models import cards as cards_module
from inference_server.models.cards import Card, read_cards
from inference_server.models.cli import add_parser, run
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore
from tests.inference_server.models.conftest import TINY_STYLEGAN2, TINY_VTOONIFY, leftovers, part, state_of
from tests.inference_server.models.test_import_structures import codes_file
from tests.inference_server.models.test_pull import HUB_CARD, Hub, serve

__all__ = ["serve"]  # a fixture

Cards = Callable[..., Card]
Faceplate = Callable[..., int]


@pytest.fixture
def faceplate(store: ModelStore) -> Faceplate:
    def command(*arguments: object) -> int:
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        return run(parser.parse_args(["models", *map(str, arguments)]), store)

    return command


def test_tiny_vtoonify_from_file_to_network(
    tmp_path: Path, store: ModelStore, card: Cards, faceplate: Faceplate, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of("vtoonify", TINY_VTOONIFY)
    torch.save({"g_ema": state, "extra": 3}, tmp_path / "tiny.pt")
    card('licences = ["s-lab-1-0"]\n' + part("vtoonify", TINY_VTOONIFY, root="g_ema"))
    toml = tmp_path / "tiny.card.toml"
    with pytest.raises(ModelError, match="may not be used commercially") as caught:
        faceplate("import", tmp_path / "tiny.pt", "--card", toml)
    assert caught.value.exit_code == ExitCode.NOT_ALLOWED
    assert "S-Lab License 1.0: Use and redistribution for non-commercial" in capsys.readouterr().err
    assert leftovers(store) == []
    assert faceplate("import", tmp_path / "tiny.pt", "--card", toml, "--accept-licence") == 0
    said = capsys.readouterr()
    model = store.get("tiny")
    assert said.out == f"tiny {model.sha256} {model.path}\n"
    assert "100% done" in said.err
    assert "left out: extra" in said.err
    assert "nothing reads the others" in said.err
    assert faceplate("list", "--imported", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "id": "tiny",
        "state": "imported",
        "noncommercial": True,
        "licence": "S-Lab License 1.0 (non-commercial)",
        "title": "A tiny model",
        "path": str(model.path),
        "sha256": model.sha256,
    }
    assert faceplate("verify") == 0
    assert capsys.readouterr().out == f"tiny  ok  {model.path}\n"
    assert faceplate("show", "tiny") == 0
    assert model.sha256 in capsys.readouterr().out
    assert isinstance(load_network("tiny", store=store), torch.nn.Module)
    assert faceplate("remove", "tiny") == 0
    assert leftovers(store) == []
    with pytest.raises(ModelError, match="unknown model 'tiny'"):
        faceplate("remove", "tiny")


def test_on_a_terminal_the_licence_is_asked_for(
    tmp_path: Path, store: ModelStore, card: Cards, faceplate: Faceplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pty = pytest.importorskip("pty")
    torch.save(torch.ones(3), tmp_path / "v.pt")
    card('licences = ["cc-by-nc"]\n[tensors.d]\nshapes = [[3]]')
    arguments = ("import", tmp_path / "v.pt", "--card", tmp_path / "tiny.card.toml")
    for answer, accepted in (("n\n", False), ("\n", False), ("yes\n", True)):
        master, slave = pty.openpty()
        os.write(master, answer.encode())
        with open(slave, closefd=False) as keyboard, open(slave, "w") as screen, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", keyboard)
            patch.setattr(sys, "stderr", screen)
            if accepted:
                assert faceplate(*arguments) == 0
            else:
                with pytest.raises(ModelError, match="may not be used commercially"):
                    faceplate(*arguments)
        os.close(master)
        assert ("tiny" in store) is accepted


def test_list_and_show_name_state_licence_and_source(faceplate: Faceplate, capsys: pytest.CaptureFixture[str]) -> None:
    assert faceplate("list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "pull      non-commercial" in lines["vtoonify-d-cartoon-s-d"]
    assert "by hand" in lines["raft-things"]
    assert "non-commercial" not in lines["raft-things"]
    assert "listed" in lines["dlib-68"]
    assert faceplate("show", "vtoonify-d-cartoon-s-d") == 0
    text = " ".join(capsys.readouterr().out.split())
    for fact in (
        "Shuai Yang",
        "S-Lab License 1.0",
        "NVIDIA Source Code License",
        "https://huggingface.co/PKUWilliamYang/VToonify/blob/main/models/vtoonify_d_cartoon/vtoonify_s_d.pt",
        "666,594,870 bytes",
        "d9f938e99995045ac400f2ba35ee2b6aa482e5811765adbb28d00790bfb8aeca",
        "faceplate models pull vtoonify-d-cartoon-s-d",
    ):
        assert fact in text
    with pytest.raises(ModelError, match="Did you mean"):
        faceplate("show", "vtoonify-d-cartoon-s")


def test_a_shown_card_can_be_given_back(
    tmp_path: Path, faceplate: Faceplate, capsys: pytest.CaptureFixture[str]
) -> None:
    for model_id in ("vtoonify-encoder", "direction-stit-smile", "vtoonify-codes-comic", "hrnet-300w"):
        assert faceplate("show", model_id, "--toml") == 0
        (tmp_path / "card.toml").write_text(capsys.readouterr().out)
        assert read_cards(tmp_path / "card.toml") == [cards_module.official_card(model_id)]


def test_pull_by_hand_says_what_to_do_and_that_nothing_was_done(
    store: ModelStore, faceplate: Faceplate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faceplate("pull", "hrnet-wflw") == ExitCode.MISSING_INPUT
    said = capsys.readouterr().out
    assert "https://1drv.ms/u/s!AiWjZ1LamlxzdTsr_9QZCwJsn5U" in said
    assert "faceplate models import HR18-WFLW.pth --id hrnet-wflw" in said
    with pytest.raises(ModelError, match="MediaPipe"):
        faceplate("pull", "vtoonify-face-landmarks")
    assert leftovers(store) == []


def test_pull_fetches_and_imports_an_official_card(
    serve: Callable[[bytes], Hub],
    tmp_path: Path,
    store: ModelStore,
    faceplate: Faceplate,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole of `pull`, with a cards folder whose one card points at the local server's repository."""
    rng = np.random.default_rng(0)
    codes_file(tmp_path / "c.npy", {f"{i}.jpg": rng.standard_normal((1, 4, 8)).astype(np.float32) for i in range(3)})
    hub = serve((tmp_path / "c.npy").read_bytes())
    folder = tmp_path / "cards"
    folder.mkdir()
    text = (
        'id = "test-codes"\ntitle = "t"\npurpose = "p"\nauthors = ["a"]\nlicences = ["s-lab-1-0"]\nfile = "tiny.pt"\n'
        f'container = "npy-dict"\nstyle_codes = {{ shape = [1, 4, 8], count = 3 }}\nsha256 = "{hub.etag}"\n'
    )
    (folder / "test.toml").write_text(text + HUB_CARD)
    (folder / "licences.toml").write_text((cards_module.CARDS_FOLDER / "licences.toml").read_text())
    monkeypatch.setattr(cards_module, "CARDS_FOLDER", folder)
    cards_module._official.cache_clear()
    try:
        with pytest.raises(ModelError, match="may not be used commercially"):
            faceplate("pull", "test-codes", "--endpoint", hub.url)
        assert hub.ranges == []  # the licence comes first
        assert faceplate("pull", "test-codes", "--endpoint", hub.url, "--accept-licence") == 0
        assert capsys.readouterr().out.startswith("test-codes ")
        assert store.get("test-codes").stored.code_names == ("0.jpg", "1.jpg", "2.jpg")
        assert list((store.own.path / ".downloads").iterdir()) == []
        with pytest.raises(ModelError, match="already imported"):
            faceplate("pull", "test-codes", "--endpoint", hub.url, "--accept-licence")
        again = ("pull", "test-codes", "--endpoint", hub.url, "--accept-licence", "--replace", "--keep")
        assert faceplate(*again) == 0
        assert (store.own.path / ".downloads" / "test-codes" / "tiny.pt").read_bytes() == hub.data
    finally:
        monkeypatch.undo()
        cards_module._official.cache_clear()


def test_verify_fails_when_one_model_does(
    tmp_path: Path, store: ModelStore, card: Cards, faceplate: Faceplate, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(state_of("stylegan2", TINY_STYLEGAN2), tmp_path / "tiny.pt")
    for name in ("one", "two"):
        card(part("stylegan2", TINY_STYLEGAN2), id=name)
        faceplate("import", tmp_path / "tiny.pt", "--card", tmp_path / f"{name}.card.toml")
    with store.get("one").path.open("ab") as stream:
        stream.write(b"x")
    capsys.readouterr()
    assert faceplate("verify") == ExitCode.MISSING_INPUT
    said = capsys.readouterr()
    assert said.out == f"two  ok  {store.get('two').path}\n"
    assert "the weights of 'one' have changed" in said.err
    assert faceplate("verify", "two") == 0


def test_the_list_tells_of_hidden_and_broken_models(
    tmp_path: Path, card: Cards, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.ones(3), tmp_path / "v.pt")
    card("[tensors.d]\nshapes = [[3]]")
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = ["models", "import", str(tmp_path / "v.pt"), "--card", str(tmp_path / "tiny.card.toml")]
    for name in ("studio", "own"):
        assert run(parser.parse_args(arguments), ModelStore((Folder(tmp_path / name, True),))) == 0
    (tmp_path / "studio" / "broken.toml").write_text("x = [")
    capsys.readouterr()
    both = ModelStore((Folder(tmp_path / "own", True), Folder(tmp_path / "studio")))
    assert run(parser.parse_args(["models", "list", "--imported"]), both) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert f"tiny in {tmp_path / 'studio'} is hidden" in said.err
    assert "broken.toml" in said.err


def test_help_names_the_environment_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["models", "--help"])
    said = capsys.readouterr().out
    assert "FACEPLATE_MODELS" in said
    assert "Exit status" in said


def test_errors_write_nothing_to_standard_output(
    tmp_path: Path, faceplate: Faceplate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for arguments in (("import", tmp_path / "none.pt"), ("show", "nobody"), ("verify", "nobody")):
        with pytest.raises(ModelError):
            faceplate(*arguments)
        assert capsys.readouterr().out == ""
