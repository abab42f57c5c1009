"""Video adaptation in a closed loop: a generator's samples are the video with known codes, the encoder is linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inference_server.models import ModelStore, import_file, load_network
from inference_server.models.cards import read_cards
from inference_server.models.store import Folder
from inference_server.networks.stylegan2 import Generator
from inference_server.networks.stylegan3 import StyleGAN3, config_t
from inference_server.train_commands.running import CONFIGS
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.events import Finished, Pictured, Progress, Validated
from inference_server.training.loop import train
from inference_server.training.recipe import Batch
from inference_server.training.recipes.adaptation import (
    Adaptation,
    AdaptationSettings,
    AdaptationStart,
    adaptation_config,
)
from inference_server.training.recipes.synthesis import AlignedShot, synthesis_of
from inference_server.training.tables import read_toml, to_table
from tests.inference_server.training.recipes import tiny_portrait as tiny
from tests.inference_server.training.recipes.runs import assert_resume_equals_uninterrupted, config, losses_of, run

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 60


def recipe(start: Generator, codes: Tensor, pictures: Tensor, **table: Any) -> Adaptation:
    begin = AdaptationStart(start, tiny.SIZES, tiny.lpips(), tiny.LICENCES)
    return Adaptation(table, AlignedShot(tiny.Pictures(pictures), codes), begin)


def apart(network: Generator, codes: Tensor, pictures: Tensor) -> tuple[float, float]:
    """LPIPS and mean squared difference of what the generator draws from what is wanted."""
    drawn = tiny.draw(network, codes)
    return float(tiny.lpips()(drawn, pictures).mean()), float(F.mse_loss(drawn, pictures))


@pytest.fixture(scope="module")
def encode(one_thread: None) -> Callable[[Tensor], Tensor]:
    """The encoder that belongs to the generator that does not know the actor."""
    return tiny.encoder(tiny.moved(tiny.generator(), 0.15))


@pytest.fixture(scope="module")
def world(encode: Callable[[Tensor], Tensor]) -> tuple[Generator, Generator, Tensor, Tensor]:
    """The actor, the generator that does not know them, the video, and its codes as the encoder reads them."""
    actor = tiny.generator()
    video = tiny.draw(actor, tiny.walk(actor))
    return actor, tiny.moved(actor, 0.15), video, encode(video)


@pytest.fixture(scope="module")
def adapted(
    world: tuple[Generator, Generator, Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> tuple[Generator, list[Any], Path]:
    """The generator after STEPS steps, taken out of the model store like an imported one; the run's events."""
    _, start, video, codes = world
    folder = tmp_path_factory.mktemp("adapted")
    own = replace(config(STEPS, batch=1, half_life=0.0), validate_every=20, pictures_every=STEPS)
    events = run(recipe(start, codes, video, id="tiny-actor"), own, folder / "run")
    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    store = ModelStore((Folder(folder / "models", True),))
    import_file(finished.weights, store, card)
    network = load_network(card.id, store=store)
    assert isinstance(network, Generator)
    return network, events, folder / "run"


def test_inversion_and_adaptation_bring_the_shot_back(world: Any, adapted: Any) -> None:
    """LPIPS to less than six tenths, the squared difference to less than half; the mapping network is left alone."""
    _, start, video, codes = world
    before, after = apart(start, codes, video), apart(adapted[0], codes, video)
    assert after[0] < 0.6 * before[0]
    assert after[1] < 0.5 * before[1]
    for name, value in start.named_parameters():
        same = torch.equal(value, adapted[0].get_parameter(name))
        assert same == name.startswith("style."), name


def test_an_edit_taken_back_is_the_start(world: Any, adapted: Any, encode: Callable[[Tensor], Tensor]) -> None:
    """Edited, drawn, read again by the encoder, and edited back: much closer to the start than the edit was."""
    _, start, _, codes = world
    direction = tiny.edit()[0]  # the linear encoder reads one row for all
    with torch.no_grad():
        first, edited = tiny.draw(start, codes), tiny.draw(start, codes + direction)
        back = tiny.draw(start, encode(edited) - direction)
        level = tiny.draw(start, encode(first))  # what reading alone costs
        exact = tiny.draw(adapted[0], (codes + direction) - direction)
    assert F.mse_loss(back, first) < 0.5 * F.mse_loss(edited, first)
    assert F.mse_loss(back, level) < 0.5 * F.mse_loss(edited, first)
    torch.testing.assert_close(exact, tiny.draw(adapted[0], codes), rtol=0, atol=1e-4)


