"""Folders, shadowing, atomic registration, verification and removal."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from host_bridge.errors import ModelError
from inference_server.models import cli
from inference_server.models.cards import Card
from inference_server.models.importer import import_file
from inference_server.models.loading import load_network, load_tensors
from inference_server.models.store import BUILT_IN, Folder, ModelStore, folders_from, store_of, user_folder
from tests.inference_server.models.conftest import TINY_STYLEGAN2, leftovers, part, state_of
from tests.unprivileged import folder_for_anyone, outcome_without_privileges

Cards = Callable[..., Card]
COMES_WITH = Folder(BUILT_IN)
VECTOR = "[tensors.d]\nshapes = [[3]]\n"


def list_command(text: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(["list", text])


def vector(path: Path, value: float) -> Path:
    torch.save(torch.full((3,), float(value)), path)
    return path


def test_the_licence_travels_with_the_model(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    own = card('licences = ["s-lab-1-0", "mit"]\n' + VECTOR)
    with pytest.raises(ModelError, match=r"may not be used commercially\. S-Lab License 1\.0") as caught:
        import_file(vector(tmp_path / "v.pt", 1), store, own)
    assert caught.value.code == "model.licence"
    assert leftovers(store) == []
    import_file(tmp_path / "v.pt", store, own, accept_licence=True)
    model = store.get("tiny")
    assert model.licence == "S-Lab License 1.0; MIT (non-commercial)"
    assert model.card.noncommercial
    assert model.stored.licence_accepted
    with safe_open(model.path, "pt") as stored:
        about = json.loads(stored.metadata()["faceplate"])
    assert about["licence"] == model.licence
    assert about["noncommercial"] is True
    assert about["source_sha256"] == model.stored.source_sha256
    text = (store.own.path / "tiny.toml").read_text()
    assert "Use and redistribution for non-commercial purposes only" in text


def test_first_folder_wins_and_only_the_users_own_is_written(tmp_path: Path, card: Cards) -> None:
    studio = ModelStore((Folder(tmp_path / "studio", True),))
    import_file(vector(tmp_path / "v.pt", 1), studio, card(VECTOR))
    import_file(vector(tmp_path / "v.pt", 2), studio, card(VECTOR, id="second"))
    both = ModelStore((Folder(tmp_path / "own", True), Folder(tmp_path / "studio")))
    assert both.get("tiny").folder.path == tmp_path / "studio"
    import_file(vector(tmp_path / "v.pt", 3), both, card(VECTOR))
    assert float(load_tensors("tiny", store=both)["d"][0]) == 3
    assert [m.folder.path for m in both.shadowed()] == [tmp_path / "studio"]
    assert set(both.models()) == {"tiny", "second"}
    both.remove("tiny")
    assert leftovers(both) == []
    assert float(load_tensors("tiny", store=both)["d"][0]) == 1
    with pytest.raises(ModelError, match="not yours to change") as caught:
        both.remove("tiny")
    assert caught.value.code == "model.folder"
    with pytest.raises(ModelError, match="no model folder can be written"):
        import_file(tmp_path / "v.pt", ModelStore((Folder(tmp_path / "studio"),)), card(VECTOR, id="third"))
    with pytest.raises(ValueError, match="at most one writable"):
        ModelStore((Folder(tmp_path, True), Folder(tmp_path / "own", True)))


def test_folders_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "a_file"
    file.write_text("x")
    own, studio = tmp_path / "own" / "models", tmp_path / "studio"
    listed = os.pathsep.join(map(str, (file / "below", own, studio)))
    assert folders_from({"FACEPLATE_MODELS": listed}) == (
        Folder(file / "below"),
        Folder(own, True),
        Folder(studio),
        COMES_WITH,
    )
    environment = {"FACEPLATE_MODELS": str(file / "below"), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "d")}
    assert folders_from(environment) == (Folder(file / "below"), Folder(user_folder(environment), True), COMES_WITH)
    assert folders_from({"HOME": str(tmp_path)}) == (Folder(user_folder({"HOME": str(tmp_path)}), True), COMES_WITH)
    if sys.platform == "linux":
        assert user_folder({"HOME": "/h"}) == Path("/h/.local/share/faceplate/models")


def test_a_folder_without_permission_is_a_studio_folder() -> None:
    with folder_for_anyone() as folder:
        studio = folder / "studio"
        studio.mkdir(mode=0o555)
        listed = os.pathsep.join([str(studio), str(folder / "own")])

        def attempt() -> str:
            found = folders_from({"FACEPLATE_MODELS": listed})
            return "as expected" if found == (Folder(studio), Folder(folder / "own", True), COMES_WITH) else str(found)

        assert outcome_without_privileges(attempt) == "as expected"


def test_what_comes_with_faceplate_is_last_stays_and_is_checked(
    tmp_path: Path, card: Cards, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = tmp_path / "packaged"
    import_file(vector(tmp_path / "v.pt", 1), ModelStore((Folder(packaged, True),)), card(VECTOR))
    monkeypatch.setattr("inference_server.models.store.BUILT_IN", packaged)
    models = ModelStore(folders_from({"FACEPLATE_MODELS": str(tmp_path / "own")}))
    assert models.get("tiny").built_in
    assert store_of([str(tmp_path / "own")]).get("tiny").built_in
    assert cli.run(list_command("tiny"), models) == 0
    assert "built in" in capsys.readouterr().out
    with pytest.raises(ModelError, match="comes with Faceplate") as caught:
        models.remove("tiny")
    assert caught.value.code == "model.folder"
    import_file(vector(tmp_path / "v.pt", 2), models, card(VECTOR))
    assert not models.get("tiny").built_in  # one's own takes its place
    models.remove("tiny")
    models.verify("tiny")
    path = models.get("tiny").path
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelError, match="have changed"):
        models.verify("tiny")


def test_replacing_is_asked_for_and_leaves_one_file(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    import_file(vector(tmp_path / "v.pt", 1), store, card(VECTOR))
    with pytest.raises(ModelError, match="already imported") as caught:
        import_file(vector(tmp_path / "v.pt", 2), store, card(VECTOR))
    assert caught.value.code == "model.exists"
    before = store.get("tiny")
    after = import_file(tmp_path / "v.pt", store, card(VECTOR), replace=True).model
    assert before.sha256 != after.sha256
    assert leftovers(store) == [after.path.name, "tiny.toml"]
    other = import_file(vector(tmp_path / "v.pt", 5), store, card(VECTOR, id="tiny-2")).model
    store.remove("tiny")
    assert leftovers(store) == [other.path.name, "tiny-2.toml"]


def test_a_failed_write_leaves_the_old_model(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    old = import_file(vector(tmp_path / "v.pt", 1), store, card(VECTOR)).model

    def full(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="No space left") as caught:
        store.add(old.card, full, {"source_file": "x", "source_sha256": "y"}, replace=True)
    assert caught.value.code == "model.folder"
    assert store.verify("tiny") == old
    assert leftovers(store) == [old.path.name, "tiny.toml"]


def test_a_process_killed_while_storing_registers_nothing(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    """Killed between weights and card: the model does not exist, the next import succeeds and tidies up."""
    card(VECTOR)
    vector(tmp_path / "v.pt", 1)
    code = f"""
