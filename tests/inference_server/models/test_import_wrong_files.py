"""Half-downloaded, renamed and wrong files: a clear error that says what the file looks like, nothing registered."""

from __future__ import annotations

import gzip
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from host_bridge.errors import ModelError
from inference_server.models.cards import Card, official_card, official_cards
from inference_server.models.importer import card_for_import, identify, import_file
from inference_server.models.store import ModelStore, sha256_of
from tests.inference_server.models.conftest import TINY_STYLEGAN2, leftovers, part, state_of, write_nvidia
from tests.inference_server.models.test_import_structures import CODES, SG2_BUFFERS, as_nvidia, codes_file

Cards = Callable[..., Card]
STYLEGAN2 = part("stylegan2", TINY_STYLEGAN2, root="g_ema")


def write_html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>")


def write_lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 666594870\n")


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("models/raft-things.pth", b"x")


def write_half(path: Path) -> None:
    torch.save({"g_ema": state_of("stylegan2", TINY_STYLEGAN2)}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_safetensors(path: Path) -> None:
    save_file({"w": torch.ones(1)}, path)


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"x" * 100))


def write_tensorflow(path: Path) -> None:
    path.write_bytes(pickle.dumps((1, 2)))


def write_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))


WRONG = [
    (write_html, "model.wrong_file", "web page saved under the file's name: Google Drive's notice"),
    (write_lfs, "model.wrong_file", "git-lfs pointer"),
    (write_zip, "model.wrong_file", r"zip archive that holds models/raft-things\.pth"),
    (write_half, "model.damaged", "cut short"),
    (write_safetensors, "model.wrong_file", "safetensors"),
    (write_gzip, "model.wrong_file", "unpack it first"),
    (write_tensorflow, "model.wrong_file", "a Python pickle"),
    (write_array, "model.wrong_file", "a NumPy array"),
    (lambda p: p.write_text('{"error": "not found"}'), "model.wrong_file", "text file that begins with .*not found"),
    (lambda p: p.write_bytes(b""), "model.damaged", "empty"),
    (lambda p: p.write_bytes(bytes(range(200, 256)) * 9), "model.wrong_file", "no format Faceplate knows"),
    (lambda p: p.mkdir(), "model.wrong_file", "it is a folder"),
    (lambda p: None, "model.wrong_file", "no such file"),
]


@pytest.mark.parametrize(("write", "code", "says"), WRONG)
def test_wrong_kinds_are_named(
    tmp_path: Path, store: ModelStore, card: Cards, write: Callable[[Path], None], code: str, says: str
) -> None:
    write(tmp_path / "tiny.pt")
    with pytest.raises(ModelError, match=says) as caught:
        import_file(tmp_path / "tiny.pt", store, card("bytes = 666594870\n" + STYLEGAN2))
    if caught.value.code != "model.damaged":
        assert caught.value.code == code
    with pytest.raises(ModelError, match=says) as caught:
        import_file(tmp_path / "tiny.pt", store, card(STYLEGAN2))
    assert caught.value.code == code
    assert caught.value.remedy
    assert leftovers(store) == []


