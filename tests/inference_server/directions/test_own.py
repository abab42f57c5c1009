"""Directions of the artist's own: read from files, fitted to codes, and the command that does both."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host_bridge.cli import main
from host_bridge.errors import FaceplateError, ModelError, RequestError
from inference_server.directions import apply, cli, load, offered
from inference_server.directions.fitting import fit
from inference_server.directions.own import read_rows
from inference_server.models.store import Folder, ModelStore

Run = Callable[..., int]
SIZE, ROWS = 32, 6


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore((Folder(tmp_path / "models", True),))


@pytest.fixture
def directions(store: ModelStore) -> Run:
    def run(*words: object) -> int:
        parser = argparse.ArgumentParser()
        cli.add_arguments(parser)
        return cli.run(parser.parse_args([str(w) for w in words]), store)

    return run


def _unit(index: int, size: int = SIZE) -> Any:
    return np.eye(size, dtype=np.float32)[index : index + 1]


def _faces(count: int, seed: int, *, smiling: bool, older: float = 0.0) -> Any:
    """Codes [count, ROWS, SIZE]: smiling along axis 0, and `older` of the smiling ones are so along axis 1."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((count, 1, SIZE)) + 0.1 * rng.standard_normal((count, ROWS, SIZE))
    out[..., 0] += 3.0 if smiling else -3.0
    out[..., 1] += older if smiling else -older
    return out.astype(np.float32)


def test_a_fit_finds_the_planted_attribute_and_says_how_well() -> None:
    result = fit(_faces(120, 1, smiling=True), _faces(100, 2, smiling=False))
    assert result.rows.shape == (1, SIZE)
    assert result.rows.dtype == np.float32
    assert float(result.rows[0, 0]) > 0.8  # chance would be 0.18
    assert min(result.accuracy, result.training, result.along) > 0.97
    assert result.apart == pytest.approx(6 * float(result.rows[0, 0]), rel=0.1)
    assert result.counts == (120, 100)


def test_codes_without_the_attribute_are_near_chance_where_it_counts() -> None:
    """On the codes it was fitted to, a plane in 32 dimensions parts anything; the kept-out ones tell."""
    rng = np.random.default_rng(4)
    same, again = rng.standard_normal((2, 60, SIZE))
    result = fit(same, again)
    assert result.training > 0.7
    assert result.accuracy < 0.68


def test_conditions_stay_what_they_are() -> None:
    positive, negative = _faces(200, 1, smiling=True, older=2.0), _faces(200, 2, smiling=False, older=2.0)
    plain = fit(positive, negative)
    assert float(plain.rows[0, 1]) > 0.2  # smiling faces are older here, and so the direction ages
    kept = fit(positive, negative, conditions=[_unit(1)])
    assert abs(float(kept.rows[0, 1])) < 1e-6
    assert kept.along > 0.97
    assert np.linalg.norm(kept.rows) == pytest.approx(1, abs=1e-6)


def test_rows_that_are_asked_for_are_learned_from() -> None:
    positive, negative = _faces(60, 1, smiling=True), _faces(60, 2, smiling=False)
    positive[:, 4:, 5] += 20  # something else tells them apart in the last rows
    assert float(fit(positive, negative, layers=(4, 6)).rows[0, 5]) > 0.7
    assert abs(float(fit(positive, negative, layers=(0, 4)).rows[0, 5])) < 0.3


