"""Adaptation and expression with small networks: taken, stopped, accepted, resumed, continued, drawn between frames."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from host_bridge.errors import EffectError, ShotError
from host_bridge.jobspec import JobSpec
from inference_server.effects.base import ShotData
from inference_server.effects.style_portrait.between import retimed
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.lpips import LPIPS
from inference_server.runs import FrameDone, JobContext, Planned, Progress, RunEvent
from inference_server.shots.steps import TakenStep, steps_of_kind
from tests.inference_server.effects.style_portrait.conftest import (
    E4E,
    G2,
    G3,
    LAYERS,
    WIDTH,
    add_direction,
    add_encoder,
)
from tests.inference_server.effects.style_portrait.conftest import job as render
from tests.inference_server.effects.vtoonify.conftest import Lab, add_model, network
from tests.plate_files import independent_read

HRNET = {"points": 98, "channels": [4, 4, 4, 4], "modules": [1, 1, 1], "blocks": 1, "stem": 4}
ALEX = {"trunk": "alex", "width_divisor": 16}
SMILE = [("age", 1.0), ("smile", {"keys": [[1001, 0.0], [1004, 3.0]]})]


def add_distance(store: ModelStore, folder: Path) -> None:
    torch.manual_seed(8)
    state = LPIPS("alex", width_divisor=16).state_dict()
    heads = {k: v.abs() for k, v in state.items() if k.startswith("lin") and "lins" not in k}
    trunk = {f"features.{k.split('.', 2)[2]}": v for k, v in state.items() if k.startswith("net.")}
    add_model(store, folder, "lpips-alex", heads, parts={"main": {"network": "lpips-heads", "config": ALEX}})
    add_model(store, folder, "torchvision-alexnet", trunk, parts={"main": {"network": "lpips-trunk", "config": ALEX}})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Both generators, an encoder, two directions, LPIPS and a landmark network."""
    folder = tmp_path_factory.mktemp("files")
    store = ModelStore((Folder(tmp_path_factory.mktemp("models"), True),))
    saved = {"g_ema": network("stylegan2", G2, 1).state_dict()}
    add_model(store, folder, "gan2", saved, parts={"main": {"network": "stylegan2", "root": "g_ema", "config": G2}})
    r = network("stylegan3", G3, 3).state_dict()
    add_model(store, folder, "gan3", r, parts={"main": {"network": "stylegan3", "config": G3}})
    add_encoder(store, folder, "enc10", E4E)
    for seed, name in enumerate(("age", "smile")):
        row = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))
        add_direction(store, folder, name, row / row.norm())
    add_distance(store, folder)
    points = network("hrnet", HRNET, 6).state_dict()
    add_model(store, folder, "hrnet-wflw", points, parts={"main": {"network": "hrnet", "config": HRNET}})
    made = Lab(tmp_path_factory.mktemp("lab"), store)
    yield made
    made.runner.close()


def job(shot: str, edits: Any = (), **params: Any) -> JobSpec:
    spec = render(shot, Path("/unused"), list(edits), {"adapt": True, "adapt_iterations": 6, **params})
    return replace(spec, kind="adapt", output="")


def taken(bench: Lab, shot: str, events: list[RunEvent], step: str = "adapt") -> TakenStep:
    """The newest result."""
    record = bench.store.get(next(e.shot for e in events if isinstance(e, Planned)))
    return steps_of_kind(bench.store, record, f"style_portrait.{step}")[0]


def stopped(bench: Lab, spec: JobSpec, step: str, after: int) -> None:
    events = bench.runner.run(spec, JobContext("test"))
    for event in events:
        if isinstance(event, Progress) and event.stage == step and event.done == after:
            break
    events.close()  # type: ignore[attr-defined]


def losses(events: list[RunEvent], step: str) -> list[float]:
    notes = [e.note for e in events if isinstance(e, Progress) and e.stage == step and e.note.startswith("loss")]
    return [float(note.split()[1]) for note in notes]


def red(path: Path) -> NDArray[Any]:
    return independent_read(str(path))[0]["R"]


def weights(step: TakenStep) -> Mapping[str, torch.Tensor]:
    return load_file(step.folder / "generator.safetensors")


def test_adapted_rendered_and_continued_in_another_run(bench: Lab, shot: str, tmp_path: Path) -> None:
    spec = job(shot, SMILE, adapt_iterations=24, actor="Anna")
    events = bench.run(spec)
    falling = losses(events, "adapt")
    assert np.mean(falling[-6:]) < 0.8 * np.mean(falling[:6])
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert Path(last.picture).read_bytes().startswith(b"\x89PNG")
    done = taken(bench, shot, events)
    assert (done.done, done.wanted, dict(done.facts)) == (24, 24, {})
    assert not (done.folder / "run").exists()
    assert not any(name.startswith("style.") for name in weights(done))
    adapted = replace(spec, kind="render", output=str(tmp_path / "a.%04d.exr"), frames="1002")
    assert [e.status for e in bench.run(adapted) if isinstance(e, FrameDone)] == ["rendered"]
    bench.run(replace(adapted, params={**spec.params, "adapt": False}, output=str(tmp_path / "b.%04d.exr")))
    assert (red(tmp_path / "a.1002.exr") != red(tmp_path / "b.1002.exr")).any()
    further = bench.run(job(shot, adapt_from="Anna", continual_iterations=2))
    went_on = taken(bench, shot, further)
    assert (went_on.done, went_on.facts["continues"]) == (2, "Anna")
    assert losses(further, "adapt")[0] < 0.9 * falling[0]  # it began where the other had come to
    with pytest.raises(ShotError) as caught:
        bench.run(job(shot, adapt_from="Bea"))
    assert caught.value.code == "shot.not_adapted"


