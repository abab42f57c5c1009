"""The golden harness fails when it should: on a wrong number, and on whatever it cannot run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_server.networks.stylegan2 import Generator
from tests.golden.__main__ import main
from tests.golden.harness import DATA, Adapter, Row, Session, compare, run_folder, worst_ratio
from tests.golden.manifest import (
    Case,
    Manifest,
    ManifestError,
    Output,
    parse_index,
    read_manifest,
    standard_normal,
)
from tests.golden.weights import name_differences

Edit = Callable[[dict[str, Any], dict[str, Any]], object]  # changes a manifest and its arrays in place


def copied(folder: Path, edit: Edit, name: str = "parse_smoothing") -> list[Row]:
    """A copy of a small recorded network, changed by `edit`, run through the real adapters."""
    folder.mkdir(exist_ok=True)
    manifest = json.loads((DATA / f"{name}.json").read_text())
    with np.load(DATA / f"{name}.npz") as file:
        arrays: dict[str, Any] = {key: file[key] for key in file.files}
    edit(manifest, arrays)
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    np.savez(folder / f"{name}.npz", **arrays)
    return list(run_folder(folder))


def problems(rows: list[Row]) -> str:
    return "; ".join(row.problem for row in rows if row.problem)


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    rows = copied(tmp_path, lambda m, a: None)
    assert len(rows) == 4
    assert all(row.passed for row in rows)
    assert main([str(tmp_path)]) == 0


def test_a_perturbed_output_fails(tmp_path: Path) -> None:
    def edit(manifest: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["psm_a/fused"][0, 3, 5, 7] += 0.01

    rows = copied(tmp_path, edit)
    assert [(row.case, row.output) for row in rows if not row.passed] == [("psm_a", "fused")]
    [miss] = [row for row in rows if not row.passed]
    assert miss.ratio is not None
    assert miss.ratio > 1
    assert main([str(tmp_path)]) == 1


def test_a_perturbed_weight_fails(tmp_path: Path) -> None:
    """The weights come from the manifest's records; five hundredths off in one entry shows."""

    def edit(manifest: dict[str, Any], arrays: dict[str, Any]) -> None:
        head = "lin2.model.1.weight"  # listed under two names, as one tensor
        for p in manifest["parameters"]:
            if head in (p["name"], p.get("alias_of")):
                p["std"] *= 1.05

    rows = copied(tmp_path, edit, "lpips_alex")
    assert {row.output for row in rows if not row.passed} == {"value", "per_layer"}


def test_an_unknown_network_fails(tmp_path: Path) -> None:
    rows = copied(tmp_path, lambda m, a: m.update(network="vtoonify2"))
    assert "unknown network 'vtoonify2'" in problems(rows)
    assert {row.case for row in rows} == {"psm_a", "psm_b"}
    assert main([str(tmp_path)]) == 1


def test_a_missing_array_fails(tmp_path: Path) -> None:
    rows = copied(tmp_path, lambda m, a: a.pop("psm_b/fused"))
    assert problems(rows) == "missing array 'psm_b/fused' in parse_smoothing.npz"
    assert sum(row.passed for row in rows) == 3
    assert main([str(tmp_path)]) == 1


def test_a_missing_array_file_fails(tmp_path: Path) -> None:
    shutil.copy(DATA / "parse_smoothing.json", tmp_path)
    assert "missing array file" in problems(list(run_folder(tmp_path)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m, a: m.update(precision="half"), "unknown field(s) ['precision']"),
        (lambda m, a: m["cases"][0].update(repeat=2), "unknown field(s) ['repeat']"),
        (lambda m, a: m["cases"][0]["args"].update(mode="new"), "nothing reads ['mode']"),
        (lambda m, a: m["cases"][0]["args"].pop("k"), "no 'k'"),
        (lambda m, a: m["config"].update(border="mirror"), "nothing reads ['border']"),
        (lambda m, a: m["cases"][0]["inputs"]["frames"].update(gamma=2.2), "unknown field(s) ['gamma']"),
        (lambda m, a: m["cases"][0]["inputs"]["frames"].update(seed=1), "not the CRC-32"),
        (lambda m, a: m["cases"][0]["inputs"].update(depth=[1, 2]), "nothing reads ['depth']"),
        (lambda m, a: m["cases"][0]["outputs"][0].update(units="px"), "unknown field(s) ['units']"),
        (lambda m, a: m["cases"][0]["outputs"][0]["tolerance"].update(ulps=4), "unknown field(s) ['ulps']"),
        (lambda m, a: m["cases"][0]["outputs"][0].update(kind="maybe"), "unknown kind 'maybe'"),
        (lambda m, a: m["cases"][0]["outputs"][0].update(slice="[..., 0]"), "unknown slice"),
        (lambda m, a: m["cases"][0]["outputs"][0].update(name="flow"), "our network does not return it"),
        (lambda m, a: m["cases"][0]["outputs"][0].update(full_shape=[1, 19, 24, 21]), "our shape is"),
        (lambda m, a: m["cases"][0].update(outputs=[]), "checks nothing"),
        (lambda m, a: m.update(cases=[]), "is not a manifest"),
        (lambda m, a: m.update(weights={"net": "elsewhere"}), "no manifest of 'elsewhere'"),
    ],
)
def test_what_is_not_understood_fails(tmp_path: Path, edit: Edit, said: str) -> None:
    rows = copied(tmp_path, edit)
    assert said in problems(rows)
    assert main([str(tmp_path)]) == 1