def test_the_run_says_how_far_it_is_and_keeps_the_best(adapted: Any) -> None:
    _, events, folder = adapted
    assert [len(losses_of(events, name)) for name in ("perceptual", "l2")] == [STEPS, STEPS]
    scores = {e.step: e.score for e in events if isinstance(e, Validated)}
    assert sorted(scores) == [20, 40, 60]
    assert events[-1].exported_step == min(scores, key=lambda step: scores[step])
    (sheet,) = (e.path for e in events if isinstance(e, Pictured) and e.kind == "sheet")
    assert sheet.parent == folder / "sheets"


def test_the_sheet_shows_source_before_and_now(world: Any) -> None:
    _, start, video, codes = world
    own = recipe(start, codes, video, sheet_frames=2)
    now = tiny.moved(start, 0.05)
    with torch.no_grad():
        sheet = own.sheet({"before": start, "g": now})
    assert sheet.columns == ("source", "before", "now")
    assert sheet.pictures.shape == (2, 3, 3, tiny.SIZE, tiny.SIZE)
    torch.testing.assert_close(sheet.pictures[1, 0], video[-1])
    torch.testing.assert_close(sheet.pictures[1, 2], tiny.draw(now, codes[-1:])[0])


def test_a_further_shot_of_the_actor_needs_ten_steps(
    world: Any, adapted: Any, encode: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    """Ten steps from the adapted generator leave less than ten from the one that does not know the actor."""
    actor, start, _, _ = world
    other = tiny.draw(actor, tiny.walk(actor, seed=12))
    codes = encode(other)
    document = {"batch": 1, "validate_every": 100, "pictures_every": 100, "ema": {"half_life": 0.0}, "workers": 0}
    settings, table = adaptation_config(document, continual=True)
    assert settings.steps == settings.validate_every == settings.pictures_every == 10
    assert adaptation_config(document)[0].steps == 1000
    left = {}
    for name, begin in (("continual", adapted[0]), ("new", start)):
        finished = list(train(recipe(begin, codes, other, **table), settings, tmp_path / name))[-1]
        assert isinstance(finished, Finished)
        assert finished.exported_step == 10
        left[name] = sum(apart(_stored(finished), codes, other))
    assert left["continual"] < 0.9 * left["new"]


def _stored(finished: Finished) -> Generator:
    from safetensors.torch import load_file

    network = tiny.generator()
    network.load_state_dict({k.removeprefix("main."): v for k, v in load_file(finished.weights).items()})
    return network


def test_the_losses_are_those_of_the_equation(world: Any) -> None:
    _, start, video, codes = world
    own = recipe(start, codes, video, perceptual=0.7, l2=1.3)
    batch = Batch({"picture": video[2:4], "code": codes[2:4]}, (Draw(0, 0, 0),), 0, torch.device("cpu"))
    with torch.no_grad():
        terms = own.losses({"g": start, "perceptual": tiny.lpips()}, "adapt", batch).terms
    lpips, squared = apart(start, codes[2:4], video[2:4])
    assert float(terms["perceptual"]) == pytest.approx(0.7 * lpips)
    assert float(terms["l2"]) == pytest.approx(1.3 * squared)


def test_a_resumed_adaptation_equals_an_uninterrupted_one(world: Any, tmp_path: Path) -> None:
    _, start, video, codes = world
    settings = config(5, batch=1, half_life=0.0)
    assert_resume_equals_uninterrupted(lambda: recipe(start, codes, video), settings, tmp_path, at=2)
    with pytest.raises(TrainingError, match="shot") as caught:  # another shot's codes do not go on in its folder
        run(recipe(start, codes + 0.1, video), settings, tmp_path / "whole")
    assert caught.value.code == "training.resume"


def test_a_cancelled_adaptation_leaves_the_best_so_far(world: Any, tmp_path: Path) -> None:
    _, start, video, codes = world
    settings = replace(config(50, batch=1, half_life=0.0), validate_every=2)
    events = run(recipe(start, codes, video), settings, tmp_path, until=3)
    assert [e.step for e in events if isinstance(e, Progress)] == [1, 2, 3]
    (card,) = read_cards(tmp_path / "model" / "my-actor.toml")
    assert "step 2 of 50, the best of its run" in card.notes


def test_frames_are_asked_for_one_at_a_time_in_an_order_of_the_seed(world: Any, tmp_path: Path) -> None:
    _, start, video, codes = world
    orders = []
    for seed in (0, 0, 1):
        own = recipe(start, codes, video)
        frames = own.shot.frames
        assert isinstance(frames, tiny.Pictures)
        assert frames.asked == [0]  # for its size
        loop = train(own, replace(config(12, batch=1, half_life=0.0), seed=seed), tmp_path / f"{len(orders)}")
        for event in loop:
            if isinstance(event, Progress):
                assert len(frames.asked) == event.step + 1
                if event.step == 7:
                    break
        loop.close()
        orders.append(frames.asked[1:8])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][: tiny.FRAMES]) == list(range(tiny.FRAMES))


