"""`faceplate bench vtoonify`: both orders in turn, memory of processes of their own, the floor, table and JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from host_bridge.errors import FaceplateError
from inference_server.bench import cli, machine, vtoonify
from inference_server.bench.machine import ConvolutionRate, Machine, faster, forget_peak, resident_memory
from inference_server.bench.vtoonify import Measurement, Memory, Setup, compare, parse_size, table

MACHINE = Machine("d", "fp32", 2, "2", "p", (ConvolutionRate(1, 1, 100, 1.0), ConvolutionRate(1, 1, 200, 1.0)))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(["vtoonify", *arguments])


def test_the_command_compares_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    args = parse("--quick", "--variant", "d", "--repeats", "1", "--json", str(path))
    assert cli.run(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3x3 convolutions" in lines[1]
    assert [line.split()[:3] for line in lines[4:]] == [["D", "32x24", "plain"], ["D", "32x24", "baked"]]
    assert "time" in lines[5]
    written = json.loads(path.read_text())
    assert written["setup"]["precision"] == "fp32"
    plain, baked = written["vtoonify"]
    assert (plain["order"], baked["order"]) == ("plain", "baked")
    assert plain["difference"] == 0 < baked["difference"] < vtoonify.TOLERANCE
    for row in (plain, baked):
        assert row["to_floor"] == pytest.approx(row["seconds"] * written["machine"]["rate"] / row["multiply_adds"])
        memory = row["memory"]
        if memory["peak"] is not None:
            assert memory["before"] < memory["ready"] <= memory["peak"]


def test_multiply_adds_are_the_published_ones() -> None:
    """Counted on the meta device: 229 G for D and 200 G for T at 256x256."""
    from torch.utils.flop_counter import FlopCounterMode

    from inference_server.networks.vtoonify import VToonify

    for variant, expected in (("d", 229e9), ("t", 200e9)):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            VToonify(vtoonify.BACKBONES[variant])(torch.empty(1, 22, 256, 256), torch.empty(1, 512))
        assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=0.01)


def test_a_picture_that_differs_fails_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = vtoonify.bake
    monkeypatch.setattr(vtoonify, "bake", lambda network, style, degree, dtype: real(network, style, 1.0, dtype))
    monkeypatch.setattr(vtoonify, "memory_apart", lambda *_: Memory())
    assert cli.run(parse("--quick", "--variant", "d", "--repeats", "1")) == 1
    assert "baked: differs by" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_compared_with_float32(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(vtoonify, "memory_apart", lambda *_: Memory())
    monkeypatch.setattr(machine, "measure_machine", lambda *_, **__: MACHINE)  # slow where a CPU has no such type
    setup = Setup("cpu", precision, 1, quick=True, graphs=True)  # type: ignore[arg-type]
    (plain, baked), _ = compare(setup, "t", (32, 24), setup.network("t"), MACHINE)
    assert plain.difference > 1e-5
    assert 1e-5 < baked.difference < 0.1


def test_the_best_time_of_every_convolution_counts() -> None:
    other = Machine("d", "fp32", 2, "2", "p", (ConvolutionRate(1, 1, 100, 0.25), ConvolutionRate(1, 1, 200, 2.0)))
    assert [c.seconds for c in faster(MACHINE, other).convolutions] == [0.25, 1.0]
    assert faster(MACHINE, other).rate == 400


def test_the_table_shows_ratios() -> None:
    rows = [
        Measurement("d", 256, 256, "plain", 1000, 10.0, 0.0, Memory(1 << 20, 3 << 20, 3 << 20, 9 << 20)),
        Measurement("d", 256, 256, "baked", 1000, 6.0, 2e-6, Memory(1 << 20, 5 << 20, 3 << 20, 4 << 20)),
        Measurement("t", 400, 320, "plain", 1000, 10.0, 0.0, Memory()),
        Measurement("t", 400, 320, "baked", 1000, 5.0, 2e-6, Memory()),
    ]
    lines = table(MACHINE, rows).splitlines()[4:]
    assert [line.split()[5] for line in lines] == ["2.00", "1.20", "2.00", "1.00"]
    assert "0.60 time, 0.44 memory" in lines[1]
    assert "8 MiB" in lines[0]
    assert "?" in lines[3]
    assert lines[3].endswith("0.50 time")


def test_sizes() -> None:
    assert parse_size("400x320") == (400, 320)
    for text in ("400", "400x", "400x321", "8x8", "axb", "400x320x3"):
        with pytest.raises(FaceplateError, match="multiples of 8") as caught:
            parse_size(text)
        assert caught.value.code == "request.bad_value"


def test_a_forgotten_peak_is_that_of_what_follows() -> None:
    hoard = torch.ones(1 << 26)  # 256 MiB
    before = resident_memory(peak=True)
    del hoard
    forget_peak()
    after = resident_memory(peak=True)
    if before is None or after is None or not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not let a process reset its peak")
    assert after < before - (1 << 27)
