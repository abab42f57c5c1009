"""Progressive fine-tuning of a DualStyleGAN at 32 px: what is learned, what stays, and the schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inference_server.models.cards import read_cards
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.psp import PspEncoder
from inference_server.training import checkpoint
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.events import Finished
from inference_server.training.recipe import Batch
from inference_server.training.recipes.codes import CollectionCodes, FaceEncoder
from inference_server.training.recipes.dualstylegan import DualPretrain, DualTransfer, PretrainSettings
from inference_server.training.recipes.style_losses import parameter_norms
from tests.inference_server.training.recipes.runs import (
    assert_resume_equals_uninterrupted,
    config,
    losses_of,
    run,
)
from tests.inference_server.training.recipes.tiny_style import (
    DIM,
    ROWS,
    codes,
    dual,
    pretrain_start,
    transfer_start,
    write_pictures,
)

GAN = {"rate": 0.02, "ada_target": 0.0, "path": 0.01, "r1": 1.0, "path_every": 2, "r1_every": 3}
NAMES = [f"style_{i:02d}.png" for i in range(4)]


def pretraining(**more: Any) -> DualPretrain:
    start = more.pop("start", None) or pretrain_start()
    return DualPretrain({"id": "tiny-pre", "compare_at": 32, "gan": GAN, **more}, start)


def transfer(folder: Path, **more: Any) -> DualTransfer:
    start = more.pop("start", None) or transfer_start(NAMES)
    gan = {**GAN, **more.pop("gan", {})}
    table = {"pictures": str(folder), "id": "tiny-dual", "compare_at": 32, "free_from": 6, "gan": gan, **more}
    return DualTransfer(table, start)


def weights(folder: Path, step: int, module: str) -> dict[str, torch.Tensor]:
    state = checkpoint.read(folder / "checkpoints", step).tensors
    return {k.removeprefix(f"{module}/"): v for k, v in state.items() if k.startswith(f"{module}/")}


def modules_of(recipe: Any) -> dict[str, Any]:
    parts = recipe.build()
    return {**parts.frozen, **parts.trained}


def assert_only_the_extrinsic_path_has_moved(folder: Path, step: int) -> None:
    before = dual().state_dict()
    for name in ("module/g", "ema/g"):
        after = weights(folder, step, name)
        inner = [k for k in before if k.startswith("generator.")]
        assert all(torch.equal(after[k], before[k]) for k in inner)
        moved = [k for k in before if not k.startswith("generator.") and not torch.equal(after[k], before[k])]
        assert {k.partition(".")[0] for k in moved} == {"res", "style"}


# ------------------------------------------------------------------------------------------------- stages 1 and 2


def test_published_schedule_of_crossovers() -> None:
    settings = PretrainSettings()
    assert [settings.crossover(step) for step in (0, 299, 300, 599, 600, 3599, 9999)] == [7, 7, 6, 6, 5, 5, 5]
    assert settings.perceptual == {"relu1_1": 0.5, "relu2_1": 0.5, "relu3_1": 0.5}
    assert (settings.adversarial, settings.encoded_every) == (0.1, 4)


def test_the_target_is_style_mixing_and_every_fourth_style_is_read_by_the_encoder() -> None:
    recipe = pretraining(crossovers=[3, 2], crossover_steps=[2, 9])
    modules = modules_of(recipe)
    g = modules["g"].generator

    def prepared(step: int) -> Batch:
        draws = tuple(Draw(0, step, i) for i in range(2))
        with torch.no_grad():
            return recipe.prepare(modules, Batch({}, draws, step, torch.device("cpu")))

    for step, crossover in ((1, 3), (4, 2), (5, 2)):
        batch = prepared(step)
        content, style = (
            g.expand(g.mapping(torch.stack([draw.normal(f"z {name}", (DIM,)) for draw in batch.draws])))
            for name in ("content", "style")
        )
        noise = [batch[f"noise {k}"] for k in range(g.num_layers)]
        with torch.no_grad():
            target = g.synthesis(torch.cat([content[:, :crossover], style[:, crossover:]], dim=1), noise)
            read = g.mapping(modules["encoder"](g.synthesis(style, noise)))
        torch.testing.assert_close(batch["intrinsic"], content)
        torch.testing.assert_close(batch["target"], target)
        torch.testing.assert_close(batch["extrinsic"], read if step % 4 == 0 else style)


def held_out(recipe: Any, trained: dict[str, torch.Tensor] | None) -> dict[str, float]:
    """The generator's further losses of a paired step on codes that no step has drawn."""
    modules = modules_of(recipe)
    if trained is not None:
        modules["g"].load_state_dict(trained)
    draws = tuple(Draw(99, 1, i) for i in range(4))
    samples = [recipe.load(i, draw) for i, draw in enumerate(draws)]
    tensors = {k: torch.stack([sample[k] for sample in samples]) for k in samples[0]}
    with torch.no_grad():
        batch = recipe.prepare(modules, Batch(tensors, draws, 1, torch.device("cpu")))
        torch.manual_seed(0)
        pictures, own, noise = recipe.fake(modules, batch, "generator")
        return {k: float(v) for k, v in recipe.further_losses(modules, batch, pictures, own, noise).items()}