def test_files_that_are_no_manifest_fail(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    np.savez(tmp_path / "orphan.npz", x=np.zeros(1))
    said = problems(list(run_folder(tmp_path)))
    assert "broken.json is not JSON" in said
    assert "list.json is not a manifest" in said
    assert "an array file without a manifest" in said


def test_nothing_to_check_fails(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "absent")]) == 1
    assert main([str(DATA), "--only", "no_such_network"]) == 1


def test_two_manifests_of_one_network_fail(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        shutil.copy(DATA / "parse_smoothing.json", tmp_path / f"{stem}.json")
        shutil.copy(DATA / "parse_smoothing.npz", tmp_path / f"{stem}.npz")
    assert "a second manifest of 'parse_smoothing'" in problems(list(run_folder(tmp_path)))


def test_seeded_numbers_are_the_recorded_ones() -> None:
    np.testing.assert_allclose(
        standard_normal("probe", (3,)), [-0.1947072, -0.57156444, -0.03798519], rtol=0, atol=5e-8
    )


def test_slices() -> None:
    x = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    np.testing.assert_array_equal(x[parse_index("[:, ::2, -3:]")], x[:, ::2, -3:])
    np.testing.assert_array_equal(x[parse_index("[1:, :2]")], x[1:, :2])
    assert parse_index("") == ()


@pytest.mark.parametrize(
    ("tolerance", "offset", "expected"),
    [
        ({"atol": 0.1, "rtol": 0.0}, 0.05, 0.5),
        ({"atol": 0.1, "rtol": 0.1}, 0.3, 1.0),  # recorded 2: 0.1 + 0.1 * 2
        ({"atol": 1.0, "rtol": 0.0, "mean_abs": 0.01}, 0.1, 2.5),  # one of four elements: mean 0.025
        ({"max_abs": 0.2, "mean_abs": 1.0}, 0.3, 1.5),
    ],
)
def test_ratio_to_tolerance(tolerance: Mapping[str, float], offset: float, expected: float) -> None:
    output = Output("x", "output", "x", (4,), (), (4,), tolerance)
    ours = np.full(4, 2.0)
    ours[2] += offset
    assert worst_ratio(output, ours, np.full(4, 2.0)) == pytest.approx(expected)


def test_not_a_number_is_infinitely_far() -> None:
    output = Output("x", "output", "x", (4,), (), (4,), {"atol": 1.0, "rtol": 1.0})
    assert worst_ratio(output, np.array([0, 0, np.nan, 0]), np.zeros(4)) == float("inf")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_array_is_really_compared(path: Path) -> None:
    """Results equal to the recording pass; the same results with one element moved by two tolerances do not."""
    manifest = read_manifest(path)
    for index in range(len(manifest.raw_cases)):
        case = manifest.case(index)
        for output in case.outputs:
            ref = case.arrays[output.npz_key].astype(np.float64)
            assert ref.shape == output.shape
            full = np.zeros(output.full_shape)
            full[output.index] = ref
            assert worst_ratio(output, full, ref) == 0
            t = output.tolerance
            first = ref.reshape(-1)[0]
            step = 2 * (t["atol"] + t["rtol"] * abs(first) if "atol" in t else t["max_abs"])
            moved = ref.copy()
            moved.reshape(-1)[0] += step
            full[output.index] = moved
            assert worst_ratio(output, full, ref) == pytest.approx(2)
        if case.expected is not None:
            ours = {**case.expected}
            results = {o.name: np.zeros(o.full_shape) for o in case.outputs} | {"expected": ours}
            names = {row.output for row in compare(manifest, case, results) if row.passed}
            assert names >= set(case.expected)
            for name, value in case.expected.items():
                ours[name] = moved_value(value)
                rows = {row.output: row.passed for row in compare(manifest, case, results)}
                assert not rows[name]
                ours[name] = value


def moved_value(value: Any) -> Any:
    if isinstance(value, list):
        return [moved_value(value[0]), *value[1:]]
    return not value if isinstance(value, bool) else value + 1


def test_networks_are_built_once_and_dropped_after_their_last_use(tmp_path: Path) -> None:
    seen: list[str] = []
    alive: set[str] = set()

    class Built:
        def __init__(self, name: str) -> None:
            self.name = name
            seen.append(name)
            alive.add(name)

        def __del__(self) -> None:
            alive.discard(self.name)

    held: dict[str, list[str]] = {}

    def run(built: Built, case: Case) -> dict[str, Any]:
        held[built.name] = sorted(alive)
        return {"x": np.zeros(1)}

    case: dict[str, Any] = {"id": "c", "args": {}, "inputs": {}}
    output = {"name": "x", "npz_key": "x", "full_shape": [1], "slice": "", "shape": [1]}
    case["outputs"] = [{**output, "tolerance": {"atol": 1.0, "rtol": 0.0}}]
    weights = {"fake_a": {}, "fake_b": {}, "fake_c": {"one": "fake_d", "two": "fake_b"}, "fake_d": {}}
    for name, borrowed in weights.items():
        manifest = {"network": name, "weights": borrowed, "cases": [case]}
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
        np.savez(tmp_path / f"{name}.npz", x=np.zeros(1))

    adapters = {"fake": Adapter(lambda manifest, partners: Built(manifest.network), run)}
    rows = list(run_folder(tmp_path, adapters))
    assert len(rows) == 4
    assert all(row.passed for row in rows)
    assert sorted(seen) == sorted(weights)
    assert held["fake_a"] == ["fake_a"]  # the one that nobody shares is gone before the others come
    assert held["fake_c"] == ["fake_b", "fake_c", "fake_d"]
    assert not alive


def test_a_further_recording_of_another_size_runs(tmp_path: Path) -> None:
    """A manifest of a small StyleGAN2, of a size that is not in the repository, is dropped in and checked."""
    config = {"size": 32, "style_dim": 24, "n_mlp": 2, "channel_multiplier": 1, "channel_max": 16}
    network = Generator(**config)  # type: ignore[arg-type]
    parameters: list[dict[str, Any]] = []
    for name, value in network.state_dict().items():
        record: dict[str, Any] = {"name": name, "shape": list(value.shape)}
        if name.endswith(".kernel"):
            record["constant"] = True
        else:
            record |= {"fill": "normal", "mean": 0.0, "std": 0.5}
        parameters.append(record)
    case: dict[str, Any] = {
        "id": "tiny_a",
        "args": {"mode": "wplus"},
        "inputs": {
            "wplus": {
                "seed_text": "tiny_a/wplus",
                "shape": [1, 8, 24],
                "mul": 1.0,
                "add": 0.0,
            }
        },
        "outputs": [
            {
                "name": "image",
                "kind": "output",
                "npz_key": "tiny_a/image",
                "full_shape": [1, 3, 32, 32],
                "slice": "[:, :, ::2]",
                "shape": [1, 3, 16, 32],
                "tolerance": {"atol": 1e-4, "rtol": 1e-3},
            }
        ],
    }
    raw = {"network": "stylegan2_tiny", "config": config, "parameters": parameters, "cases": [case]}
    path = tmp_path / "anything.json"
    path.write_text(json.dumps(raw))
    manifest = read_manifest(path)
    state = network.state_dict()
    state |= {p.name: torch.from_numpy(p.value()) for p in manifest.parameters if not p.constant}
    network.load_state_dict(state)
    with torch.no_grad():
        image = network.synthesis(torch.from_numpy(standard_normal("tiny_a/wplus", (1, 8, 24))), network.stored_noise())
    np.savez(tmp_path / "anything.npz", **{"tiny_a/image": image[:, :, ::2].numpy()})
    assert main([str(tmp_path)]) == 0

    raw["parameters"] = parameters[:-1]  # a published name fewer than ours
    path.write_text(json.dumps(raw))
    assert "state-dict entries differ" in problems(list(run_folder(tmp_path)))


def test_name_differences_show_both_shapes() -> None:
    manifest: Manifest = read_manifest(DATA / "stylegan2_256.json")
    with torch.device("meta"):
        assert name_differences(manifest, Generator(256)) == []
        differences = name_differences(manifest, Generator(256, channel_multiplier=1))
    assert "convs.10.conv.weight: ours (1, 64, 128, 3, 3), published (1, 128, 256, 3, 3)" in differences


def test_an_adapter_for_a_kind_serves_its_sizes_only() -> None:
    session = Session(DATA, adapters={"stylegan": Adapter(lambda m, p: None, lambda b, c: {})})
    rows = list(session.run("stylegan2_256"))
    assert all(row.problem and "unknown network 'stylegan2_256'" in row.problem for row in rows)


def test_expected_values_need_a_tolerance(tmp_path: Path) -> None:
    manifest = read_manifest(DATA / "crop_rules.json")
    case = manifest.case(0)
    bare = Manifest(manifest.path, "crop_rules", manifest.config, (), {}, {}, manifest.raw_cases)
    rows = list(compare(bare, case, {"expected": dict(case.expected or {})}))
    assert any(row.problem and "unknown tolerance of floats" in row.problem for row in rows)
    with pytest.raises(ManifestError, match="no 'nothing'"):
        case.args["nothing"]
