"""Promise 1: outside the matte the output is the plate, bit for bit; NaN and Inf survive; strength 0 is a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.plates.attributes import decode, encode
from inference_server.plates.reader import read_plate
from inference_server.plates.types import PlateFrame, Window
from inference_server.runs import FrameDone, Warned
from tests.plate_files import PartSpec, same_bits, samples, timecode, write_exr
from tests.portrait import SIZE, channels, moved, write_shot
from tests.promises.conftest import Bench
from tests.promises.jobs import job

HEADER_NOT_COMPARED = ("channels", "chunkCount")


def _nasty(folder: Path) -> str:
    """One frame with everything a render has to leave alone, inside and outside the face."""
    folder.mkdir(parents=True)
    picture = moved(1001)
    beauty: dict[str, Any] = channels(picture)
    beauty["R"][2, 3], beauty["G"][5, 5], beauty["B"][7, 7] = np.nan, np.inf, -np.inf
    centre = SIZE * 4 // 10
    beauty["R"][centre, centre], beauty["G"][centre + 2, centre] = np.nan, np.inf
    beauty["B"][centre + 4, centre] = -0.25
    beauty["R"][centre + 6, centre] = 37
    beauty["A"] = np.ones((SIZE, SIZE), np.float16)
    beauty["depth.Z"] = samples("float", SIZE, SIZE)
    beauty["crypto00.R"] = samples("float", SIZE, SIZE, seed=4)
    utility = PartSpec({"id": samples("uint", SIZE, SIZE), "mask": samples("half", SIZE, SIZE)}, name="utility")
    box, display = Window(-12, -8, SIZE - 12, SIZE - 8), Window(0, 0, SIZE - 30, SIZE - 20)
    first = PartSpec(
        beauty,
        name="beauty",
        box=box,
        display=display,
        compression="piz",
        tile=(64, 64),
        attributes={"timeCode": timecode("01:02:03:04"), "studio": encode("string", "kept")},
    )
    write_exr(folder / "shot.1001.exr", first, PartSpec(utility.channels, "utility", box, display, "rle"))
    return str(folder / "shot.%04d.exr")


def _render(
    bench: Bench, pattern: str, out: str, tmp_path: Path, effect: Any, **changes: Any
) -> tuple[PlateFrame, PlateFrame, Any]:
    mattes = str(tmp_path / "matte" / "matte.%04d.exr")
    events = bench.run(job(pattern, out, effect, matte_output=mattes, **changes))
    done = [e for e in events if isinstance(e, FrameDone)]
    assert [e.status for e in done] == ["rendered"]
    matte = read_plate(mattes % 1001, 1001).parts[0].channels["faceplate.composite"]
    return read_plate(pattern % 1001, 1001), read_plate(out % 1001, 1001), matte


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_outside_the_matte_every_stored_bit_is_the_plates(bench: Bench, tmp_path: Path, out: str, effect: str) -> None:
    before, after, matte = _render(bench, _nasty(tmp_path / "in"), out, tmp_path, effect)
    outside = matte == 0
    assert 0.05 < 1 - outside.mean() < 0.95
    changed = 0
    for a, b in zip(before.parts, after.parts, strict=True):
        assert (a.name, a.data_window, a.display_window, a.pixel_aspect) == (
            b.name,
            b.data_window,
            b.display_window,
            b.pixel_aspect,
        )
        assert list(a.channels) == list(b.channels)
        kept = {k: v for k, v in a.header.items() if k not in HEADER_NOT_COMPARED}
        assert {k: b.header.get(k) for k in kept} == kept
        added = set(b.header) - set(a.header)
        assert all(name.startswith("faceplate:") for name in added)
        for name, samples_before in a.channels.items():
            samples_after = b.channels[name]
            assert samples_after.dtype == samples_before.dtype
            if a.name == "beauty" and name in "RGB":
                assert same_bits(samples_after[outside], samples_before[outside])
                changed += int((samples_after != samples_before)[~outside].sum())
            else:
                assert same_bits(samples_after, samples_before), name
    assert changed > 500


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_nan_and_inf_survive_at_any_matte_value(bench: Bench, tmp_path: Path, out: str, effect: str) -> None:
    before, after, matte = _render(bench, _nasty(tmp_path / "in"), out, tmp_path, effect)
    inside_a_face = 0
    for name in "RGB":
        a, b = before.parts[0].channels[name], after.parts[0].channels[name]
        odd = ~np.isfinite(a)
        assert odd.any()
        assert same_bits(a[odd], b[odd])
        assert np.isfinite(b[~odd]).all()
        inside_a_face += int((matte[odd] > 0).sum())
    assert inside_a_face >= 2  # or the test says nothing


@pytest.mark.parametrize(
    "effect",
    [
        {"effect": "look", "params": {"degree": 0.0, "structure": 0.0, "color": 0.0}},
        {"effect": "look", "params": {"style": "cartoon", "mix": 0.0}},
        {"effect": "retouch", "edits": [["smile", 0.0], ["age", 0.0]]},
        {"effect": "retouch", "edits": []},
    ],
)
def test_strength_zero_is_a_copy_of_the_file(bench: Bench, tmp_path: Path, out: str, effect: Any) -> None:
    pattern = _nasty(tmp_path / "in")
    events = bench.run(job(pattern, out, effect))
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["identity"]
    assert Path(out % 1001).read_bytes() == Path(pattern % 1001).read_bytes()


def test_a_keyed_zero_copies_only_its_own_frames(bench: Bench, plain_shot: str, out: str) -> None:
    edits = [["smile", {"keys": [[1002, 0.0], [1003, 0.5]]}]]
    events = bench.run(job(plain_shot, out, {"effect": "retouch", "edits": edits}))
    status = {e.frame: e.status for e in events if isinstance(e, FrameDone)}
    assert status == {1001: "identity", 1002: "identity", 1003: "rendered", 1004: "rendered"}


@pytest.mark.parametrize("effect", ["look", "retouch"])
def test_the_picture_approaches_the_plate_as_strength_goes_to_zero(
    bench: Bench, plain_shot: str, tmp_path: Path, effect: str
) -> None:
    plate = np.stack([read_plate(plain_shot % 1001).parts[0].channels[c].astype(np.float32) for c in "RGB"])
    differences = []
    for i, strength in enumerate((0.4, 0.1, 0.02)):
        values: dict[str, Any] = {
            "look": {
                "effect": "look",
                "params": {"style": "cartoon", "degree": strength, "structure": strength, "color": strength},
            },
            "retouch": {
                "effect": "retouch",
                "edits": [["smile", strength], ["age", strength], ["lip_color", strength]],
            },
        }[effect]
        out = str(tmp_path / f"s{i}" / "out.%04d.exr")
        bench.run(job(plain_shot, out, values, frames="1001"))
        made = np.stack([read_plate(out % 1001).parts[0].channels[c].astype(np.float32) for c in "RGB"])
        differences.append(float(np.abs(made - plate).mean()))
    assert differences[0] > 2 * differences[1] > 4 * differences[2] > 0
    assert differences[2] < 0.12 * differences[0]


def test_the_exported_matte_is_the_one_that_was_used(bench: Bench, tmp_path: Path, out: str) -> None:
    """With the plate, the matte and the result at mix 1, the blend at any other mix can be told in advance."""
    pattern = write_shot(tmp_path / "in", [1001])
    half = str(tmp_path / "half" / "half.%04d.exr")
    plate, full, matte = _render(bench, pattern, out, tmp_path, "look")
    bench.run(job(pattern, half, {"effect": "look", "params": {"style": "cartoon", "mix": 0.5}}))
    solid = matte == 1
    assert solid.any()
    for name in "RGB":
        p = plate.parts[0].channels[name].astype(np.float32)
        e = full.parts[0].channels[name].astype(np.float32)
        h = read_plate(half % 1001).parts[0].channels[name].astype(np.float32)
        np.testing.assert_allclose(h[solid], (0.5 * p + 0.5 * e)[solid], rtol=3e-3, atol=2e-3)


def test_mattes_as_channels(bench: Bench, tmp_path: Path, out: str) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    bench.run(job(pattern, out, "retouch", matte_channels=["face", "lips", "composite"]))
    found = read_plate(out % 1001).parts[0].channels
    assert [n for n in found if n.startswith("faceplate.")] == [
        "faceplate.composite",
        "faceplate.face",
        "faceplate.lips",
    ] or {n for n in found if n.startswith("faceplate.")} == {"faceplate.composite", "faceplate.face", "faceplate.lips"}
    face, lips = (found[f"faceplate.{n}"].astype(np.float32) for n in ("face", "lips"))
    assert face.max() == 1
    assert 0 < lips.sum() < 0.2 * face.sum()


def test_every_output_tells_what_made_it(bench: Bench, tmp_path: Path, out: str) -> None:
    pattern = write_shot(tmp_path / "in", [1001])
    bench.run(job(pattern, out, "retouch"))
    header = read_plate(out % 1001).parts[0].header
    assert decode(header["faceplate:effect"]) == "retouch"
    assert "smile" in decode(header["faceplate:parameters"])
    assert "threads" in decode(header["faceplate:plan"])


def test_a_frame_without_a_face_is_a_copy_and_says_so(bench: Bench, tmp_path: Path, out: str) -> None:
    empty = {c: np.full((96, 128), 0.2, np.float16) for c in "RGB"}
    (tmp_path / "in").mkdir()
    pattern = str(tmp_path / "in" / "empty.%04d.exr")
    write_exr(pattern % 1, PartSpec(empty))
    events = bench.run(job(pattern, out, "look"))
    assert "face.none" in [e.code for e in events if isinstance(e, Warned)]
    assert Path(out % 1).read_bytes() == Path(pattern % 1).read_bytes()
