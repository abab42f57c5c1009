"""inference_server/networks/README.md says what the code says: its table, and what networks import."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.golden.harness import DATA
from tests.golden.manifest import read_manifest
from tests.golden.table import BEGIN, END, HEAD, README, ROWS, Row, parameters

WITHOUT_NETWORKS = {"crop_rules"}  # recorded rules of the faces package


def written() -> dict[str, list[str]]:
    """The table's rows by title: parameters, recorded cases, worst ratio, licence."""
    text = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    assert text.startswith(HEAD)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {cells[0]: cells[1:] for cells in rows}


def test_the_table_has_every_network() -> None:
    assert list(written()) == [row.title for row in ROWS]
    recorded = {read_manifest(path).network for path in DATA.glob("*.json")}
    assert {name for row in ROWS for name in row.recorded} == recorded - WITHOUT_NETWORKS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_table_says_what_the_code_says(row: Row) -> None:
    count, recorded, ratio, licence = written()[row.title]
    assert count == f"{parameters(row):,}"
    assert recorded == (", ".join(row.recorded) or "-")
    assert licence == row.licence
    assert float(ratio) <= 1 if row.recorded else ratio == "-"


def test_parameters_are_those_of_the_recorded_state() -> None:
    """The published configuration in the table is the one that was recorded, where the record has that size."""
    for row in ROWS:
        for name in row.recorded:
            manifest = read_manifest(DATA / f"{name}.json")
            if not manifest.parameters or name in ("stylegan2_256", "stylegan3_r_256", "stylegan3_t_256"):
                continue  # recorded at another size than the table's, or without weights
            buffers = ("running_mean", "running_var", "num_batches_tracked", ".kernel", "noises.noise_")
            total = 0
            for p in manifest.parameters:
                size = 1
                for side in p.shape:
                    size *= side
                if not p.constant and p.alias_of is None and not any(b in p.name for b in buffers):
                    total += size
            assert total == parameters(row), name


def test_networks_import_torch_and_numpy_and_nothing_of_the_server() -> None:
    modules = sorted(README.parent.glob("*.py"))
    assert len(modules) > 10
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue  # a relative import stays inside the package
            for name in names:
                inside = name.startswith("inference_server.networks")
                top = name.partition(".")[0]
                assert inside or top in {"torch", "numpy", "safetensors"} | sys.stdlib_module_names, (path, name)
