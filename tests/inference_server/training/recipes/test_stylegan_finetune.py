"""Fine-tuning a StyleGAN2 on a folder of pictures, at 32 px."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from inference_server.models import ModelStore, import_file, load_network
from inference_server.models.cards import read_cards
from inference_server.models.store import Folder
from inference_server.networks.stylegan2 import Discriminator, Generator
from inference_server.training import checkpoint
from inference_server.training.errors import TrainingError
from inference_server.training.events import Finished
from inference_server.training.recipes.stylegan_finetune import StyleganFinetune
from tests.inference_server.training.recipes.runs import (
    assert_resume_equals_uninterrupted,
    config,
    losses_of,
    run,
)
from tests.inference_server.training.recipes.tiny_style import (
    DIM,
    LICENCES,
    SIZE,
    discriminator,
    finetune_start,
    generator,
    write_pictures,
)

# Rates and interval suit the size and the length of these runs.
GAN = {"rate": 0.01, "ada_length": 60, "ada_interval": 8, "path": 0.1, "r1": 1.0}


def recipe(folder: Path, **more: Any) -> StyleganFinetune:
    start = more.pop("start", None) or finetune_start()
    gan = {**GAN, **more.pop("gan", {})}
    return StyleganFinetune({"pictures": str(folder), "id": "tiny-style", "gan": gan, **more}, start)


def mean_colours(network: Any) -> torch.Tensor:
    """Of the generator's pictures, by channel."""
    z = torch.randn(32, DIM, generator=torch.Generator().manual_seed(1))
    return network.synthesis(network.mapping(z), network.stored_noise()).mean((0, 2, 3))


def test_it_takes_on_the_colours_of_the_pictures_and_is_ready_to_use(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    start = replace(finetune_start(), discriminator=discriminator(sure=0.0))
    own = recipe(folder, start=start, gan={"rate": 0.02, "ada_target": 0.0})
    events = run(own, config(30), tmp_path / "run")
    wanted = torch.stack([own.pictures.picture(i) for i in range(4)]).mean((0, 2, 3))
    finished = events[-1]
    assert isinstance(finished, Finished)
    (card,) = read_cards(finished.card)
    store = ModelStore((Folder(tmp_path / "models", True),))
    import_file(finished.weights, store, card)
    networks = (generator(), load_network(card.id, store=store))
    before, after = (float((mean_colours(network) - wanted).abs().max()) for network in networks)
    assert after < 0.5 * before
    assert len(losses_of(events, "r1")) == 2
    assert len(losses_of(events, "path")) == 8
    assert {"generator", "discriminator"} <= {name for e in events for name in getattr(e, "losses", {})}
    assert [licence.id for licence in card.licences] == [licence["id"] for licence in LICENCES]
    sheet = cv2.imread(str(next((tmp_path / "run" / "sheets").glob("*.png"))))
    assert sheet is not None


def test_resume_equals_uninterrupted(tmp_path: Path) -> None:
    """With augmentation and path lengths on their way: their state is part of the run's."""
    folder = write_pictures(tmp_path / "pictures")
    settings = config(5, batch=4, micro_batch=2)
    gan = {"ada_target": 0.01, "path_every": 2, "r1_every": 3}
    assert_resume_equals_uninterrupted(lambda: recipe(folder, gan=gan), settings, tmp_path, at=3)
    state = checkpoint.read(tmp_path / "parts" / "checkpoints", 5).tensors
    assert float(state["module/path/mean"]) > 0
    assert 0 < float(state["module/ada/p"]) <= 1


def test_the_average_begins_as_the_published_average(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    averaged = generator(12)
    run(recipe(folder, start=finetune_start(averaged=averaged)), config(1, half_life=1e9), tmp_path / "run")
    state = checkpoint.read(tmp_path / "run" / "checkpoints", 1).tensors
    name = "conv1.conv.weight"
    torch.testing.assert_close(state[f"ema/g/{name}"], averaged.state_dict()[name], rtol=0, atol=1e-6)
    raw = generator().state_dict()[name]
    assert float((state[f"module/g/{name}"] - raw).abs().max()) < 0.05  # the raw one began as the raw one


def test_half_of_the_pictures_are_mirrored(tmp_path: Path) -> None:
    from inference_server.training.draws import Draw

    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[:, : SIZE // 2, 2] = 255  # red, on the left
    cv2.imwrite(str(folder / "a.png"), picture)
    own, plain = recipe(folder), recipe(folder, mirror=False)
    loaded = [own.load(0, Draw(0, step, 0))["picture"] for step in range(60)]
    left = sum(float(p[0, 0, 0]) == 1.0 for p in loaded)
    assert 15 < left < 45
    assert all(float(p[0, 0, 0]) + float(p[0, 0, -1]) == 0 and float(p[1:].max()) == -1 for p in loaded)
    assert all(float(plain.load(0, Draw(0, step, 0))["picture"][0, 0, 0]) == 1.0 for step in range(20))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    cv2.imwrite(str(folder / "wide.png"), np.zeros((SIZE, 48, 3), np.uint8))
    with pytest.raises(TrainingError, match=r"wide\.png is 48x32 px, expected 32x32"):
        run(recipe(folder), config(3), tmp_path / "run")
    (folder / "wide.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"wide\.png cannot be decoded") as caught:
        recipe(folder).pictures.picture(4)
    assert caught.value.code == "training.data"
    (folder / "wide.png").rename(folder / "wide.webp")
    with pytest.raises(TrainingError, match=r"wide\.webp is neither PNG nor JPEG"):
        recipe(folder)
    (tmp_path / "empty").mkdir()
    for missing, says in ((tmp_path / "empty", "holds no picture"), (tmp_path / "nowhere", "not a folder")):
        with pytest.raises(TrainingError, match=says):
            recipe(missing)
    start = finetune_start()
    other = type(start)(Generator(64, DIM, 7, channel_max=8), discriminator(), {}, LICENCES)
    with pytest.raises(TrainingError, match="generator of 64 px, a discriminator of 32 px"):
        recipe(folder, start=other)
    assert Discriminator(64, channel_max=8).size == 64
