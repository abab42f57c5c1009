"""What a direction does to codes, and which edits the imported models offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host_bridge.errors import FaceplateError, ModelError
from inference_server.directions import Direction, apply, ganspace, load, offered
from inference_server.directions.types import without
from inference_server.models.cards import official_card, official_cards
from inference_server.models.importer import import_file
from inference_server.models.store import Folder, ModelStore

RNG = np.random.default_rng(5)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore((Folder(tmp_path / "models", True),))


def codes(count: int = 3, layers: int = 18, size: int = 512) -> Any:
    return RNG.standard_normal((count, layers, size)).astype(np.float32)


def row(size: int = 512, value: float = 1.0) -> Any:
    return np.full((1, size), value, np.float32)


def test_one_row_moves_the_rows_of_its_range_and_no_other() -> None:
    before = codes()
    after = apply(before, [(Direction("d", row(), layers=(4, 8), scale=0.5), 3.0)])
    assert np.array_equal(after[:, :4], before[:, :4])
    assert np.array_equal(after[:, 8:], before[:, 8:])
    np.testing.assert_allclose(after[:, 4:8], before[:, 4:8] + 1.5, rtol=1e-6)


def test_each_code_has_its_own_strength_and_zero_changes_nothing() -> None:
    before = codes()
    after = apply(before, [(Direction("d", row()), np.array([0.0, 1.0, -2.0]))])
    assert np.array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1] - before[1], 1, rtol=1e-5)
    np.testing.assert_allclose(after[2] - before[2], -2, rtol=1e-5)


def test_edits_are_taken_in_their_order() -> None:
    """Adding commutes; setting a coordinate does not."""
    zero = np.zeros((1, 4), np.float32)
    along = np.array([[2, 0, 0, 0]], np.float32)
    place = Direction("place", along, rule="set", origin=zero)
    push = Direction("push", along)
    start = np.ones((1, 2, 4), np.float32)  # its coordinate along [2, 0, 0, 0] is 1/2
    np.testing.assert_allclose(apply(start, [(place, 3.0)])[0, :, 0], 6)
    np.testing.assert_allclose(apply(start, [(push, 1.0), (place, 3.0)])[0, :, 0], 6)
    np.testing.assert_allclose(apply(start, [(place, 3.0), (push, 1.0)])[0, :, 0], 8)


def test_an_edit_undone_is_where_it_began() -> None:
    before = codes(layers=10, size=64)
    rows = RNG.standard_normal((10, 64)).astype(np.float32)
    there = apply(before, [(Direction("d", rows), 2.0), (Direction("e", row(64), (2, 6)), -1.0)])
    back = apply(there, [(Direction("d", rows), -2.0), (Direction("e", row(64), (2, 6)), 1.0)])
    assert np.abs(there - before).max() > 1
    np.testing.assert_allclose(back, before, atol=2e-6)


@pytest.mark.parametrize(
    ("rows", "layers", "shape"),
    [
        (row(512), None, (1, 10, 64)),
        (np.ones((18, 512), np.float32), None, (1, 10, 512)),
        (row(64), (10, 12), (1, 10, 64)),
    ],
)
def test_a_direction_of_another_size_is_refused_with_both_shapes(rows: Any, layers: Any, shape: Any) -> None:
    with pytest.raises(ModelError) as caught:
        apply(np.zeros(shape, np.float32), [(Direction("d", rows, layers), 1.0)])
    assert caught.value.code == "model.mismatch"
    assert str(shape[1]) in caught.value.message
    assert str(layers[0] if layers else list(rows.shape)) in caught.value.message


def test_one_row_and_published_ranges_fit_a_smaller_generator() -> None:
    after = apply(np.zeros((1, 10, 512), np.float32), [(Direction("d", row(), layers=(8, 18)), 1.0)])
    assert after[0, :, 0].tolist() == [0] * 8 + [1] * 2


def test_bad_directions_and_strengths_are_refused() -> None:
    for rows in (np.full((1, 4), np.nan, np.float32), np.zeros((1, 4), np.float32), np.ones(4, np.float32)):
        with pytest.raises(ModelError):
            Direction("d", rows)
    with pytest.raises(ModelError, match="origin"):
        Direction("d", row(4), rule="set")
    with pytest.raises(ModelError, match="strengths"):
        apply(codes(3, 2, 4), [(Direction("d", row(4)), np.ones(2))])


def test_conditions_are_taken_out_all_at_once() -> None:
    """The Gram system: conditions that are not orthogonal to each other are nevertheless all gone."""
    wanted, a, b = (RNG.standard_normal((1, 16)) for _ in range(3))
    b = b + 2 * a
    left = without(wanted, [a, b])
    assert abs(float(np.linalg.norm(left)) - 1) < 1e-6
    assert max(abs(float(left[0] @ c[0])) for c in (a, b)) < 1e-5
    assert float(left[0] @ wanted[0]) > 0
    one_after_the_other = without(without(wanted, [a]), [b])
    assert abs(float(one_after_the_other[0] @ a[0])) > 1e-3  # so this case can tell the difference
    with pytest.raises(ModelError, match="nothing is left"):
        without(a + b, [a, b])


def test_the_digest_follows_everything_the_result_depends_on() -> None:
    same = Direction("d", row(4))
    others = [
        Direction("d", row(4, 2)),
        Direction("d", row(4), (0, 1)),
        Direction("d", row(4), scale=0.5),
        Direction("d", row(4), rule="set", origin=row(4)),
    ]
    assert same.digest == Direction("another name", row(4)).digest
    assert len({same.digest, *(o.digest for o in others)}) == 5


def _import(store: ModelStore, path: Path, card: str) -> None:
    import_file(path, store, official_card(card), accept_licence=True)


def _pca(folder: Path) -> tuple[Path, dict[str, Any]]:
    comp = RNG.standard_normal((80, 1, 512)).astype(np.float32)
    comp /= np.linalg.norm(comp, axis=-1, keepdims=True)
    content = {"mean": codes(1, 1)[0], "comp": comp, "std": np.linspace(3, 0.4, 80).astype(np.float32)}
    torch.save({k: torch.from_numpy(v) for k, v in content.items()}, folder / "ffhq_pca.pt")
    return folder / "ffhq_pca.pt", content


def test_imported_files_become_edits_with_their_authors_rules(tmp_path: Path, store: ModelStore) -> None:
    assert offered(store) == ()
    unit = codes(1, 1)[0] / 22
    torch.save(torch.from_numpy(unit), tmp_path / "age.pt")
    np.save(tmp_path / "smile.npy", np.repeat(unit.astype(np.float64), 18, axis=0))
    np.save(tmp_path / "nose.npy", unit.astype(np.float64))
    _import(store, tmp_path / "age.pt", "direction-e4e-age")
    _import(store, tmp_path / "smile.npy", "direction-stit-smile")
    _import(store, tmp_path / "nose.npy", "direction-lowrank-nose")

    edits = {one.name: one for one in offered(store)}
    assert list(edits) == ["e4e-age", "lowrank-nose", "stit-smile"]
    assert edits["stit-smile"].label == "smile (STIT)"
    assert edits["stit-smile"].noncommercial
    assert edits["e4e-age"].sha256 == store.get("direction-e4e-age").sha256
    assert (edits["e4e-age"].param().default, edits["e4e-age"].param().display_max) == (0.0, 5.0)

    at = np.zeros((1, 12, 512), np.float32)  # the published [18, 512] file repeats one row: any generator takes it
    moved = {n: apply(at, [(load(store, n, layers=12, size=512), 2.0)])[0] for n in edits}
    np.testing.assert_allclose(moved["e4e-age"], np.repeat(2 * unit, 12, axis=0), rtol=1e-6)
    np.testing.assert_allclose(moved["stit-smile"], np.repeat(unit, 12, axis=0), rtol=1e-6)  # half of it
    assert np.flatnonzero(moved["lowrank-nose"].any(axis=1)).tolist() == [4, 5, 6, 7]


def test_ganspace_offers_its_published_list_by_both_rules(tmp_path: Path, store: ModelStore) -> None:
    path, content = _pca(tmp_path)
    _import(store, path, ganspace.MODEL)
    edits = {one.name: one for one in offered(store)}
    assert len(edits) == len(ganspace.EDITS)
    assert edits["ganspace-smile"].layers == (4, 5)
    assert edits["ganspace-eye-openness"].display == (-20, 20)
    at = codes(2)
    smile = apply(at, [(load(store, "ganspace-smile", layers=18, size=512), 20.0)])
    expected = at.copy()
    expected[:, 4] += -20 * content["std"][46] * content["comp"][46]  # as published; here more of it is more smile
    np.testing.assert_allclose(smile, expected, atol=1e-5)

    placed = ganspace.component(content, 54, (7, 8), name="eyes", rule="set")
    moved = apply(at, [(placed, 5.0)])
    for before, after in zip(at, moved, strict=True):
        c = (before[0] - content["mean"][0]) @ content["comp"][54, 0] / content["std"][54]
        np.testing.assert_allclose(
            after[7], before[7] + (5 - c) * content["std"][54] * content["comp"][54, 0], atol=1e-4
        )
        assert np.array_equal(np.delete(after, 7, axis=0), np.delete(before, 7, axis=0))
    with pytest.raises(ModelError, match="components 0 to 79"):
        ganspace.component(content, 80, None, name="none")


def test_what_is_not_there_is_told_with_the_way_to_get_it(tmp_path: Path, store: ModelStore) -> None:
    for name, code in (
        ("ganspace-smile", "model.not_imported"),
        ("stit-smile", "model.not_imported"),
        ("smlie", "model.unknown"),
    ):
        with pytest.raises(FaceplateError) as caught:
            load(store, name, layers=18, size=512)
        assert caught.value.code == code
    np.save(tmp_path / "nose.npy", codes(1, 1)[0])
    _import(store, tmp_path / "nose.npy", "direction-lowrank-nose")
    with pytest.raises(ModelError, match=r"\[1, 512\].*\[10, 64\]"):
        load(store, "lowrank-nose", layers=10, size=64)


def test_every_known_direction_says_how_it_is_applied() -> None:
    cards = [card for card in official_cards() if "direction" in card.tensors]
    assert len(cards) > 20
    assert all(card.direction is not None for card in cards)
