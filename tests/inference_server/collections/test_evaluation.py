"""What is accepted and what is not, on sequences whose answer is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inference_server.collections.evaluation import (
    NAMES,
    Measured,
    Row,
    Sequences,
    carried,
    evaluate,
    missing,
    save_pictures,
    sequences_of,
)
from inference_server.networks.two_stage import Refiner, Translator
from inference_server.training.clip_cache import CacheWriter, ClipCache, PackedFrame

T, SIZE = 5, 96


def waves(shift: float) -> np.ndarray:
    """[SIZE, SIZE, 3] in 0..1, a smooth picture that moves to the right."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    parts = [0.5 + 0.2 * np.sin((x - shift) / (5 + c)) + 0.2 * np.cos(y / (6 + c)) for c in range(3)]
    return np.stack(parts, axis=-1).astype(np.float32)


def sequences(quality: float, steadiness: float) -> Sequences:
    """The teacher darkens and flickers; `quality` 1 is its mean, 0 the source; `steadiness` 1 does not flicker."""
    source = np.stack([waves(1.5 * t) for t in range(T)])
    teacher = 0.6 * source
    flicker = np.array([0.03 * (-1) ** t for t in range(T)], np.float32)[:, None, None, None]
    ours = source + quality * (teacher - source) + (1 - steadiness) * flicker
    frames = {"source": source, "translator": ours, "refined": ours, "teacher": teacher + flicker}
    frames["carried"] = carried(frames["teacher"][0], source)
    return Sequences("clip", "dark", {name: frames[name] for name in NAMES}, np.ones((T, SIZE, SIZE), np.float32))


def test_what_is_near_the_teacher_and_steady_is_accepted() -> None:
    report = evaluate([sequences(1.0, 1.0)], None)
    assert report.accepted
    (row,) = report.rows
    assert row.of["refined"].psnr == pytest.approx(-20 * np.log10(0.03), abs=0.01)
    assert row.of["teacher"].psnr == np.inf
    assert row.of["refined"].flicker < 0.05 * row.of["teacher"].flicker
    assert "accepted" in report.lines()[-1]
    assert report.table()["rows"][0]["refined"]["psnr"] == row.of["refined"].psnr


def test_what_flickers_like_the_teacher_is_refused() -> None:
    report = evaluate([sequences(1.0, -0.5)], None)
    assert not report.accepted
    assert any("along the motion" in text for text in report.missing)
    assert report.lines()[-1].startswith("not accepted")


def test_what_is_no_nearer_than_the_untouched_frame_is_refused() -> None:
    (text, *_) = evaluate([sequences(-0.2, 1.0)], None).missing
    assert "the untouched frame" in text


def row(style: str, source: float, carried_: float, refined: float, flicker: tuple[float, float] = (1, 2)) -> Row:
    values = {"source": source, "carried": carried_, "translator": 0.0, "refined": refined, "teacher": np.inf}
    return Row(
        "c", style, {n: Measured(p, flicker[0] if n == "refined" else flicker[1], 0, 0) for n, p in values.items()}
    )


def test_every_style_has_to_beat_both_on_the_mean_of_its_clips() -> None:
    good, bad = row("a", 10, 20, 22), row("a", 10, 24, 23)
    assert missing([good, bad]) == []  # 22.5 against 22
    assert len(missing([bad])) == 1
    assert "first picture carried" in missing([bad])[0]
    assert missing([good, row("b", 10, 9, 9.5)]) == ["b: 9.50 dB to the teacher, the untouched frame has 10.00 dB"]
    assert len(missing([row("a", 10, 20, 22, (2, 2))])) == 1  # as steady is not steadier
    with pytest.raises(ValueError, match="nothing"):
        missing([])


def test_carrying_follows_the_motion() -> None:
    source = np.stack([waves(1.5 * t) for t in range(T)])
    moved = carried(source[0], source)
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert np.abs(moved[-1] - source[-1])[inner[1:]].mean() < 0.25 * np.abs(source[0] - source[-1])[inner[1:]].mean()


def test_a_cache_is_drawn_as_at_inference(tmp_path: Path) -> None:
    writer = CacheWriter(32, ("a", "b"))
    eight = [np.rint(waves(t)[:32, :32] * 255).astype(np.uint8) for t in range(3)]
    plane = np.ones((32, 32), np.float32)
    writer.window("c", [PackedFrame(p, (p, p), np.zeros((32, 32, 2), np.float32), plane, plane) for p in eight])
    writer.write(tmp_path / "c.safetensors")
    torch.manual_seed(0)
    translator, refiner = Translator((8, 8), 2), Refiner((8, 8))
    one, two = sequences_of(ClipCache(tmp_path / "c.safetensors"), translator, refiner)
    assert (one.style, two.style) == ("a", "b")
    assert np.array_equal(one.frames["translator"], one.frames["refined"])  # a refiner before training
    assert not np.array_equal(one.frames["translator"], two.frames["translator"])
    save_pictures([one, two], tmp_path)
    for name in ("comparison.jpg", "profiles.png"):
        assert cv2.imread(str(tmp_path / name)) is not None
