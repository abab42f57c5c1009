"""`faceplate train keyframe` on a small shot: painted, trained, stopped, continued with another frame, rendered."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from host_bridge.errors import ModelError, TrainError
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.config import ServerConfig
from inference_server.models.store import Folder, ModelStore
from inference_server.pipeline import PipelineRunner
from inference_server.plates.provenance import read_provenance
from inference_server.runs import FrameDone, JobContext
from inference_server.train_commands import cli
from inference_server.train_commands.keyframe_rounds import Rounds
from inference_server.train_commands.progress import Lines
from inference_server.training import checkpoint
from inference_server.training.events import Event, Progress
from inference_server.training.recipes.keyframe_data import KeyframeData, read_data
from inference_server.training.tables import read_toml
from tests.inference_server.keyframes.paint import painted, plate_of, write_paint
from tests.inference_server.training.test_loop import assert_same_state
from tests.plate_files import independent_read
from tests.portrait import COLORSPACE, write_shot

SIZE = 176
TINY = (
    "translator.recipe.widths=[8,8,8]",
    "translator.recipe.crop=32",
    "translator.batch=2",
    "translator.workers=0",
    "refiner.recipe.widths=[8,8]",
    "refiner.recipe.crop=32",
    "refiner.recipe.length=3",
    "refiner.workers=0",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shot of five frames, all of them painted, and one place for its analysis."""
    folder = tmp_path_factory.mktemp("keyframe")
    write_shot(folder, range(1001, 1006), size=SIZE)
    for frame in range(1001, 1006):
        write_paint(folder / f"painted.{frame}.exr", painted(plate_of(frame, SIZE)))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads."""
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv_threads)


@pytest.fixture
def store(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("FACEPLATE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("FACEPLATE_SHOTS", str(work / "shots"))
    (tmp_path / "models").mkdir()
    return ModelStore((Folder(tmp_path / "models", True),))


def train(work: Path, *arguments: object, frames: str = "1001,1005", name: str = "hero_look") -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    words = ["keyframe", "--in", f"{work}/shot.%04d.exr", "--colorspace", COLORSPACE]
    words += ["--painted", f"{work}/painted.%04d.exr", "--frames-painted", frames, "--name", name]
    words += ["--device", "cpu", "--start", "none", "--size", "96", *map(str, arguments)]
    words += [word for assignment in TINY for word in ("--set", assignment)]
    return int(cli.run(parser.parse_args(words)))


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C when that step of stage one is told."""
    show = Lines.show

    def interrupted(self: Lines, event: Event) -> None:
        show(self, event)
        if isinstance(event, Progress) and event.step == step and event.steps == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Lines, "show", interrupted)