@pytest.mark.parametrize(
    ("positive", "negative", "text"),
    [
        (np.zeros((9, 4)), np.zeros((9, 5)), "different size"),
        (np.zeros((9, 4)), np.zeros((3, 4)), "too few"),
        (np.zeros((9, 4)), np.full((9, 4), np.nan), "not finite"),
        (np.zeros((9, 4, 4, 4)), np.zeros((9, 4)), r"got \[9, 4, 4, 4\]"),
    ],
)
def test_codes_that_cannot_be_parted_are_refused(positive: Any, negative: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        fit(positive, negative)


def test_arrays_of_every_format_are_read_alike(tmp_path: Path) -> None:
    rows = np.arange(2 * SIZE, dtype=np.float64).reshape(2, SIZE)
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "b.npz", direction=rows[None], other=rows[:1])
    torch.save(torch.from_numpy(rows), tmp_path / "c.pt")
    torch.save({"x": torch.from_numpy(rows)}, tmp_path / "d.pt")
    for name in ("a.npy", "b.npz", "c.pt", "d.pt"):
        assert np.array_equal(read_rows(tmp_path / name), rows.astype(np.float32)), name
    assert read_rows(tmp_path / "b.npz", "other").shape == (1, SIZE)
    np.save(tmp_path / "flat.npy", rows[0])
    assert read_rows(tmp_path / "flat.npy").shape == (1, SIZE)
    with pytest.raises(ModelError, match="'direction', 'other'"):
        read_rows(tmp_path / "b.npz", "nothing")


class _Calls:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("called"),))


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([_Calls()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "b.npz", direction=objects)
    torch.save({"x": _Calls()}, tmp_path / "c.pt")
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(_Calls()))
    for name in ("a.npy", "b.npz", "c.pt", "d.pkl"):
        with pytest.raises(ModelError) as caught:
            read_rows(tmp_path / name)
        assert caught.value.code in ("model.unsafe", "model.wrong_file", "model.damaged"), name
    assert not (tmp_path / "called").exists()


