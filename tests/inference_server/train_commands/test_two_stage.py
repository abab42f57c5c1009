"""`faceplate train two_stage` from clips to a stored model, in slices, killed, refused; with tiny networks."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from host_bridge.errors import ExitCode, TrainError
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore
from inference_server.train_commands import cli
from inference_server.train_commands.two_stage import TwoStageRun, halved
from inference_server.training import checkpoint
from inference_server.training.clip_cache import CacheWriter, ClipCache, PackedFrame
from inference_server.training.config import TrainConfig, split_config
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.two_stage import TranslatorSettings
from inference_server.training.recipes.two_stage_refiner import RefinerSettings
from inference_server.training.tables import dump_toml, from_table, read_toml, to_table
from tests.inference_server.collections.test_clips import write_video

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "inference_server" / "training" / "configs" / "two_stage_starter.toml"
SIZE = 64
LOOP = {"steps": 2, "batch": 2, "workers": 0, "validate_every": 2, "pictures_every": 0, "checkpoints": {"every": 1}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    table = {
        "id": "tiny",
        "styles": ["cartoon", "pencil"],
        "pack": {"size": SIZE, "windows": 2, "length": 3, "kept_out_length": 3},
        "translator": {
            **LOOP,
            "recipe": {"widths": [4, 8], "crop": 32, "held_out": 2, "weights": {"adversarial": 0.0}},
        },
        "refiner": {**LOOP, "recipe": {"widths": [4, 8], "crop": 32, "length": 3, "held_out": 1}},
    }
    path = tmp_path / "tiny.toml"
    path.write_text(dump_toml(table))
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    own = tmp_path / "models"
    own.mkdir()
    monkeypatch.setenv("FACEPLATE_MODELS", str(own))
    return ModelStore((Folder(own, True),))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two windows of noise that moves; a cache is all that training needs."""
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE + 8, 3), np.uint8)
    flow, plane = np.full((SIZE, SIZE, 2), [-1.0, 0.0], np.float32), np.ones((SIZE, SIZE), np.float32)
    writer = CacheWriter(SIZE, ("cartoon", "pencil"), {"teacher": "look"})
    for _ in range(2):
        frames = [np.ascontiguousarray(noise[:, 6 - t : 6 - t + SIZE]) for t in range(3)]
        writer.window("noise", [PackedFrame(f, (255 - f, f // 2), flow, plane, plane) for f in frames])
    writer.write(tmp_path / "packed.safetensors")
    return tmp_path / "packed.safetensors"


def train(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return int(cli.run(parser.parse_args(["two_stage", *map(str, arguments)])))


def test_from_clips_to_a_judgement(
    config: Path, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps make no translator: it is measured, refused, and kept out of the store."""
    out = tmp_path / "run"
    clip, other = write_video(tmp_path / "a.avi", 7), write_video(tmp_path / "b.avi", 3)
    arguments = ("--config", config, "--in", clip, "--keep-out", other, "--out", out)
    assert train(*arguments) == ExitCode.FRAMES_FAILED
    shown = capsys.readouterr()
    assert "packing a: 6 of 6 frames" in shown.out
    assert "not accepted: cartoon: " in shown.out
    assert "stays in" in shown.err
    assert "tiny" not in store.models()
    assert ClipCache(out / "clips.safetensors").windows == ((0, 3), (3, 3))
    report = read_toml(out / "evaluation" / "report.toml")
    assert {(row["clip"], row["style"]) for row in report["rows"]} == {("b", "cartoon"), ("b", "pencil")}
    assert report["rows"][0]["teacher"]["flicker"] > 0
    for name in ("comparison.jpg", "profiles.png"):
        assert (out / "evaluation" / name).stat().st_size > 1000
    card = read_toml(out / "model" / "tiny.toml")
    assert card["two_stage"]["styles"] == ["cartoon", "pencil"]
    assert "Trained on a." in card["notes"]
    assert "2 steps of stage one and 2 of stage two on a CPU" in card["notes"]
    assert "PSNR to the teacher" in card["notes"]

    before = (out / "clips.safetensors").stat().st_mtime_ns
    assert train("--out", out) == ExitCode.FRAMES_FAILED  # all is in the folder: nothing is packed or trained again
    assert (out / "clips.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainError, match="holds cartoon, pencil of look"):
        train("--out", out, "--cache", out / "clips.safetensors", "--styles", "cartoon")


def test_slices_end_where_one_run_does(
    config: Path, store: ModelStore, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--config", config, "--cache", packed)
    statuses = []
    while not statuses or statuses[-1] == ExitCode.CANCELLED:
        statuses.append(train(*arguments, "--out", tmp_path / "sliced", "--slice-minutes", "0"))
        assert len(statuses) < 9
    assert statuses.count(ExitCode.CANCELLED) >= 2  # once in each stage at least
    assert "stopped in stage refiner" in capsys.readouterr().err
    assert train(*arguments, "--out", tmp_path / "whole", "--no-import") == ExitCode.OK
    ours, whole = (load_file(tmp_path / name / "model" / "tiny.safetensors") for name in ("sliced", "whole"))
    assert ours.keys() == whole.keys()
    for name, value in ours.items():
        assert torch.equal(value, whole[name]), name
        assert value.dtype == torch.float16 or not value.is_floating_point()
    card = store.get("tiny").card  # without kept-out clips it is stored, and says so
    assert "not measured" in card.notes
    assert card.two_stage is not None
    assert card.two_stage.styles == ("cartoon", "pencil")
    network = load_network("tiny", part="translator", store=store)
    assert network(torch.zeros(1, 3, 32, 32), torch.tensor([[1.0, 0.0]])).shape == (1, 3, 32, 32)
    with pytest.raises(Exception, match="already imported"):
        train(*arguments, "--out", tmp_path / "again")


def test_a_killed_run_goes_on(config: Path, store: ModelStore, packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    arguments = ["--config", str(config), "--cache", str(packed), "--no-import"]
    endless = ["--set", "refiner.steps=100000", "--out", str(folder)]
    program = "import sys; from host_bridge.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", "two_stage", *arguments, *endless]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not any(step >= 2 for step in checkpoint.steps(folder / "refiner" / "checkpoints")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    steps = max(checkpoint.steps(folder / "refiner" / "checkpoints")) + 1
    torch.set_num_threads(1)
    for out in (folder, tmp_path / "whole"):
        assert train(*arguments, "--set", f"refiner.steps={steps}", "--out", out) == ExitCode.OK
    ours, whole = (load_file(out / "model" / "tiny.safetensors") for out in (folder, tmp_path / "whole"))
    assert all(torch.equal(value, whole[name]) for name, value in ours.items())


def test_nothing_to_learn_from_is_said(config: Path, store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to learn from"):
        train("--config", config, "--out", tmp_path / "run")


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1e5]), "n": torch.tensor(3)}, tmp_path / "large")
    with pytest.raises(TrainingError, match="too large for half"):
        halved(tmp_path / "large")


def test_the_configuration_that_ships_states_every_number() -> None:
    document = read_toml(CONFIG)
    run = from_table(TwoStageRun, document)
    assert {*document, "clips", "kept_out"} == {*to_table(run)}
    for stage, settings in (("translator", TranslatorSettings), ("refiner", RefinerSettings)):
        config, own = split_config(document[stage])
        stated = {key for key in document[stage] if key != "recipe"}
        assert stated == {*to_table(config)} == {*to_table(TrainConfig())}
        filled_in = {"id", "title", "styles", "data", "models", "translator_widths"}
        if stage == "translator":
            assert own.pop("surroundings") == 0.15
            filled_in |= {"critic_rate", "conditional", "band"}  # of a discriminator and of VGG19, which it has not
        made = from_table(settings, own)
        assert {*to_table(made)} - {*own} <= filled_in
