"""Both stages of the two-stage translator's training at 32 px: they learn, resume exactly, and their results load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inference_server.models import ModelStore, import_file, load_network
from inference_server.models.cards import read_cards
from inference_server.models.store import Folder
from inference_server.networks.two_stage import Refiner, Translator, step
from inference_server.networks.vgg import VGG19
from inference_server.training import checkpoint
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.events import Finished
from inference_server.training.loop import train
from inference_server.training.recipe import Batch
from inference_server.training.recipes import two_stage_losses as equations
from inference_server.training.recipes.two_stage import (
    PatchDiscriminator,
    TranslatorStart,
    TranslatorTraining,
    settle,
    translator_recipe,
)
from inference_server.training.recipes.two_stage_data import GeneratedPairs
from inference_server.training.recipes.two_stage_generators import SharedCodePairs
from inference_server.training.recipes.two_stage_refiner import (
    RefinerStart,
    RefinerTraining,
    cropped,
    refiner_recipe,
)
from tests.inference_server.training.recipes.runs import assert_resume_equals_uninterrupted, config, losses_of, run
from tests.inference_server.training.recipes.tiny_style import DIM, LICENCES, generator
from tests.inference_server.training.recipes.tiny_two_stage import SIDE, WIDTHS, Clips, Pairs, styled

PLAIN = {"exposure": 0.0, "contrast": 0.0, "saturation": 0.0, "tint": 0.0, "noise": 0.0}
REFINER = (6, 8)


def stage_one(start: TranslatorStart | None = None, adversarial: float = 0.0, **more: Any) -> TranslatorTraining:
    start = start or TranslatorStart(Pairs(0, 8), Pairs(100, 2), LICENCES)
    table = {"widths": list(WIDTHS), "styles": ["turned", "dark"], "crop": 32, "rate": 4e-3, "photometry": PLAIN}
    return translator_recipe({**table, "weights": {"adversarial": adversarial}, **more}, start)


def stage_two(start: RefinerStart | None = None, **more: Any) -> RefinerTraining:
    table = {"translator_widths": list(WIDTHS), "widths": list(REFINER), "crop": 32, "rate": 4e-3, "length": 4}
    return refiner_recipe({**table, **more}, start or refiner_start())


def translator(styles: int = 1, seed: int = 1) -> Translator:
    """Untrained, but with signals of full size, so that what the frame does shows in the picture."""
    torch.manual_seed(seed)
    network = Translator(WIDTHS, styles).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, 0.2)
    network.net.last.weight.data.mul_(0.5)
    return network


def refiner_start(**more: Any) -> RefinerStart:
    return RefinerStart(translator(), Clips(0, 4), Clips(100, 1), LICENCES, **more)


def batch_of(recipe: Any, modules: Any, count: int = 4, step_: int = 0) -> Batch:
    draws = tuple(Draw(0, step_, i) for i in range(count))
    samples = [recipe.load(i, d) for i, d in enumerate(draws)]
    named = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
    batch: Batch = recipe.prepare(modules, Batch(named, draws, step_, torch.device("cpu")))
    return batch


def modules_of(recipe: Any) -> dict[str, nn.Module]:
    parts = recipe.build()
    return {**parts.frozen, **parts.trained}


def stored(finished: Any, folder: Path) -> tuple[str, ModelStore]:
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    store = ModelStore((Folder(folder, True),))
    import_file(finished.weights, store, card)
    return card.id, store


# ------------------------------------------------------------------------------------------------------ stage one


def test_the_translator_learns_its_styles_and_is_ready_to_use(tmp_path: Path) -> None:
    recipe = stage_one(settle_norms=30)
    events = run(recipe, replace(config(40, half_life=4.0), validate_every=20), tmp_path / "run")
    first, last = (sum(losses_of(events, "l1")[i : i + 4 or None]) / 4 for i in (0, -4))
    assert last < 0.6 * first
    assert losses_of(events, "perceptual")[-1] < losses_of(events, "perceptual")[0]
    name, store = stored(events[-1], tmp_path / "models")
    network = load_network(name, part="translator", store=store)
    assert isinstance(network, Translator)
    assert network.styles == 2
    x = Pairs(100, 1).pair(0, Draw(0, 0, 0)).x[None]
    with torch.no_grad():
        drawn = [network.eval()(x, weights)[0] for weights in torch.eye(2).split(1)]
    for number in range(2):  # each picture is nearer to its own style than to the other
        off = [float((drawn[number] - styled(x[0], other)).abs().mean()) for other in range(2)]
        assert off[number] < off[1 - number]
    assert list((tmp_path / "run" / "sheets").glob("*.png"))


def test_the_discriminator_is_only_built_where_it_counts(tmp_path: Path) -> None:
    assert set(stage_one().build().trained) == {"translator"}
    assert [p.name for p in stage_one().phases(0)] == ["translator"]
    recipe = stage_one(adversarial=0.5, conditional=True)
    critic = recipe.build().trained["critic"]
    assert isinstance(critic, PatchDiscriminator)
    assert sum(p.numel() for p in PatchDiscriminator(3).parameters()) == 2_765_633
    assert next(critic.parameters()).shape[1] == 3 + 3 + 2  # picture, frame, styles
    events = run(recipe, config(2), tmp_path)
    assert len(losses_of(events, "critic")) == len(losses_of(events, "adversarial")) == 2


def test_a_patch_is_70_pixels() -> None:
    critic = PatchDiscriminator(1, (1, 1, 1, 1)).double()
    for layer in critic.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda x: x  # type: ignore[method-assign]
    x = torch.rand(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    critic(x)[0, 0, 6, 6].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_stage_one_resumes(tmp_path: Path, adversarial: float) -> None:
    def make() -> TranslatorTraining:
        return stage_one(adversarial=adversarial, settle_norms=1, photometry={"noise": 0.1})

    assert_resume_equals_uninterrupted(make, config(3, batch=2, micro_batch=1), tmp_path, at=1)


def test_frame_and_target_are_cut_alike() -> None:
    recipe = stage_one(geometry={"probability": 1.0})
    for index in range(6):
        sample = recipe.load(0, Draw(0, 0, index))
        wanted = styled(sample["x"], int(sample["style"].argmax()))
        assert torch.allclose(sample["y"], wanted, atol=0.05)


def test_what_does_not_count_is_not_learned_from() -> None:
    recipe = stage_one(TranslatorStart(Pairs(0, 4, matte=True), None, LICENCES), adversarial=0.5)
    modules = modules_of(recipe)
    batch = batch_of(recipe, modules)
    assert 0.2 < batch["weight"].mean() < 0.8
    inside = batch["weight"].expand(-1, 3, -1, -1)
    output = torch.where(inside > 0.99, batch["y"], torch.zeros(()))
    edge = (inside > 0) & (inside <= 0.99)
    output = torch.where(edge, batch["y"], output)
    assert float((output - batch["y"]).abs().max()) > 0.9
    assert all(float(term) == 0 for term in recipe.content(modules, output, batch).values())


def test_settled_norms_are_those_of_use() -> None:
    network = translator().train()
    x = torch.rand(4, 3, 16, 16)
    settle(network, 9, 10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.training for norm in norms)
    settle(network, 10, 10)
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    trained_on = network(x)
    assert all(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))  # type: ignore[arg-type]
    assert torch.equal(trained_on, network.eval()(x))
    settle(network, 0, 10)  # in evaluation nothing changes
    assert not any(norm.training for norm in norms)


def test_pairs_of_two_generators_share_their_code(tmp_path: Path) -> None:
    pairs = SharedCodePairs(generator(1), generator(1), 0.7, side=32)
    assert isinstance(pairs, GeneratedPairs)
    assert not isinstance(Pairs(0, 1), GeneratedPairs)
    batch = Batch({}, tuple(Draw(0, 0, i) for i in range(3)), 0, torch.device("cpu"))
    made = pairs.pairs(pairs.modules(), batch)
    assert all(torch.equal(pair.x, pair.y) for pair in made)  # the same generator: the same face
    assert not torch.equal(made[0].x, made[1].x)
    shared = pairs.modules()["base"]
    z = batch.normal("z", (DIM,))
    centre = torch.stack([generator(1).mapping(Draw(0, 0, 0).normal("centre", (4096, DIM)))]).mean((0, 1))
    w = centre + 0.7 * (generator(1).mapping(z) - centre)
    assert torch.allclose(shared(z), generator(1).synthesis(w, generator(1).stored_noise()), atol=1e-5)

    source = SharedCodePairs(generator(1), generator(2), side=32)
    start = TranslatorStart(source, source, LICENCES)
    events = run(stage_one(start, styles=["style"], held_out=2), replace(config(2), validate_every=1), tmp_path)
    assert len(losses_of(events, "l1")) == 2
    with pytest.raises(TrainingError, match="px"):
        SharedCodePairs(generator(1), type(generator(1))(size=16, style_dim=DIM, n_mlp=2, channel_max=8))


def test_with_vgg_and_without(tmp_path: Path) -> None:
    start = TranslatorStart(Pairs(0, 4), None, LICENCES, features=VGG19("relu3_1", 16))
    assert isinstance(modules_of(stage_one(start))["features"], VGG19)
    assert isinstance(modules_of(stage_one())["features"], equations.Bands)
    assert losses_of(run(stage_one(start), config(1), tmp_path), "perceptual")[0] > 0


def test_training_goes_on_from_a_translator() -> None:
    begin = translator(2, seed=5)
    start = TranslatorStart(Pairs(0, 4), None, LICENCES, begin=begin)
    network = modules_of(stage_one(start))["translator"]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), begin.parameters(), strict=True))
    with pytest.raises(TrainingError, match="styles"):
        stage_one(start, styles=["one"])
    with pytest.raises(TrainingError, match=r"recipe\.widths"):
        stage_one(start, widths=[4, 8]).build()


@pytest.mark.parametrize("bad", [{"styles": []}, {"crop": 34}, {"held_out": -1}, {"weights": {"l1": -1.0}}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"recipe is not valid|recipe\.weights"):
        stage_one(**bad)


# ------------------------------------------------------------------------------------------------------ stage two


def test_the_refiner_begins_as_the_translator_and_its_first_targets_are_the_papers() -> None:
    recipe = stage_two(weights={"stability": 0.0, "texture": 0.0})
    modules = modules_of(recipe)
    batch = batch_of(recipe, modules, 2)
    g, m, x = batch["intermediate"], batch["background"], batch["frames"]
    with torch.no_grad():
        terms, pictures = recipe.objective(modules, batch)
    assert torch.equal(pictures, g)
    assert set(terms) == {"warp", "temporal"}
    # By hand: frame 0 is its own predecessor; from then on frame and matte move by the flow.
    targets = [m[:, 0] * x[:, 0] + (1 - m[:, 0]) * g[:, 0]]
    for t in range(1, 4):
        targets.append(
            equations.warp_target(
                x[:, t - 1], x[:, t], (m[:, t - 1], m[:, t]), g[:, t], batch["flow"][:, t], batch["valid"][:, t]
            )
        )
    expected = torch.stack([(target - g[:, t]).square().mean() for t, target in enumerate(targets)]).mean()
    assert float(terms["warp"]) == pytest.approx(10.0 * float(expected), rel=1e-4)
    features = modules["features"]
    of = [equations.deep(features, features(g[:, t])) for t in range(4)]
    changes = torch.stack([equations.feature_l1(of[t - 1], of[t]) for t in range(1, 4)])
    assert float(terms["temporal"]) == pytest.approx(0.1 * float(changes.sum()) / 4, rel=1e-4)


def test_a_stylised_background_asks_for_the_translators_picture() -> None:
    recipe = stage_two(background="translated", weights={"stability": 0.0, "temporal": 0.0})
    modules = modules_of(recipe)
    with torch.no_grad():
        terms, _ = recipe.objective(modules, batch_of(recipe, modules, 1))
    assert float(terms["warp"]) == pytest.approx(0, abs=1e-10)
    assert float(terms["texture"]) == pytest.approx(0, abs=1e-6)
    mixed = stage_two(background="mixed", mix=0.5, weights={"stability": 0.0})
    with torch.no_grad():
        terms, _ = mixed.objective(modules, batch_of(mixed, modules, 1))
    assert float(terms["warp"]) > 0
    with pytest.raises(TrainingError, match="warp"):
        stage_two(weights={"warp": 0.0})


def test_the_translator_learns_nothing_in_stage_two(tmp_path: Path) -> None:
    recipe = stage_two()
    parts = recipe.build()
    modules = {**parts.frozen, **parts.trained}
    batch = batch_of(recipe, modules, 2)
    assert not batch["intermediate"].requires_grad
    losses = recipe.losses(modules, "refiner", batch)
    torch.stack(list(losses.terms.values())).sum().backward()
    assert all(p.grad is None for p in parts.trained["translator"].parameters())
    assert any(p.grad is not None for p in parts.trained["refiner"].parameters())
    owned = {id(p) for group in parts.optimisers["refiner"].param_groups for p in group["params"]}
    assert not owned & {id(p) for p in parts.trained["translator"].parameters()}
    run(recipe, config(2), tmp_path)
    state = checkpoint.read(tmp_path / "checkpoints", 2).tensors
    for name, value in recipe.start.translator.state_dict().items():
        assert torch.equal(state[f"module/translator/{name}"], value), name


def test_gradients_stay_within_a_frame() -> None:
    """Previous results are detached: what frame t does to frame t+1 is no gradient."""
    seen: list[Tensor] = []

    class Spy(Refiner):
        def forward(self, frames: Tensor, refined: Tensor, intermediate: Tensor) -> Tensor:
            seen.append(refined)
            return super().forward(frames, refined, intermediate)

    recipe = stage_two()
    modules = {**modules_of(recipe), "refiner": Spy(REFINER)}
    _, pictures = recipe.objective(modules, batch_of(recipe, modules, 1))
    assert len(seen) == 4
    assert not any(refined.requires_grad for refined in seen)
    assert torch.equal(seen[2], torch.cat([pictures[:, 0], pictures[:, 1]], dim=1))  # y_{t-2}, y_{t-1}


class Flickering(Clips):
    """The frames' brightness flickers, frame by frame, in a picture that stands still."""

    def window(self, item: int, draw: Draw, length: int) -> Any:
        window = super().window(item, draw, length)
        frames = window.frames[:1] * 0.6 + 0.12 * (torch.arange(length) % 2 * 2 - 1).view(-1, 1, 1, 1)
        return replace(window, frames=frames, flow=torch.zeros_like(window.flow))