import os
from pathlib import Path
from inference_server.models import store as module
from inference_server.models.cards import read_cards
from inference_server.models.importer import import_file
from tests.unprivileged import folder_for_anyone, outcome_without_privileges
publish = module._publish
def killed(draft, target):
    if target.suffix == ".toml":
        os.kill(os.getpid(), 9)
    publish(draft, target)
module._publish = killed
here = Path({str(tmp_path)!r})
models = module.ModelStore((module.Folder(here / "own", True),))
import_file(here / "v.pt", models, read_cards(here / "tiny.card.toml")[0])
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    assert "tiny" not in store
    assert store.models() == {}
    assert store.problems() == []
    assert any(name.endswith(".safetensors") for name in leftovers(store))
    vector(tmp_path / "v.pt", 2)
    model = import_file(tmp_path / "v.pt", store, card(VECTOR)).model
    assert leftovers(store) == [model.path.name, "tiny.toml"]


def test_many_importers_at_once_leave_one_whole_model(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    own = card(VECTOR)
    files = [vector(tmp_path / f"{i}.pt", i) for i in range(4)]
    threads = [
        threading.Thread(target=import_file, args=(file, store, own), kwargs={"replace": True}) for file in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model = store.verify("tiny")
    assert leftovers(store) == [model.path.name, "tiny.toml"]


def test_verify_finds_every_kind_of_damage(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    torch.save(state_of("stylegan2", TINY_STYLEGAN2), tmp_path / "tiny.pt")
    model = import_file(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2))).model
    whole = model.path.read_bytes()
    assert store.verify("tiny") == model
    for bad in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
        model.path.write_bytes(bad)
        with pytest.raises(ModelError, match="have changed") as caught:
            store.verify("tiny")
        assert caught.value.code == "model.stored"
    with pytest.raises(ModelError, match="cannot be read"):
        load_network("tiny", store=store)
    model.path.unlink()
    with pytest.raises(ModelError, match="weights of 'tiny' are missing"):
        store.get("tiny")
    assert [p.code for p in store.problems()] == ["model.stored"]


def test_a_broken_card_hides_its_model_and_is_reported(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    import_file(vector(tmp_path / "v.pt", 1), store, card(VECTOR))
    import_file(vector(tmp_path / "v.pt", 1), store, card(VECTOR, id="good"))
    path = store.own.path / "tiny.toml"
    text = path.read_text()
    for bad in (
        "x = [",
        text.replace("title", "tilte", 1),
        text.replace('id = "tiny"', 'id = "other"', 1),
        text.replace('file = "tiny.', 'file = "../tiny.'),
        text.replace("format = 1", "format = 9"),
    ):
        assert bad != text
        path.write_text(bad)
        assert set(store.models()) == {"good"}
        assert len(store.problems()) == 1
        with pytest.raises(ModelError):
            store.get("tiny")
    store.remove("tiny")
    assert store.problems() == []


def test_getting_what_is_not_there_says_how_to_get_it(store: ModelStore) -> None:
    with pytest.raises(ModelError, match="faceplate models pull vtoonify-encoder") as caught:
        store.get("vtoonify-encoder")
    assert caught.value.code == "model.not_imported"
    with pytest.raises(ModelError, match="show e4e-ffhq") as caught:
        store.get("e4e-ffhq")
    with pytest.raises(ModelError, match="unknown model 'e4e-ffhqq'") as caught:
        store.get("e4e-ffhqq")
    assert caught.value.code == "model.unknown"
    with pytest.raises(ModelError):
        store.get("../own/tiny")


def test_a_trained_models_safetensors_with_its_card(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    """What a training run writes: parts side by side in one safetensors file."""
    from safetensors.torch import save_file

    state = state_of("stylegan2", TINY_STYLEGAN2)
    judge = {"size": 16, "channel_max": 8}
    other = state_of("stylegan2-discriminator", judge)
    save_file({f"net.{k}": v for k, v in state.items()} | {f"judge.{k}": v for k, v in other.items()}, tmp_path / "t")
    text = 'container = "safetensors"\n' + part("stylegan2", TINY_STYLEGAN2, name="net", prefix="net.")
    text += part("stylegan2-discriminator", judge, name="judge", prefix="judge.")
    import_file(tmp_path / "t", store, card(text))
    loaded = load_network("tiny", part="net", store=store).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    save_file({f"net.{k}": v for k, v in state.items()} | {"third.x": torch.ones(1)}, tmp_path / "t")
    with pytest.raises(ModelError, match=r"1 entries unexpected \(third\.x\)"):
        import_file(tmp_path / "t", store, card(text), replace=True)
