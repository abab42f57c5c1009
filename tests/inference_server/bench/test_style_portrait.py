"""`faceplate bench style_portrait`: every stage in both orders, the same results, table and JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from inference_server.bench import cli, style_portrait
from inference_server.bench.machine import ConvolutionRate, Machine
from inference_server.bench.style_portrait import Measurement, Setup, table

MACHINE = Machine("d", "fp32", 2, "2", "p", (ConvolutionRate(1, 1, 100, 1.0),))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(["style_portrait", *arguments])


def test_the_command_measures_every_stage_in_both_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = style_portrait.peak_apart
    asked: list[tuple[str, str]] = []

    def one(setup: Setup, stage: style_portrait.Stage, order: style_portrait.Order) -> int | None:
        asked.append((stage, order))
        return real(setup, stage, order) if (stage, order) == ("express", "optimised") else None

    monkeypatch.setattr(style_portrait, "peak_apart", one)  # a process each is dear; one of them is real
    path = tmp_path / "bench.json"
    args = parse("--quick", "--frames", "2", "--micro-batch", "1", "--repeats", "1", "--json", str(path))
    assert cli.run(args) == 0
    out = capsys.readouterr().out
    assert "iteration, 48 frames (from 2)" in out
    written = json.loads(path.read_text())
    rows = written["style_portrait"]
    wanted = [(stage, order) for stage in style_portrait.STAGES for order in style_portrait.ORDERS]
    assert [(row["stage"], row["order"]) for row in rows] == asked == wanted
    assert all(row["seconds"] > 0 and row["difference"] < style_portrait.TOLERANCE for row in rows)
    peak = rows[5]["peak"]
    assert peak is None or peak > 0
    assert written["setup"]["size"] == 64


def test_results_that_differ_fail_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Measurement("render", o, "fp32", 1.0, 1, None, d) for o, d in (("plain", 0.0), ("optimised", 0.1))]
    monkeypatch.setattr(style_portrait, "compare", lambda *_: rows)
    assert cli.run(parse("--quick", "--stage", "render")) == 1
    assert "render optimised: differs by 1.0e-01" in capsys.readouterr().err


def test_the_table_shows_published_lengths_and_ratios() -> None:
    setup = Setup("cpu", 256, "fp32", 4, 4, 1, False)
    rows = [
        Measurement("adapt", "plain", "fp32", 2.0, 1, 2 << 20, 0.0),
        Measurement("adapt", "optimised", "fp32", 1.0, 1, 1 << 20, 1e-6),
        Measurement("express", "plain", "fp32", 60.0, 48, None, 0.0),
        Measurement("express", "optimised", "fp32", 30.0, 4, None, 1e-6),
    ]
    lines = table(setup, MACHINE, rows).splitlines()[5:]
    assert "1000: 33 min" in lines[0]
    assert lines[1].endswith("0.50 time, 0.50 memory")
    assert "iteration, 48 frames  " in lines[2]
    assert "200: 3.3 h" in lines[2]
    assert "(from 4)" in lines[3]
    assert lines[3].endswith("0.50 time")
