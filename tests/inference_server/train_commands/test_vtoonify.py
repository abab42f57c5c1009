"""`faceplate train vtoonify` as a user meets it: real processes, a store of tiny models, kills and mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from host_bridge.cli import main
from host_bridge.errors import ModelError, RequestError, TrainError
from inference_server.effects.vtoonify.variants import Imported
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.vtoonify import VToonify
from inference_server.plates.provenance import read_provenance
from inference_server.runs import FrameDone
from inference_server.train_commands import needs
from inference_server.training import checkpoint
from inference_server.training.errors import TrainingError
from inference_server.training.tables import read_toml
from tests.inference_server.effects.vtoonify.conftest import Lab, encoded, job
from tests.inference_server.train_commands import tiny_store
from tests.inference_server.training.recipes import tiny_vtoonify as tiny
from tests.inference_server.training.test_loop import assert_same_state
from tests.portrait import write_shot

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of teachers, filled once; tests write into folders of their own before it."""
    folder = tmp_path_factory.mktemp("teachers")
    tiny_store.fill(folder)
    return folder


@pytest.fixture
def store(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("FACEPLATE_MODELS", os.pathsep.join(map(str, (own, models))))
    return ModelStore((Folder(own, True), Folder(models)))


def train(*arguments: object) -> int:
    """In this process; errors come through."""
    import argparse

    from inference_server.train_commands import cli

    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return int(cli.run(parser.parse_args(["vtoonify", *map(str, arguments)])))


def encoder_config(path: Path, **more: Any) -> Path:
    return tiny_store.write_config(path, tiny.encoder_table(iterations=6), tiny_store.D_MODELS, **more)


def translator_config(path: Path, **more: Any) -> Path:
    roles = {**tiny_store.D_MODELS, "encoder": "tiny-encoder"}
    return tiny_store.write_config(path, tiny.translator_table(iterations=6), roles, **more)


def test_from_the_first_stage_to_a_model_that_runs(
    store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = encoder_config(tmp_path / "first.toml")
    second = translator_config(tmp_path / "second.toml", validate_every=3)
    arguments = ("--config", second, "--out", tmp_path / "second")
    arguments += ("--style", "style_2", "--degree", "0.25", "--id", "mine")
    with pytest.raises(ModelError, match="1 of 8 models") as caught:
        train(*arguments)
    assert caught.value.value == ["tiny-encoder"]
    assert "vtoonify_d_pretrain" in caught.value.remedy

    assert train("--config", first, "--out", tmp_path / "first", "--progress", "json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["event"] for line in lines[:-1]].count("Progress") == 6
    assert lines[-1] == "ready to use: tiny-encoder  Teachers' terms (non-commercial)"

    assert train(*arguments, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "60,453 trained" not in shown
    assert "steps       6, batch 2 in 2 micro-batches" in shown
    assert not (tmp_path / "second").exists()

    assert train(*arguments) == 0
    shown = capsys.readouterr().out
    assert "the run begins; 6 steps" in shown
    assert "Progress: 100%\nopenjd_progress: 100\n" in shown
    assert "step 3: score " in shown
    assert "ready to use: mine" in shown
    assert (tmp_path / "second" / "curves.png").stat().st_size > 1000
    assert list((tmp_path / "second" / "sheets").iterdir())
    written = read_toml(tmp_path / "second" / "config.toml")["recipe"]
    assert written["style"] == {
        "any_style": False,
        "exemplar": 2,
        "any_degree": False,
        "degree": 0.25,
        "colour_transfer": False,
    }
    assert written["models"]["encoder"] == f"tiny-encoder@{store.get('tiny-encoder').sha256[:12]}"

    card = store.get("mine").card
    assert "style style_2.jpg, style degree 0.25" in card.notes
    assert [licence.id for licence in card.licences] == ["teachers"]
    variant = Imported.of(store).variant("mine")  # as the effect lists it
    assert (variant.style, variant.degree, variant.color_transfer) == (2, 0.25, False)
    assert (variant.codes, variant.styles) == ("dualstylegan-codes-cartoon", ("style_2",))
    first_stage = Imported.of(store).variant("tiny-encoder")
    assert (first_stage.style, first_stage.degree) == (0, 0.5)
    network = load_network("mine", store=store)
    assert isinstance(network, VToonify)
    with torch.inference_mode():
        assert network(torch.zeros(1, 22, 32, 48), torch.zeros(1, tiny.LATENTS, tiny.DIM), 0.25).shape == (1, 3, 64, 96)
    _render(store, tmp_path)
    assert main(["models", "list", "--imported"]) == 0
    assert "mine" in capsys.readouterr().out

    with pytest.raises(ModelError, match="'mine' is already imported"):  # before the hours, not after them
        train("--out", tmp_path / "second")
    assert train("--out", tmp_path / "second", "--replace") == 0


def _render(store: ModelStore, folder: Path) -> None:
    """The effect renders a frame with the trained model."""
    plate = write_shot(folder / "plate", range(1001, 1003))
    lab = Lab(folder / "lab", store)
    try:
        events = lab.run(job(plate, folder / "out", {"model": "mine", "style": "style_2"}, frames="1002"))
    finally:
        lab.runner.close()
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["rendered"]
    before, after = encoded(plate % 1002), encoded(str(folder / "out" / "o.1002.exr"))
    changed = (before != after).any(axis=2)
    assert 0.05 < changed.mean() < 0.9
    assert "mine" in read_provenance(str(folder / "out" / "o.1002.exr")).models  # type: ignore[union-attr]


def environment() -> dict[str, str]:
    """One thread: bits depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_killed_stopped_and_given_again_ends_as_if_nothing_had_happened(store: ModelStore, tmp_path: Path) -> None:
    config = encoder_config(tmp_path / "run.toml", steps=12)
    command = [sys.executable, "-m", "host_bridge.cli", "train", "vtoonify", "--progress", "json", "--device", "cpu"]
    stopped = [*command, "--config", str(config), "--out", str(tmp_path / "stopped"), "--id", "stopped"]

    def until(step: int, number: int) -> int:
        process = subprocess.Popen(stopped, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "Progress" and event["step"] == step:
                process.send_signal(number)
                break
        process.communicate()
        return process.returncode

    assert until(3, signal.SIGKILL) == -signal.SIGKILL
    assert checkpoint.steps(tmp_path / "stopped" / "checkpoints")[-1] >= 2
    assert until(6, signal.SIGTERM) == 6  # cancelled
    assert (tmp_path / "stopped" / "model" / "stopped.toml").exists()
    assert "stopped" not in store
    done = subprocess.run(stopped, env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("ready to use: stopped")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train("--config", config, "--out", tmp_path / "whole", "--id", "stopped", "--no-import")
    finally:
        torch.set_num_threads(threads)
    assert_same_state(tmp_path / "whole", tmp_path / "stopped", 12)
    histories = [(tmp_path / name / "history.jsonl").read_text() for name in ("whole", "stopped")]
    assert histories[0] == histories[1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_torchrun_shares_a_batch(store: ModelStore, tmp_path: Path) -> None:
    """The documented command with two processes: the same model as one process makes, and one import."""
    config = encoder_config(tmp_path / "run.toml", steps=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "host_bridge.cli", "train", "vtoonify", "--device", "cpu"]
    command += ["--config", str(config), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "are trained in 2 processes" in done.stdout
    assert done.stdout.count("ready to use: tiny-encoder") == 1
    train("--config", config, "--out", tmp_path / "one", "--no-import")
    two, one = (checkpoint.read(tmp_path / name / "checkpoints", 3) for name in ("two", "one"))
    for name, value in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--model", "style=dualstylegan-nowhere"], ModelError, "dualstylegan-nowhere"),
        (["--model", "style=stylegan2-ffhq"], ModelError, "is a Generator, expected a DualStyleGAN"),
        (["--model", "base=stylegan2-ffhq"], TrainError, "role 'base' is none of this run's"),
        (["--model", "codes="], TrainError, "role 'codes' has no model"),
        (["--model", "codes=vtoonify-encoder"], ModelError, "no style codes"),
        (["--model", "directions=vtoonify-encoder"], ModelError, "no 'directions', but latent_avg"),
        (["--style", "style_7"], RequestError, "unknown style 'style_7'"),
        (["--set", "stepps=3"], TrainError, "stepps is not a known key"),
        (["--set", "steps"], TrainError, "not KEY=VALUE"),
        (["--set", "recipe.id.x=1"], TrainError, "is no table"),
        (["--config", "vtoonify_z"], TrainError, "cannot be read"),
    ],
)
def test_mistakes_are_named_before_anything_begins(
    store: ModelStore, tmp_path: Path, arguments: list[str], error: type[Exception], says: str
) -> None:
    config = encoder_config(tmp_path / "run.toml")
    with pytest.raises(error, match=says):
        train("--config", config, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_needs_a_configuration(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no configuration is named"):
        train("--out", tmp_path / "run")


def test_everything_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the built-in configuration on a machine without models."""
    monkeypatch.setenv("FACEPLATE_MODELS", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="8 of 8 models") as caught:
        train("--config", "vtoonify_d", "--out", tmp_path / "run")
    assert caught.value.code == "model.not_imported"
    for model in ("dualstylegan-cartoon", "vtoonify-directions", "lpips-vgg", "torchvision-vgg16"):
        assert model in caught.value.value
        assert model in caught.value.remedy
    assert "faceplate models pull dualstylegan-cartoon" in caught.value.remedy


def test_another_model_under_the_same_id_is_noticed(store: ModelStore, tmp_path: Path) -> None:
    found = needs.find_models({"base": "stylegan2-ffhq"}, store, {})
    (pin,) = needs.pinned(found).values()
    assert needs.find_models({"base": pin}, store, {})["base"].id == "stylegan2-ffhq"
    other = ("stylegan2", tiny.generator(9), {"size": tiny.OUT, **tiny.SIZES})
    tiny_store.put(store, "stylegan2-ffhq", {"main": other})
    with pytest.raises(TrainingError, match="is not the one this run was started with") as caught:
        needs.find_models({"base": pin}, store, {})
    assert caught.value.code == "training.resume"