def test_from_painted_frames_to_a_rendered_one(
    store: ModelStore, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(work, "--out", out, "--steps", 6, "--refiner-steps", 3) == 0
    said = capsys.readouterr().out
    assert "painted frame 1001: read as the plate's colourspace" in said
    assert "ready to use: hero_look  Your own" in said
    (round_,) = Rounds(out).all()
    assert list((round_.folder / "translator" / "sheets").iterdir())
    assert list((round_.folder / "refiner" / "sheets").iterdir())

    card = store.get("hero_look").card
    assert card.purpose.startswith("keyframe")
    assert {p.network for p in card.parts.values()} == {"two-stage-translator", "two-stage-refiner"}
    spec = card.two_stage
    assert spec is not None
    assert (spec.keyframe, spec.crop, spec.regions, spec.painted) == (True, "follow", "head", (1001, 1005))
    assert spec.size < 30  # --size 96: the eyes of this plate are reduced
    assert spec.shot in card.notes
    assert [licence.id for licence in card.licences] == ["own-paint"]

    config = ServerConfig(shots=str(work / "shots"), models=(str(tmp_path / "models"),), threads=1)
    runner = PipelineRunner("cpu", config)
    plate = PlateSpec(f"{work}/shot.%04d.exr", colorspace=COLORSPACE)
    render = JobSpec(
        "render",
        plate,
        frames="1003",
        effect="keyframe",
        params={"model": "hero_look"},
        output=f"{tmp_path}/r.%04d.exr",
    )
    try:
        done = list(runner.run(render, JobContext("test")))
    finally:
        runner.close()
    assert [e.status for e in done if isinstance(e, FrameDone)] == ["rendered"]
    path = str(tmp_path / "r.1003.exr")
    before, after = independent_read(f"{work}/shot.1003.exr"), independent_read(path)
    changed = (before[0]["R"] != after[0]["R"]).mean()
    assert 0.05 < changed < 0.9
    made = read_provenance(path)
    assert made is not None
    assert "hero_look" in made.models


def test_stopped_at_any_time_and_given_again_it_ends_as_if_nothing_had_happened(
    store: ModelStore, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ("--steps", 6, "--refiner-steps", 2)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        assert train(work, "--out", tmp_path / "stopped", *steps) == 6
    heard = capsys.readouterr()
    assert "stopped; the best so far is in" in heard.err
    assert "ready to use: hero_look" in heard.out
    kept = store.get("hero_look")
    assert list(kept.card.parts) == ["translator"]
    assert kept.card.two_stage is not None

    assert train(work, "--out", tmp_path / "stopped", *steps) == 0  # its own model makes room
    assert set(store.get("hero_look").card.parts) == {"translator", "refiner"}
    assert "prepare:" not in capsys.readouterr().out  # nothing is packed twice
    assert train(work, "--out", tmp_path / "whole", *steps, "--no-import") == 0
    for stage, count in (("translator", 6), ("refiner", 2)):
        assert_same_state(tmp_path / "whole" / "round-01" / stage, tmp_path / "stopped" / "round-01" / stage, count)


def test_another_painted_frame_goes_on_from_what_was_learned(
    store: ModelStore, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(work, "--out", out, "--steps", 3, "--refiner-steps", 1) == 0
    capsys.readouterr()
    assert train(work, "--out", out, "--steps", 3, "--refiner-steps", 1, frames="1001,1003,1005") == 0
    said = capsys.readouterr().out
    first, second = Rounds(out).all()
    assert "round-02: painted 1001, 1003, 1005" in said
    assert "begins with round-01@" in said
    written = read_toml(second.folder / "translator" / "config.toml")["recipe"]
    assert written["models"]["start"].startswith("round-01@")
    spec = store.get("hero_look").card.two_stage
    assert spec is not None
    assert spec.painted == (1001, 1003, 1005)
    assert first.result() != second.result()
    assert checkpoint.steps(second.folder / "translator" / "checkpoints")[-1] == 3

    with pytest.raises(ModelError, match="already imported"):  # another folder's model is not replaced
        train(work, "--out", tmp_path / "other", "--steps", 1)


def test_minutes_become_steps_once(
    store: ModelStore, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(work, "--out", out, "--minutes", "0.02", "--no-import") == 0
    said = capsys.readouterr().out
    assert "0.02 minutes here: " in said
    plan = Rounds(out).last().plan()
    assert plan is not None
    assert plan.translator >= 20
    assert plan.translator_seconds > 0
    assert train(work, "--out", out, "--minutes", "5", "--no-import") == 0
    assert Rounds(out).last().plan() == plan
    assert "minutes here" not in capsys.readouterr().out


def test_what_was_packed_fits_together(store: ModelStore, work: Path, tmp_path: Path) -> None:
    assert train(work, "--out", tmp_path / "run", "--dry-run") == 0
    data = read_data(tmp_path / "run" / "round-01" / "data")
    assert data.numbers.tolist() == [1001, 1002, 1003, 1004, 1005]
    assert data.painted.tolist() == [1001, 1005]
    assert data.carried_to.tolist() == [1004, 1002]
    assert data.longest_run == 5
    _check_paint(data)
    _check_flow(data)


@pytest.mark.parametrize(("region", "crop", "size"), [("frame", "full", 96.0), ("face", "follow", None)])
def test_a_region_settles_what_the_network_sees(
    store: ModelStore, work: Path, tmp_path: Path, region: str, crop: str, size: float | None
) -> None:
    assert train(work, "--out", tmp_path / "run", "--dry-run", "--region", region) == 0
    round_ = Rounds(tmp_path / "run").last()
    card, data = round_.card(), read_data(round_.data)
    assert (card["crop"], card["regions"]) == (crop, "crop" if region == "frame" else region)
    assert max(data.frames.shape[-2:]) <= 96 + 8  # rounded up to what the networks take
    if size is not None:
        assert card["size"] == size
        assert (data.matte == 255).all()
    else:
        assert 0.1 < (data.matte > 128).mean() < 0.8


def _check_paint(data: KeyframeData) -> None:
    """Paint lies where its plate's pixels lie, and so does what is carried to another frame."""
    for item, number in enumerate(data.painted):
        frame = data.frames[data.at(int(number))].astype(np.float32) / 255
        weight = data.weight[item] / 255
        assert weight.max() > 0.99
        assert 0.1 < np.median(weight[weight < 0.5]) < 0.2  # what surrounds the head counts a little
        blue, red = (data.paint[item][2] - frame[2])[weight > 0.9], (data.paint[item][0] - frame[0])[weight > 0.9]
        assert blue.mean() < -0.03  # as tests.keyframes.paint paints
        assert red.mean() > 0.03
    for item, number in enumerate(data.carried_to):
        truth = painted(plate_of(int(number), SIZE))
        assert truth.shape == (SIZE, SIZE, 3)
        holds = data.holds[item] > 200
        assert holds.mean() > 0.1
        frame = data.frames[data.at(int(number))].astype(np.float32) / 255
        carried = data.carried[item].astype(np.float32) / 255
        assert np.abs(carried[1] - frame[1])[holds].mean() < 0.04  # green is hardly painted


def _check_flow(data: KeyframeData) -> None:
    """The camera drifts, and the crop follows the face: what is left is small, and holds nearly everywhere."""
    inside = data.matte[1] > 200
    assert data.first.tolist() == [1, 0, 0, 0, 0]
    assert np.abs(data.flow[1:, :, inside]).mean() < 1.0
    assert data.valid[1:, inside].mean() > 0.9


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda w: ("--frames-painted", "1001,1009"), TrainError, "painted frame 1009 is not on disk"),
        (lambda w: ("--painted", f"{w}/shot.%04d.exr"), TrainError, "nothing is painted on it"),
        (lambda w: ("--set", "steps=3"), TrainError, "names neither network"),
        (lambda w: ("--start", "no-such-model"), ModelError, "no-such-model"),
        (lambda w: ("--name", "Hero Look"), TrainError, "lower-case letters"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(
    store: ModelStore,
    work: Path,
    tmp_path: Path,
    change: Callable[[Path], tuple[str, str]],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        train(work, "--out", tmp_path / "run", "--steps", "1", *change(work))
    assert not list(tmp_path.glob("run/round-*/translator/checkpoints"))
