"""What the long steps are asked for, and that a render draws with what they left and with nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from host_bridge.effects import check_values
from host_bridge.errors import EffectError
from inference_server.effects.base import FaceInput, Resources, ShotData
from inference_server.effects.style_portrait import placing
from inference_server.effects.style_portrait.effect import StylePortrait
from inference_server.effects.style_portrait.imported import Imported
from inference_server.effects.style_portrait.networks import Networks
from inference_server.effects.style_portrait.results import (
    ADAPTED,
    apply_adapted,
    read_offsets,
    save_adapted,
    save_offsets,
)
from inference_server.models.store import ModelStore
from tests.inference_server.effects.conftest import Cut, Portrait
from tests.inference_server.effects.style_portrait.conftest import LAYERS, WIDTH


@pytest.fixture(scope="module")
def effect(models: ModelStore) -> StylePortrait:
    return StylePortrait(Resources(models=models))


@pytest.fixture
def face(effect: StylePortrait, small: Portrait, cut: Cut) -> FaceInput:
    """One frame of a shot whose code is known, with an edit."""
    values = {"model": "gan2", "adapt": False, "keep_expression": True}
    seen = cut(effect, small, [("age", 3.0)], **values)
    rng = np.random.default_rng(3)
    arrays = {
        **placing.stored([seen.face.frame], placing.lay({seen.face.frame: seen.face})),
        "codes": rng.normal(size=(1, LAYERS, WIDTH)).astype(np.float32),
    }
    return replace(seen, shot=ShotData(arrays))


def drawn(effect: StylePortrait, face: FaceInput, steps: Mapping[str, Path]) -> torch.Tensor:
    picture = effect.render(replace(face, shot=replace(face.shot, steps=steps))).picture
    assert picture is not None
    return picture


def test_an_adapted_generator_and_offsets_are_drawn_with(
    effect: StylePortrait, models: ModelStore, face: FaceInput, tmp_path: Path
) -> None:
    base = Imported.of(models).generators["gan2"]
    networks = Networks(Resources(models=models))
    adapt, expression = tmp_path / "adapt", tmp_path / "expression"
    adapt.mkdir()
    expression.mkdir()
    learner = networks.learner(base)
    save_adapted(learner, base, adapt)
    frame = [face.face.frame]
    save_offsets(expression, frame, np.zeros((1, LAYERS, WIDTH), np.float32))
    published = drawn(effect, face, {})
    assert torch.equal(drawn(effect, face, {"adapt": adapt, "expression": expression}), published)
    plan = effect.plan(check_values(effect.descriptor, {"model": "gan2"}), {1: replace(face.shot, steps={"a": adapt})})
    with torch.no_grad():
        for parameter in learner.trainable():
            parameter.mul_(1.02)
    save_adapted(learner, base, adapt)
    other = effect.plan(check_values(effect.descriptor, {"model": "gan2"}), {1: replace(face.shot, steps={"a": adapt})})
    assert plan["steps"]["1"][ADAPTED] != other["steps"]["1"][ADAPTED]
    adapted = drawn(effect, face, {"adapt": adapt, "expression": expression})
    assert not torch.equal(adapted, published)
    assert torch.equal(drawn(effect, face, {}), published)
    save_offsets(expression, frame, np.full((1, LAYERS, WIDTH), 0.1, np.float32))
    moved = drawn(effect, face, {"adapt": adapt, "expression": expression})
    assert not torch.equal(moved, adapted)
    without = replace(face, values={**face.values, "keep_expression": False})
    assert torch.equal(drawn(effect, without, {"adapt": adapt, "expression": expression}), adapted)


def test_only_what_draws_is_learned_and_kept(models: ModelStore, tmp_path: Path) -> None:
    networks, imported = Networks(Resources(models=models)), Imported.of(models)
    for name, fixed in (("gan2", ("style.", "noises.")), ("gan3", ("mapping.", "synthesis.input."))):
        base = imported.generators[name]
        learner = networks.learner(base)
        assert all(p.requires_grad for p in learner.trainable())
        assert not any(p.requires_grad for n, p in learner.module.named_parameters() if n.startswith(fixed))
        save_adapted(learner, base, tmp_path)
        kept = load_file(tmp_path / ADAPTED)
        assert kept
        assert not [n for n in kept if n.startswith(fixed)]
        published = networks.generator(base, None)
        assert not any(p.requires_grad for p in published.module.parameters())


def test_what_belongs_to_another_generator_or_shot_is_refused(models: ModelStore, tmp_path: Path) -> None:
    networks, imported = Networks(Resources(models=models)), Imported.of(models)
    two, three = imported.generators["gan2"], imported.generators["gan3"]
    learner = networks.learner(two)
    save_adapted(learner, two, tmp_path)
    with pytest.raises(EffectError, match="not gan3") as caught:
        networks.generator(three, tmp_path)
    assert "faceplate adapt" in caught.value.remedy
    state = load_file(tmp_path / ADAPTED)
    state["conv1.conv.weight"] = torch.zeros(3)
    save_file(state, tmp_path / ADAPTED, metadata={"base": two.model.sha256})
    with pytest.raises(EffectError, match=r"conv1\.conv\.weight \[3\]"):
        apply_adapted(learner, two, tmp_path)
    (tmp_path / ADAPTED).write_bytes(b"torn")
    with pytest.raises(EffectError, match="cannot be used"):
        apply_adapted(learner, two, tmp_path)
    save_offsets(tmp_path, [1, 2], np.zeros((2, LAYERS, WIDTH), np.float32))
    assert read_offsets(tmp_path, [1, 2], LAYERS, WIDTH).shape == (2, LAYERS, WIDTH)
    for frames, layers in (([1, 3], LAYERS), ([1, 2], 18)):
        with pytest.raises(EffectError, match="do not fit"):
            read_offsets(tmp_path, frames, layers, WIDTH)


def test_steps_are_asked_for_where_they_change_something(effect: StylePortrait) -> None:
    def steps(edits: list[tuple[str, Any]], **params: Any) -> tuple[str, ...]:
        return effect.steps(check_values(effect.descriptor, {"model": "gan2", **params}, edits))

    assert steps([("age", 1.0)]) == ("adapt",)
    assert steps([("age", 1.0)], keep_expression=True) == ("adapt", "expression")
    assert steps([("age", 1.0)], keep_expression=True, adapt=False) == ("expression",)
    assert steps([("age", 0.0)], keep_expression=True, adapt=False) == ()
    assert effect.descriptor.steps == ("adapt", "expression")