# Random features of random networks are small, and so are the losses in them.
LEARNING = {"rate": 0.01, "ada_target": 0.0, "path_every": 0, "r1_every": 0}


def test_pretraining_learns_style_mixing(tmp_path: Path) -> None:
    """On faces it was not trained on; structure has to be learned, since colours mix as the network begins."""
    perceptual = {"relu1_1": 10.0, "relu2_1": 10.0, "relu3_1": 10.0}
    more = {"crossovers": [3], "crossover_steps": [1], "encoded_every": 0, "adversarial": 0.01}
    recipe = pretraining(perceptual=perceptual, gan={**LEARNING, "rate": 0.02}, **more)
    events = run(recipe, config(20, half_life=8), tmp_path)
    before, after = held_out(recipe, None), held_out(recipe, weights(tmp_path, 20, "ema/g"))
    assert after["perceptual"] < 0.9 * before["perceptual"]
    assert_only_the_extrinsic_path_has_moved(tmp_path, 20)
    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    assert {name: part.network for name, part in card.parts.items()} == {
        "main": "dualstylegan",
        "discriminator": "stylegan2-discriminator",
    }
    stored = load_file(finished.weights)
    assert {k.partition(".")[0] for k in stored} == {"main", "discriminator"}


def test_pretraining_resumes(tmp_path: Path) -> None:
    assert_resume_equals_uninterrupted(pretraining, config(4, batch=4, micro_batch=2), tmp_path, at=2)


def test_real_faces_where_there_are_some(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "faces")
    recipe = pretraining(pictures=str(folder))
    assert recipe.size() == 4
    batch = Batch(
        {"picture": recipe.load(2, Draw(0, 0, 0))["picture"][None], "target": torch.zeros(1)},
        (),
        0,
        torch.device("cpu"),
    )
    assert recipe.real(batch) is batch["picture"]
    assert pretraining().real(batch) is batch["target"]


# ------------------------------------------------------------------------------------------------------- stage 3


