"""Directions in their order on a shot's codes, the rows they may change, and where the expression begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from host_bridge.effects import EffectDescriptor, EffectValues, Param, check_values
from host_bridge.errors import EffectError, ModelError
from inference_server.directions import CodeEdit, Direction
from inference_server.effects.style_portrait.descriptor import describe
from inference_server.effects.style_portrait.editing import (
    edited_code,
    edited_codes,
    limited,
    load_edits,
    parse_rows,
    presence,
)
from inference_server.effects.style_portrait.inverting import smoothed
from inference_server.models.store import ModelStore
from tests.inference_server.effects.style_portrait.conftest import LAYERS, WIDTH


class Doubling:
    """An edit that is no direction."""

    name, licence, digest = "double", "", "d"

    def check(self, layers: int, size: int) -> None: ...

    def edit(self, codes: Any, strength: Any) -> Any:
        return codes * (1 + np.asarray(strength, np.float32).reshape(-1, 1, 1))


def values_of(models: ModelStore, edits: list[tuple[str, Any]], **params: Any) -> EffectValues:
    return check_values(describe(models), params, edits)


def test_rows_are_read_and_refused() -> None:
    assert parse_rows("", ["age"], 18) == {}
    assert parse_rows("3-7", ["age"], 18) == {"": (3, 8)}
    assert parse_rows("smile=3-7, age = 0-10", ["age", "smile"], 18) == {"smile": (3, 8), "age": (0, 11)}
    for text in ("7-3", "3-18", "age", "age=", "3", "age=1-2-3"):
        with pytest.raises(EffectError, match="cannot read the rows"):
            parse_rows(text, ["age"], 18)
    with pytest.raises(EffectError, match="smile"):
        parse_rows("smlie=3-7", ["smile"], 18)


def test_rows_that_are_asked_for_take_the_place_of_a_directions_own() -> None:
    codes = np.ones((2, 6, 4), np.float32)
    direction = Direction("age", np.ones((1, 4), np.float32), layers=(0, 2))
    for edit in (limited(direction, {"age": (3, 5)}), limited(Doubling(), {"": (3, 5)})):
        moved = edit.edit(codes, 1.0) != codes
        assert moved[:, 3:5].all()
        assert not moved[:, :3].any()
        assert not moved[:, 5:].any()
    assert limited(direction, {"smile": (3, 5)}) is direction
    assert limited(Doubling(), {"": (3, 5)}).digest != Doubling.digest


def test_strengths_follow_their_keys_and_the_expression_is_the_lists_end(models: ModelStore) -> None:
    keyed = {"keys": [[1, 0.0], [3, 2.0]]}
    values = values_of(models, [("age", keyed), ("smile", 3.0)])
    edits: dict[str, CodeEdit] = dict(load_edits(models, ["age", "smile"], "", LAYERS, WIDTH))
    codes = np.random.default_rng(1).normal(size=(3, LAYERS, WIDTH)).astype(np.float32)
    found = edited_codes(codes, [1, 2, 3], values, edits)
    age, smile = (edits[n].edit(np.zeros((1, LAYERS, WIDTH), np.float32), 1.0)[0] for n in ("age", "smile"))
    for i, strength in enumerate((0.0, 1.0, 2.0)):
        assert np.allclose(found.before[i], codes[i] + strength * age, atol=1e-5)
        assert np.allclose(found.after[i], codes[i] + strength * age + 3 * smile, atol=1e-5)
        one = edited_code(codes[i : i + 1], values.edits_at(i + 1), edits)
        assert np.array_equal(one[0], found.after[i])
    both = edited_codes(codes, [1, 2, 3], values_of(models, [("age", 1.0), ("smile", 1.0)], expression_edits=2), edits)
    assert np.array_equal(both.before, codes)


def test_a_direction_of_the_wrong_size_is_refused_with_both(models: ModelStore) -> None:
    with pytest.raises(ModelError, match=r"\[1, 17\].*\[10, 16\]") as caught:
        load_edits(models, ["wide"], "", LAYERS, WIDTH)
    assert caught.value.code == "model.mismatch"


def test_the_presence_of_an_edit_grows_from_nothing_without_a_step() -> None:
    descriptor = EffectDescriptor(
        "x", "X", "1", "edit", "x", edits=(Param("a", "double", "A", 0.0, "a", display_min=-5.0, display_max=5.0),)
    )
    grown = [presence((("a", s),), descriptor) for s in np.linspace(0, 5, 501)]
    assert grown[0] == 0
    assert grown[-1] == 1
    assert max(np.diff(grown)) < 0.04
    assert min(np.diff(grown)) >= 0
    assert presence((("a", -5.0),), descriptor) == 1


def test_light_smoothing_weighs_neighbours_and_no_gap() -> None:
    codes = np.zeros((7, 1, 1), np.float32)
    codes[3] = 1
    assert np.allclose(smoothed(codes, range(7))[1:6, 0, 0], np.array([0.25, 0.75, 1, 0.75, 0.25]) / 3, atol=0.02)
    assert np.array_equal(smoothed(codes, [1, 2, 3, 40, 41, 42, 43])[:3], codes[:3])
    assert np.array_equal(smoothed(codes[3:4], [5]), codes[3:4])
