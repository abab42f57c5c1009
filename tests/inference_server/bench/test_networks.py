"""`faceplate bench networks`: counted work, own processes, table and JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from host_bridge.errors import FaceplateError
from inference_server.bench import networks
from inference_server.bench.cases import CASES
from inference_server.bench.machine import (
    ConvolutionRate,
    Machine,
    choose_device,
    measure_machine,
    median_seconds,
)
from inference_server.bench.networks import Measurement, chosen, document, measure, measure_apart, table

CPU = torch.device("cpu")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    networks.add_parser(parser.add_subparsers())
    return parser.parse_args(["networks", *arguments])


@pytest.mark.parametrize("name", list(CASES))
def test_every_network_is_measured(name: str) -> None:
    result = measure(name, CPU, "fp32", 1, quick=True)
    assert result.problem == ""
    assert result.parameters > 1000
    assert result.multiply_adds > 10_000
    assert result.seconds > 0


def test_multiply_adds_are_those_of_the_arithmetic() -> None:
    """StyleGAN3's sheet of costs: 9 multiply-adds a weight and position in T's convolutions, taps of the filters."""
    from inference_server.networks.stylegan3 import StyleGAN3Config, layer_specs

    config = StyleGAN3Config(32, 3, False, 1024, 32, num_layers=6)
    expected = config.w_dim * config.w_dim * 2  # mapping
    for i, spec in enumerate(layer_specs(config)):
        inputs, outputs, k = spec.source.channels, spec.target.channels, spec.kernel
        if i == 0:
            expected += 4 * config.w_dim + inputs * inputs * spec.source.size**2  # affine and mix of the input
            expected += 2 * 27 + inputs * 6  # two 3x3 products, frequencies and phases through the transform
        side = spec.source.size + k - 1
        expected += config.w_dim * inputs + inputs * outputs * k * k * side * side  # style, convolution
        if not spec.is_rgb:
            expected += inputs * outputs  # demodulation
            high = side * spec.up + sum(spec.pad) - spec.up_taps + 1
            low = spec.target.size
            # Up: both axes see every sample of the shorter axis once a tap; down: strided, one axis after the other.
            expected += outputs * spec.up_taps * (side * side + side * high)
            expected += outputs * spec.down_taps * (high * low + low * low)
    counted = measure("stylegan3-t-256", CPU, "fp32", 1, quick=True).multiply_adds
    assert counted == pytest.approx(expected, rel=1e-3)


def test_memory_is_the_networks_own() -> None:
    """In another process; the parent's peak, made high on purpose, does not show."""
    hoard = torch.ones(1 << 28)  # 1 GiB
    del hoard
    result = measure_apart("arcface", "cpu", "fp32", 1, quick=True)
    assert result.problem == ""
    if result.memory is not None:
        assert result.memory_before is not None
        assert result.memory_before <= result.memory < 1 << 30


def test_a_network_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text("raise MemoryError('not enough')")
    result = measure_apart("bisenet", "cpu", "fp32", 1, quick=True)
    assert "not enough" in result.problem
    machine = Machine("d", "fp32", 1, "2", "p", (ConvolutionRate(1, 1, 9, 1.0),))
    assert "not enough" in table(machine, [result])


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    args = parse("--quick", "--only", "arcface", "--repeats", "1", "--precision", "bf16", "--json", str(path))
    assert args.run(args) == 0
    out = capsys.readouterr().out
    assert "3x3 convolutions" in out
    assert "bf16" in out
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["network", "arcface"]
    written = json.loads(path.read_text())
    assert written["quick"] is True
    (row,) = written["networks"]
    assert row["name"] == "arcface"
    assert row["share_of_convolution_rate"] == pytest.approx(row["rate"] / written["machine"]["rate"])


def test_table_lines_up_and_shows_the_share() -> None:
    machine = Machine("d", "fp32", 2, "2", "p", (ConvolutionRate(1, 1, 100, 1.0), ConvolutionRate(1, 1, 200, 1.0)))
    assert machine.rate == 200
    rows = [
        Measurement("a", "1x1", 1_500_000, 50, 1.0, 3 << 20, 1 << 20),
        Measurement("longer-name", "1x1", 0, 0, 0.5, None, None),
    ]
    lines = table(machine, rows).splitlines()[3:]
    assert "25%" in lines[1]
    assert "3 MiB" in lines[1]
    assert "2 MiB" in lines[1]
    assert "?" in lines[2]
    assert len({line.index("1x1") for line in lines[1:]}) == 1
    assert document(machine, rows, False)["networks"][0]["rate"] == 50


def test_choice_of_networks() -> None:
    assert chosen([]) == list(CASES)
    assert chosen(["raft-*", "psp"]) == ["psp", "raft-basic", "raft-small"]
    with pytest.raises(FaceplateError, match="'rafft'") as caught:
        chosen(["rafft"])
    assert caught.value.code == "request.unknown_name"


def test_device_that_is_not_there() -> None:
    for name in ("gpu", "meta", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(FaceplateError, match="cannot be used") as caught:
            choose_device(name)
        assert caught.value.code == "request.bad_value"


def test_machine_is_measured() -> None:
    machine = measure_machine(CPU, "fp32", repeats=1, quick=True)
    assert machine.threads == torch.get_num_threads()
    assert all(c.multiply_adds == 9 * c.channels**2 * c.side**2 and c.rate > 0 for c in machine.convolutions)
    assert machine.rate == max(c.rate for c in machine.convolutions)
    assert median_seconds(lambda: None, CPU, 3) < 0.1