def test_the_refiner_makes_steadier_and_its_model_is_ready_to_use(tmp_path: Path) -> None:
    start = replace(refiner_start(), clips=Flickering(0, 6), held_out=Flickering(100, 2))
    recipe = stage_two(start, background="translated", alpha=0.0, settle_norms=30, length=3, rate=0.01)
    settings = replace(config(45, batch=2, half_life=4.0), validate_every=15)
    events = run(recipe, settings, tmp_path / "run")
    name, store = stored(events[-1], tmp_path / "models")
    translator_, refiner = (load_network(name, part=part, store=store) for part in ("translator", "refiner"))
    assert isinstance(translator_, Translator)
    assert isinstance(refiner, Refiner)
    window = Flickering(200, 1).window(0, Draw(1, 0, 0), 8)
    memory, refined = None, []
    with torch.no_grad():
        translated = translator_(window.frames)
        for frame in window.frames:
            picture, memory = step(translator_, refiner, frame[None], memory)
            refined.append(picture[0])
    before = equations.flow_warp_error(translated, window.flow, window.valid)
    after = equations.flow_warp_error(torch.stack(refined), window.flow, window.valid)
    assert after < 0.8 * before
    assert float((torch.stack(refined) - translated).abs().mean()) < 0.2  # and it is still that picture