def test_half_download_says_how_much_is_there(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    torch.save({"g_ema": state_of("stylegan2", TINY_STYLEGAN2)}, tmp_path / "tiny.pt")
    size = (tmp_path / "tiny.pt").stat().st_size
    write_half(tmp_path / "tiny.pt")
    with pytest.raises(ModelError, match=f"it has {size // 2} of {size} bytes"):
        import_file(tmp_path / "tiny.pt", store, card(f"bytes = {size}\n" + STYLEGAN2))


def test_another_file_of_the_right_kind_is_told_by_its_hash(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    torch.save({"g_ema": state_of("stylegan2", TINY_STYLEGAN2)}, tmp_path / "tiny.pt")
    digest = sha256_of(tmp_path / "tiny.pt")
    size = (tmp_path / "tiny.pt").stat().st_size
    with pytest.raises(ModelError, match=f"expected sha256 {'0' * 64}.*got {digest}") as caught:
        import_file(tmp_path / "tiny.pt", store, card(f'sha256 = "{"0" * 64}"\nbytes = {size}\n' + STYLEGAN2))
    assert caught.value.code == "model.hash"
    with pytest.raises(ModelError, match=f"expected 7 bytes .*, got {size}"):
        import_file(tmp_path / "tiny.pt", store, card("bytes = 7\n" + STYLEGAN2))
    assert leftovers(store) == []
    import_file(tmp_path / "tiny.pt", store, card(f'sha256 = "{digest}"\n' + STYLEGAN2))


def test_differences_are_counted_and_named(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    state = state_of("stylegan2", TINY_STYLEGAN2)
    own = card(STYLEGAN2)

    def told(content: object) -> str:
        torch.save(content, tmp_path / "tiny.pt")
        with pytest.raises(ModelError) as caught:
            import_file(tmp_path / "tiny.pt", store, own)
        assert caught.value.code in ("model.mismatch", "model.damaged")
        assert leftovers(store) == []
        return str(caught.value)

    assert "expected an entry 'g_ema' as in 'A tiny model', found generator" in told({"generator": state})
    assert "1 entries missing (input.input)" in told({"g_ema": {k: v for k, v in state.items() if k != "input.input"}})
    assert "1 entries unexpected (more)" in told({"g_ema": {**state, "more": torch.ones(1)}})
    wrong = told({"g_ema": {**state, "style.1.bias": torch.ones(9)}})
    assert "style.1.bias: expected float32 [8], got float32 [9]" in wrong
    assert "got a list" in told({"g_ema": {**state, "style.1.bias": [1.0]}})
    infinite = told({"g_ema": {**state, "style.1.bias": torch.full((8,), float("inf"))}})
    assert "style.1.bias holds values that are not finite" in infinite


def test_weights_of_another_network_are_recognised(tmp_path: Path, store: ModelStore) -> None:
    """A real-size face parser given as VToonify's network: the error names what it is."""
    torch.save(state_of("bisenet", {}), tmp_path / "faceparsing.pth")
    vtoonify = official_card("vtoonify-d-any")
    with pytest.raises(ModelError, match="191 of 191 names and shapes of 'bisenet-faceparsing'") as caught:
        import_file(tmp_path / "faceparsing.pth", store, vtoonify, accept_licence=True)
    assert caught.value.code == "model.mismatch"
    assert leftovers(store) == []
    assert identify(tmp_path / "faceparsing.pth").id == "bisenet-79999"  # the other card knows its hash


def test_identify_by_content_name_and_hash(tmp_path: Path) -> None:
    state = state_of("raft", dict(official_card("raft-things").parts["main"].config))
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "raft-sintel.pth")
    assert identify(tmp_path / "raft-sintel.pth").id == "raft-sintel"
    (tmp_path / "raft-sintel.pth").rename(tmp_path / "renamed.pth")
    with pytest.raises(ModelError, match=r"no single card fits") as caught:
        identify(tmp_path / "renamed.pth")
    assert caught.value.code == "model.ambiguous"
    assert sorted(caught.value.value) == ["raft-chairs", "raft-kitti", "raft-sintel", "raft-things"]
    known = next(c for c in official_cards() if c.sha256)
    assert identify(tmp_path / "renamed.pth", known.sha256).id == known.id
    np.save(tmp_path / "smile.npy", np.zeros((18, 512)))
    assert identify(tmp_path / "smile.npy").id == "direction-stit-smile"
    codes_file(tmp_path / "exstyle_code.npy", {"a": np.zeros((1, 18, 512), np.float32)})
    with pytest.raises(ModelError, match="none of the 5 files of that name whose hash is known"):
        identify(tmp_path / "exstyle_code.npy")


def test_templates_take_an_id_of_ones_own(tmp_path: Path) -> None:
    own = card_for_import(None, "my-style", "vtoonify-d-any")
    assert own is not None
    assert own.id == "my-style"
    assert own.noncommercial
    with pytest.raises(ModelError, match="needs an id"):
        card_for_import(None, None, "vtoonify-d-any")
    with pytest.raises(ModelError, match="not a template"):
        card_for_import(None, "my-style", "raft-small")
    with pytest.raises(ModelError, match="a card's id already"):
        card_for_import(None, "raft-small", "vtoonify-d-any")
    with pytest.raises(ModelError, match="lower-case"):
        card_for_import(None, "My Style", "vtoonify-d-any")


def test_files_that_are_only_listed_say_why(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(ModelError, match="MediaPipe") as caught:
        import_file(tmp_path / "x", store, official_card("dlib-68"), accept_licence=True)
    assert caught.value.code == "model.unsupported"


# ------------------------------------------------------------------------------------------ damage by chance


def samples(tmp_path: Path, card: Cards) -> Iterator[tuple[Path, Card]]:
    state = state_of("stylegan2", {**TINY_STYLEGAN2, "size": 8})
    tiny = part("stylegan2", {**TINY_STYLEGAN2, "size": 8}, root="g_ema")
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pt"
        torch.save({"g_ema": state}, path, _use_new_zipfile_serialization=not legacy)
        yield path, card(tiny)
    codes_file(tmp_path / "c.npy", {f"{i}.jpg": np.ones((1, 4, 8), np.float32) for i in range(3)})
    yield tmp_path / "c.npy", card(CODES)
    np.save(tmp_path / "d.npy", np.ones((2, 8)))
    yield tmp_path / "d.npy", card('container = "npy"\n[tensors.d]\nshapes = [[2, 8]]')
    write_nvidia(tmp_path / "g.pkl", as_nvidia(state_of("stylegan2", TINY_STYLEGAN2), 16), SG2_BUFFERS)
    text = part("stylegan2", TINY_STYLEGAN2, root="G_ema", convert="stylegan2-ada")
    text += '[tensors.latent_avg]\npath = "latent_avg"\nshapes = [[8]]\n'
    yield tmp_path / "g.pkl", card('container = "nvidia-pickle"\n' + text)


@pytest.mark.parametrize("number", range(5))
def test_truncated_and_fuzzed_files_never_raise_anything_else(
    tmp_path: Path, store: ModelStore, card: Cards, number: int
) -> None:
    """Cut anywhere: an error. Bytes changed anywhere: an error, or an import of the right names and shapes."""
    path, own = list(samples(tmp_path, card))[number]
    whole = path.read_bytes()
    rng = random.Random(number)
    cuts = [1, 2, 8, 64, len(whole) - 1] + [rng.randrange(1, len(whole)) for _ in range(25)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError):
            import_file(path, store, own)
        assert leftovers(store) == []
    failed = 0
    for _ in range(80):
        data = bytearray(whole)
        limit = min(len(data), 4000) if rng.random() < 0.7 else len(data)  # headers and pickles more often
        for _change in range(rng.choice((1, 1, 4, 30))):
            data[rng.randrange(limit)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            import_file(path, store, own)
        except ModelError:
            failed += 1
            assert leftovers(store) == []
        else:
            store.verify("tiny")
            store.remove("tiny")
    assert failed > 20
    path.write_bytes(whole)
    import_file(path, store, own)
    assert "tiny" in store