def test_a_stopped_adaptation_can_be_accepted_and_resumed_equals_an_uninterrupted_one(bench: Lab, shot: str) -> None:
    spec = job(shot, adapt_seed=4)
    whole = taken(bench, shot, bench.run(spec))
    shutil.rmtree(whole.folder)
    stopped(bench, spec, "adapt", 3)
    accepted = taken(bench, shot, bench.run(replace(spec, accept=True)))
    assert (accepted.accepted, accepted.done, accepted.wanted) == (True, 3, 6)
    events = bench.run(spec)
    assert [e.done for e in events if isinstance(e, Progress) and e.stage == "adapt"] == [3, 4, 5, 6, 6]
    resumed = taken(bench, shot, events)
    assert resumed.digest == whole.digest
    assert accepted.digest != whole.digest
    assert weights(accepted).keys() == weights(resumed).keys()


def test_the_expression_is_kept_by_offsets_for_just_these_strengths(bench: Lab, shot: str, tmp_path: Path) -> None:
    spec = job(shot, SMILE, adapt_iterations=2, keep_expression=True, expression_iterations=5)
    events = bench.run(spec)
    assert [e.done for e in events if isinstance(e, Progress) and e.stage == "expression"][-1] == 5
    done = taken(bench, shot, events, "expression")
    with np.load(done.folder / "offsets.npz") as stored:
        assert stored["frames"].tolist() == [1001, 1002, 1003, 1004]
        offsets = stored["offsets"]
    assert offsets.shape == (4, LAYERS, WIDTH)
    assert 0 < np.abs(offsets).max() <= 5 * 3e-4 * 1.01
    out = replace(spec, kind="render", output=str(tmp_path / "a.%04d.exr"), frames="1003")
    bench.run(out)
    bench.run(replace(out, params={**spec.params, "keep_expression": False}, output=str(tmp_path / "b.%04d.exr")))
    assert (red(tmp_path / "a.1003.exr") != red(tmp_path / "b.1003.exr")).any()
    with pytest.raises(ShotError) as caught:
        bench.run(replace(out, edits=[["age", 1.0], ["smile", 2.0]]))
    assert caught.value.value == {"step": "expression", "face": 1, "differs": ["strengths"]}
    slow = replace(out, retime=2.0, output=str(tmp_path / "c.%04d.exr"))
    states = [(e.frame, e.status) for e in bench.run(slow) if isinstance(e, FrameDone)]
    assert states == [(1005, "rendered"), (1006, "interpolated")]
    assert (red(tmp_path / "c.1005.exr") == red(tmp_path / "a.1003.exr")).all()


def test_a_resumed_optimisation_equals_an_uninterrupted_one(bench: Lab, shot: str) -> None:
    edits = [("smile", 2.0)]  # alone: its lips are the plate's
    spec = job(shot, edits, adapt=False, keep_expression=True, expression_iterations=4)
    whole = taken(bench, shot, bench.run(spec), "expression")
    shutil.rmtree(whole.folder)
    stopped(bench, spec, "expression", 2)
    assert taken(bench, shot, bench.run(spec), "expression").digest == whole.digest


def test_a_stylegan3_learns_the_face_where_it_is(bench: Lab, shot: str, tmp_path: Path) -> None:
    spec = job(shot, SMILE, model="gan3", adapt_iterations=2, keep_expression=True, expression_iterations=2)
    events = bench.run(spec)
    assert not any(name.startswith(("mapping.", "synthesis.input.")) for name in weights(taken(bench, shot, events)))
    done = bench.run(replace(spec, kind="render", output=str(tmp_path / "o.%04d.exr"), frames="1001"))
    assert [e.status for e in done if isinstance(e, FrameDone)] == ["rendered"]


def test_without_the_models_that_a_step_needs_nothing_begins(lab: Lab, shot: str) -> None:
    with pytest.raises(EffectError) as caught:
        lab.run(job(shot, SMILE))
    assert caught.value.code == "effect.needs_model"
    assert "lpips-alex" in caught.value.message


def test_codes_squares_and_offsets_between_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    squares = np.tile(np.array([[90.0, 0, 10], [0, 90, 20]]), (3, 1, 1))
    squares[:, 0, 2] += [0, 4, 8]
    arrays = {
        "frames": np.array([1001, 1002, 1004]),
        "aligned": squares,
        "view": squares,
        "user": np.tile(np.eye(3), (3, 1, 1)),
        "points": rng.normal(size=(3, 68, 2)).astype(np.float32),
        "codes": rng.normal(size=(3, LAYERS, WIDTH)).astype(np.float32),
    }
    offsets = rng.normal(size=(3, LAYERS, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "offsets.npz", frames=arrays["frames"], offsets=offsets)
    times = {1001: (1001, 1001, 0.0), 1002: (1001, 1002, 0.25), 1003: (1003, 1004, 0.5), 1009: (1002, 1004, 1.0)}
    made = retimed(ShotData(arrays, steps={"expression": tmp_path}), times).arrays
    assert made["frames"].tolist() == [1001, 1002, 1009]  # the face is not in 1003
    codes = arrays["codes"]
    for i, wanted in enumerate((codes[0], 0.75 * codes[0] + 0.25 * codes[1], codes[2])):
        assert np.allclose(made["codes"][i], wanted, atol=1e-6)
    assert np.allclose(made["offsets"][1], 0.75 * offsets[0] + 0.25 * offsets[1], atol=1e-6)
    assert made["aligned"][:, 0, 2].tolist() == [10, 11, 18]
    assert np.allclose(made["user"], np.eye(3), atol=1e-12)
