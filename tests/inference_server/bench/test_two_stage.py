"""`faceplate bench two_stage`: both orders in turn, memory of processes of their own, the floor, table and JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from host_bridge.errors import FaceplateError
from inference_server.bench import cli, two_stage
from inference_server.bench.machine import ConvolutionRate, Machine
from inference_server.bench.two_stage import Measurement, chosen, table
from inference_server.networks.two_stage import Refiner, Translator, step

MACHINE = Machine("d", "fp32", 2, "2", "p", (ConvolutionRate(1, 1, 100, 1.0), ConvolutionRate(1, 1, 200, 1.0)))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(["two_stage", *arguments])


def test_the_command_compares_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    assert cli.run(parse("--quick", "--batch", "2", "--repeats", "1", "--json", str(path))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3x3 convolutions" in lines[1]
    assert [line.split()[:4] for line in lines[4:]] == [["32x32", "2", "fp32", o] for o in ("plain", "ready")]
    written = json.loads(path.read_text())
    plain, ready = written["two_stage"]
    assert plain["difference"] < 1e-6
    assert ready["difference"] < two_stage.TOLERANCE
    rate = written["machines"]["fp32"]["rate"]
    for row in (plain, ready):
        assert row["to_floor"] == pytest.approx(row["seconds"] * rate / row["multiply_adds"])
        assert 0 < row["before"] < row["peak"]


def test_the_full_networks_have_17_billion_multiply_adds_at_256() -> None:
    """By the table of the reference; counted on shapes alone."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        step(Translator().eval(), Refiner().eval(), torch.zeros(1, 3, 256, 256), None)
    assert counter.get_total_flops() / 2 == pytest.approx(17.13e9, rel=0.01)


def test_what_is_measured() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert chosen(parse(), cpu) == [
        (256, 1, "fp32"),
        (256, 8, "fp32"),
        (512, 1, "fp32"),
        (512, 8, "fp32"),
        (1024, 1, "fp32"),
    ]
    assert len(chosen(parse(), cuda)) == 12
    assert chosen(parse("--size", "1024", "--batch", "8", "--precision", "bf16"), cpu) == [(1024, 8, "bf16")]
    for arguments in (("--size", "8"), ("--batch", "0")):
        with pytest.raises(FaceplateError, match="is less than"):
            chosen(parse(*arguments), cpu)


def test_the_table_and_a_difference_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Measurement(256, 1, "fp32", "plain", 1000, 10.0, 0.0, None, None),
        Measurement(256, 1, "fp32", "ready", 1000, 5.0, 1e-3, 2**20, 3 * 2**20),
    ]
    lines = table({"fp32": MACHINE}, rows).splitlines()
    assert lines[-2].split() == ["256x256", "1", "fp32", "plain", "0.00", "1e+04", "2.00", "?", "?", "0.0e+00"]
    assert lines[-1].split()[6:] == ["1.00", "3", "MiB", "2", "MiB", "1.0e-03", "0.50", "time"]
    monkeypatch.setattr(two_stage, "compare", lambda *_: (rows, MACHINE))
    assert cli.run(parse("--quick", "--batch", "1")) == 1
    assert "differs by 1.0e-03" in capsys.readouterr().err