def test_a_stylegan3_is_adapted_where_it_draws_the_face(tmp_path: Path) -> None:
    torch.manual_seed(1)
    size = replace(config_t(32), channel_base=256, channel_max=8, z_dim=8, w_dim=8, num_layers=4)
    network = StyleGAN3(size).eval().requires_grad_(False)
    codes = network.mapping(torch.randn(2, 8))
    placements = torch.eye(3).repeat(2, 1, 1)
    placements[1, 0, 2] = 0.2
    with torch.no_grad():
        wanted = 0.5 * network.synthesis(codes, placements)
    begin = AdaptationStart(network, {}, tiny.lpips(), tiny.LICENCES)
    own = Adaptation({"rate": 3e-3}, AlignedShot(tiny.Pictures(wanted), codes, placements), begin)
    before = own.score({"g": network, "perceptual": tiny.lpips()})
    events = run(own, replace(config(9, batch=2, half_life=0.0), validate_every=9), tmp_path)
    (after,) = (e.score for e in events if isinstance(e, Validated))
    assert after < 0.3 * before
    names = [n for n, p in network.named_parameters() if any(p is q for q in own.synthesis.trained(network))]
    assert names == [n for n, _ in network.named_parameters() if n.startswith("synthesis.")]


def test_what_does_not_go_together_is_refused(world: Any) -> None:
    _, start, video, codes = world
    wrong = [
        (codes[:, :9], video, r"codes of shape \[6, 9, 8\].*expected \[frames, 10, 8\]"),
        (codes[:5], video, "6 pictures for 5 codes"),
        (codes, video[..., :32], r"pictures of shape \[3, 64, 32\]"),
        (codes * float("nan"), video, "not finite"),
    ]
    for given, pictures, words in wrong:
        with pytest.raises(TrainingError, match=words) as caught:
            recipe(start, given, pictures)
        assert caught.value.code == "training.config"
    shot = AlignedShot(tiny.Pictures(video), codes, torch.eye(3).repeat(6, 1, 1))
    own = Adaptation({}, shot, AdaptationStart(start, tiny.SIZES, tiny.lpips(), tiny.LICENCES))
    with pytest.raises(TrainingError, match="aligned faces only"):
        own.score({"g": start, "perceptual": tiny.lpips()})
    with pytest.raises(TrainingError, match="LPIPS is no generator"):
        synthesis_of(tiny.lpips())
    with pytest.raises(TrainingError, match="not both 0"):
        recipe(start, codes, video, perceptual=0.0, l2=0.0)


def test_the_shipped_configuration_is_the_published_one() -> None:
    """And states every number there is."""
    document = read_toml(CONFIGS / "adaptation.toml")
    settings, table = adaptation_config(document)
    assert (settings.steps, settings.batch, settings.precision) == (1000, 1, "fp32")
    assert (table["perceptual"], table["l2"], table["rate"], table["continual_steps"]) == (1.0, 1.0, 1e-3, 10)
    assert {**table, "models": {}} == to_table(AdaptationSettings())
    assert document.keys() == {*to_table(settings), "recipe"}
