"""From a folder of pictures to a style collection that VToonify is trained on, by the commands, at 128 px."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from host_bridge.errors import ModelError, TrainError
from inference_server.models.loading import load_network, load_style_codes
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.arcface import ArcFace
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import Discriminator, Generator
from inference_server.networks.vgg import VGG19
from inference_server.train_commands import cli
from inference_server.training.tables import read_toml
from tests.inference_server.train_commands import tiny_store
from tests.inference_server.training.recipes import tiny_vtoonify as tiny
from tests.inference_server.training.recipes.tiny_style import write_pictures

SIZES = {"size": tiny.OUT, **tiny.SIZES}
FACE = {"image_size": 16, "embedding": 8, "widths": [16, 16, 16, 16], "depths": [1, 1, 1, 1]}
LOOP = ("steps=2", "batch=2", "micro_batch=2", "workers=0", "checkpoints.every=1", "pictures_every=0")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an artist has imported: faces, encoder and loss networks."""
    folder = tmp_path_factory.mktemp("models")
    store = tiny_store.fill(folder)
    torch.manual_seed(0)
    discriminator = Discriminator(tiny.OUT, channel_max=8)
    own = {"size": tiny.OUT, "channel_max": 8}
    parts: dict[str, Any] = {
        "main": ("stylegan2", tiny.generator(1), SIZES),
        "raw": ("stylegan2", tiny.generator(2), SIZES),
        "discriminator": ("stylegan2-discriminator", discriminator, own),
    }
    tiny_store.put(store, "stylegan2-ffhq", parts)
    tiny_store.put(store, "face-alone", {"main": parts["main"]})
    arcface = ArcFace(16, 8, (16, 16, 16, 16), (1, 1, 1, 1))
    tiny_store.put(store, "arcface-irse50", {"main": ("arcface", arcface, FACE)})
    tiny_store.put(store, "torchvision-vgg19", {"main": ("vgg19", VGG19(width_divisor=16), {"width_divisor": 16})})
    return folder


