"""Learned transformers of codes: a Latent Transformer from its file, and one that an installed package registers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from host_bridge.errors import FaceplateError, ModelError
from inference_server.directions import CodeEdit, Direction, apply, load, offered
from inference_server.directions.catalog import problems
from inference_server.models.builders import layout
from inference_server.models.cards import official_card
from inference_server.models.importer import card_for_import, import_file
from inference_server.models.store import Folder, ModelStore

ROWS, SIZE, MOVED = 5, 8, 3


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore((Folder(tmp_path / "models", True),))


def _codes(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(3).standard_normal((count, ROWS, SIZE)).astype(np.float32)


def test_the_published_file_has_these_names_and_as_many_values() -> None:
    part = official_card("latent-transformer").parts["main"]
    entries = layout(part.network, part.config).entries
    assert sum(int(np.prod(e.shape)) for e in entries.values()) == 4_727_808
    assert entries["dense.17.weight"].shape == (512, 512)


def test_a_latent_transformer_moves_its_rows_and_restores_the_others(tmp_path: Path, store: ModelStore) -> None:
    torch.manual_seed(0)
    state = {f"dense.{i}.weight": torch.randn(SIZE, SIZE) for i in range(ROWS)}
    state |= {f"dense.{i}.bias": torch.randn(SIZE) for i in range(ROWS)}
    torch.save(state, tmp_path / "tnet_31.pth.tar")
    card = card_for_import(None, "direction-lt-smiling", "latent-transformer")
    assert card is not None
    small = msgspec.structs.replace(card.parts["main"], config={"rows": ROWS, "size": SIZE, "moved": MOVED})
    card = msgspec.structs.replace(card, parts={"main": small})
    model = import_file(tmp_path / "tnet_31.pth.tar", store, card, accept_licence=True).model
    assert model.stored.dropped == 2 * (SIZE * SIZE + SIZE)

    (one,) = offered(store)
    assert (one.name, one.kind, one.noncommercial) == ("lt-smiling", "transformer", True)
    edit = load(store, "lt-smiling", layers=ROWS, size=SIZE)
    assert isinstance(edit, CodeEdit)
    codes, alpha = _codes(4), np.array([0.0, 1.0, -0.5, 1.5], np.float32)
    moved = apply(codes, [(edit, alpha)])
    expected = codes.copy()
    for i in range(MOVED):
        weight, bias = state[f"dense.{i}.weight"].numpy() / np.sqrt(SIZE), state[f"dense.{i}.bias"].numpy()
        expected[:, i] += alpha[:, None] * (codes[:, i] @ weight.T + bias)
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert np.array_equal(moved[:, MOVED:], codes[:, MOVED:])
    assert np.array_equal(moved[0], codes[0])
    alone = np.concatenate([apply(codes[n : n + 1], [(edit, alpha[n])]) for n in range(4)])
    assert alone.tobytes() == moved.tobytes()  # a frame does not depend on the batch it comes in
    with pytest.raises(ModelError, match=r"\[5, 8\].*\[18, 512\]"):
        load(store, "lt-smiling", layers=18, size=512)


def test_a_frame_of_a_linear_edit_does_not_depend_on_its_batch_either() -> None:
    rng = np.random.default_rng(2)
    codes = rng.standard_normal((7, 18, 512)).astype(np.float32)
    rows, origin = (rng.standard_normal((1, 512)).astype(np.float32) for _ in range(2))
    edit = Direction("d", rows, (2, 9), 0.5, rule="set", origin=origin)
    together = apply(codes, [(edit, 3.0)])
    alone = np.concatenate([apply(codes[n : n + 1], [(edit, 3.0)]) for n in range(7)])
    assert alone.tobytes() == together.tobytes()


PACKAGE = """
import numpy as np
from inference_server.directions.transformers import Transformer


class Mirror:
    name, licence, digest = "mirror", "ours", "1"

    def check(self, layers, size):
        pass

    def edit(self, codes, strength):
        s = np.broadcast_to(np.asarray(strength, np.float32), (len(codes),))[:, None, None]
        return (1 - 2 * s) * codes


MIRROR = Transformer("Mirror", lambda store: Mirror(), "turns the code round", (0.0, 1.0), "ours")
NOTHING = 3
"""


@contextmanager
def installed(folder: Path, entries: str) -> Iterator[None]:
    """A package with those entry points on the path."""
    info = folder / "our_edits-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-edits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[faceplate.directions]\n{entries}\n")
    (folder / "our_edits_of_test.py").write_text(PACKAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        try:
            yield
        finally:
            sys.modules.pop("our_edits_of_test", None)


def test_an_installed_package_registers_a_transformer(tmp_path: Path, store: ModelStore) -> None:
    entries = "mirror = our_edits_of_test:MIRROR\nbad = our_edits_of_test:NOTHING\ngone = no_such:X"
    with installed(tmp_path / "site", entries):
        (one,) = offered(store)
        assert (one.name, one.label, one.display, one.model) == ("mirror", "Mirror", (0.0, 1.0), "")
        edit = load(store, "mirror", layers=ROWS, size=SIZE)
        codes = _codes(2)
        turned = apply(codes, [(edit, np.array([1.0, 0.25]))])
        np.testing.assert_allclose(turned, codes * np.array([-1, 0.5], np.float32)[:, None, None])
        told = {problem.value: problem.message for problem in problems()}
        assert "of type int, not a Transformer" in told["bad"]
        assert "ModuleNotFoundError" in told["gone"]
        with pytest.raises(FaceplateError, match="unknown direction 'bad'"):
            load(store, "bad", layers=ROWS, size=SIZE)