def test_an_imported_array_is_an_edit_at_once(
    tmp_path: Path, store: ModelStore, directions: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "w.npz", d=3 * _unit(2))
    words = ("import", tmp_path / "w.npz", "--name", "squint", "--layers", "4-5", "--range=-9,9", "--scale", 0.5)
    assert directions(*words, "--licence", "mit", "--label", "Squint a bit") == 0
    assert "MIT" in capsys.readouterr().err
    assert directions("list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["label"], row["layers"], row["display"]) == ("squint", "Squint a bit", [4, 6], [-9, 9])
    assert (row["shape"], row["licence"], row["noncommercial"]) == ([1, SIZE], "MIT", False)
    moved = apply(np.zeros((1, ROWS, SIZE), np.float32), [(load(store, "squint", layers=ROWS, size=SIZE), 2.0)])
    assert np.flatnonzero(moved.any(axis=2)).tolist() == [4, 5]
    assert moved[0, 4, 2] == 3.0
    assert directions("list") == 0
    assert "rows 4-5" in capsys.readouterr().out
    with pytest.raises(ModelError, match="already"):
        directions(*words)
    assert directions(*words, "--replace") == 0


def test_without_a_licence_it_counts_as_not_cleared(tmp_path: Path, store: ModelStore, directions: Run) -> None:
    np.save(tmp_path / "w.npy", _unit(2))
    assert directions("import", tmp_path / "w.npy", "--name", "found") == 0
    assert directions("import", tmp_path / "w.npy", "--name", "ours", "--licence", "Our studio's") == 0
    terms = {one.name: (one.noncommercial, one.licence) for one in offered(store)}
    assert terms["found"] == (True, "Licence not stated (non-commercial)")
    assert terms["ours"] == (False, "Our studio's")


def test_a_component_becomes_a_direction_in_standard_deviations(
    tmp_path: Path, store: ModelStore, directions: Run
) -> None:
    comp = np.eye(SIZE, dtype=np.float32)[:3, None]
    content = {"mean": np.zeros((1, SIZE), np.float32), "comp": comp, "std": np.array([3, 2, 1], np.float32)}
    torch.save({k: torch.from_numpy(v) for k, v in content.items()}, tmp_path / "ours_pca.pt")
    assert directions("import", tmp_path / "ours_pca.pt", "--component", 1, "--layers", 2, "--name", "brow") == 0
    moved = apply(np.zeros((1, ROWS, SIZE), np.float32), [(load(store, "brow", layers=ROWS, size=SIZE), -4.0)])
    assert moved[0, 2, 1] == -8
    assert np.count_nonzero(moved) == 1
    with pytest.raises(ModelError, match="components 0 to 2"):
        directions("import", tmp_path / "ours_pca.pt", "--component", 3, "--name", "none")


def test_a_published_file_is_imported_by_its_card(
    tmp_path: Path, store: ModelStore, directions: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "nose_tip.npy", np.repeat(_unit(3, 512), 18, axis=0).astype(np.float64))
    with pytest.raises(ModelError, match="may not be used commercially"):
        directions("import", tmp_path / "nose_tip.npy")
    assert directions("import", tmp_path / "nose_tip.npy", "--accept-licence") == 0
    assert [one.name for one in offered(store)] == ["stit-nose-tip"]
    np.save(tmp_path / "mouth_open.npy", _unit(3, 512).astype(np.float64))  # two authors have a file of this name
    assert directions("import", tmp_path / "mouth_open.npy") == 0
    assert "lowrank-mouth-open" in [one.name for one in offered(store)]
    np.save(tmp_path / "mouth_open.npy", np.ones((3, 512)))
    with pytest.raises(ModelError, match="no single card fits"):
        directions("import", tmp_path / "mouth_open.npy")
    with pytest.raises(RequestError, match="--layers"):
        directions("import", tmp_path / "nose_tip.npy", "--layers", "3-4")
    with pytest.raises(ModelError, match="id of a published direction"):
        directions("import", tmp_path / "nose_tip.npy", "--name", "stit-age")


def test_fit_reports_and_stores(
    tmp_path: Path, store: ModelStore, directions: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "with1.npz", codes=_faces(40, 1, smiling=True, older=2.0), frames=np.arange(40))
    np.savez(tmp_path / "with2.npz", codes=_faces(40, 2, smiling=True, older=2.0))
    np.save(tmp_path / "without.npy", _faces(80, 3, smiling=False, older=2.0))
    np.save(tmp_path / "age.npy", _unit(1))
    assert directions("import", tmp_path / "age.npy", "--name", "age", "--licence", "cc-by-nc") == 0
    words = [
        "fit",
        "--positive",
        tmp_path / "with1.npz",
        tmp_path / "with2.npz",
        "--negative",
        tmp_path / "without.npy",
    ]
    assert directions(*words, "--name", "smile", "--condition", "age") == 0
    said = capsys.readouterr().err
    assert "80 with, 80 without" in said
    assert "accuracy along the direction without age: 100.0%" in said
    smile = next(one for one in offered(store) if one.name == "smile")
    assert smile.noncommercial  # as the direction that went into it
    assert smile.display == (-6.0, 6.0) or smile.display[1] == pytest.approx(6, rel=0.1)
    rows = load(store, "smile", layers=ROWS, size=SIZE).edit(np.zeros((1, ROWS, SIZE), np.float32), 1.0)[0]
    assert rows[0, 0] > 0.9
    assert abs(rows[0, 1]) < 1e-6
    with pytest.raises(ModelError, match="already"):
        directions(*words, "--name", "smile")
    with pytest.raises(FaceplateError, match="unknown direction 'agee'"):
        directions(*words, "--name", "smile2", "--condition", "agee")


def test_bad_words_are_told(tmp_path: Path, directions: Run) -> None:
    np.save(tmp_path / "w.npy", _unit(2))
    for option, value in (("--layers", "7-3"), ("--layers", "all"), ("--range=1", None), ("--range=2,1", None)):
        words = [option] if value is None else [option, value]
        with pytest.raises(RequestError):
            directions("import", tmp_path / "w.npy", "--name", "x", *words)
    for name in ("Up", "a b", "x/../y"):
        with pytest.raises(ModelError):
            directions("import", tmp_path / "w.npy", "--name", name)
    with pytest.raises(ModelError, match="no such file"):
        directions("import", tmp_path / "none.npy", "--name", "x")


def test_the_command_is_one_of_faceplates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACEPLATE_MODELS", str(tmp_path / "models"))
    assert main(["directions", "list"]) == 0
    assert "directions: 0" in capsys.readouterr().err