def test_transfer_learns_the_style(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    loss = {"adversarial": 0.01, "style": 100.0, "contextual": 1.0, "identity": 0.1, "jitter": 0.01}
    recipe = transfer(folder, perceptual={"relu2_1": 10.0, "relu3_1": 20.0}, gan=LEARNING, **loss)
    events = run(recipe, config(20, half_life=8), tmp_path / "run")
    before, after = held_out(recipe, None), held_out(recipe, weights(tmp_path / "run", 20, "ema/g"))
    for name, share in (("style", 0.2), ("contextual", 0.7), ("perceptual", 0.75)):
        assert after[name] < share * before[name], name
    assert len(losses_of(events, "perceptual")) == len(losses_of(events, "style")) / 2  # paired steps only
    assert_only_the_extrinsic_path_has_moved(tmp_path / "run", 20)
    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    assert card.parts["main"].network == "dualstylegan"
    network = DualStyleGAN(**card.parts["main"].config)
    network.load_state_dict({k.removeprefix("main."): v for k, v in load_file(finished.weights).items()}, strict=True)


def test_losses_of_a_paired_and_a_random_step(tmp_path: Path) -> None:
    """Weights and terms of the generator's objective, step by step."""
    folder = write_pictures(tmp_path / "pictures")
    recipe = transfer(folder, regularisation=0.015, jitter=0.0)
    modules = modules_of(recipe)
    g = modules["g"].generator
    for step in (0, 1):
        samples = [recipe.load(i, Draw(0, step, i)) for i in range(2)]
        tensors = {k: torch.stack([s[k] for s in samples]) for k in samples[0]}
        batch = Batch(tensors, tuple(Draw(0, step, i) for i in range(2)), step, torch.device("cpu"))
        with torch.no_grad():
            ready = recipe.prepare(modules, batch)
        torch.testing.assert_close(ready["extrinsic"], g.mapping(tensors["exemplar"]))
        own = g.mapping(tensors["content"])
        paired = step == 1
        assert torch.allclose(ready["intrinsic"][:, :6], own[:, :6]) == paired
        assert not torch.allclose(ready["intrinsic"][:, 6:], own[:, 6:])
        if not paired:
            assert torch.equal(ready["intrinsic"][:, :6], ready["intrinsic"][:, :1].expand(-1, 6, -1))
        torch.manual_seed(0)
        terms = recipe.losses(modules, "generator", ready).terms
        expected = {"generator", "style", "contextual", "identity", "regularisation"}
        assert set(terms) == (expected | {"perceptual"} if paired else expected)
        norms = 0.015 * parameter_norms(modules["g"].res)
        torch.testing.assert_close(terms["regularisation"], norms)
        doubled = transfer(
            folder, style=0.5, contextual=0.5, identity=2.0, jitter=0.0, perceptual={"relu2_1": 1.0, "relu3_1": 2.0}
        )
        torch.manual_seed(0)
        more = doubled.losses(modules, "generator", ready).terms
        for name in {"style", "contextual", "identity", "perceptual"} & set(terms):
            torch.testing.assert_close(more[name], 2 * terms[name])


def test_jitter_has_the_published_spread(tmp_path: Path) -> None:
    recipe = transfer(write_pictures(tmp_path / "pictures"))
    modules = modules_of(recipe)
    sample = recipe.load(0, Draw(0, 0, 0))
    draws = tuple(Draw(0, 1, i) for i in range(40))
    tensors = {k: v[None].expand(40, *v.shape) for k, v in sample.items()}
    with torch.no_grad():
        batch = recipe.prepare(modules, Batch(tensors, draws, 1, torch.device("cpu")))
        apart = batch["extrinsic"] - modules["g"].mapping(sample["exemplar"][None])
    assert float(apart.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(apart.mean())) < 0.01


def test_transfer_resumes(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    gan = {"ada_target": 0.01, "ada_interval": 8, "ada_length": 60}
    settings = config(4, batch=4, micro_batch=2)
    assert_resume_equals_uninterrupted(lambda: transfer(folder, gan=gan), settings, tmp_path, at=2)
    assert float(weights(tmp_path / "parts", 4, "module/ada")["p"]) > 0


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    for names, says in (
        (NAMES[:3], r"1 pictures without codes \(style_03.png\)"),
        ([*NAMES, "x.png"], r"1 codes without pictures \(x.png\)"),
    ):
        with pytest.raises(TrainingError, match=says) as caught:
            transfer(folder, start=transfer_start(names))
        assert caught.value.code == "training.data"
    start = transfer_start(NAMES)
    short = CollectionCodes(tuple(NAMES), torch.zeros(4, ROWS - 2, DIM), torch.zeros(4, ROWS - 2, DIM))
    with pytest.raises(TrainingError, match=r"codes of \[6, 16\], a generator of \[8, 16\]"):
        transfer(folder, start=replace(start, codes=short))
    with pytest.raises(TrainingError, match="asks for an encoder"):
        pretraining(start=pretrain_start(encoder=None))
    with pytest.raises(TrainingError, match="within the 8 rows"):
        pretraining(crossovers=[8], crossover_steps=[1])
    with pytest.raises(TrainingError, match="equally many"):
        pretraining(crossovers=[5])
    with pytest.raises(TrainingError, match=r"codes are in w\+"):
        FaceEncoder(PspEncoder("w+", ROWS, 32, 3, (16, 16, 16, DIM), (1, 1, 1, 1)), torch.zeros(ROWS, DIM))


def test_codes_are_matched_by_name() -> None:
    own = codes(["b.png", "a.png"])
    assert own.order_of(["a.png", "b.png"]) == [1, 0]