def test_stage_two_resumes(tmp_path: Path) -> None:
    settings = config(3, batch=2, micro_batch=1)
    assert_resume_equals_uninterrupted(lambda: stage_two(settle_norms=2, length=3), settings, tmp_path, at=2)


def test_windows_are_cut_and_mirrored_with_their_flow() -> None:
    window = Clips(0, 1).window(0, Draw(0, 0, 0), 4)
    for mirrored in (False, True):
        sample = cropped(window, 2, 4, 32, mirrored)
        assert sample["frames"].shape == (4, 3, 32, 32)
        moved, inside = equations.warped(sample["frames"][:-1], sample["flow"][1:])
        off = (moved - sample["frames"][1:]).abs() * inside
        assert off.max() < 1e-3
        assert float(sample["flow"][1, 0].mean()) == (2.0 if mirrored else -2.0)
        assert float(sample["background"][0, 0, 0, 0]) == (0.0 if mirrored else 1.0)
    with pytest.raises(TrainingError, match=r"smaller than recipe\.crop"):
        stage_two(crop=64).load(0, Draw(0, 0, 0))
    assert SIDE < 64


def test_the_refiner_of_a_translator_of_several_styles(tmp_path: Path) -> None:
    start = replace(refiner_start(), translator=translator(2), clips=Clips(0, 4, styles=2), held_out=None)
    events = run(stage_two(start, styles=["a", "b"]), config(1), tmp_path)
    assert losses_of(events, "warp")[0] > 0
    with pytest.raises(TrainingError, match="styles"):
        stage_two(start)


@pytest.mark.parametrize("make", [stage_one, stage_two])
def test_half_precision_has_the_same_losses(make: Any, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        settings = replace(config(1, batch=2), precision=precision)  # type: ignore[arg-type]
        events = list(train(make(), settings, tmp_path / precision))
        losses.append(events)
    name = "l1" if make is stage_one else "warp"
    exact, half = (losses_of(events, name)[0] for events in losses)
    assert half == pytest.approx(exact, rel=0.05)
