"""`faceplate render`: what its options do to finished frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.plates.reader import read_plate
from tests.host_bridge.cli.conftest import SMALL, Desk, channels_of, names, provenance, rgb
from tests.plate_files import PartSpec, same_bits, samples, write_exr
from tests.portrait import channels, moved, still, write_shot


def test_a_look_is_rendered_to_finished_frames(desk: Desk, shot: str, out: Path) -> None:
    pattern = str(out / "toon.%04d.exr")
    said = desk.render(
        shot,
        pattern,
        *("--effect", "look", "--frames", "1001-1002", "--set", "style=comic_ink", "--degree", "0.8"),
        *("--line-weight=1.5", "--brightness", "-0.2"),
    )
    assert said.status == 0, said.err
    assert said.out == ""
    assert names(out) == ["toon.1001.exr", "toon.1002.exr"]
    for frame in (1001, 1002):
        before, after = rgb(shot % frame), rgb(pattern % frame)
        changed = (before != after).any(axis=-1)
        assert 0.05 < changed.mean() < 0.95
        assert np.abs(before - after)[changed].mean() > 0.01
    made = provenance(pattern % 1001)
    assert made["effect"] == "look"
    assert json.loads(made["parameters"])["params"] == {
        "style": "comic_ink",
        "degree": 0.8,
        "line_weight": 1.5,
        "brightness": -0.2,
    }


def test_a_parameter_as_a_flag_and_by_set_is_the_same(desk: Desk, shot: str, tmp_path: Path) -> None:
    common = ("--effect", "look", "--frames", "1001")
    one, two = str(tmp_path / "one" / "a.%04d.exr"), str(tmp_path / "two" / "a.%04d.exr")
    first = desk.render(shot, one, *common, "--set", "style=pencil", "--set", "color=0.3")
    # Both are the beginning of another option's name: --style-image and --colorspace.
    second = desk.render(shot, two, *common, "--style", "pencil", "--color", "0.3")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert Path(one % 1001).read_bytes() == Path(two % 1001).read_bytes()


def test_keyed_edits_move_over_time_and_keep_their_order(desk: Desk, shot: str, out: Path) -> None:
    pattern = str(out / "r.%04d.exr")
    said = desk.render(
        shot,
        pattern,
        *("--effect", "retouch", "--frames", "1001-1003"),
        *("--edit", "smile=1001:0,1003:1", "--edit", "age=1001:0,1003:-1", "--edit", "smile=0"),
    )
    assert said.status == 0, said.err
    assert Path(pattern % 1001).read_bytes() == Path(shot % 1001).read_bytes()
    moved_by = [float(np.abs(rgb(pattern % f) - rgb(shot % f)).mean()) for f in (1001, 1002, 1003)]
    assert 0 == moved_by[0] < moved_by[1] < moved_by[2]
    edits = json.loads(provenance(pattern % 1003)["parameters"])["edits"]
    assert [name for name, _ in edits] == ["smile", "age", "smile"]
    assert edits[0][1] == {"keys": [[1001, 0.0], [1003, 1.0]]}


def test_mattes_as_channels_and_as_a_sequence_of_their_own(desk: Desk, shot: str, tmp_path: Path) -> None:
    pattern, mattes = str(tmp_path / "out" / "r.%04d.exr"), str(tmp_path / "mattes" / "m.%04d.exr")
    said = desk.render(
        shot,
        pattern,
        *("--effect", "retouch", "--edit", "smile=0.5", "--frames", "1001"),
        *("--matte-channels", "face,lips,composite", "--matte-out", mattes),
    )
    assert said.status == 0, said.err
    expected = {"faceplate.face", "faceplate.lips", "faceplate.composite"}
    found = channels_of(pattern % 1001)
    assert set(found) == {"R", "G", "B"} | expected
    own = channels_of(mattes % 1001)
    assert {n for n in own if n.startswith("faceplate.")} == expected
    for name in expected:
        assert same_bits(found[name], own[name])
    face, lips = found["faceplate.face"], found["faceplate.lips"]
    assert face.max() == 1
    assert 0 < lips.astype(np.float32).sum() < 0.2 * face.astype(np.float32).sum()


def _mask(folder: Path) -> str:
    """White on the left half; the same in a channel of another name, turned round."""
    folder.mkdir(parents=True, exist_ok=True)
    white = np.zeros((SMALL, SMALL), np.float16)
    white[:, : SMALL // 2] = 1
    write_exr(folder / "roto.1001.exr", PartSpec({"A": white, "roto.right": np.ascontiguousarray(white[:, ::-1])}))
    return str(folder / "roto.%04d.exr")


@pytest.fixture(scope="module")
def own_matte(desk: Desk, shot: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """[H, W] what `look` touches without a mask."""
    folder = tmp_path_factory.mktemp("own")
    said = desk.render(
        shot,
        str(folder / "r.%04d.exr"),
        *("--effect", "look", "--frames", "1001", "--matte-channels", "composite"),
    )
    assert said.status == 0, said.err
    return channels_of(folder / "r.1001.exr")["faceplate.composite"]


@pytest.mark.parametrize("mode", ["intersect", "subtract", "union", "replace", "channel"])
def test_an_artists_mask(desk: Desk, shot: str, tmp_path: Path, own_matte: Any, mode: str) -> None:
    pattern = str(tmp_path / "out" / "r.%04d.exr")
    how = ("--mask-channel", "roto.right") if mode == "channel" else ("--mask-mode", mode)
    said = desk.render(
        shot,
        pattern,
        *("--effect", "look", "--frames", "1001", "--matte-channels", "composite"),
        *("--mask", _mask(tmp_path / "mask"), *how),
    )
    assert said.status == 0, said.err
    used = channels_of(pattern % 1001)["faceplate.composite"]
    left, right = np.s_[:, : SMALL // 2], np.s_[:, SMALL // 2 :]
    assert own_matte[left].max() == own_matte[right].max() == 1
    around = own_matte[left] == 0  # beside the head, where only a mask can bring the effect
    if mode == "intersect":
        assert same_bits(used[left], own_matte[left])
        assert used[right].max() == 0
    elif mode in ("subtract", "channel"):
        assert used[left].max() == 0
        assert same_bits(used[right], own_matte[right])
    elif mode == "union":
        assert used[left].min() >= own_matte[left].min()
        assert used[left][around].max() == 1
        assert same_bits(used[right], own_matte[right])
    else:
        assert used[left][around].max() == 1
        assert used[right].max() == 0
    before, after = rgb(shot % 1001), rgb(pattern % 1001)
    assert (before == after)[used == 0].all()
    assert (before != after)[used > 0].any()


def test_a_style_image_gives_the_palette(desk: Desk, shot: str, tmp_path: Path) -> None:
    green = np.zeros((32, 32, 3), np.float32)
    green[..., 1] = np.linspace(0.05, 0.8, 32)[:, None]
    write_exr(tmp_path / "palette.exr", PartSpec(channels(green)))
    common = ("--effect", "look", "--frames", "1001", "--color", "1")
    plain, styled = str(tmp_path / "a" / "a.%04d.exr"), str(tmp_path / "b" / "b.%04d.exr")
    assert desk.render(shot, plain, *common).status == 0
    said = desk.render(shot, styled, *common, "--style-image", str(tmp_path / "palette.exr"))
    assert said.status == 0, said.err

    def greenness(path: str) -> float:
        picture = rgb(path)
        changed = (picture != rgb(shot % 1001)).any(axis=-1)
        return float(picture[changed][:, 1].sum() / picture[changed].sum())

    assert greenness(styled % 1001) > greenness(plain % 1001) + 0.1


def test_layer_and_part_choose_what_is_treated(desk: Desk, tmp_path: Path) -> None:
    """The portrait lies in layer `comp` of the second part; everything else passes through."""
    picture = channels(moved(1001, SMALL))
    second = {f"comp.{name}": values for name, values in picture.items()}
    second |= {name: samples("half", SMALL, SMALL, seed=i, specials=False) for i, name in enumerate("RGB")}
    first = PartSpec({name: samples("half", SMALL, SMALL, seed=7) for name in "RGB"}, name="clean")
    (tmp_path / "in").mkdir()
    plate = str(tmp_path / "in" / "p.%04d.exr")
    write_exr(plate % 1001, first, PartSpec(second, name="graded"))
    pattern = str(tmp_path / "out" / "r.%04d.exr")
    said = desk.render(plate, pattern, "--effect", "look", "--part", "graded", "--layer", "comp")
    assert said.status == 0, said.err
    before, after = read_plate(plate % 1001), read_plate(pattern % 1001)
    for a, b in zip(before.parts, after.parts, strict=True):
        for name, values in a.channels.items():
            treated = a.name == "graded" and name.startswith("comp.")
            assert same_bits(values, b.channels[name]) != treated, (a.name, name)


def test_a_face_is_chosen(desk: Desk, tmp_path: Path) -> None:
    """Two people side by side, the left one nearer: treated by size, by a point, and together."""
    small = np.full((SMALL, SMALL, 3), 0.1, np.float32)
    edge = SMALL // 8
    small[edge:-edge, edge:-edge] = still(SMALL - 2 * edge)
    (tmp_path / "in").mkdir()
    plate = str(tmp_path / "in" / "two.%04d.exr")
    write_exr(plate % 1001, PartSpec(channels(np.concatenate([still(SMALL), small], axis=1))))
    changed = {}
    for number, face in enumerate(("largest", f"{3 * SMALL // 2},{SMALL // 2}", "all")):
        pattern = str(tmp_path / f"out{number}" / "r.%04d.exr")
        said = desk.render(plate, pattern, "--effect", "retouch", "--edit", "skin_smoothing=1", "--face", face)
        assert said.status == 0, said.err
        different = (rgb(plate % 1001) != rgb(pattern % 1001)).any(axis=-1)
        changed[face.partition(",")[0]] = (bool(different[:, :SMALL].any()), bool(different[:, SMALL:].any()))
    assert changed == {"largest": (True, False), str(3 * SMALL // 2): (False, True), "all": (True, True)}


def test_the_colourspace_decides_what_the_effect_sees(desk: Desk, tmp_path: Path) -> None:
    plate = write_shot(tmp_path / "in", [1001], size=SMALL)
    results = []
    for number, space in enumerate(("lin_rec709", "Linear Rec.709 (sRGB)", "ACEScg")):
        pattern = str(tmp_path / f"out{number}" / "r.%04d.exr")
        said = desk.render(plate, pattern, "--effect", "look", "--colorspace", space)
        assert said.status == 0, said.err
        results.append(rgb(pattern % 1001))
    assert (results[0] == results[1]).all()
    assert np.abs(results[0] - results[2]).max() > 0.01


def test_the_compression_asked_for_is_written(desk: Desk, shot: str, out: Path) -> None:
    pattern = str(out / "r.%04d.exr")
    said = desk.render(shot, pattern, "--effect", "look", "--frames", "1001", "--compression", "piz")
    assert said.status == 0, said.err
    piz = 4  # in the format's list of compressions
    assert read_plate(pattern % 1001).parts[0].header["compression"].data[0] == piz
