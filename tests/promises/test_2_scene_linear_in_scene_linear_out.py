"""Promise 2: OCIO decides what effects see; highlights above 1 and negatives survive, also where pixels move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inference_server.plates.color import ColorConfig
from inference_server.plates.reader import read_plate
from inference_server.plates.types import PlateFrame, Window
from inference_server.runs import FrameDone, Warned
from tests.plate_files import PartSpec, write_exr
from tests.portrait import SIZE, channels, framed, moved, still, write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job


def _rgb(plate: PlateFrame) -> np.ndarray:
    return np.stack([plate.parts[0].channels[c].astype(np.float32) for c in "RGB"], axis=-1)


def _write(folder: Path, picture: np.ndarray, **changes: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_exr(folder / "p.1001.exr", PartSpec(channels(picture), **changes))
    return str(folder / "p.%04d.exr")


def _chin(bench: Bench, pattern: str, out: str) -> tuple[int, int]:
    """A pixel on the chin, below the lips, which an opening mouth moves."""
    bench.run(job(pattern, out, {"effect": "retouch", "edits": []}))
    x, y = bench.analysis().tracks[0].landmarks[0, 200, :2]
    return int(x), int(y)


@pytest.mark.parametrize(("value", "name"), [(37.0, "highlight"), (-0.5, "negative")])
def test_an_extreme_pixel_moves_with_the_warp_and_leaves_neither_ghost_nor_hole(
    bench: Bench, tmp_path: Path, out: str, value: float, name: str
) -> None:
    picture = moved(1001)
    clean = _write(tmp_path / "clean", picture)
    x, y = _chin(bench, clean, str(tmp_path / "copy" / "c.%04d.exr"))
    dotted = picture.copy()
    dotted[y - 1 : y + 2, x - 1 : x + 2] = value
    pattern = _write(tmp_path / name, dotted)
    warp = {"effect": "retouch", "edits": [["mouth_open", 1.0]]}
    bench.run(job(clean, str(tmp_path / "ref" / "r.%04d.exr"), warp))
    bench.run(job(pattern, out, warp))
    reference, made = _rgb(read_plate(str(tmp_path / "ref" / "r.1001.exr"))), _rgb(read_plate(out % 1001))
    assert reference.min() > -0.05
    assert reference.max() < 3
    extreme = made.max(axis=-1) > 3 if value > 0 else made.min(axis=-1) < -0.1
    ys, xs = np.nonzero(extreme)
    assert len(ys) >= 4
    assert max(np.ptp(ys), np.ptp(xs)) <= 7, "smeared"  # one spot of 3 px: moved, nothing left behind
    assert np.hypot(ys.mean() - y, xs.mean() - x) > 2, "the spot did not move, so the test says nothing"
    peak = made.max() if value > 0 else made.min()
    assert 0.6 * abs(value) < abs(peak) <= abs(value) * 1.001
    around = made[y - 20 : y + 30, x - 20 : x + 20][~extreme[y - 20 : y + 30, x - 20 : x + 20]]
    assert around.min() > -0.1, "a hole"
    assert around.max() < 3, "a ghost"


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_highlights_above_one_survive(bench: Bench, tmp_path: Path, out: str, effect: str) -> None:
    picture = moved(1001)
    x, y = _chin(bench, _write(tmp_path / "a", picture), str(tmp_path / "c" / "c.%04d.exr"))
    picture = picture.copy()
    picture[y - 25 : y - 17, x - 12 : x - 4] = 12.0  # a lamp before the cheek
    bench.run(job(_write(tmp_path / "b", picture), out, effect))
    made = _rgb(read_plate(out % 1001))
    assert made[y - 25 : y - 17, x - 12 : x - 4].max() > 8


def test_the_same_light_gives_the_same_result_in_any_colourspace(bench: Bench, tmp_path: Path) -> None:
    """ACEScg and linear Rec.709 plates of one scene give one scene back."""
    color = ColorConfig().transform("ACEScg")
    picture = still()
    results = []
    for space, stored in (("lin_rec709", picture), ("ACEScg", color.from_scene(picture))):
        folder = tmp_path / space
        folder.mkdir()
        parts = {c: np.ascontiguousarray(stored[..., i]) for i, c in enumerate("RGB")}
        write_exr(folder / "p.1001.exr", PartSpec(parts))
        out = str(folder / "out.%04d.exr")
        bench.run(job(str(folder / "p.%04d.exr"), out, "look", plate={"colorspace": space}))
        made = _rgb(read_plate(out % 1001))
        results.append(color.to_scene(made) if space == "ACEScg" else made)
    assert np.abs(results[0] - picture).mean() > 1e-3
    # The detector sees rounding of the two encodings, so a few edge pixels differ a little.
    difference = np.abs(results[0] - results[1])
    assert difference.mean() < 1e-4
    assert (difference > 5e-3).mean() < 1e-3
    assert difference.max() < 0.05


@pytest.mark.parametrize("alpha", ["opaque", "zero", "glow", "soft"])
@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_alpha(bench: Bench, tmp_path: Path, out: str, effect: str, alpha: str) -> None:
    picture = moved(1001)
    ramp = np.clip(np.linspace(-0.5, 2.0, SIZE, dtype=np.float32), 0, 1)
    coverage = {
        "opaque": np.ones((SIZE, SIZE), np.float32),
        "zero": np.zeros((SIZE, SIZE), np.float32),
        "glow": np.where(np.arange(SIZE)[None] < SIZE // 2, 0.0, 1.0) * np.ones((SIZE, 1)),
        "soft": np.repeat(ramp[None], SIZE, axis=0),
    }[alpha].astype(np.float32)
    stored = picture if alpha in ("zero", "glow") else picture * coverage[..., None]
    folder = tmp_path / "in"
    folder.mkdir()
    write_exr(folder / "p.1001.exr", PartSpec({**channels(stored), "A": coverage.astype(np.float16)}))
    pattern = str(folder / "p.%04d.exr")
    ignore = {"premult": "ignore"} if alpha == "zero" else {}
    # The analysis must see the face, so an all-zero alpha is analysed as the artist would set it in the end.
    events = bench.run(job(pattern, out, effect, plate={}))
    before, after = read_plate(pattern % 1001), read_plate(out % 1001)
    a = before.parts[0].channels["A"]
    assert (after.parts[0].channels["A"].view(np.uint16) == a.view(np.uint16)).all()
    clear = a == 0
    assert (_rgb(after)[clear] == _rgb(before)[clear]).all()
    if alpha == "zero":
        assert {e.code for e in events if isinstance(e, Warned)} & {"plate.alpha_zero", "face.none"}
        other = str(tmp_path / "ignored" / "o.%04d.exr")
        bench.run(job(pattern, other, effect, plate=ignore))
        assert (_rgb(read_plate(other % 1001)) != _rgb(before)).any()
        return
    assert (_rgb(after) != _rgb(before)).any()
    if alpha == "soft":  # the straight colour is edited, not the premultiplied one: undo the alpha and compare
        whole = _write(tmp_path / "whole", picture)
        bench.run(job(whole, str(tmp_path / "w" / "w.%04d.exr"), effect))
        edited = _rgb(read_plate(str(tmp_path / "w" / "w.1001.exr")))
        mid = (a > 0.3) & (a < 0.95)
        ratio = _rgb(after)[mid] / a[mid].astype(np.float32)[:, None]
        assert np.abs(ratio - edited[mid]).mean() < 0.02


def test_anamorphic_pixels(bench: Bench, tmp_path: Path, out: str) -> None:
    """A plate squeezed by 2 gives what the square plate gives, squeezed."""
    picture = still()
    squeezed = cv2.resize(picture, (SIZE // 2, SIZE), interpolation=cv2.INTER_AREA)
    bench.run(job(_write(tmp_path / "wide", picture), out, "retouch"))
    square = bench.analysis().tracks[0].landmarks[0]
    pattern = _write(tmp_path / "squeezed", np.asarray(squeezed), aspect=2.0)
    events = bench.run(job(pattern, str(tmp_path / "s" / "s.%04d.exr"), "retouch"))
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["rendered"]
    narrow = bench.analysis().tracks[0].landmarks[0]
    difference = narrow[:, :2] * np.array([2.0, 1.0]) - square[:, :2]
    assert np.abs(difference).mean() < 2.0
    assert read_plate(str(tmp_path / "s" / "s.1001.exr")).parts[0].pixel_aspect == 2.0


def test_data_windows_that_change_from_frame_to_frame(bench: Bench, tmp_path: Path, out: str) -> None:
    display = Window(0, 0, SIZE, SIZE)
    boxes = [Window(0, 0, SIZE, SIZE), Window(10, 6, SIZE - 4, SIZE - 8), Window(-20, -10, SIZE + 16, SIZE + 4)]
    folder = tmp_path / "in"
    folder.mkdir()
    for i, box in enumerate(boxes):
        picture = framed(still(), box, display)
        write_exr(folder / f"p.{1001 + i}.exr", PartSpec(channels(picture), box=box, display=display))
    pattern = str(folder / "p.%04d.exr")
    bench.run(job(pattern, out, "retouch"))
    results = []
    for i, box in enumerate(boxes):
        made = read_plate(out % (1001 + i)).parts[0]
        assert (made.data_window, made.display_window) == (box, display)
        rgb = np.stack([made.channels[c].astype(np.float32) for c in "RGB"], axis=-1)
        cut = rgb[20 - box.y0 : SIZE - 20 - box.y0, 20 - box.x0 : SIZE - 20 - box.x0]
        results.append(cut)
    assert np.abs(results[0] - still()[20:-20, 20:-20]).max() > 0.02
    for other in results[1:]:  # the same face in the same place, whatever was stored around it
        assert np.abs(other - results[0]).mean() < 2e-3


def test_the_work_exposure_makes_dark_and_light_plates_alike(bench: Bench, tmp_path: Path) -> None:
    results = []
    for stops in (0, -3):
        folder = tmp_path / str(stops)
        gain = np.float32(2.0**stops)
        out = str(folder / "o" / "o.%04d.exr")
        pattern = write_shot(folder, [1001])
        picture = moved(1001) * gain
        write_exr(pattern % 1001, PartSpec({c: np.ascontiguousarray(picture[..., i]) for i, c in enumerate("RGB")}))
        bench.run(job(pattern, out, "look"))
        results.append(_rgb(read_plate(out % 1001)) / gain)
    assert np.abs(results[0] - moved(1001)).mean() > 1e-3
    assert np.abs(results[0] - results[1]).mean() < 0.1 * np.abs(results[0] - moved(1001)).mean()