@pytest.fixture
def store(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("FACEPLATE_MODELS", os.pathsep.join(map(str, (own, models))))
    return ModelStore((Folder(own, True), Folder(models)))


def train(*arguments: object, change: tuple[str, ...] = ()) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    changes = [word for assignment in change for word in ("--set", assignment)]
    return int(cli.run(parser.parse_args([*map(str, arguments), *changes])))


def test_from_a_folder_of_pictures_to_a_vtoonify(
    store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "pictures", 3, size=140)
    aligned, runs = tmp_path / "aligned", tmp_path / "runs"
    assert train("prepare", "--in", tmp_path / "pictures", "--out", aligned, "--size", tiny.OUT, "--aligned") == 0
    here = ("--pictures", aligned, "--device", "cpu")

    tune = ("finetune", "--config", "stylegan_finetune", "--id", "our-stylegan2", "--out", runs / "finetune", *here)
    assert train(*tune, change=LOOP) == 0
    assert isinstance(load_network("our-stylegan2", store=store), Generator)
    average = read_toml(runs / "finetune" / "model" / "our-stylegan2.toml")
    assert [licence["id"] for licence in average["licences"]] == ["teachers"]

    codes = ("destylize", "--config", "destylize", "--model", "tuned=our-stylegan2", "--id", "our-codes")
    short = ("recipe.steps=2", "recipe.compare_at=32")
    assert train(*codes, "--out", runs / "destylize", *here, change=short) == 0
    styles = load_style_codes("our-codes", store=store)
    assert styles.names == ("style_00.png", "style_01.png", "style_02.png")
    assert load_style_codes("our-codes-intrinsic", store=store).codes.shape == (3, tiny.LATENTS, tiny.DIM)

    small = (*LOOP, "recipe.compare_at=32", "recipe.gan.path_every=2")
    pre = ("dualstylegan", "--config", "dualstylegan_pretrain", "--id", "our-start", "--device", "cpu")
    assert train(*pre, "--out", runs / "pretrain", change=small) == 0
    dual = ("dualstylegan", "--config", "dualstylegan", "--model", "start=our-start", "--id", "our-dualstylegan")
    assert train(*dual, "--codes", runs / "destylize", "--out", runs / "dual", *here, change=small) == 0
    network = load_network("our-dualstylegan", store=store)
    assert isinstance(network, DualStyleGAN)
    base = load_network("stylegan2-ffhq", store=store).state_dict()
    assert all(torch.equal(v, base[k]) for k, v in network.generator.state_dict().items())

    finer = (
        "refine-codes",
        "--config",
        "refine_codes",
        "--model",
        "network=our-dualstylegan",
        "--id",
        "our-finer-codes",
    )
    assert train(*finer, "--codes", runs / "destylize", "--out", runs / "refine", *here, change=short) == 0
    refined = load_style_codes("our-finer-codes", store=store)
    assert refined.names == styles.names
    assert not torch.equal(refined.codes, styles.codes)
    said = capsys.readouterr().out
    for model in ("our-stylegan2", "our-codes", "our-start", "our-dualstylegan", "our-finer-codes"):
        assert f"ready to use: {model}  " in said

    roles = {**tiny_store.D_MODELS, "style": "our-dualstylegan", "codes": "our-finer-codes"}
    table = tiny.encoder_table(iterations=1, id="our-encoder", style={"any_style": True})
    config = tiny_store.write_config(tmp_path / "vtoonify.toml", table, roles, steps=1)
    assert train("vtoonify", "--config", config, "--out", runs / "encoder", "--device", "cpu") == 0
    assert store.get("our-encoder").card.parts["main"].network == "vtoonify"


def test_dry_runs_write_nothing(store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_pictures(tmp_path / "pictures", 2, size=tiny.OUT)
    words = ("--pictures", pictures, "--device", "cpu", "--dry-run", "--out", tmp_path / "run")
    short = ("recipe.compare_at=32",)
    assert train("destylize", "--config", "destylize", "--model", "tuned=face-alone", *words, change=short) == 0
    said = capsys.readouterr().out
    assert "pictures    2, 300 steps each" in said
    assert "s a step" in said
    assert train("finetune", "--config", "stylegan_finetune", *words, change=("batch=2", "micro_batch=2")) == 0
    assert "steps       600, batch 2" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_said_before_anything_begins(store: ModelStore, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 1, size=tiny.OUT)
    words = ("--pictures", pictures, "--device", "cpu", "--out", tmp_path / "run")
    with pytest.raises(ModelError, match=r"my-style-stylegan2 \(tuned\)") as caught:
        train("destylize", "--config", "destylize", *words)
    assert "faceplate train finetune" in caught.value.remedy
    with pytest.raises(ModelError, match="holds no discriminator"):
        train("finetune", "--config", "stylegan_finetune", "--model", "base=face-alone", *words)
    with pytest.raises(TrainError, match="none is named"):
        train("finetune", "--config", "stylegan_finetune", "--device", "cpu", "--out", tmp_path / "run")
    with pytest.raises(TrainError, match="role 'style' is none of this run's"):
        train("finetune", "--config", "stylegan_finetune", "--model", "style=x", *words)
    with pytest.raises(TrainError, match=r"recipe\.stage is 'both'"):
        train("dualstylegan", "--config", "dualstylegan", *words, change=("recipe.stage=both",))
    with pytest.raises(TrainError, match="this is no configuration of destylize: steps"):
        train("destylize", "--config", "destylize", "--model", "tuned=face-alone", *words, change=("steps=3",))
    tiny_store.put(
        ModelStore((Folder(tmp_path / "own", True),)),
        "dualstylegan-pretrain",
        {
            "main": ("dualstylegan", tiny.dual(), SIZES),
            "discriminator": (
                "stylegan2-discriminator",
                Discriminator(tiny.OUT, channel_max=8),
                {"size": tiny.OUT, "channel_max": 8},
            ),
        },
    )
    with pytest.raises(TrainError, match="no codes are named"):
        train("dualstylegan", "--config", "dualstylegan", *words)
    with pytest.raises(TrainError, match="has no codes for 1 of the 1 pictures"):
        train("dualstylegan", "--config", "dualstylegan", "--codes", tmp_path, *words)
    assert not (tmp_path / "run").exists()
